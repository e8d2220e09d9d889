"""The arrays of the first pass, over all parts: read by ranges of keys and by document number, never as a whole.

A document's number is its place in the corpus: all of part 0, then all of part 1, and so on. The parts' document
records are copied into one file, so that the record of a number is found without asking whose it is.
"""

from __future__ import annotations

import bisect
import itertools
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tasks.dedup.shingles import Shingles
from tasks.dedup.signatures import DOCUMENT, DOCUMENTS_ENDING, ENTRY, SETS_ENDING

Numbers = NDArray[np.int64]
Keys = NDArray[np.uint64]

ALL_KEYS: Final = 1 << 64


@dataclass(frozen=True, slots=True)
class Range:
    """The entries with a key in [start, stop): in each part those from `firsts` to before `lasts`."""

    start: int
    stop: int
    firsts: Numbers
    lasts: Numbers

    def __len__(self) -> int:
        return int((self.lasts - self.firsts).sum())


@dataclass(frozen=True, slots=True)
class Corpus:
    """The parts of one run, in order.

    Attributes:
        records: the file of all document records.
        parts: where each part's files of the first pass stand, with their stem: "…/part-00000".
        starts: the number of each part's first document, and at the end the count of all.
    """

    records: Path
    parts: tuple[str, ...]
    starts: Numbers

    @classmethod
    def gather(cls, parts: Sequence[str], records: Path) -> Corpus:
        """Put the document records of all parts into one file and return the corpus."""
        starts = [0]
        records.parent.mkdir(parents=True, exist_ok=True)
        with records.open("wb") as whole:
            for part in parts:
                with Path(f"{part}{DOCUMENTS_ENDING}").open("rb") as stream:
                    shutil.copyfileobj(stream, whole, 1 << 20)
                starts.append(whole.tell() // DOCUMENT.itemsize)
        return cls(records, tuple(parts), np.array(starts))

    def __len__(self) -> int:
        return int(self.starts[-1])

    def documents(self, numbers: Numbers) -> NDArray[Any]:
        """Return the records of some documents."""
        if not len(numbers):
            return np.zeros(0, DOCUMENT)
        # Mapped for this one look: the pages that were touched leave memory with the map.
        # `take`: plain indexing copies such wide records field by field, which takes four times as long.
        records = np.asarray(np.memmap(self.records, dtype=DOCUMENT, mode="r"))
        return records.take(numbers)

    def count(self, keys: str) -> int:
        """Return how many entries there are of one sort of keys."""
        return int(self._borders(ALL_KEYS, keys).sum())

    def ranges(self, start: int, stop: int, limit: int, *, keys: str = "keys") -> Iterator[Range]:
        """Split the keys in [start, stop) into ranges that hold at most `limit` entries, or a single key."""
        whole = Range(start, stop, self._borders(start, keys), self._borders(stop, keys))
        yield from self._split(whole, limit, keys)

    def _split(self, whole: Range, limit: int, keys: str) -> Iterator[Range]:
        if len(whole) <= limit or whole.stop - whole.start == 1:
            yield whole
            return
        middle = (whole.start + whole.stop) // 2
        borders = self._borders(middle, keys)
        yield from self._split(Range(whole.start, middle, whole.firsts, borders), limit, keys)
        yield from self._split(Range(middle, whole.stop, borders, whole.lasts), limit, keys)

    def _borders(self, key: int, keys: str) -> Numbers:
        """Return how many entries of each part come before a key."""
        found = np.zeros(len(self.parts), dtype=np.int64)
        for part, name in enumerate(self.parts if key else ()):
            with _opened(f"{name}.{keys}.bin") as descriptor:
                sorted_keys = _SortedKeys(descriptor)
                found[part] = len(sorted_keys) if key == ALL_KEYS else bisect.bisect_left(sorted_keys, key)
        return found

    def entries(self, chosen: Range, *, keys: str = "keys") -> Iterator[tuple[Keys, Numbers]]:
        """Yield part by part the entries of a range: keys in order, and whose they are."""
        for part in np.flatnonzero(chosen.lasts > chosen.firsts):
            first, last = int(chosen.firsts[part]), int(chosen.lasts[part])
            with _opened(f"{self.parts[part]}.{keys}.bin") as descriptor:
                content = os.pread(descriptor, ENTRY.itemsize * (last - first), ENTRY.itemsize * first)
            found = np.frombuffer(content, ENTRY)
            yield found["key"], found["row"] + self.starts[part]

    def sets(self, numbers: Numbers, records: NDArray[Any]) -> list[Shingles]:
        """Return the shingle sets of some documents, whose numbers are in order."""
        sets: list[Shingles] = []
        bounds = np.searchsorted(numbers, self.starts)
        places = list(zip((records["set_start"] * 4).tolist(), (records["set_kept"] * 4).tolist(), strict=True))
        for part in np.flatnonzero(np.diff(bounds)):
            with _opened(f"{self.parts[part]}{SETS_ENDING}") as descriptor:
                for offset, size in places[bounds[part] : bounds[part + 1]]:
                    sets.append(np.frombuffer(os.pread(descriptor, size, offset), dtype="<u4"))
        return sets


@contextmanager
def _opened(path: str) -> Iterator[int]:
    """Give a descriptor to read from: every range opens a file of every part, for a few small reads."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


class _SortedKeys(Sequence[int]):
    """A part's keys as a sequence for bisection: a handful of them are read."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._length = os.fstat(descriptor).st_size // ENTRY.itemsize

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: Any) -> Any:
        return int.from_bytes(os.pread(self._descriptor, 8, ENTRY.itemsize * index), "little")


def even_ranges(count: int) -> list[tuple[int, int]]:
    """Cut all keys into `count` ranges of equal width; keys are hashes, so they hold about as many entries each."""
    borders = [ALL_KEYS * number // count for number in range(count + 1)]
    return list(itertools.pairwise(borders))


def each_once(numbers: Numbers) -> Numbers:
    """Return numbers in order, each once (`numpy.unique` hashes them, which takes ten times as long)."""
    ordered = np.sort(numbers)
    new = np.ones(len(ordered), dtype=np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=new[1:])
    return ordered[new]


def repeated(values: Keys) -> Numbers:
    """Return the places of the values that stand there more than once, equal ones side by side in order of place.

    Few do: all are sorted the fastest way, which leaves equal ones in any order, and only those few with care.
    """
    order = np.argsort(values)
    ordered = values[order]
    same = np.zeros(len(values) + 1, dtype=np.bool_)
    np.equal(ordered[1:], ordered[:-1], out=same[1:-1])
    places = np.sort(order[same[1:] | same[:-1]])
    return places[np.argsort(values[places], kind="stable")]


def first_places(keys: Keys) -> Numbers:
    """Return for each 128-bit key the first place at which it stands: one number for all that are equal."""
    firsts = np.arange(len(keys))
    some = repeated(keys[:, 0])
    order = some[np.lexsort((keys[some, 1], keys[some, 0]))]
    new = np.ones(len(order), dtype=np.bool_)
    new[1:] = (keys[order[1:]] != keys[order[:-1]]).any(axis=1)
    firsts[order] = order[new][np.cumsum(new) - 1]
    return firsts
