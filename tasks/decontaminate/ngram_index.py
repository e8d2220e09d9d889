"""An index of protected texts, and the search for them in a document.

Each text gives its n-grams of `ngram` words; a shorter text is one n-gram of its own length, if it has at least
`min_words` words and `min_characters` characters (so that "yes" or "the first one" match nothing). An n-gram is a
64-bit hash; what is removed in the end is compared word by word. Shorter texts are found whole, where that is asked
for, by an index of their own (tasks/decontaminate/whole_items.py).

Every n-gram, long or short, begins with `min_words` words. The hashes of those beginnings stand in a blocked Bloom
filter (Putze, Sanders and Singler 2007: all bits of an entry in one 64-bit block), so a clean page costs one look
at one number a word, whatever the index holds. The arrays are mapped into memory, one copy for all processes:
12 bytes an n-gram, and 6 to 12 bytes an n-gram for the filter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tasks.contracts.base import FrozenModel
from tasks.contracts.document import write_rows
from tasks.contracts.durable_files import atomic_path
from tasks.decontaminate import whole_items
from tasks.decontaminate.characters import Places
from tasks.decontaminate.forms import fits, form_hash, form_of, is_doubtful, stands_alone
from tasks.decontaminate.hashed_words import (
    Hashes,
    Located,
    Units,
    gram_hashes,
    locate,
    partial_sums,
    split_many,
    split_with_words,
)
from tasks.decontaminate.protected_items import ItemText
from tasks.decontaminate.protection import Protection
from tasks.decontaminate.spellings import joined, spellings
from tasks.decontaminate.whole_items import WholeIndex

TEXTS, GRAMS, NUMBERS, FILTER, LENGTHS = "texts.parquet", "grams.npy", "numbers.npy", "filter.npy", "lengths.npy"
FILES = (TEXTS, GRAMS, NUMBERS, FILTER, LENGTHS, *whole_items.FILES)

_BITS_AN_ENTRY = 48
_SIX_BITS = np.uint64(63)
_SHIFTS = tuple(map(np.uint64, (0, 6, 12)))
_ONE = np.uint64(1)
CHARACTERS_LIKE = 3
"""How many letters a character of a script without spaces counts for in `min_characters`."""

_TEXTS_SCHEMA = pa.schema(
    [
        pa.field("task", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("item", pa.string(), nullable=False),
        pa.field("field", pa.string(), nullable=False),
        pa.field("grams", pa.int32(), nullable=False),
        pa.field("words", pa.string(), nullable=False),
        pa.field("form", pa.string(), nullable=False),
    ]
)


class IndexSettings(FrozenModel):
    """What is an n-gram of a protected text."""

    ngram: int
    min_words: int
    min_characters: int
    short_items: Literal["whole", "leave"] = "leave"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One n-gram of protected texts, or a whole short text, found in a document: words `first` up to `end`.

    Attributes:
        doubtful: it may be something else than the item, such as a date where the item is a sum.
    """

    gram: int
    first: int
    end: int
    texts: tuple[int, ...]
    doubtful: bool = False


@dataclass(frozen=True, slots=True)
class Protected:
    """One protected text.

    Attributes:
        grams: how many different n-grams it has.
        words: its normalised words, a space before, between and after them.
        form: the words with the operators between them, of a text that is found whole only; else "".
    """

    task: str
    split: str
    item: str
    field: str
    grams: int
    words: str
    form: str


@dataclass(frozen=True)
class Index:
    """N-gram hashes, sorted, beside the number of the text that holds each.

    Attributes:
        filter: blocks of 64 bits, a power of two of them.
        lengths: how many words the short texts have that are looked for as a whole.
        folder: where the texts are read from, once one is found.
    """

    settings: IndexSettings
    grams: Hashes
    numbers: NDArray[np.int32]
    filter: Hashes
    lengths: tuple[int, ...]
    whole: WholeIndex
    folder: Path

    @cached_property
    def _texts(self) -> pa.Table:
        return pq.read_table(self.folder / TEXTS)

    def protected(self, number: int) -> Protected:
        """Return a protected text by its number."""
        (row,) = self._texts.slice(number, 1).to_pylist()
        return Protected(**row | {"words": f" {row['words']} "})

    def bytes(self) -> int:
        """Return how much memory the search takes, the texts apart."""
        return self.grams.nbytes + self.numbers.nbytes + self.filter.nbytes

    def search_texts(self, texts: Sequence[str]) -> list[list[int]]:
        """Return, for each text, the n-grams of protected texts that stand in it, sorted."""
        found: list[set[int]] = [set() for _ in texts]
        for numbers, units, ends in split_many(texts):
            sums = partial_sums(units.hashes)
            for hit in self.search(units, sums):
                place = int(np.searchsorted(ends, hit.first, side="right"))
                if hit.end <= ends[place]:
                    found[numbers[place]].add(hit.gram)
            read: set[int] = set()
            for candidate in self.whole.candidates(units, sums):
                place = int(np.searchsorted(ends, candidate.first, side="right"))
                if candidate.end <= ends[place]:
                    for row in candidate.rows:
                        if self.whole.plain[row]:
                            found[numbers[place]].add(int(self.whole.counted[row]))
                        else:
                            read.add(numbers[place])
            for number in read:
                found[number].update(hit.gram for hit in self.search_whole(texts[number]))
        return [sorted(grams) for grams in found]

    def search_whole(self, text: str, words: Located | None = None) -> list[Hit]:
        """Return every place where a text stands that is found whole only."""
        words = words or locate(text)
        hits: list[Hit] = []
        for first, end, rows in self.whole.candidates(words.units, partial_sums(words.units.hashes)):
            form = form_of(text, words, first, end)
            hashed = form_hash(form)
            same = [row for row in rows if self.whole.forms[row] == hashed]
            if same and stands_alone(text, words, first, end):
                doubtful = is_doubtful(text, words, first, end, form)
                hits += [
                    Hit(
                        gram=int(self.whole.counted[row]),
                        first=first,
                        end=end,
                        texts=(int(self.whole.numbers[row]),),
                        doubtful=doubtful,
                    )
                    for row in same
                ]
        return sorted(hits, key=lambda hit: (hit.first, hit.end))

    def search(self, units: Units, sums: Hashes | None = None) -> list[Hit]:
        """Return every place where a protected n-gram stands, in order of place and length.

        Args:
            sums: what `partial_sums` returns for the words, where it is known.
        """
        least = self.settings.min_words
        ends = units.ends(least)
        count = max(len(units.hashes) - least + 1, 0) if ends is None else len(ends)
        if not count or not len(self.grams):
            return []
        sums = partial_sums(units.hashes) if sums is None else sums
        stops = slice(least, None) if ends is None else ends
        (places,) = self._may_begin(gram_hashes(sums, slice(0, count), stops)).nonzero()
        return self._look_up(units, sums, places) if len(places) else []

    def _may_begin(self, beginnings: Hashes) -> NDArray[np.bool_]:
        numbers = beginnings >> np.uint64(64 - (len(self.filter).bit_length() - 1))
        blocks = self.filter.take(numbers.view(np.int64))
        mask = _bits(beginnings)
        may: NDArray[np.bool_] = (blocks & mask) == mask
        return may

    def _look_up(self, units: Units, sums: Hashes, places: Places) -> list[Hit]:
        ends = units.ends(self.settings.ngram)
        long_ends = places + self.settings.ngram if ends is None else _at(ends, places, len(units.hashes) + 1)
        stops = np.concatenate([long_ends, *(places + length for length in self.lengths)])
        firsts = np.tile(places, 1 + len(self.lengths))
        inside = stops <= len(units.hashes)
        firsts, stops = firsts[inside], stops[inside]
        grams = gram_hashes(sums, firsts, stops)
        left = np.minimum(np.searchsorted(self.grams, grams), len(self.grams) - 1)
        hits: list[Hit] = []
        for i in np.flatnonzero(self.grams[left] == grams).tolist():
            right = int(np.searchsorted(self.grams, grams[i], side="right"))
            texts = tuple(self.numbers[int(left[i]) : right].tolist())
            hits.append(Hit(gram=int(grams[i]), first=int(firsts[i]), end=int(stops[i]), texts=texts))
        return sorted(hits, key=lambda hit: (hit.first, hit.end))


def _at(values: Places, places: Places, beyond: int) -> Places:
    """Return the values at some places; `beyond` where there is none."""
    return np.where(places < len(values), np.append(values, beyond)[np.minimum(places, len(values))], beyond)


def _bits(beginnings: Hashes) -> Hashes:
    """Return the three bits that stand for a beginning inside its block."""
    mask = _ONE << (beginnings & _SIX_BITS)
    for shift in _SHIFTS[1:]:
        mask |= _ONE << ((beginnings >> shift) & _SIX_BITS)
    return mask


def write_index(folder: Path, texts: Iterable[ItemText], settings: IndexSettings) -> Protection:
    """Write the n-grams of `texts`, equal texts of one item once; return which items are protected, and how."""
    rows: dict[tuple[str, str, str, bytes], dict[str, object]] = {}
    protection = Protection()
    wholes = whole_items.WholeTexts()
    found: list[Hashes] = []
    beginnings: list[Hashes] = [np.empty(0, np.uint64)]
    lengths: set[int] = set()
    for one in texts:
        units, words = split_with_words(one.text)
        ends = units.ends(settings.ngram)
        last = len(units.hashes) - settings.ngram + 1 if ends is None else len(ends)
        form, spelled, ambiguous = "", [], False
        short = last <= 0 and (units.weight() < settings.min_words or _letters(units, words) < settings.min_characters)
        if short:
            located = locate(one.text)
            form = form_of(one.text, located, 0, len(words)) if words else ""
            spelled = list(_spelled(one)) if settings.short_items == "whole" else []
            ambiguous = bool(spelled) and is_doubtful(one.text, located, 0, len(words), form)
        if (short and not spelled) or ambiguous:
            protection.leave(one, words, ambiguous=ambiguous)
        else:
            protection.protect(one, whole=short)
        if short and not spelled:
            continue
        sums = partial_sums(units.hashes)
        firsts = np.arange(max(last, 1))
        stops = firsts + settings.ngram if ends is None else ends
        if last <= 0:
            stops = np.array([len(units.hashes)])
            if not short:
                lengths.add(len(units.hashes))
        grams = np.unique(gram_hashes(sums, firsts, stops))
        key = (one.task, one.split, one.item, form.encode() or grams.tobytes())
        if key in rows:
            continue
        rows[key] = {
            "task": one.task,
            "split": one.split,
            "item": one.item,
            "field": one.field,
            "grams": len(grams),
            "words": " ".join(words),
            "form": form,
        }
        if short:
            for spelling, located in spelled:
                wholes.add(len(rows) - 1, located, spelling, form)
            found.append(np.empty(0, np.uint64))
            continue
        found.append(grams)
        begun = units.ends(settings.min_words)
        stops = firsts + settings.min_words if begun is None else begun[: len(firsts)]
        beginnings.append(gram_hashes(sums, firsts, stops))
    write_rows(folder / TEXTS, rows.values(), _TEXTS_SCHEMA)
    numbers = np.repeat(np.arange(len(found), dtype=np.int32), [len(grams) for grams in found])
    hashes = np.concatenate([np.empty(0, np.uint64), *found])
    order = np.lexsort((numbers, hashes))
    for name, array in (
        (GRAMS, hashes[order]),
        (NUMBERS, numbers[order]),
        (FILTER, _filter(np.unique(np.concatenate(beginnings)))),
        (LENGTHS, np.array(sorted(lengths), np.int64)),
    ):
        with atomic_path(folder / name) as temporary, temporary.open("wb") as stream:
            np.save(stream, array)
    wholes.write(folder)
    protection.texts = len(rows)
    return protection


def _spelled(one: ItemText) -> Iterator[tuple[str, Located]]:
    """Yield the form and the words of each spelling of a short text that is long enough to be found whole."""
    if one.role == "part":
        return
    for spelling in spellings(one.text):
        for number, text in enumerate(joined(spelling)):
            located = locate(text)
            form = form_of(text, located, 0, len(located.words)) if located.words else ""
            if number == 0 and not fits(one.role, located.words, located.units.weight(), form):
                break
            yield form, located


def _letters(units: Units, words: Sequence[str]) -> int:
    letters = sum(map(len, words))
    return letters if units.weights is None else letters + (CHARACTERS_LIKE - 1) * int((units.weights == 8).sum())


def _filter(beginnings: Hashes) -> Hashes:
    blocks = 1 << max(1, (len(beginnings) * _BITS_AN_ENTRY // 64).bit_length() - 1)
    table = np.zeros(blocks, np.uint64)
    np.bitwise_or.at(table, beginnings >> np.uint64(64 - (blocks.bit_length() - 1)), _bits(beginnings))
    return table


def read_index(folder: Path, settings: IndexSettings) -> Index:
    """Map what `write_index` wrote with these settings into memory."""
    arrays: Mapping[str, NDArray[np.generic]] = {
        name: np.load(folder / name, mmap_mode="r") for name in (GRAMS, NUMBERS, FILTER, LENGTHS)
    }
    return Index(
        settings=settings,
        grams=np.asarray(arrays[GRAMS]),
        numbers=np.asarray(arrays[NUMBERS]),
        filter=np.asarray(arrays[FILTER]),
        lengths=tuple(np.asarray(arrays[LENGTHS]).tolist()),
        whole=whole_items.read_whole(folder),
        folder=folder,
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
