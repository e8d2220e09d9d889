"""An index of protected texts, and the search for them in a document.

Each text gives its n-grams of `ngram` words; a shorter text is one n-gram of its own length, if it has at least
`min_words` words and `min_characters` characters (so that "yes" or "the first one" match nothing). N-grams are
64-bit hashes: of each word by xxh3, combined as a polynomial modulo 2**64, which numpy computes for a whole
document at once. With 10**7 n-grams a page of 1,000 words meets a false equal about once in 2 * 10**9 pages.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
from numpy.typing import NDArray

from tasks.contracts.base import FrozenModel
from tasks.contracts.document import write_rows
from tasks.contracts.words import chunk_spans, normalise_chunk
from tasks.decontaminate.items import ItemText

Hashes = NDArray[np.uint64]

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd: 2**64 over the golden ratio, as in Fibonacci hashing

_TEXTS_SCHEMA = pa.schema(
    [
        pa.field("task", pa.string(), nullable=False),
        pa.field("item", pa.string(), nullable=False),
        pa.field("field", pa.string(), nullable=False),
        pa.field("grams", pa.list_(pa.uint64()), nullable=False),
        pa.field("words", pa.int32(), nullable=False),
    ]
)


class IndexSettings(FrozenModel):
    """What is an n-gram of a protected text."""

    ngram: int
    min_words: int
    min_characters: int


@dataclass(frozen=True, slots=True)
class Words:
    """A document's words as hashes, with where in the text each word's chunk begins and ends."""

    hashes: Hashes
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One n-gram of a protected text, found in a document: words `first` to `first + length`."""

    gram: int
    first: int
    length: int
    texts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Protected:
    """What the index knows of one protected text, apart from its words."""

    task: str
    item: str
    field: str
    grams: int


@dataclass(frozen=True, slots=True)
class Index:
    """N-gram hashes by length in words, each sorted, and which texts hold each."""

    by_length: dict[int, Hashes]
    texts_of: dict[int, tuple[int, ...]]
    texts: tuple[Protected, ...]

    def search(self, words: Words) -> list[Hit]:
        """Return every place where a protected n-gram stands, in order of length and place."""
        hits: list[Hit] = []
        for length, known in sorted(self.by_length.items()):
            grams = ngram_hashes(words.hashes, length)
            if not len(grams) or not len(known):
                continue
            places = np.minimum(np.searchsorted(known, grams), len(known) - 1)
            for first in np.flatnonzero(known[places] == grams).tolist():
                gram = int(grams[first])
                hits.append(Hit(gram=gram, first=first, length=length, texts=self.texts_of[gram]))
        return hits


def split_words(text: str) -> Words:
    """Hash a document's words."""
    hashes: list[int] = []
    starts: list[int] = []
    ends: list[int] = []
    for chunk, start, end in chunk_spans(text):
        for word_hash in _chunk_hashes(chunk):
            hashes.append(word_hash)
            starts.append(start)
            ends.append(end)
    return Words(np.array(hashes, np.uint64), np.array(starts, np.int64), np.array(ends, np.int64))


def ngram_hashes(words: Hashes, length: int) -> Hashes:
    """Return the hash of each run of `length` words; none where there are fewer words.

    Equal runs have equal hashes, wherever they stand; the length is part of the hash.
    """
    count = len(words) - length + 1
    if count <= 0:
        return np.empty(0, np.uint64)
    total = np.full(count, length, np.uint64)
    for place in range(length):
        total = total * _MULTIPLIER + words[place : place + count]
    return total ^ (total >> np.uint64(29))


@lru_cache(maxsize=1 << 17)
def _chunk_hashes(chunk: str) -> tuple[int, ...]:
    return tuple(xxhash.xxh3_64_intdigest(word.encode(errors="surrogatepass")) for word in normalise_chunk(chunk))


def write_index(path: Path, texts: Iterable[ItemText], settings: IndexSettings) -> int:
    """Write the n-grams of `texts` to one Parquet file, equal texts of one item once; return how many texts."""
    rows: dict[tuple[str, str, tuple[int, ...]], dict[str, object]] = {}
    for one in texts:
        words = split_words(one.text).hashes
        length = min(len(words), settings.ngram)
        if length < settings.ngram and (
            length < settings.min_words or len("".join(one.text.split())) < settings.min_characters
        ):
            continue
        grams = tuple(np.unique(ngram_hashes(words, length)).tolist())
        row = {"task": one.task, "item": one.item, "field": one.field, "grams": list(grams), "words": length}
        rows.setdefault((one.task, one.item, grams), row)
    return write_rows(path, rows.values(), _TEXTS_SCHEMA)


def read_index(path: Path) -> Index:
    """Read what `write_index` wrote."""
    table = pq.read_table(path, schema=_TEXTS_SCHEMA).to_pylist()
    texts_of: dict[int, list[int]] = {}
    lengths: dict[int, set[int]] = {}
    for number, row in enumerate(table):
        for gram in row["grams"]:
            texts_of.setdefault(gram, []).append(number)
        lengths.setdefault(row["words"], set()).update(row["grams"])
    return Index(
        by_length={length: np.array(sorted(grams), np.uint64) for length, grams in lengths.items()},
        texts_of={gram: tuple(numbers) for gram, numbers in texts_of.items()},
        texts=tuple(Protected(row["task"], row["item"], row["field"], len(row["grams"])) for row in table),
    )


def merge_ranges(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the union of ranges as disjoint ones, in order.

    >>> merge_ranges([(5, 9), (0, 3), (2, 4)])
    [(0, 4), (5, 9)]
    """
    merged: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged
