"""Gopher's quality rules: documents that do not look like running text (datatrove's block)."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from pydantic import Field

from tasks.contracts.base import Drop, Edit, FrozenModel
from tasks.contracts.document import Document


class GopherQuality(FrozenModel):
    """Bounds on length, word length, symbols, bullets, ellipses and stop words. 0 turns a rule off.

    Defaults: Rae et al. 2021 (arXiv:2112.11446), section A.1.1.

    >>> page = dict(doc_id="1", url="", host="", record_id="1", source="x")
    >>> prose = "The river rises in the hills and runs to the sea, where it is met with the tide. "
    >>> GopherQuality()(Document(**page, text=prose * 4))
    >>> GopherQuality()(Document(**page, text="Too short.")).rule
    'gopher_quality.short_doc'
    """

    min_doc_words: int = Field(50, ge=0)
    """Fewest words that are not symbols."""
    max_doc_words: int = Field(100_000, ge=0)
    """Most words that are not symbols."""
    min_avg_word_length: float = Field(3, ge=0)
    """Shortest mean length of a word, in characters."""
    max_avg_word_length: float = Field(10, ge=0)
    """Longest mean length of a word, in characters."""
    max_symbol_word_ratio: float = Field(0.1, ge=0)
    """Most hash signs, or ellipses, a word."""
    max_bullet_lines_ratio: float = Field(0.9, ge=0, le=1)
    """Largest share of lines that begin with a bullet."""
    max_ellipsis_lines_ratio: float = Field(0.3, ge=0, le=1)
    """Largest share of lines that end with an ellipsis."""
    max_non_alpha_words_ratio: float = Field(0.8, ge=0, le=1)
    """Smallest share of words with a letter in them (datatrove's name for it says the opposite)."""
    min_stop_words: int = Field(2, ge=0)
    """Fewest different stop words out of the list."""
    stop_words: tuple[str, ...] = ("the", "be", "to", "of", "and", "that", "have", "with")
    """The list of stop words."""
    language: str = "eng"
    """Whose words: datatrove's language code."""

    @cached_property
    def _block(self) -> Any:
        from datatrove.pipeline.filters import GopherQualityFilter

        from tasks.filters.blocks import shared_words

        return GopherQualityFilter(**{**self.model_dump(), "language": shared_words(self.language)})

    @cached_property
    def _thresholds(self) -> dict[str, float]:
        return {
            "short_doc": self.min_doc_words,
            "long_doc": self.max_doc_words,
            "below_avg_threshold": self.min_avg_word_length,
            "above_avg_threshold": self.max_avg_word_length,
            "too_many_hashes": self.max_symbol_word_ratio,
            "too_many_ellipsis": self.max_symbol_word_ratio,
            "too_many_bullets": self.max_bullet_lines_ratio,
            "too_many_end_ellipsis": self.max_ellipsis_lines_ratio,
            "below_alpha_threshold": self.max_non_alpha_words_ratio,
            "enough_stop_words": self.min_stop_words,
        }

    def __call__(self, document: Document) -> Drop | Edit | None:
        from tasks.filters.blocks import judge

        return judge("gopher_quality", self._block, document, self._thresholds)
