"""Gopher's repetition rules: documents that say the same lines or word sequences again and again.

The decisions are those of datatrove's block, on n-grams that are compared by their hashes.
"""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt
from pydantic import JsonValue

from tasks.contracts.base import Drop, Edit, Measured, Rule, threshold
from tasks.contracts.document import Document
from tasks.filter.line_parts import repeated_parts
from tasks.filter.word_splitting import Hashes, Words, words_of

_PARAGRAPHS = re.compile(r"\n{2,}")
_LINES = re.compile(r"\n+")


class GopherRepetition(Rule):
    """Largest shares of repeated lines, paragraphs and n-grams.

    Defaults: Rae et al. 2021 (arXiv:2112.11446), table A1. 0 turns a line or paragraph rule off.

    >>> prose = (
    ...     "The river rises in the hills and runs to the sea. Along its banks are mills, which ground corn for a "
    ...     "hundred villages until steam came. Today most stand empty, but two were made into museums."
    ... )
    >>> GopherRepetition()(document(prose))
    >>> GopherRepetition()(document("Buy now\\n" * 20)).rule
    'dup_line_frac'
    """

    dup_line_frac: float = threshold(0.3, ge=0, le=1)
    """Lines that stood before, as a share of lines."""
    dup_para_frac: float = threshold(0.3, ge=0, le=1)
    """Paragraphs that stood before, as a share of paragraphs."""
    dup_line_char_frac: float = threshold(0.2, ge=0, le=1)
    """Characters in lines that stood before, as a share of all."""
    dup_para_char_frac: float = threshold(0.2, ge=0, le=1)
    """Characters in paragraphs that stood before, as a share of all."""
    top_n_grams: tuple[tuple[int, float], ...] = threshold(((2, 0.2), (3, 0.18), (4, 0.16)))
    """For each n: characters in the most frequent n-gram, as a share of all."""
    dup_n_grams: tuple[tuple[int, float], ...] = threshold(
        ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10))
    )
    """For each n: characters in n-grams that stood before, as a share of all."""
    language: str = "eng"
    """Whose words: datatrove's language code."""

    def measured_by(self) -> dict[str, JsonValue]:
        """Return the language and, of the n-grams, each n."""
        lengths = {name: [n for n, _ in getattr(self, name)] for name in ("top_n_grams", "dup_n_grams")}
        return {**super().measured_by(), **lengths}

    def measure(self, document: Document) -> Measured:
        """Return each share by its rule's name; those of paragraphs where the text has several."""
        text, size = document.text, len(document.text)
        if not text:
            return Measured(otherwise=Drop(rule="empty"))
        values: dict[str, float] = {}
        stripped = text.strip()
        if "\n\n" in stripped:
            paragraphs = _PARAGRAPHS.split(stripped)
            count, characters = repeated_parts(paragraphs)
            values |= {"dup_para_frac": count / len(paragraphs), "dup_para_char_frac": characters / size}
        lines = _LINES.split(text) if "\n\n" in text else text.split("\n")
        count, characters = repeated_parts(lines)
        values |= {"dup_line_frac": count / len(lines), "dup_line_char_frac": characters / size}
        words = words_of(text, self.language)
        values |= {f"top_{n}_gram": most_frequent_characters(words, n) / size for n, _ in self.top_n_grams}
        values |= {f"duplicated_{n}_n_grams": repeated_characters(words, n) / size for n, _ in self.dup_n_grams}
        return Measured(values=values)

    def decide(self, measured: Measured) -> Drop | Edit | None:
        """Return the first bound that is crossed, in datatrove's order."""
        shares = ("dup_para_frac", "dup_para_char_frac", "dup_line_frac", "dup_line_char_frac")
        bounds = (
            *((name, getattr(self, name)) for name in shares if getattr(self, name)),
            *((f"top_{n}_gram", bound) for n, bound in self.top_n_grams),
            *((f"duplicated_{n}_n_grams", bound) for n, bound in self.dup_n_grams),
        )
        for name, bound in bounds:
            share = measured.values.get(name, 0.0)
            if share > bound:
                return Drop(rule=name, score=share, threshold=bound)
        return measured.otherwise


def most_frequent_characters(words: Words, n: int) -> int:
    """Return the characters of the most frequent n-gram, with a space between words, times how often it stands.

    Of equally frequent ones the first counts.
    """
    if len(words) < n:
        return 0
    grams, spans = words.sequences(n), words.spans(n)
    ordered = np.sort(grams)
    ends = np.flatnonzero(ordered[1:] != ordered[:-1])
    if len(ends) + 1 == len(ordered):
        return int(spans[0]) + n - 1
    last = np.concatenate(([-1], ends, [len(ordered) - 1]))
    counts = last[1:] - last[:-1]
    most = int(counts.max())
    first = int(among(ordered[last[1:][counts == most]], grams).argmax())
    return (int(spans[first]) + n - 1) * most


def repeated_characters(words: Words, n: int) -> int:
    """Return the characters of n-grams that stood before, without spaces, none of them overlapping.

    From left to right: an n-gram that stood before is counted and stepped over, another is remembered. Only those
    that stand twice can matter, and a page has few.
    """
    if len(words) <= n:
        return 0
    grams, spans = words.joined(n), words.spans(n)
    ordered = np.sort(grams)
    again = ordered[1:][ordered[1:] == ordered[:-1]]
    if not len(again):
        return 0
    positions = np.flatnonzero(among(again, grams))
    seen: set[int] = set()
    total = beyond = 0
    for position, gram, span in zip(
        positions.tolist(), grams[positions].tolist(), spans[positions].tolist(), strict=True
    ):
        if position < beyond:
            continue
        if gram in seen:
            total += span
            beyond = position + n
        else:
            seen.add(gram)
    return total


def among(ordered: Hashes, hashes: Hashes) -> npt.NDArray[np.bool_]:
    """Return, for each hash, whether it is one of `ordered`, which are sorted and at least one.

    >>> among(np.array([2, 2, 5], np.uint64), np.array([1, 2, 5, 7], np.uint64)).tolist()
    [False, True, True, False]
    """
    equal: npt.NDArray[np.bool_] = ordered[np.searchsorted(ordered[:-1], hashes)] == hashes
    return equal
