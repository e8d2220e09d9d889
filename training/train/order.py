"""Which tokens each step of each rank sees, as a function of `order.json` and the token shards' indexes alone.

A sequence is `seq_len` tokens to predict, and the token before the first of them. Documents are packed into
sequences whole where they fit (Ding et al. 2024, "Fewer truncations improve language modeling", arXiv 2404.10830):
a document of `seq_len` tokens or more fills whole sequences from its beginning on, and what is left of it, like any
shorter document, goes into the sequence with the least space that still holds it, the longest first. Where that
leaves more than 1 % of the space empty, the emptiest sequences are packed again back to back, cut where a sequence
ends. So every token of the shards is in exactly one sequence of a pass, no document is in it twice (unless `mix`
repeats it), and at most 1 % is padding.

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
from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from pydantic import Field

from tasks.contracts.base import FrozenModel
from tasks.contracts.tokens import Dtype, TokenShard, index_name

Indexes = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]

IGNORED = -100
"""What stands in the targets where there is nothing to predict; PyTorch's cross-entropy leaves it out."""
MOST_PADDING = 0.01
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
        passes = positions // np.uint64(self.sequences)
        found: list[int] = []
        for number, position in zip(passes.tolist(), (positions % np.uint64(self.sequences)).tolist(), strict=True):
            found.extend(permute(np.array([position], dtype=np.uint64), self.sequences, self.seed, number).tolist())
        return found

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


@dataclass(frozen=True, slots=True)
class Rows:
    """Sequences as a model takes them.

    Attributes:
        tokens: (n, seq_len + 1) ids.
        targets: (n, seq_len): the ids from the second on, IGNORED where nothing is to be predicted: in the padding,
            and at the first token of a document's rest whose beginning stands in another sequence.
        positions: (n, seq_len): place within the document, from the token before its first on.
    """

    tokens: npt.NDArray[np.unsignedinteger]
    targets: Places
    positions: Places


@dataclass(frozen=True, slots=True)
class Packing:
    """Pieces of documents by sequence: sequence i has the pieces `first[i]` up to `first[i + 1]`.

    Attributes:
        starts: where each piece begins in the stream of all shards.
        lengths: its tokens.
        whole: whether a document begins with it.
    """

    seq_len: int
    first: Places
    starts: Places
    lengths: Places
    whole: npt.NDArray[np.bool_]

    @property
    def sequences(self) -> int:
        """How many sequences there are."""
        return len(self.first) - 1

    def sizes(self) -> Places:
        """Return how many tokens each sequence has, padding left out."""
        return np.add.reduceat(self.lengths, self.first[:-1]) if self.sequences else np.zeros(0, np.int64)

    def rows(self, numbers: Sequence[int], stream: TokenStream, eos_id: int) -> Rows:
        """Read sequences from the shards."""
        shape = (len(numbers), self.seq_len)
        tokens = np.full((shape[0], shape[1] + 1), eos_id, stream.dtype)
        targets, positions = np.full(shape, IGNORED, np.int64), np.zeros(shape, np.int64)
        for row, number in enumerate(numbers):
            end = 0
            for piece in range(int(self.first[number]), int(self.first[number + 1])):
                start, length = int(self.starts[piece]), int(self.lengths[piece])
                begin, end = end, end + length
                if begin == 0 and start > 0:
                    tokens[row, 0] = stream.read(start - 1, start)[0]
                tokens[row, begin + 1 : end + 1] = stream.read(start, start + length)
                targets[row, begin:end] = tokens[row, begin + 1 : end + 1]
                if begin > 0 and not self.whole[piece]:
                    targets[row, begin] = IGNORED
                positions[row, begin:end] = np.arange(length)
            positions[row, end:] = np.arange(self.seq_len - end)
        return Rows(tokens, targets, positions)


def read_packing(folder: Path, shards: Sequence[TokenShard], seq_len: int) -> Packing:
    """Pack the documents of token shards, as their indexes say where each stands."""
    starts, lengths, base = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], 0
    for shard in shards:
        table = pq.read_table(folder / index_name(shard.name), columns=["offset", "length"])
        starts.append(table["offset"].to_numpy().astype(np.int64) + base)
        lengths.append(table["length"].to_numpy().astype(np.int64))
        base += shard.tokens
    return pack(np.concatenate(starts), np.concatenate(lengths), seq_len)


def pack(starts: Places, lengths: Places, seq_len: int) -> Packing:
    """Pack documents into sequences of `seq_len` tokens.

    Args:
        starts: where each document begins in the stream.
        lengths: its tokens, the end-of-sequence id included.
    """
    full = lengths // seq_len
    of = np.repeat(np.arange(len(lengths)), full)
    nth = np.arange(len(of)) - np.repeat(np.cumsum(full) - full, full)
    filled: list[list[tuple[int, int, bool]]] = [
        [(start, seq_len, begins)]
        for start, begins in zip((starts[of] + nth * seq_len).tolist(), (nth == 0).tolist(), strict=True)
    ]
    rest = lengths - full * seq_len
    some = np.flatnonzero(rest)
    pieces = list(
        zip((starts + full * seq_len)[some].tolist(), rest[some].tolist(), (full == 0)[some].tolist(), strict=True)
    )
    packed = _within_padding(_best_fit(pieces, seq_len), len(filled), seq_len)
    sequences = sorted([*filled, *(sorted(one) for one in packed)])
    flat = [piece for one in sequences for piece in one]
    return Packing(
        seq_len=seq_len,
        first=np.cumsum([0, *map(len, sequences)], dtype=np.int64),
        starts=np.array([start for start, _, _ in flat], np.int64),
        lengths=np.array([length for _, length, _ in flat], np.int64),
        whole=np.array([begins for _, _, begins in flat], np.bool_),
    )


Piece = tuple[int, int, bool]
"""Where a piece begins in the stream, its tokens, and whether a document begins with it."""


def _best_fit(pieces: Sequence[Piece], seq_len: int) -> list[list[Piece]]:
    """Put each piece, the longest first, where the least space is left that still holds it."""
    packed: list[list[Piece]] = []
    by_space: dict[int, list[int]] = {}
    spaces: list[int] = []  # the keys of by_space, sorted
    for piece in sorted(pieces, key=lambda one: (-one[1], one[0])):
        at = bisect_left(spaces, piece[1])
        if at == len(spaces):
            number, space = len(packed), seq_len
            packed.append([])
        else:
            space = spaces[at]
            number = by_space[space].pop()
            if not by_space[space]:
                del by_space[space], spaces[at]
        packed[number].append(piece)
        left = space - piece[1]
        if left:
            if left not in by_space:
                insort(spaces, left)
            by_space.setdefault(left, []).append(number)
    return packed


def _within_padding(packed: list[list[Piece]], filled: int, seq_len: int) -> list[list[Piece]]:
    """Pack the fewest, emptiest sequences again back to back, so that at most 1 % of all space is padding."""
    packed = sorted(packed, key=lambda one: (sum(length for _, length, _ in one), one[0]))
    sizes = np.array([sum(length for _, length, _ in one) for one in packed], np.int64)
    used = np.concatenate([[0], np.cumsum(sizes)])
    again = np.arange(len(packed) + 1)
    windows = -(-used // seq_len)
    padding = (len(packed) - again + windows) * seq_len - used[-1]
    allowed = MOST_PADDING * (filled + len(packed) - again + windows) * seq_len
    fits = np.flatnonzero(padding <= np.maximum(allowed, seq_len - 1))
    count = int(fits[0])
    return _back_to_back(sorted(piece for one in packed[:count] for piece in one), seq_len) + packed[count:]


def _back_to_back(pieces: Sequence[Piece], seq_len: int) -> list[list[Piece]]:
    packed: list[list[Piece]] = []
    space = 0
    for start, length, begins in pieces:
        while length:
            if not space:
                packed.append([])
                space = seq_len
            taken = min(space, length)
            packed[-1].append((start, taken, begins))
            start, length, begins, space = start + taken, length - taken, False, space - taken
    return packed


def count_sequences(tokens: int, seq_len: int) -> int:
    """Return how many sequences a stream of `tokens` tokens holds when it is cut without packing, as for validation.

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


class TokenStream:
    """The token shards of a folder as one long array, mapped into memory and read a range at a time."""

    def __init__(self, folder: Path, shards: tuple[TokenShard, ...], dtype: Dtype) -> None:
        kept = [shard for shard in shards if shard.tokens]
        little = np.dtype(dtype).newbyteorder("<")
        self._maps = [np.memmap(folder / shard.name, dtype=little, mode="r") for shard in kept]
        self.dtype = little
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
