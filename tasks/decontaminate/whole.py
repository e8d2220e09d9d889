"""Items too short for n-grams, found whole: the same words in the same order, with the operators between them.

"12 + 7" has two words that stand side by side on many pages ("12, 7"), so an operator beside a number or a single
letter counts too, and an expression that goes on ("5 * 12 + 7") is another one. "=", brackets, spaces and ordinary
punctuation do not count: "12+7 = 19" is the question "12 + 7 = ?" and its answer "19".

A text is found whole from a few words on (`FEWEST_WORDS`); single words and lone answers stand on too many clean
pages. Candidates come from the hashes of the words, the same for pages as for n-grams; the form is then compared.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.contracts.files import atomic_path
from tasks.decontaminate.characters import Places
from tasks.decontaminate.folding import without_entities
from tasks.decontaminate.words import Hashes, Located, Units, gram_hashes

GRAMS, NUMBERS, ANCHORS, LENGTHS = "whole_grams.npy", "whole_numbers.npy", "whole_anchors.npy", "whole_lengths.npy"
PAIRS, PLAIN = "whole_pairs.npy", "whole_plain.npy"
FILES = (GRAMS, NUMBERS, PLAIN, ANCHORS, LENGTHS, PAIRS)

ANCHOR_WORDS = 3
"""A text is looked up by its first words, so many where it has them; then by all of them."""
_PAIR_BITS = 20
_ALONE, _FIRST, _SECOND = 1, 2, 4  # two words that are all of a text; its first and second word; its second and third
_ONE, _PAIR_SHIFT = np.uint64(1), np.uint64(64 - _PAIR_BITS)
FEWEST_WORDS = {"asked": 4.5, "both": 3}
"""Fewest words of a question alone (seven Chinese characters), and of one with its answer; below, they are everyday
phrases. Measured with fourteen public benchmarks on 3,200 clean pages: 12 false positives from four words, 1 here."""
FEWEST_TOKENS = 3
"""Fewest numbers, words and operators of a text with an operator between two of them, such as "2 + 2"."""

_WRITTEN = str.maketrans("×∗·⋅÷∕⁄∶‐‑‒–—−﹣－", "****///:--------")
_OPERATORS = frozenset("+-*/^%<>")
_INSIDE_NUMBERS = frozenset(".,:")
_GOES_ON = re.compile(r"[.,]\d|[ \t]*[-+*/^%][ \t]*[\w(]")
_WENT_BEFORE = re.compile(r"(?:\d[.,]|[\w)][ \t]*[-+*/^%][ \t]*)\Z")
_NEAR = 8  # characters of an expression's neighbourhood


class Candidate(NamedTuple):
    """Words `first` up to `end` of a document, which are those of these texts; their operators may differ.

    Attributes:
        plain: hashes of the forms of those texts that have neither operators nor numbers at their ends, so that the
            words are all there is to compare.
    """

    first: int
    end: int
    texts: tuple[int, ...]
    plain: tuple[int, ...]


@dataclass(frozen=True)
class WholeIndex:
    """Hashes of whole short texts, sorted, beside the number of the text that has each.

    Attributes:
        plain: the hash of the form of a text of words only, 0 for others.
        anchors: hashes of the beginnings of texts, sorted; `lengths` says of each how many words such a text has.
        pairs: by 20 bits of two words, what they may be of a text (`_ALONE` and its neighbours): one look at a table
            of 1 MB a word leaves few places of a page to look up.
    """

    grams: Hashes
    numbers: NDArray[np.int32]
    plain: Hashes
    anchors: Hashes
    lengths: NDArray[np.int64]
    pairs: NDArray[np.uint8]

    def candidates(self, units: Units, sums: Hashes) -> list[Candidate]:
        """Look up the texts whose words stand in a document; their operators may differ."""
        if not len(self.grams) or len(units.hashes) < 2:
            return []
        kinds = self.pairs.take(_pairs(units.hashes).view(np.int64))
        (alone,) = (kinds & _ALONE).astype(np.bool_).nonzero()
        (longer,) = (kinds[:-1] & (kinds[1:] >> 1) & _FIRST).astype(np.bool_).nonzero()
        runs = [*self._runs(units, sums, alone, 2), *self._runs(units, sums, longer, ANCHOR_WORDS)]
        if not runs:
            return []
        firsts, ends = np.array(runs).T
        left, same = _look_up(self.grams, gram_hashes(sums, firsts, ends))
        found: list[Candidate] = []
        for i in np.flatnonzero(same).tolist():
            right = int(np.searchsorted(self.grams, self.grams[left[i]], side="right"))
            rows = slice(int(left[i]), right)
            plain = tuple(hashed for hashed in self.plain[rows].tolist() if hashed)
            found.append(Candidate(int(firsts[i]), int(ends[i]), tuple(self.numbers[rows].tolist()), plain))
        return found

    def _runs(self, units: Units, sums: Hashes, places: Places, anchor: int) -> list[tuple[int, int]]:
        """Return first word and end of what may be a text, by its first words."""
        if not len(places):
            return []
        left, same = _look_up(self.anchors, gram_hashes(sums, places, places + anchor))
        rows, firsts = left[same], places[same]
        # Of one anchor, all lengths: the first in the next row and so on, until another anchor begins.
        runs: list[tuple[int, int]] = []
        anchors = self.anchors[rows]
        while len(rows):
            ends = firsts + self.lengths[rows]
            runs += zip(firsts.tolist(), ends.tolist(), strict=True)
            rows = rows + 1
            more = rows < len(self.anchors)
            more[more] = self.anchors[rows[more]] == anchors[more]
            rows, firsts, anchors = rows[more], firsts[more], anchors[more]
        return [
            (first, end) for first, end in runs if end <= len(units.hashes) and min(end - first, ANCHOR_WORDS) == anchor
        ]


def _pairs(hashes: Hashes) -> Hashes:
    """Return 20 bits of each word and the one after it."""
    return (hashes[:-1] + (hashes[1:] << _ONE)) >> _PAIR_SHIFT


def _look_up(table: Hashes, hashes: Hashes) -> tuple[Places, NDArray[np.bool_]]:
    left = np.minimum(np.searchsorted(table, hashes), len(table) - 1)
    return left, table[left] == hashes


def fits(role: str, words: Sequence[str], weight: float, form: str) -> bool:
    """Return whether a text that is too short for n-grams is long enough to be found whole.

    Args:
        role: of the text in its item, as ItemText has it.
        weight: how many words it weighs; a character of a script without spaces is less than one.
    """
    if role == "part" or len(words) < 2:
        return False
    operators = len(form.split(" ")) - len(words)
    if operators and any(word.isdigit() or len(word) == 1 for word in words):
        return len(words) + operators >= FEWEST_TOKENS
    return weight >= FEWEST_WORDS[role]


def form_of(text: str, words: Located, first: int, end: int) -> str:
    """Return words `first` up to `end` with the operators that count between them.

    >>> from tasks.decontaminate.words import locate
    >>> text = "So 12 × 7 = 84, well-known and/or 3.5"
    >>> form_of(text, locate(text), 0, 10)
    'so 12 * 7 84 well known and or 3 . 5'
    """
    tokens = [words.words[first]]
    for i in range(first + 1, end):
        gap = _written(text[int(words.ends[i - 1]) : int(words.starts[i])])
        tokens += _counting(gap, words.words[i - 1], words.words[i])
        tokens.append(words.words[i])
    return " ".join(tokens)


def stands_alone(text: str, words: Located, first: int, end: int) -> bool:
    """Return whether no expression goes on where these words end in a number or begin with one.

    >>> from tasks.decontaminate.words import locate
    >>> text = "5 * 12 + 7 = 67"
    >>> stands_alone(text, locate(text), 1, 3), stands_alone(text, locate(text), 0, 3)
    (False, True)
    """
    start, stop = int(words.starts[first]), int(words.ends[end - 1])
    if words.words[end - 1].isdigit() and _GOES_ON.match(_written(text[stop : stop + _NEAR])):
        return False
    return not (words.words[first].isdigit() and _WENT_BEFORE.search(_written(text[max(0, start - _NEAR) : start])))


def form_hash(form: str) -> int:
    """Return the 64 bits by which a form is counted among the n-grams that documents have in common."""
    return int.from_bytes(hashlib.sha256(f"whole {form}".encode()).digest()[:8], "little")


@dataclass
class WholeTexts:
    """Gathers the texts that are found whole, and writes their index."""

    grams: list[int] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    plain: list[int] = field(default_factory=list)
    anchors: set[tuple[int, int]] = field(default_factory=set)
    pairs: list[tuple[int, int]] = field(default_factory=list)

    def add(self, number: int, units: Units, sums: Hashes, words: Sequence[str], form: str) -> None:
        """Take in one text by its number, words and form."""
        ends_in_number = words[0].isdigit() or words[-1].isdigit()
        self.plain.append(0 if ends_in_number or form != " ".join(words) else form_hash(form))
        length = len(units.hashes)
        ends = np.array([length, min(length, ANCHOR_WORDS)])
        gram, anchor = gram_hashes(sums, np.zeros(2, np.int64), ends).tolist()
        self.grams.append(gram)
        self.numbers.append(number)
        self.anchors.add((anchor, length))
        first, *others = _pairs(units.hashes[:ANCHOR_WORDS]).tolist()
        self.pairs += [(first, _FIRST), (others[0], _SECOND)] if others else [(first, _ALONE)]

    def write(self, folder: Path) -> None:
        """Write the index."""
        hashes, numbers = np.array(self.grams, np.uint64), np.array(self.numbers, np.int32)
        order = np.lexsort((numbers, hashes))
        anchors = sorted(self.anchors)
        pairs = np.zeros(1 << _PAIR_BITS, np.uint8)
        for pair, kind in self.pairs:
            pairs[pair] |= kind
        arrays: dict[str, NDArray[np.generic]] = {
            GRAMS: hashes[order],
            NUMBERS: numbers[order],
            PLAIN: np.array(self.plain, np.uint64)[order],
            ANCHORS: np.array([anchor for anchor, _ in anchors], np.uint64),
            LENGTHS: np.array([length for _, length in anchors], np.int64),
            PAIRS: pairs,
        }
        for name, array in arrays.items():
            with atomic_path(folder / name) as temporary, temporary.open("wb") as stream:
                np.save(stream, array)


def read_whole(folder: Path) -> WholeIndex:
    """Map what `WholeTexts` wrote into memory."""
    return WholeIndex(*(np.asarray(np.load(folder / name, mmap_mode="r")) for name in FILES))


def _written(gap: str) -> str:
    gap = without_entities(gap)
    if not gap.isascii():
        gap = "".join(character for character in gap if unicodedata.category(character) != "Cf")
    return unicodedata.normalize("NFKC", gap.translate(_WRITTEN)).translate(_WRITTEN)


def _counting(gap: str, before: str, after: str) -> list[str]:
    """Return the operators of a gap that count, as one token."""
    if before[-1:].isdigit() and after[:1].isdigit() and gap in _INSIDE_NUMBERS:
        return [gap]
    if not any(word[:1].isdigit() or len(word) == 1 for word in (before, after)):
        return []
    found = "".join(character for character in gap if character in _OPERATORS)
    return [found] if found else []
