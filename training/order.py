"""Which tokens each step of each rank sees, as a function of `order.json` alone.

The token shards are one long stream. Sequence i is the `seq_len + 1` tokens from token `i * seq_len` on (inputs,
and the same shifted by one as targets), whole documents or not: only the stream's last tokens, fewer than
`seq_len + 1`, are left out. Each pass visits every sequence once, in the order of a Feistel permutation: a real
permutation of any size that is computed for one position at a time and needs no library's generator to be
repeated in ten years (Black and Rogaway 2002, "Ciphers with arbitrary finite domains": a cipher on the next power
of four, walked along its cycle until it falls inside the domain).

Position p of the run is sequence `permutation(pass p // n)[p % n]`. Step s takes the next `batch_size` positions:
gradient-accumulation part a of rank r takes `micro_batch` of them, from position
`s * batch_size + (a * ranks + r) * micro_batch` on.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import Field

from tasks.contracts.base import FrozenModel
from tasks.contracts.tokens import Dtype, TokenShard

Indexes = npt.NDArray[np.uint64]

ROUNDS = 6
MASK = np.uint64(0xFFFFFFFFFFFFFFFF)


class Order(FrozenModel):
    """`order.json`: everything that decides which tokens a step sees."""

    algorithm: str = "feistel-6-splitmix64"
    seed: int
    dtype: Dtype
    shards: tuple[TokenShard, ...]
    """The token shards that make the stream, in order."""
    tokenize_manifest: str
    """SHA-256 of the manifest of the folder that holds them."""
    seq_len: int
    sequences: int
    """How many sequences one pass over the stream has."""
    epochs: int
    steps: int
    batch_size: int
    """Sequences a step, over all ranks."""
    micro_batch: int = Field(ge=1)
    """Sequences that one rank puts through the model at once."""
    gradient_accumulation: int
    ranks: int
    batch_sha256: str = "SHA-256 over the step's sequences of the rank in order, seq_len + 1 ids each, as in the shards"
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
        passes = positions // np.uint64(self.sequences)
        found: list[int] = []
        for number, position in zip(passes.tolist(), (positions % np.uint64(self.sequences)).tolist(), strict=True):
            found.extend(permute(np.array([position], dtype=np.uint64), self.sequences, self.seed, number).tolist())
        return found

    def token_range(self, sequence: int) -> tuple[int, int]:
        """Return where a sequence stands in the stream: its first token and the one after its last target."""
        return sequence * self.seq_len, (sequence + 1) * self.seq_len + 1


def count_sequences(tokens: int, seq_len: int) -> int:
    """Return how many sequences a stream of `tokens` tokens holds.

    >>> count_sequences(256, 256), count_sequences(257, 256), count_sequences(513, 256)
    (0, 1, 2)
    """
    return max(tokens - 1, 0) // seq_len


def permute(positions: Indexes, size: int, seed: int, number: int) -> Indexes:
    """Return where a seeded permutation of `range(size)` sends each position.

    Args:
        number: which pass over the data; each has its own permutation.

    >>> sorted(permute(np.arange(5, dtype=np.uint64), 5, seed=1, number=0).tolist())
    [0, 1, 2, 3, 4]
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    keys = [_round_key(seed, number, index) for index in range(ROUNDS)]
    found = _feistel(positions, half, keys)
    while (outside := found >= size).any():
        found[outside] = _feistel(found[outside], half, keys)
    return found


def _round_key(seed: int, number: int, index: int) -> np.uint64:
    digest = hashlib.sha256(f"headwater order {seed} {number} {index}".encode()).digest()
    return np.uint64(int.from_bytes(digest[:8], "little"))


def _feistel(values: Indexes, half: int, keys: list[np.uint64]) -> Indexes:
    bits, mask = np.uint64(half), np.uint64((1 << half) - 1)
    left, right = values >> bits, values & mask
    for key in keys:
        left, right = right, left ^ (_mix(right ^ key) & mask)
    return (left << bits) | right


def _mix(values: Indexes) -> Indexes:
    """SplitMix64's finaliser (Steele, Lea and Flood 2014); wraps around at 64 bits."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


class TokenStream:
    """The token shards of a folder as one long array, mapped into memory and read a range at a time."""

    def __init__(self, folder: Path, shards: tuple[TokenShard, ...], dtype: Dtype) -> None:
        kept = [shard for shard in shards if shard.tokens]
        little = np.dtype(dtype).newbyteorder("<")
        self._maps = [np.memmap(folder / shard.name, dtype=little, mode="r") for shard in kept]
        self._ends = np.cumsum([shard.tokens for shard in kept], dtype=np.int64)
        self.tokens = int(self._ends[-1]) if kept else 0

    def read(self, start: int, stop: int) -> npt.NDArray[np.unsignedinteger]:
        """Return the tokens from `start` up to `stop`, also across shards."""
        assert 0 <= start < stop <= self.tokens, f"tokens {start} to {stop} of {self.tokens}"
        first = int(np.searchsorted(self._ends, start, side="right"))
        pieces = []
        for number in range(first, len(self._maps)):
            begin = int(self._ends[number]) - len(self._maps[number])
            if begin >= stop:
                break
            pieces.append(self._maps[number][max(start - begin, 0) : stop - begin])
        return np.concatenate(pieces)
