"""Documents put into sequences, and sequences read from the token shards.

A sequence is `seq_len` tokens to predict, and the token before the first of them. Documents are packed into
sequences whole where they fit (Ding et al. 2024, "Fewer truncations improve language modeling", arXiv 2404.10830):
a document of `seq_len` tokens or more fills whole sequences from its beginning on, and what is left of it, like any
shorter document, goes into the sequence with the least space that still holds it, the longest first. Where that
leaves more than 1 % of the space empty, the emptiest sequences are packed again back to back, cut where a sequence
ends. So every token of the shards is in exactly one sequence of a pass, no document is in it twice (unless `mix`
repeats it), and at most 1 % is padding.

All of it is done on whole arrays: no Python object stands for a document. The result is kept in four files, which the
ranks map into memory.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from tasks.contracts.tokens import Dtype, TokenShard, index_name

Places = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

IGNORED = -100
"""What stands in the targets where there is nothing to predict; PyTorch's cross-entropy leaves it out."""
MOST_PADDING = 0.01


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
    whole: Flags

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
        counting = np.arange(self.seq_len)
        for row, number in enumerate(numbers):
            end = 0
            pieces = slice(int(self.first[number]), int(self.first[number + 1]))
            described = zip(
                *(column[pieces].tolist() for column in (self.starts, self.lengths, self.whole)), strict=True
            )
            for start, length, begins in described:
                begin, end = end, end + length
                if begin == 0 and start > 0:
                    tokens[row, : end + 1] = stream.read(start - 1, start + length)
                else:
                    tokens[row, begin + 1 : end + 1] = stream.read(start, start + length)
                if begin > 0 and not begins:
                    targets[row, begin + 1 : end] = tokens[row, begin + 2 : end + 1]
                else:
                    targets[row, begin:end] = tokens[row, begin + 1 : end + 1]
                positions[row, begin:end] = counting[:length]
            positions[row, end:] = counting[: self.seq_len - end]
        return Rows(tokens, targets, positions)

    def save(self, folder: Path) -> None:
        """Write the pieces into a folder, for `load`."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in _COLUMNS:
            np.save(folder / f"{name}.npy", getattr(self, name))

    @classmethod
    def load(cls, folder: Path, seq_len: int) -> Packing:
        """Map what `save` wrote into memory."""
        return cls(seq_len, **{name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in _COLUMNS})


_COLUMNS = ("first", "starts", "lengths", "whole")


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
    filled = _Pieces(starts[of] + nth * seq_len, np.full(len(of), seq_len, np.int64), nth == 0)
    rest = lengths - full * seq_len
    some = np.flatnonzero(rest)
    pieces = _Pieces((starts + full * seq_len)[some], rest[some], (full == 0)[some])
    longest_first = np.lexsort((pieces.starts, -pieces.lengths))
    pieces = pieces.at(longest_first)
    sequence = _best_fit(pieces.lengths, seq_len)
    again = _to_pack_again(pieces, sequence, len(of), seq_len)
    kept, emptiest = pieces.at(~again), pieces.at(again)
    cut, window = _back_to_back(emptiest.at(np.argsort(emptiest.starts)), seq_len)
    last = int(sequence.max(initial=-1)) + 1
    return _in_order(
        _Pieces.together(filled, kept, cut),
        np.concatenate([np.arange(len(of)) + last + len(cut.starts), sequence[~again], window + last]),
        seq_len,
    )


@dataclass(frozen=True, slots=True)
class _Pieces:
    starts: Places
    lengths: Places
    whole: Flags

    def at(self, which: npt.NDArray[np.int64] | Flags) -> _Pieces:
        return _Pieces(self.starts[which], self.lengths[which], self.whole[which])

    @staticmethod
    def together(*some: _Pieces) -> _Pieces:
        return _Pieces(*(np.concatenate([getattr(one, n) for one in some]) for n in ("starts", "lengths", "whole")))


def _in_order(pieces: _Pieces, sequence: Places, seq_len: int) -> Packing:
    """Return sequences in the order of their first pieces, and the pieces of each in the order of the stream."""
    if not len(sequence):
        empty = np.zeros(0, np.int64)
        return Packing(seq_len, np.zeros(1, np.int64), empty, empty, np.zeros(0, np.bool_))
    begins = np.full(int(sequence.max()) + 1, np.iinfo(np.int64).max)
    np.minimum.at(begins, sequence, pieces.starts)
    order = np.lexsort((pieces.starts, begins[sequence]))
    pieces, firsts = pieces.at(order), begins[sequence[order]]
    first = np.flatnonzero(np.diff(firsts, prepend=-1))
    return Packing(seq_len, np.append(first, len(firsts)), pieces.starts, pieces.lengths, pieces.whole)


def _best_fit(lengths: Places, seq_len: int) -> Places:
    """Put each piece where the least space is left that still holds it; return the sequence of each.

    Pieces of one length go together: the sequence with the least space takes as many of them as it holds, since what
    is left of it is then less space still, and the next one is the one that got this space last.

    Args:
        lengths: from the longest to the shortest.
    """
    sequence = np.empty(len(lengths), np.int64)
    spaces = _Spaces()
    made = done = 0
    while done < len(lengths):
        length = int(lengths[done])
        left = int(np.searchsorted(-lengths, -length, side="right")) - done
        space = spaces.least(length)
        if space is None:
            space = seq_len
            taken = np.arange(made, made + -(-left // (seq_len // length)))
            made += len(taken)
        else:
            taken = spaces.take(space, -(-left // (space // length)))
        each = space // length
        placed = min(left, len(taken) * each)
        sequence[done : done + placed] = np.repeat(taken, each)[:placed]
        done += placed
        in_last = placed - (len(taken) - 1) * each
        full = len(taken) if in_last == each else len(taken) - 1
        spaces.put(space - each * length, taken[:full])
        if in_last < each:
            spaces.put(space - in_last * length, taken[-1:])
    return sequence


class _Spaces:
    """Sequences by the space that is left in them; of those with one space, the last that was put comes first."""

    def __init__(self) -> None:
        self._by_space: dict[int, list[Places]] = {}
        self._sorted: list[int] = []

    def least(self, length: int) -> int | None:
        """Return the least space of a sequence that holds `length`."""
        at = bisect_left(self._sorted, length)
        return self._sorted[at] if at < len(self._sorted) else None

    def put(self, space: int, numbers: Places) -> None:
        if space and len(numbers):
            if space not in self._by_space:
                insort(self._sorted, space)
            self._by_space.setdefault(space, []).append(numbers)

    def take(self, space: int, most: int) -> Places:
        """Remove up to `most` sequences that have this space left, and return them."""
        stack, taken = self._by_space[space], []
        while stack and most:
            numbers = stack.pop()
            if len(numbers) > most:
                stack.append(numbers[:-most])
                numbers = numbers[-most:]
            taken.append(numbers[::-1])
            most -= len(numbers)
        if not stack:
            del self._by_space[space]
            self._sorted.remove(space)
        return np.concatenate(taken)


def _to_pack_again(pieces: _Pieces, sequence: Places, filled: int, seq_len: int) -> Flags:
    """Return which pieces stand in the fewest, emptiest sequences that must be packed again for 1 % of padding."""
    count = int(sequence.max(initial=-1)) + 1
    sizes = np.bincount(sequence, pieces.lengths, minlength=count).astype(np.int64)
    opener = np.empty(count, np.int64)
    opener[sequence[::-1]] = pieces.starts[::-1]
    emptiest = np.lexsort((opener, sizes))
    used = np.concatenate([[0], np.cumsum(sizes[emptiest])])
    again = np.arange(count + 1)
    windows = -(-used // seq_len)
    padding = (count - again + windows) * seq_len - used[-1]
    allowed = MOST_PADDING * (filled + count - again + windows) * seq_len
    fewest = int(np.flatnonzero(padding <= np.maximum(allowed, seq_len - 1))[0])
    chosen = np.zeros(count, np.bool_)
    chosen[emptiest[:fewest]] = True
    return chosen[sequence]


def _back_to_back(pieces: _Pieces, seq_len: int) -> tuple[_Pieces, Places]:
    """Return pieces laid end to end and cut where a sequence ends, and the sequence of each."""
    ends = np.cumsum(pieces.lengths)
    total = int(ends[-1]) if len(ends) else 0
    cuts = np.union1d(ends, np.arange(seq_len, total, seq_len))
    begins = np.concatenate([[0], cuts[:-1]])[: len(cuts)]
    of = np.searchsorted(ends, begins, side="right")
    into = begins - (ends - pieces.lengths)[of]
    cut = _Pieces(pieces.starts[of] + into, cuts - begins, pieces.whole[of] & (into == 0))
    return cut, begins // seq_len


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
