"""Items too short for n-grams, found whole: the same words in the same order, with the operators between them.

"12 + 7" has two words that stand side by side on many pages ("12, 7"), so an operator beside a number or a single
letter counts too, and an expression that goes on ("5 * 12 + 7") is another one. "=", brackets, spaces and ordinary
punctuation do not count: "12+7 = 19" is the question "12 + 7 = ?" and its answer "19".

A text is found whole from a few words on (`FEWEST_WORDS`); single words and lone answers stand on too many clean
pages. Candidates come from the hashes of the words, the same for pages as for n-grams; the form is then compared.
"""

from __future__ import annotations

import hashlib
import html
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.contracts.files import atomic_path
from tasks.decontaminate.words import Hashes, Located, Places, Units, gram_hashes

GRAMS, NUMBERS, LENGTHS = "whole_grams.npy", "whole_numbers.npy", "whole_lengths.npy"
FILES = (GRAMS, NUMBERS, LENGTHS)

ANCHOR_WORDS = 3
"""A candidate is looked for by its first words, so many where it has them: one look at each place of a page."""
FEWEST_WORDS = {"asked": 4.5, "both": 3}
"""Fewest words of a question alone (seven Chinese characters), and of one with its answer; below, they are everyday
phrases. Measured with the fourteen benchmarks of docs/benchmarks.md on 3,200 pages: four words give 12 false positives."""
FEWEST_TOKENS = 3
"""Fewest numbers, words and operators of a text with an operator between two of them, such as "2 + 2"."""

_WRITTEN = str.maketrans({"×": "*", "∗": "*", "·": "*", "⋅": "*", "÷": "/", "∕": "/", "⁄": "/", "∶": ":"} | dict.fromkeys("‐‑‒–—−﹣－", "-"))  # fmt: skip
_OPERATORS = frozenset("+-*/^%<>")
_INSIDE_NUMBERS = frozenset(".,:")
_GOES_ON = re.compile(r"[.,]\d|[ \t]*[-+*/^%][ \t]*[\w(]")
_WENT_BEFORE = re.compile(r"(?:\d[.,]|[\w)][ \t]*[-+*/^%][ \t]*)\Z")
_NEAR = 8  # characters of an expression's neighbourhood


class Candidate(NamedTuple):
    """Words `first` up to `end` of a document, which are those of these texts; their operators may differ."""

    first: int
    end: int
    texts: tuple[int, ...]


@dataclass(frozen=True)
class WholeIndex:
    """Hashes of whole short texts, sorted, beside the number of the text that has each, and how many words they have."""

    grams: Hashes
    numbers: NDArray[np.int32]
    lengths: tuple[int, ...]

    def anchors(self) -> tuple[int, ...]:
        """Return how many words the candidates' beginnings have."""
        return tuple(sorted({min(length, ANCHOR_WORDS) for length in self.lengths}))

    def candidates(self, units: Units, sums: Hashes, places: Places, anchor: int) -> list[Candidate]:
        """Look up the texts that may begin at some places of a document, by the hashes of their words."""
        found: list[Candidate] = []
        for length in self.lengths:
            if min(length, ANCHOR_WORDS) != anchor:
                continue
            firsts = places[places + length <= len(units.hashes)]
            grams = gram_hashes(sums, firsts, firsts + length)
            left = np.minimum(np.searchsorted(self.grams, grams), len(self.grams) - 1)
            for i in np.flatnonzero(self.grams[left] == grams).tolist():
                right = int(np.searchsorted(self.grams, grams[i], side="right"))
                texts = tuple(self.numbers[int(left[i]) : right].tolist())
                found.append(Candidate(int(firsts[i]), int(firsts[i]) + length, texts))
        return found


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


def write_whole(folder: Path, grams: Sequence[int], numbers: Sequence[int], lengths: Iterable[int]) -> None:
    """Write the hashes of whole texts, each with its text's number."""
    hashes, of_texts = np.array(grams, np.uint64), np.array(numbers, np.int32)
    order = np.lexsort((of_texts, hashes))
    for name, array in (
        (GRAMS, hashes[order]),
        (NUMBERS, of_texts[order]),
        (LENGTHS, np.array(sorted(set(lengths)), np.int64)),
    ):
        with atomic_path(folder / name) as temporary, temporary.open("wb") as stream:
            np.save(stream, array)


def read_whole(folder: Path) -> WholeIndex:
    """Map what `write_whole` wrote into memory."""
    grams, numbers, lengths = (np.load(folder / name, mmap_mode="r") for name in FILES)
    return WholeIndex(np.asarray(grams), np.asarray(numbers), tuple(np.asarray(lengths).tolist()))


def _written(gap: str) -> str:
    if "&" in gap:
        gap = html.unescape(html.unescape(gap))
    return unicodedata.normalize("NFKC", gap.translate(_WRITTEN)).translate(_WRITTEN)


def _counting(gap: str, before: str, after: str) -> list[str]:
    """Return the operators of a gap that count, as one token."""
    if before[-1:].isdigit() and after[:1].isdigit() and gap in _INSIDE_NUMBERS:
        return [gap]
    if not any(word[:1].isdigit() or len(word) == 1 for word in (before, after)):
        return []
    found = "".join(character for character in gap if character in _OPERATORS)
    return [found] if found else []
