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

import re
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from tasks.decontaminate.folding import MARKS, by_shape, entity_places, folded, has_entities, without_entities

Hashes = NDArray[np.uint64]
Places = NDArray[np.int64]

WORD = 12
"""What a word weighs, in the unit of weights: twelfths."""
_CHARACTER, _LETTER = 8, 3  # of a script without spaces: two thirds, a quarter

# Flags beside a code point's replacement in the table.
_CODE = (1 << 18) - 1
_IS_CHARACTER, _IS_LETTER, _IS_DROPPED, _NEEDS_NFKC = 1 << 24, 1 << 25, 1 << 26, 1 << 27
_END = 1 << 18  # the table's last entry: private use, tags, nothing that words are made of

_CHARACTERS = (
    *((0x3005, 0x3007), (0x3040, 0x30FF), (0x31F0, 0x31FF), (0xFF66, 0xFF9F)),
    *((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x1B000, 0x1B16F), (0x20000, 0x3FFFF)),
)
_LETTERS = ((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0xA9E0, 0xA9FF), (0xAA60, 0xAA7F))
_APOSTROPHES = "'`\u00b4\u2018\u2019\u02bc\uff07"
# Besides those of category Cf: variation selectors, the joiner of graphemes, fillers, inherent vowels.
_SHOW_NOTHING = (
    *((0x034F, 0x034F), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F), (0x3164, 0x3164)),
    *((0xFE00, 0xFE0F), (0xFFA0, 0xFFA0)),
)
_SHOW_SOMETHING = frozenset("\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd")
_TAGS = (0xE0000, 0xE1000)  # tags and variation selectors, beyond the table
_HANGUL_PARTS = range(0x1161, 0x11C3)  # vowels and finals, which compose with what stands before

# Latin-1 by bytes, the quick way of most European pages: lower case, 0 for what divides words, 1 for what only the
# table below knows. The other punctuation of such pages is replaced first.
_ELSEWHERE = 1
_LATIN_DROPPED = b"'`\xad\xb4"
_TYPOGRAPHY = ("\u201c", "\u201d", "\u2013", "\u2014", "\u2026", "\u2022")

_CHARACTER_BASE = 0xD6E8FEB86659FD93  # odd numbers without a pattern: the bases of the two polynomials
_WORD_BASE = 0x9E3779B97F4A7C15
_MULTIPLIER, _HALF = np.uint64(0x94D049BB133111EB), np.uint64(32)
_TOGETHER = 32  # texts
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
    text = without_entities(text)
    plain = _latin(text)
    if plain is not None:
        codes = np.frombuffer(plain, np.uint8)
        return Units(_word_hashes(codes, _starts(codes != 0)), None)
    text = by_shape(text)
    marked = _marked(text)
    flags = int(np.bitwise_or.reduce(marked, initial=0))
    if flags & _NEEDS_NFKC:
        if flags & _IS_DROPPED:
            text = "".join(map(text.__getitem__, np.flatnonzero(marked & _IS_DROPPED == 0).tolist()))
        marked = _marked(unicodedata.normalize("NFKC", text))
        flags = int(np.bitwise_or.reduce(marked))
    if flags & _IS_DROPPED:
        marked = marked[marked & _IS_DROPPED == 0]
    return _units(marked, flags)[0]


def split_many(texts: Sequence[str]) -> Iterator[tuple[list[int], Units, Places]]:
    """Split many texts: as fast as numpy goes, since most of a page's time is the calls and not the work.

    Yields:
        Numbers of texts; their words, one text after the other; where in these words each text ends.
    """
    found = [(number, _latin(without_entities(text))) for number, text in enumerate(texts)]
    plains = [(number, plain) for number, plain in found if plain is not None]
    for first in range(0, len(plains), _TOGETHER):
        some = plains[first : first + _TOGETHER]
        codes = np.frombuffer(b"\0".join([plain for _, plain in some]), np.uint8)
        starts = _starts(codes != 0)
        ends = np.searchsorted(starts, np.cumsum([len(plain) + 1 for _, plain in some]))
        yield [number for number, _ in some], Units(_word_hashes(codes, starts), None), ends
    for number, plain in found:
        if plain is None:
            units = split(texts[number])
            yield [number], units, np.array([len(units.hashes)])


def split_with_words(text: str) -> tuple[Units, tuple[str, ...]]:
    """Return the words of a text as hashes and as they are when normalised."""
    plain = _latin(without_entities(text))
    if plain is None:
        located = locate(text)
        return located.units, located.words
    return split(text), tuple(word.decode("latin-1") for word in plain.split(b"\0") if word)


def _latin(text: str) -> bytes | None:
    """Return a text as Latin-1 bytes, divided by zeros; None where it holds what Latin-1 does not."""
    if not text.isascii():
        for character in _TYPOGRAPHY:
            if character in text:
                text = text.replace(character, " ")
        for character in "\u2019\u2018":
            if character in text:
                text = text.replace(character, "")
    try:
        plain = text.encode("latin-1").translate(_latin_words(), _LATIN_DROPPED)
    except UnicodeEncodeError:
        return None
    return None if _ELSEWHERE in plain else plain


@lru_cache(maxsize=1)
def _latin_words() -> bytes:
    entries = _table()[:256].tolist()
    return bytes(_ELSEWHERE if entry > 255 and not entry & _IS_DROPPED else entry & 255 for entry in entries)


def locate(text: str) -> Located:
    """Return the words of a text with their places; the same words as `split`, some thirty times slower."""
    text, befores, afters = _read_entities(text)
    text = by_shape(text)
    marked = _marked(text)
    shown = np.flatnonzero(marked & _IS_DROPPED == 0)
    left = "".join(map(text.__getitem__, shown.tolist()))
    marked, befores, afters = marked[shown], befores[shown], afters[shown]
    if int(np.bitwise_or.reduce(marked, initial=0)) & _NEEDS_NFKC:
        pieces = [(unicodedata.normalize("NFKC", m[0]), m.start(), m.end()) for m in _clusters().finditer(left)]
        lengths = [len(piece) for piece, _, _ in pieces]
        starts, ends = befores[[start for _, start, _ in pieces]], afters[[end - 1 for _, _, end in pieces]]
        befores, afters = np.repeat(starts, lengths), np.repeat(ends, lengths)
        marked = _marked("".join([piece for piece, _, _ in pieces]))
    kept = marked & _IS_DROPPED == 0
    marked, befores, afters = marked[kept], befores[kept], afters[kept]
    flags = int(np.bitwise_or.reduce(marked, initial=0))
    units, starts = _units(marked, flags)
    filled = np.flatnonzero(marked & _CODE)
    follow = np.searchsorted(filled, starts[1:])
    ends = filled[np.concatenate([follow, [len(filled)]]) - 1] + 1 if len(starts) else starts
    letters = "".join(map(chr, (marked & _CODE).tolist()))
    words = tuple(letters[a:b] for a, b in zip(starts.tolist(), ends.tolist(), strict=True))
    return Located(units, words, befores[starts], afters[ends - 1])


def _read_entities(text: str) -> tuple[str, Places, Places]:
    """Return a text without character references, and where each of its characters begins and ends in the text."""
    if not has_entities(text):
        befores = np.arange(len(text))
        return text, befores, befores + 1
    pieces = list(entity_places(text))
    starts: list[Places] = []
    ends: list[Places] = []
    for number, (piece, start, end) in enumerate(pieces):
        apart = number % 2 == 0  # what stands between references keeps its places
        starts.append(np.arange(start, end) if apart else np.full(len(piece), start))
        ends.append(np.arange(start, end) + 1 if apart else np.full(len(piece), end))
    return "".join(piece for piece, _, _ in pieces), np.concatenate(starts), np.concatenate(ends)


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
    codes = marked & _CODE if flags > _CODE else marked
    filled = codes != 0
    if not flags & (_IS_CHARACTER | _IS_LETTER):
        starts = _starts(filled)
        return Units(_word_hashes(codes, starts), None), starts
    single = marked & (_IS_CHARACTER | _IS_LETTER) != 0
    begins = filled.copy()
    begins[1:] &= single[1:] | single[:-1] | ~filled[:-1]
    starts = np.flatnonzero(begins)
    kinds = marked[starts]
    weights = np.where(kinds & _IS_LETTER, _LETTER, np.where(kinds & _IS_CHARACTER, _CHARACTER, WORD))
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


def _marked(text: str) -> NDArray[np.uint32]:
    """Return the table's entry of each character."""
    content = text.encode("utf-16-le", "surrogatepass")
    if len(content) == 2 * len(text):
        return _table()[np.frombuffer(content, "<u2")]
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
    marked = _table()[np.minimum(codes, _END)]
    marked[(codes >= _TAGS[0]) & (codes < _TAGS[1])] = _IS_DROPPED
    return marked


@lru_cache(maxsize=1)
def _table() -> NDArray[np.uint32]:
    """Return what each code point becomes: 0 divides words; else its lower case, with flags."""
    table = np.zeros(_END + 1, np.uint32)
    composing = _composing()
    for code in range(0x20000):
        table[code] = _entry(chr(code), composing)
    for first, last in _CHARACTERS:
        codes = np.arange(first, last + 1)
        table[first : last + 1] = np.where(
            (table[first : last + 1] != 0) | (codes >= 0x20000),
            np.where(codes >= 0x20000, codes, table[first : last + 1]) | _IS_CHARACTER,
            0,
        )
    table[0x2F800:0x2FA20] |= _NEEDS_NFKC
    for first, last in _LETTERS:
        table[first : last + 1] |= np.where(table[first : last + 1] != 0, _IS_LETTER, 0).astype(np.uint32)
    for code in range(0x20000):
        if unicodedata.category(chr(code)) == "Cf" and chr(code) not in _SHOW_SOMETHING:
            table[code] = _IS_DROPPED
    for first, last in (*_SHOW_NOTHING, (MARKS.start, MARKS.stop - 1)):
        table[first : last + 1] = _IS_DROPPED
    for character in _APOSTROPHES:
        table[ord(character)] = _IS_DROPPED
    return table


def _entry(character: str, composing: frozenset[str]) -> int:
    like = folded(character)
    if like.isascii() and like.isalnum():
        return ord(like)
    normal = unicodedata.normalize("NFKC", like)
    kinds = {unicodedata.category(c)[0] for c in normal}
    if not kinds & set("LMN") or (len(normal) > 1 and not kinds & set("LN")):
        return 0
    lower = normal.lower()
    code = ord(lower[0]) if len(lower) == 1 else ord(like)
    return code | (_NEEDS_NFKC if len(normal) > 1 or character in composing else 0)


@lru_cache(maxsize=1)
def _composing() -> frozenset[str]:
    """Return the characters that compose with, or change places beside, what stands before them."""
    found = {chr(code) for code in _HANGUL_PARTS} | {"\uff9e", "\uff9f"}
    for code in range(0x20000):
        character = chr(code)
        if unicodedata.combining(character):
            found.add(character)
        parts = unicodedata.decomposition(character).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            found.add(chr(int(parts[1], 16)))
    return frozenset(found)


@lru_cache(maxsize=1)
def _clusters() -> re.Pattern[str]:
    """Return what matches a character and all that NFKC may join to it."""
    joined = "".join(sorted(re.escape(c) for c in _composing()))
    return re.compile(f"[^{joined}][{joined}]*|[{joined}]+", re.DOTALL)


assert sys.maxunicode == 0x10FFFF
