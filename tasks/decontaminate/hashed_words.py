"""Words of a text as 64-bit hashes, by numpy over the whole text at once.

A word is a run of letters, marks and digits, in Unicode's compatibility form (NFKC) and lower case, without accents
and with what looks like a Latin letter taken for it (tasks/decontaminate/folding.py). Apostrophes and characters that
show nothing (soft hyphens, zero-width ones, direction marks, tags) are dropped, character references are read, anything
else divides words.

Scripts without spaces give one unit a character, and say what it weighs in words, so that an n-gram of "13 words"
spans about as much meaning in every language: two thirds of a word for Chinese characters and kana (running
Chinese has about 1.5 characters a word), a quarter for the letters of Thai, Lao, Khmer and Burmese. No dictionary
is needed, and a match may begin at any character.

How it is hashed: characters give a polynomial's partial sums modulo 2**64, so a word's hash is a difference of two
of them; words do the same again, so that n-grams of any length cost one subtraction and one product each.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.decontaminate.characters import CODE, IS_CHARACTER, IS_LETTER, Places, latin, read, read_with_places
from tasks.decontaminate.folding import without_entities

Hashes = NDArray[np.uint64]

WORD = 12
"""What a word weighs, in the unit of weights: twelfths."""
_CHARACTER, _LETTER = 8, 3  # of a script without spaces: two thirds, a quarter

_CHARACTER_BASE = 0xD6E8FEB86659FD93  # odd numbers without a pattern: the bases of the two polynomials
_WORD_BASE = 0x9E3779B97F4A7C15
_MULTIPLIER, _HALF = np.uint64(0x94D049BB133111EB), np.uint64(32)
_TOGETHER = 1 << 17  # characters
_BETWEEN = np.zeros(1, np.uint8)
_WINDOW = 1 << 15  # characters whose powers fit a processor's second cache


@dataclass(frozen=True, slots=True)
class Units:
    """A text's words.

    Attributes:
        hashes: one a word, in order.
        weights: what each weighs, in twelfths of a word; None where every one is a whole word.
    """

    hashes: Hashes
    weights: NDArray[np.int64] | None

    def ends(self, words: int) -> Places | None:
        """Return, for each place from which so many words go on, the place after the last; None: place + words."""
        if self.weights is None:
            return None
        reach = np.concatenate([[0], np.cumsum(self.weights)])
        ends = np.searchsorted(reach, reach[:-1] + words * WORD)
        return ends[ends <= len(self.weights)]

    def weight(self) -> float:
        """Return how many words the text weighs."""
        return len(self.hashes) if self.weights is None else float(self.weights.sum()) / WORD


@dataclass(frozen=True, slots=True)
class Located:
    """A text's words with where they stand in it: word i is `text[starts[i]:ends[i]]`, normalised `words[i]`."""

    units: Units
    words: tuple[str, ...]
    starts: Places
    ends: Places


def split(text: str) -> Units:
    """Return the words of a text as hashes."""
    return _units(*read(text))[0]


def split_many(texts: Iterable[str]) -> Iterator[tuple[list[int], Units, Places]]:
    """Split many texts: as fast as numpy goes, since most of a page's time is the calls and not the work.

    Yields:
        Numbers of texts; their words, one text after the other; where in these words each text ends.
    """
    waiting: dict[tuple[int, bool], _Batch] = {}
    for number, text in enumerate(texts):
        codes, flags = read(text)
        kind = codes.itemsize, bool(flags & (IS_CHARACTER | IS_LETTER))
        batch = waiting.setdefault(kind, _Batch())
        batch.add(number, codes, flags)
        if batch.size >= _TOGETHER:
            yield waiting.pop(kind).split()
    for batch in waiting.values():
        yield batch.split()


@dataclass(slots=True)
class _Batch:
    """Texts that are split together, a zero after each."""

    numbers: list[int] = field(default_factory=list)
    pieces: list[NDArray[Any]] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    flags: int = 0
    size: int = 0

    def add(self, number: int, codes: NDArray[Any], flags: int) -> None:
        self.numbers.append(number)
        self.pieces += (codes, _BETWEEN)
        self.flags |= flags
        self.size += len(codes) + 1
        self.ends.append(self.size)

    def split(self) -> tuple[list[int], Units, Places]:
        units, starts = _units(np.concatenate(self.pieces), self.flags)
        return self.numbers, units, np.searchsorted(starts, self.ends)


def split_with_words(text: str) -> tuple[Units, tuple[str, ...]]:
    """Return the words of a text as hashes and as they are when normalised."""
    plain = latin(without_entities(text))
    if plain is None:
        located = locate(text)
        return located.units, located.words
    return split(text), tuple(word.decode("latin-1") for word in plain.split(b"\0") if word)


def locate(text: str) -> Located:
    """Return the words of a text with their places; the same words as `split`, some thirty times slower."""
    marked, befores, afters = read_with_places(text)
    units, starts = _units(marked, int(np.bitwise_or.reduce(marked, initial=0)))
    filled = np.flatnonzero(marked & CODE)
    follow = np.searchsorted(filled, starts[1:])
    ends = filled[np.concatenate([follow, [len(filled)]]) - 1] + 1 if len(starts) else starts
    letters = (marked & CODE).astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")
    if units.weights is None:
        words = tuple(filter(None, letters.split("\0")))
    else:
        words = tuple(letters[a:b] for a, b in zip(starts.tolist(), ends.tolist(), strict=True))
    return Located(units, words, befores[starts], afters[ends - 1])


def partial_sums(hashes: Hashes) -> Hashes:
    """Return the sums from which `gram_hashes` takes the hash of any run of words."""
    powers, _ = _powers(_WORD_BASE, _rounded(len(hashes)))
    sums = np.zeros(len(hashes) + 1, np.uint64)
    np.cumsum(hashes * powers[: len(hashes)], out=sums[1:])
    return sums


def gram_hashes(sums: Hashes, starts: Places | slice, ends: Places | slice) -> Hashes:
    """Return the hash of each run of words from a start up to an end; equal runs have equal hashes.

    Args:
        sums: what `partial_sums` returned.
        starts: places of words, or a slice of them from 0 on.
        ends: as many places, each after a run's last word.
    """
    _, inverses = _powers(_WORD_BASE, _rounded(len(sums)))
    return _mix((sums[ends] - sums[starts]) * inverses[starts])


def _units(marked: NDArray[np.uint32], flags: int) -> tuple[Units, Places]:
    codes = marked & CODE if flags > CODE else marked
    filled = codes != 0
    if not flags & (IS_CHARACTER | IS_LETTER):
        starts = _starts(filled)
        return Units(_word_hashes(codes, starts), None), starts
    single = marked & (IS_CHARACTER | IS_LETTER) != 0
    begins = filled.copy()
    begins[1:] &= single[1:] | single[:-1] | ~filled[:-1]
    starts = np.flatnonzero(begins)
    kinds = marked[starts]
    weights = np.where(kinds & IS_LETTER, _LETTER, np.where(kinds & IS_CHARACTER, _CHARACTER, WORD))
    return Units(_word_hashes(codes, starts), weights), starts


def _starts(filled: NDArray[np.bool_]) -> Places:
    """Return where each run of True begins."""
    begins = filled.copy()
    np.greater(filled[1:], filled[:-1], out=begins[1:])
    return np.flatnonzero(begins)


def _word_hashes(codes: NDArray[np.generic], starts: Places) -> Hashes:
    """Hash the code points from each start up to the next, among which 0 counts nothing; a window at a time."""
    found = np.empty(len(starts), np.uint64)
    first = 0
    while first < len(starts):
        base = int(starts[first])
        last = max(int(np.searchsorted(starts, base + _WINDOW)), first + 1)
        window = codes[base : int(starts[last]) if last < len(starts) else None]
        powers, inverses = _powers(_CHARACTER_BASE, _rounded(len(window)))
        begin = starts[first:last] - base
        terms = window.astype(np.uint64)
        terms *= powers[: len(terms)]
        np.multiply(np.add.reduceat(terms, begin), inverses[begin], out=found[first:last])
        first = last
    return _mix(found)


def _mix(values: Hashes) -> Hashes:
    """Let every bit of a sum reach the upper half of its hash, and from there the lower; changes `values`."""
    values ^= values >> _HALF
    values *= _MULTIPLIER
    values ^= values >> _HALF
    return values


def _rounded(size: int) -> int:
    return max(_WINDOW, 1 << size.bit_length())


@lru_cache(maxsize=8)
def _powers(base: int, count: int) -> tuple[Hashes, Hashes]:
    """Return base**i and base**-i modulo 2**64 (an odd base has an inverse), for i below `count`."""
    inverse = pow(base, -1, 1 << 64)
    return tuple(  # type: ignore[return-value]
        np.concatenate([[np.uint64(1)], np.full(count - 1, one, np.uint64)]).cumprod(dtype=np.uint64)
        for one in (base, inverse)
    )
