"""Gopher's quality rules: documents that do not look like running text; the decisions of datatrove's block."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np

from tasks.contracts.base import Drop, Measured, Rule, threshold
from tasks.contracts.document import Document
from tasks.filter.word_splitting import words_of

_BULLETS = frozenset("•-")
_ELLIPSES = ("...", "…")


class GopherQuality(Rule):
    """Bounds on length, word length, symbols, bullets, ellipses and stop words. 0 turns a rule off.

    Defaults: Rae et al. 2021 (arXiv:2112.11446), section A.1.1.

    >>> prose = "The river rises in the hills and runs to the sea, where it is met with the tide. "
    >>> GopherQuality()(document(prose * 4))
    >>> GopherQuality()(document("Too short.")).rule
    'short_doc'
    """

    min_doc_words: int = threshold(50, ge=0)
    """Fewest words that are not symbols."""
    max_doc_words: int = threshold(100_000, ge=0)
    """Most words that are not symbols."""
    min_avg_word_length: float = threshold(3, ge=0)
    """Shortest mean length of a word, in characters."""
    max_avg_word_length: float = threshold(10, ge=0)
    """Longest mean length of a word, in characters."""
    max_symbol_word_ratio: float = threshold(0.1, ge=0)
    """Most hash signs, or ellipses, a word."""
    max_bullet_lines_ratio: float = threshold(0.9, ge=0, le=1)
    """Largest share of lines that begin with a bullet."""
    max_ellipsis_lines_ratio: float = threshold(0.3, ge=0, le=1)
    """Largest share of lines that end with an ellipsis."""
    max_non_alpha_words_ratio: float = threshold(0.8, ge=0, le=1)
    """Smallest share of words with a letter in them (datatrove's name for it says the opposite)."""
    min_stop_words: int = threshold(2, ge=0)
    """Fewest different stop words out of the list."""
    stop_words: tuple[str, ...] = ("the", "be", "to", "of", "and", "that", "have", "with")
    """The list of stop words."""
    language: str = "eng"
    """Whose words: datatrove's language code."""

    def measure(self, document: Document) -> Measured:
        """Count words, symbols, bullets, ellipses and stop words, once for all bounds."""
        text = document.text
        words = words_of(text, self.language)
        plain = words.lengths[~words.symbols]
        count = len(plain)
        values: dict[str, float] = {"words": count, "mean_length": int(plain.sum()) / count if count else math.nan}
        if not len(words):
            return Measured(values=values)
        lines, ellipses = text.splitlines(), text.count("...") + text.count("…")
        # No line begins with a bullet, or ends with an ellipsis, but for those in the text: few texts have any.
        bullets = any(mark in text for mark in _BULLETS)
        values |= {
            "hashes": text.count("#") / len(words),
            "ellipses": ellipses / len(words),
            "bullets": sum(line.lstrip()[:1] in _BULLETS for line in lines) / len(lines) if bullets else 0.0,
            "ends": sum(line.rstrip().endswith(_ELLIPSES) for line in lines) / len(lines) if ellipses else 0.0,
            "letters": int(np.count_nonzero(words.letters)) / len(words),
            "stop_words": words.count_of(set(self.stop_words)),
        }
        return Measured(values=values)

    def decide(self, measured: Measured) -> Drop | None:
        """Return the first bound that is crossed, in datatrove's order."""
        for name, value, bound, crossed in self._bounds(measured.values):
            if bound and crossed:
                return Drop(rule=name, score=float(value), threshold=float(bound))
        return None

    def _bounds(self, values: Mapping[str, float]) -> Iterator[tuple[str, float, float, bool]]:
        """Yield each rule's name, what it measures, its bound and whether it is crossed."""
        count, mean = values["words"], values["mean_length"]
        yield "short_doc", count, self.min_doc_words, count < self.min_doc_words
        yield "long_doc", count, self.max_doc_words, count > self.max_doc_words
        yield "below_avg_threshold", mean, self.min_avg_word_length, mean < self.min_avg_word_length
        yield "above_avg_threshold", mean, self.max_avg_word_length, mean > self.max_avg_word_length
        if "letters" not in values:
            yield "empty", 0, 1, True
            return
        for name, value, most in (
            ("too_many_hashes", values["hashes"], self.max_symbol_word_ratio),
            ("too_many_ellipsis", values["ellipses"], self.max_symbol_word_ratio),
            ("too_many_bullets", values["bullets"], self.max_bullet_lines_ratio),
            ("too_many_end_ellipsis", values["ends"], self.max_ellipsis_lines_ratio),
        ):
            yield name, value, most, value > most
        letters, stop_words = values["letters"], values["stop_words"]
        yield "below_alpha_threshold", letters, self.max_non_alpha_words_ratio, letters < self.max_non_alpha_words_ratio
        yield "enough_stop_words", stop_words, self.min_stop_words, stop_words < self.min_stop_words
        # The mean of no words is NaN, which reaches no threshold; last, since datatrove would keep such a text.
        yield "below_avg_threshold", mean, self.min_avg_word_length, not count
