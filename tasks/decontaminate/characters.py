"""What each character of a text becomes before its words are hashed: a small letter, a digit, nothing, or a border.

One table of all code points says it, and numpy reads a whole text by it. Most pages are Latin-1 with typographic marks:
those are read as bytes, which is several times faster. Both ways, and the one that knows the places, give the same.
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.contracts.scripts import CHARACTER_RANGES, LETTER_RANGES
from tasks.decontaminate.folding import (
    MARKS,
    by_shape,
    entity_places,
    folded,
    has_entities,
    two_faced,
    without_entities,
)

Places = NDArray[np.int64]

# Flags beside a code point's replacement in the table.
CODE = (1 << 18) - 1
IS_CHARACTER, IS_LETTER, _IS_DROPPED, _NEEDS_NFKC, _JOINS, _IS_TWO_FACED = (1 << bit for bit in range(24, 30))
_END = 1 << 18  # the table's last entry: private use, tags, nothing that words are made of

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


def read(text: str) -> tuple[NDArray[Any], int]:
    """Return the code points that words are hashed from, 0 between words, and the flags of all of them.

    They are bytes, without flags, where Latin-1 is enough.
    """
    text = without_entities(text)
    plain = latin(text)
    if plain is not None:
        return np.frombuffer(plain, np.uint8), 0
    text, marked, flags = _read_shapes(text)
    if flags & _IS_DROPPED:
        kept = _kept(marked)
        text, marked = _characters(text, kept) if flags & _NEEDS_NFKC else text, marked[kept]
    if flags & _NEEDS_NFKC:
        starts, ends = _clusters(marked)
        apart = np.append(True, starts[1:] != ends[:-1])  # clusters side by side are composed together
        pieces = _composed(text, starts[apart], ends[np.append(apart[1:], True)])
        marked = _marked("".join([piece for piece, _, _ in pieces]))
        marked = marked[_kept(marked)]
        flags = _flags(marked)
    return marked, flags


def read_with_places(text: str) -> tuple[NDArray[np.uint32], Places, Places]:
    """Return the same code points, flags beside each, and where the piece of text it stands for begins and ends."""
    befores = np.arange(len(text))
    afters = befores + 1
    if has_entities(text):
        text, befores, afters = _replaced(entity_places(text))
    text, marked, _ = _read_shapes(text)
    kept = _kept(marked)
    text, marked, befores, afters = _characters(text, kept), marked[kept], befores[kept], afters[kept]
    if _flags(marked) & _NEEDS_NFKC:
        text, starts, ends = _replaced(_composed(text, *_clusters(marked)))
        marked = _marked(text)
        kept = _kept(marked)
        marked, befores, afters = marked[kept], befores[starts[kept]], afters[ends[kept] - 1]
    return marked, befores, afters


def _read_shapes(text: str) -> tuple[str, NDArray[np.uint32], int]:
    """Return a text by the shape of its capitals, the table's entries of its characters, and their flags."""
    marked = _marked(text)
    flags = _flags(marked)
    if flags & _IS_TWO_FACED:
        text = by_shape(text)
        marked = _marked(text)
    return text, marked, flags


def _clusters(marked: NDArray[np.uint32]) -> tuple[Places, Places]:
    """Return where the runs of characters begin and end, joined to one another or not, that NFKC may change."""
    begins = np.flatnonzero(marked & _JOINS == 0)
    if not len(begins) or begins[0]:
        begins = np.append(0, begins)
    changed = np.bitwise_or.reduceat(marked, begins) & _NEEDS_NFKC != 0
    return begins[changed], np.append(begins[1:], len(marked))[changed]


def _composed(text: str, starts: Places, ends: Places) -> Iterator[tuple[str, int, int]]:
    """Yield a text as pieces, one in NFKC or what stands between two: (characters, start, end)."""
    position = 0
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        yield text[position:start], position, start
        yield unicodedata.normalize("NFKC", text[start:end]), start, end
        position = end
    yield text[position:], position, len(text)


def _replaced(pieces: Iterable[tuple[str, int, int]]) -> tuple[str, Places, Places]:
    """Return a text from pieces, every second one a replacement, and where what each character stands for begins and
    ends in the text before.
    """
    parts, starts, ends = zip(*pieces, strict=True)
    lengths = np.array([len(part) for part in parts])
    first = np.repeat(starts, lengths)
    inside = np.arange(len(first)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    kept = np.repeat(np.arange(len(parts)) % 2 == 0, lengths)  # what stands between replacements keeps its places
    befores = first + np.where(kept, inside, 0)
    return "".join(parts), befores, np.where(kept, befores + 1, np.repeat(ends, lengths))


def _kept(marked: NDArray[np.uint32]) -> NDArray[np.bool_]:
    return ~(marked & _IS_DROPPED).astype(np.bool_)


def _characters(text: str, which: NDArray[np.bool_]) -> str:
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
    return codes[which].tobytes().decode("utf-32-le", "surrogatepass")


def _flags(marked: NDArray[np.uint32]) -> int:
    return int(np.bitwise_or.reduce(marked, initial=0))


def latin(text: str) -> bytes | None:
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


def _marked(text: str) -> NDArray[np.uint32]:
    """Return the table's entry of each character."""
    content = text.encode("utf-16-le", "surrogatepass")
    if len(content) == 2 * len(text):
        return _table().take(np.frombuffer(content, "<u2"), mode="clip")
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
    marked: NDArray[np.uint32] = _table()[np.minimum(codes, _END)]
    marked[(codes >= _TAGS[0]) & (codes < _TAGS[1])] = _IS_DROPPED
    return marked


@lru_cache(maxsize=1)
def _table() -> NDArray[np.uint32]:
    """Return what each code point becomes: 0 divides words; else its lower case, with flags."""
    table = np.zeros(_END + 1, np.uint32)
    composing = _composing()
    for code in range(0x20000):
        table[code] = _entry(chr(code), composing)
    for first, last in CHARACTER_RANGES:
        codes = np.arange(first, last + 1)
        table[first : last + 1] = np.where(
            (table[first : last + 1] != 0) | (codes >= 0x20000),
            np.where(codes >= 0x20000, codes, table[first : last + 1]) | IS_CHARACTER,
            0,
        )
    table[0x2F800:0x2FA20] |= _NEEDS_NFKC
    for first, last in LETTER_RANGES:
        table[first : last + 1] |= np.where(table[first : last + 1] != 0, IS_LETTER, 0).astype(np.uint32)
    for code in range(0x20000):
        if unicodedata.category(chr(code)) == "Cf" and chr(code) not in _SHOW_SOMETHING:
            table[code] = _IS_DROPPED
    for first, last in (*_SHOW_NOTHING, (MARKS.start, MARKS.stop - 1)):
        table[first : last + 1] = _IS_DROPPED
    for character in _APOSTROPHES:
        table[ord(character)] = _IS_DROPPED
    for character in two_faced():
        table[ord(character)] |= _IS_TWO_FACED
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
    joins = _NEEDS_NFKC | _JOINS if character in composing else 0
    return code | joins | (_NEEDS_NFKC if len(normal) > 1 else 0)


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


assert sys.maxunicode == 0x10FFFF
