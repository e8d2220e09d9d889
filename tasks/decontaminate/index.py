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
from tasks.contracts.document import read_rows, write_rows
from tasks.contracts.files import atomic_path
from tasks.contracts.words import chunk_spans, chunks, normalise_chunk
from tasks.decontaminate.items import ItemText

Hashes = NDArray[np.uint64]

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd: 2**64 over the golden ratio, as in Fibonacci hashing

TEXTS_NAME, GRAMS_NAME = "texts.parquet", "grams.parquet"

_TEXTS_SCHEMA = pa.schema(
    [
        pa.field("task", pa.string(), nullable=False),
        pa.field("item", pa.string(), nullable=False),
        pa.field("field", pa.string(), nullable=False),
        pa.field("grams", pa.int32(), nullable=False),
    ]
)
_GRAMS_SCHEMA = pa.schema(
    [
        pa.field("words", pa.int32(), nullable=False),
        pa.field("gram", pa.uint64(), nullable=False),
        pa.field("text", pa.int32(), nullable=False),
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
    """N-gram hashes by length in words, each sorted, beside the number of the text that holds it."""

    by_length: dict[int, tuple[Hashes, NDArray[np.int32]]]
    texts: tuple[Protected, ...]

    def search(self, words: Hashes) -> list[Hit]:
        """Return every place where a protected n-gram stands, in order of length and place."""
        hits: list[Hit] = []
        for length, (known, numbers) in self.by_length.items():
            grams = ngram_hashes(words, length)
            left = np.minimum(np.searchsorted(known, grams), len(known) - 1)
            for first in np.flatnonzero(known[left] == grams).tolist():
                end = int(np.searchsorted(known, grams[first], side="right"))
                texts = tuple(numbers[int(left[first]) : end].tolist())
                hits.append(Hit(gram=int(grams[first]), first=first, length=length, texts=texts))
        return hits


def hash_words(text: str) -> Hashes:
    """Return the hash of each word of a text."""
    hashes: list[int] = []
    for chunk in chunks(text):
        hashes += _chunk_hashes(chunk)
    return np.array(hashes, np.uint64)


def split_words(text: str) -> Words:
    """Hash a document's words, and say where they stand."""
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


def write_index(folder: Path, texts: Iterable[ItemText], settings: IndexSettings) -> int:
    """Write the n-grams of `texts` into two files, equal texts of one item once; return how many texts."""
    rows: dict[tuple[str, str, bytes], dict[str, object]] = {}
    parts: list[tuple[int, Hashes]] = []
    for one in texts:
        words = hash_words(one.text)
        length = min(len(words), settings.ngram)
        if length < settings.ngram and (
            length < settings.min_words or len("".join(one.text.split())) < settings.min_characters
        ):
            continue
        grams = np.unique(ngram_hashes(words, length))
        key = (one.task, one.item, grams.tobytes())
        if key not in rows:
            rows[key] = {"task": one.task, "item": one.item, "field": one.field, "grams": len(grams)}
            parts.append((length, grams))
    write_rows(folder / TEXTS_NAME, rows.values(), _TEXTS_SCHEMA)
    lengths = np.array([length for length, grams in parts for _ in range(len(grams))], np.int32)
    numbers = np.array([number for number, (_, grams) in enumerate(parts) for _ in range(len(grams))], np.int32)
    hashes = np.concatenate([grams for _, grams in parts]) if parts else np.empty(0, np.uint64)
    order = np.lexsort((numbers, hashes, lengths))
    table = pa.table([lengths[order], hashes[order], numbers[order]], schema=_GRAMS_SCHEMA)
    with atomic_path(folder / GRAMS_NAME) as temporary:
        pq.write_table(table, temporary, compression="zstd")
    return len(rows)


def read_index(folder: Path) -> Index:
    """Read what `write_index` wrote."""
    table = pq.read_table(folder / GRAMS_NAME, schema=_GRAMS_SCHEMA)
    lengths, hashes, numbers = (table[name].to_numpy() for name in ("words", "gram", "text"))
    rows = read_rows(folder / TEXTS_NAME, _TEXTS_SCHEMA)
    return Index(
        by_length={
            int(length): (hashes[lengths == length], numbers[lengths == length]) for length in np.unique(lengths)
        },
        texts=tuple(Protected(row["task"], row["item"], row["field"], row["grams"]) for row in rows),
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
