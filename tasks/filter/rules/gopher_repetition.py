"""Gopher's repetition rules: documents that say the same lines or word sequences again and again.

The decisions are those of datatrove's block, on n-grams that are compared by their hashes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from pydantic import Field

from tasks.contracts.base import Drop, Rule
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

    dup_line_frac: float = Field(0.3, ge=0, le=1)
    """Lines that stood before, as a share of lines."""
    dup_para_frac: float = Field(0.3, ge=0, le=1)
    """Paragraphs that stood before, as a share of paragraphs."""
    dup_line_char_frac: float = Field(0.2, ge=0, le=1)
    """Characters in lines that stood before, as a share of all."""
    dup_para_char_frac: float = Field(0.2, ge=0, le=1)
    """Characters in paragraphs that stood before, as a share of all."""
    top_n_grams: tuple[tuple[int, float], ...] = ((2, 0.2), (3, 0.18), (4, 0.16))
    """For each n: characters in the most frequent n-gram, as a share of all."""
    dup_n_grams: tuple[tuple[int, float], ...] = (
        (5, 0.15),
        (6, 0.14),
        (7, 0.13),
        (8, 0.12),
        (9, 0.11),
        (10, 0.10),
    )
    """For each n: characters in n-grams that stood before, as a share of all."""
    language: str = "eng"
    """Whose words: datatrove's language code."""

    def __call__(self, document: Document) -> Drop | None:
        text = document.text
        if not text:
            return Drop(rule="empty")
        for name, share, bound in self._shares(text):
            if share > bound:
                return Drop(rule=name, score=share, threshold=bound)
        return None

    def _shares(self, text: str) -> Iterator[tuple[str, float, float]]:
        """Yield each rule's name, what it measures and its bound: in datatrove's order, each measured when asked."""
        stripped = text.strip()
        if "\n\n" in stripped:
            paragraphs = _PARAGRAPHS.split(stripped)
            count, characters = repeated_parts(paragraphs)
            if self.dup_para_frac:
                yield "dup_para_frac", count / len(paragraphs), self.dup_para_frac
            if self.dup_para_char_frac:
                yield "dup_para_char_frac", characters / len(text), self.dup_para_char_frac
        lines = _LINES.split(text) if "\n\n" in text else text.split("\n")
        count, characters = repeated_parts(lines)
        if self.dup_line_frac:
            yield "dup_line_frac", count / len(lines), self.dup_line_frac
        if self.dup_line_char_frac:
            yield "dup_line_char_frac", characters / len(text), self.dup_line_char_frac
        words = words_of(text, self.language)
        size = len(text)
        for n, bound in self.top_n_grams:
            yield f"top_{n}_gram", most_frequent_characters(words, n, bound * size) / size, bound
        for n, bound in self.dup_n_grams:
            yield f"duplicated_{n}_n_grams", repeated_characters(words, n, bound * size) / size, bound


def most_frequent_characters(words: Words, n: int, most_allowed: float = 0) -> int:
    """Return the characters of the most frequent n-gram, with a space between words, times how often it stands.

    Of equally frequent ones the first counts. Where no n-gram can give more than `most_allowed`, 0 is returned.
    """
    if len(words) < n:
        return 0
    grams, spans = words.sequences(n), words.spans(n)
    few = int(most_allowed // (int(spans.max()) + n - 1))
    ordered = np.sort(grams)
    # Equal n-grams are neighbours now: one that stands more than `few` times stands again `few` places on.
    if few >= len(grams) or (few and not np.count_nonzero(ordered[few:] == ordered[:-few])):
        return 0
    places = places_in_order(grams)
    ordered = grams[places]
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    counts = np.diff(starts, append=len(ordered))
    most = int(counts.max())
    first = int(places[starts[counts == most]].min())
    return (int(spans[first]) + n - 1) * most


def repeated_characters(words: Words, n: int, most_allowed: float = 0) -> int:
    """Return the characters of n-grams that stood before, without spaces, none of them overlapping.

    From left to right: an n-gram that stood before is counted and stepped over, another is remembered. Only those
    that stand twice can matter, and a page has few. Where they cannot give more than `most_allowed`, 0 is returned.
    """
    if len(words) <= n:
        return 0
    grams, spans = words.joined(n), words.spans(n)
    ordered = np.sort(grams)
    again = ordered[1:] == ordered[:-1]
    if np.count_nonzero(again) * spans.max() <= most_allowed:
        return 0
    places = places_in_order(grams)
    again = grams[places[1:]] == grams[places[:-1]]
    if spans[places[1:][again]].sum() <= most_allowed:
        return 0
    twice = np.zeros(len(grams), np.bool_)
    twice[places[1:][again]] = twice[places[:-1][again]] = True
    positions = np.flatnonzero(twice)
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


def places_in_order(hashes: Hashes) -> npt.NDArray[np.intp]:
    """Return the places of hashes, equal ones together, the first place first.

    Places stand in the lowest bits of what is sorted: numbers sort several times faster than places by their numbers.
    """
    low = np.uint64((1 << len(hashes).bit_length()) - 1)
    ordered = np.sort(hashes & ~low | np.arange(len(hashes), dtype=np.uint64))
    return (ordered & low).astype(np.intp)
