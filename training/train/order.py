"""Which tokens each step of each rank sees, as a function of `order.json` and the token shards' indexes alone.

packing.py puts the documents into sequences. Here is which sequence stands where.

Each pass visits every sequence once, in the order of a Feistel permutation: a real permutation of any size that is
computed for one position at a time and needs no library's generator to be repeated in ten years (Black and Rogaway
2002, "Ciphers with arbitrary finite domains": a cipher on the next power of four, walked along its cycle until it
falls inside the domain).

Position p of the run is sequence `permutation(pass p // n)[p % n]`. Step s takes the next `batch_size` positions:
gradient-accumulation part a of rank r takes `micro_batch` of them, from position
`s * batch_size + (a * ranks + r) * micro_batch` on.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from pydantic import Field

from tasks.contracts.base import FrozenModel
from tasks.contracts.tokens import Dtype, TokenShard

if TYPE_CHECKING:
    from training.train.packing import Packing

Indexes = npt.NDArray[np.uint64]

PERMUTATION_ROUNDS = 6
MASK = np.uint64(0xFFFFFFFFFFFFFFFF)


class Order(FrozenModel):
    """`order.json`: everything that decides which tokens a step sees."""

    algorithm: str = "best-fit-1, feistel-6-splitmix64"
    seed: int
    dtype: Dtype
    shards: tuple[TokenShard, ...]
    """The token shards that make the stream, in order."""
    tokenize_manifest: str
    """SHA-256 of the manifest of the folder that holds them."""
    seq_len: int
    sequences: int
    """How many sequences one pass over the shards has."""
    epochs: int
    steps: int
    batch_size: int
    """Sequences a step, over all ranks."""
    micro_batch: int = Field(ge=1)
    """Sequences that one rank puts through the model at once."""
    gradient_accumulation: int
    ranks: int
    batch_sha256: str = (
        "SHA-256 over the step's sequences of the rank in order, seq_len + 1 ids each as in the shards: "
        "the token before, the pieces, end-of-sequence ids as padding"
    )
    """What `steps.parquet` records."""

    def positions(self, step: int, rank: int) -> Indexes:
        """Return the positions that a rank takes in a step, in the order it takes them."""
        parts = [
            np.arange(self.micro_batch, dtype=np.uint64)
            + np.uint64(step * self.batch_size + (part * self.ranks + rank) * self.micro_batch)
            for part in range(self.gradient_accumulation)
        ]
        return np.concatenate(parts)

    def sequences_at(self, step: int, rank: int) -> list[int]:
        """Return the sequences that a rank sees in a step, in order."""
        positions = self.positions(step, rank)
        passes, places = np.divmod(positions, np.uint64(self.sequences))
        sequences = np.empty_like(positions)
        # A step takes from one pass mostly, and all of it is permuted at once.
        for number in np.unique(passes):
            of_pass = passes == number
            sequences[of_pass] = permute(places[of_pass], self.sequences, self.seed, int(number))
        return [int(sequence) for sequence in sequences]

    def seen_at(self, sequence: int) -> list[tuple[int, int]]:
        """Return each (step, rank) that sees a sequence, in order: what `sequences_at` says, the other way round."""
        found: list[tuple[int, int]] = []
        for number in range(-(-self.steps * self.batch_size // self.sequences)):
            place = unpermute(np.array([sequence], dtype=np.uint64), self.sequences, self.seed, number)
            step, within = divmod(number * self.sequences + int(place[0]), self.batch_size)
            if step < self.steps:
                found.append((step, within // self.micro_batch % self.ranks))
        return found

    def tokens_seen(self, packing: Packing) -> int:
        """Return how many tokens of the shards all steps together see, padding left out."""
        sizes, left, total, number = packing.sizes(), self.steps * self.batch_size, 0, 0
        while left > 0:
            positions = np.arange(min(left, self.sequences), dtype=np.uint64)
            total += int(sizes[permute(positions, self.sequences, self.seed, number).astype(np.int64)].sum())
            left, number = left - self.sequences, number + 1
        return total


def permute(positions: Indexes, size: int, seed: int, number: int) -> Indexes:
    """Return where a seeded permutation of `range(size)` sends each position.

    Args:
        number: which pass over the data; each has its own permutation.

    >>> sorted(permute(np.arange(5, dtype=np.uint64), 5, seed=1, number=0).tolist())
    [0, 1, 2, 3, 4]
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    keys = [_round_key(seed, number, index) for index in range(PERMUTATION_ROUNDS)]
    found = _feistel(positions, half, keys)
    while (outside := found >= size).any():
        found[outside] = _feistel(found[outside], half, keys)
    return found


def unpermute(found: Indexes, size: int, seed: int, number: int) -> Indexes:
    """Return which positions `permute` sends to `found`: its inverse.

    >>> everywhere = np.arange(5, dtype=np.uint64)
    >>> unpermute(permute(everywhere, 5, seed=1, number=0), 5, seed=1, number=0).tolist()
    [0, 1, 2, 3, 4]
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    keys = [_round_key(seed, number, index) for index in reversed(range(PERMUTATION_ROUNDS))]
    positions = _feistel_back(found, half, keys)
    while (outside := positions >= size).any():
        positions[outside] = _feistel_back(positions[outside], half, keys)
    return positions


def _round_key(seed: int, number: int, index: int) -> np.uint64:
    digest = hashlib.sha256(f"headwater order {seed} {number} {index}".encode()).digest()
    return np.uint64(int.from_bytes(digest[:8], "little"))


def _feistel(values: Indexes, half: int, keys: list[np.uint64]) -> Indexes:
    bits, mask = np.uint64(half), np.uint64((1 << half) - 1)
    left, right = values >> bits, values & mask
    for key in keys:
        left, right = right, left ^ (_mix(right ^ key) & mask)
    return (left << bits) | right


def _feistel_back(values: Indexes, half: int, keys: list[np.uint64]) -> Indexes:
    bits, mask = np.uint64(half), np.uint64((1 << half) - 1)
    left, right = values >> bits, values & mask
    for key in keys:
        left, right = right ^ (_mix(left ^ key) & mask), left
    return (left << bits) | right


def _mix(values: Indexes) -> Indexes:
    """SplitMix64's finaliser (Steele, Lea and Flood 2014); wraps around at 64 bits."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
