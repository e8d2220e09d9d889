"""The third pass, by ranges of pairs: the true Jaccard similarity of every candidate.

Verified pairs are remembered from run to run under a name that says what the figure depends on (`Memory`), so that
one new shard beside a hundred old ones compares only what it brings. The memory changes no result.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tasks.contracts.durable_files import atomic_path, sha256_file, write_bytes
from tasks.contracts.manifest import Counts
from tasks.dedup.candidates import PAIR, pair_keys, unique_pairs
from tasks.dedup.corpus import Corpus, Keys, Numbers
from tasks.dedup.shingles import jaccard
from tasks.engine.shards import ShardWork

logger = logging.getLogger(__name__)

# Shingles held in memory at a time (4 bytes each).
HELD_SHINGLES: Final = 1 << 22

EDGE: Final = np.dtype([("left", "<u8"), ("right", "<u8"), ("similarity", "<f8")])
VERIFIED: Final = np.dtype([("key", "<u8", 2), ("similarity", "<f8")])


@dataclass(frozen=True, slots=True)
class Memory:
    """Pairs that were verified before: one file, sorted by the pair's key."""

    path: Path

    def recall(self, keys: Keys) -> NDArray[np.float64]:
        """Return the similarity of each pair, NaN where it is not known; `keys` are sorted."""
        found = np.full(len(keys), np.nan)
        if not len(keys) or not self.path.is_file() or self.path.stat().st_size < VERIFIED.itemsize:
            return found
        records = np.memmap(self.path, dtype=VERIFIED, mode="r")
        firsts = records["key"][:, 0]
        known = np.asarray(records[_place(firsts, int(keys[0, 0])) : _place(firsts, int(keys[-1, 0]) + 1)])
        places = np.searchsorted(known["key"][:, 0], keys[:, 0])
        for step in range(2):  # two pairs with equal first halves are the most that can be expected
            at = np.minimum(places + step, len(known) - 1)
            if len(known):
                same = (known["key"][at] == keys).all(axis=1)
                found[same] = known["similarity"][at[same]]
        return found

    def discard_if_damaged(self) -> None:
        """Forget everything unless the file is what was written: its figures decide what is dropped."""
        if not self.path.is_file():
            return
        if not self._digest.is_file() or self._digest.read_text() != sha256_file(self.path):
            logger.warning("dedup: %s does not match its hash; the pairs in it are verified again", self.path.name)
            self.path.unlink()

    def replace(self, files: Sequence[Path]) -> None:
        """Remember the pairs of these files, which follow each other in order, and no others."""
        with atomic_path(self.path) as temporary, temporary.open("wb") as whole:
            for path in files:
                whole.write(path.read_bytes())
        write_bytes(self._digest, sha256_file(self.path).encode())

    def store(self, keys: Keys, found: NDArray[np.float64]) -> None:
        """Remember these pairs, sorted by key, and no others."""
        verified = np.zeros(len(keys), VERIFIED)
        verified["key"], verified["similarity"] = keys, found
        write_bytes(self.path, verified.tobytes())
        write_bytes(self._digest, sha256_file(self.path).encode())

    @property
    def _digest(self) -> Path:
        return self.path.with_suffix(".sha256")


def _place(firsts: NDArray[np.uint64], key: int) -> int:
    """Return where a key is or would be: a bisection that reads a few pages of the mapped file."""
    low, high = 0, len(firsts)
    while low < high:
        middle = (low + high) // 2
        if int(firsts[middle]) < key:
            low = middle + 1
        else:
            high = middle
    return low


def verify_candidates(
    corpus: Corpus,
    memory: Memory,
    ranges: dict[str, tuple[int, int]],
    threshold: float,
    work: ShardWork,
    folder: Path,
) -> Counts:
    """Write the verified pairs of one range, and as edges those that reach the threshold."""
    slices = [_slice(path, *ranges[work.name]) for path in work.inputs]
    pairs = unique_pairs(np.concatenate([np.zeros(0, PAIR), *slices]))
    verified = np.zeros(len(pairs), VERIFIED)
    verified["key"] = pairs["key"]
    verified["similarity"] = similarities(corpus, pairs, memory)
    near = verified["similarity"] >= threshold
    edges = np.zeros(int(near.sum()), EDGE)
    for name in ("left", "right"):
        edges[name] = pairs[name][near]
    edges["similarity"] = verified["similarity"][near]
    verified.tofile(folder / f"{work.name}.verified.bin")
    edges.tofile(folder / f"{work.name}.edges.bin")
    return Counts(in_=len(pairs), out=len(pairs))


def _slice(path: Path, start: int, stop: int) -> NDArray[Any]:
    count = path.stat().st_size // PAIR.itemsize
    if not count:
        return np.zeros(0, PAIR)
    firsts = np.memmap(path, dtype=PAIR, mode="r")["key"][:, 0]
    first, last = _place(firsts, start), _place(firsts, stop)
    return np.fromfile(path, dtype=PAIR, count=last - first, offset=first * PAIR.itemsize)


def similarities(corpus: Corpus, pairs: NDArray[Any], memory: Memory) -> NDArray[np.float64]:
    """Return the Jaccard similarity of each pair's shingle sets; pairs are sorted by key."""
    found = memory.recall(pairs["key"])
    unknown = np.flatnonzero(np.isnan(found))
    for chosen in _batches(corpus, pairs, unknown):
        left, right = pairs["left"][chosen].astype(np.int64), pairs["right"][chosen].astype(np.int64)
        numbers, places = np.unique(np.concatenate([left, right]), return_inverse=True)
        records = corpus.documents(numbers)
        sets = corpus.sets(numbers, records)
        sizes = records["set_size"].tolist()
        found[chosen] = [
            jaccard(sets[a], sets[b], left_size=sizes[a], right_size=sizes[b])
            for a, b in zip(places[: len(left)].tolist(), places[len(left) :].tolist(), strict=True)
        ]
    return found


def _batches(corpus: Corpus, pairs: NDArray[Any], chosen: Numbers) -> Iterator[Numbers]:
    """Cut the pairs into batches whose shingle sets fit into memory together."""
    for start in range(0, len(chosen), 1 << 16):
        some = chosen[start : start + (1 << 16)]
        sizes = sum(
            corpus.documents(pairs[side][some].astype(np.int64))["set_kept"].astype(np.int64)
            for side in ("left", "right")
        )
        fill = np.cumsum(sizes) // HELD_SHINGLES
        yield from np.split(some, np.flatnonzero(np.diff(fill)) + 1)


def pairs_of(corpus: Corpus, left: Numbers, right: Numbers) -> NDArray[Any]:
    """Return documents as pairs, in the order given (not sorted by key)."""
    pairs = np.zeros(len(left), PAIR)
    pairs["left"], pairs["right"] = left, right
    pairs["key"] = pair_keys(corpus.documents(left)["text"], corpus.documents(right)["text"])
    return pairs
