"""FineWeb's own quality rules: lists, menus and repeated lines (datatrove's block)."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from pydantic import Field

from tasks.contracts.base import Drop, Edit, FrozenModel
from tasks.contracts.document import Document


class Fineweb(FrozenModel):
    """Bounds on lines: how many end a sentence, are short, or stood before.

    Defaults: Penedo et al. 2024 (arXiv:2406.17557), section 3.6; datatrove's code for `new_line_ratio`.

    >>> page = dict(doc_id="1", url="", host="", record_id="1", source="x")
    >>> Fineweb()(Document(**page, text="One line of prose that is long enough, and ends as prose does."))
    >>> Fineweb()(Document(**page, text="Home\\nAbout us\\nContact")).rule
    'fineweb.line_punct_ratio'
    """

    line_punct_thr: float = Field(0.12, ge=0, le=1)
    """Smallest share of lines that end in a terminal punctuation mark."""
    line_punct_exclude_zero: bool = False
    """Whether documents without one such line are kept."""
    short_line_thr: float = Field(0.67, ge=0, le=1)
    """Largest share of short lines."""
    short_line_length: int = Field(30, ge=0)
    """What is short, in characters."""
    char_duplicates_ratio: float = Field(0.01, ge=0, le=1)
    """Largest share of characters in lines that stood before."""
    new_line_ratio: float = Field(0.3, ge=0)
    """Most new lines a word."""
    language: str = "eng"
    """Whose words: datatrove's language code."""

    @cached_property
    def _block(self) -> Any:
        from datatrove.pipeline.filters import FineWebQualityFilter

        from tasks.filters.blocks import shared_words

        return FineWebQualityFilter(**{**self.model_dump(), "language": shared_words(self.language)})

    @cached_property
    def _thresholds(self) -> dict[str, float]:
        return {
            "line_punct_ratio": self.line_punct_thr,
            "short_line_ratio": self.short_line_thr,
            "char_dup_ratio": self.char_duplicates_ratio,
            "list_ratio": self.new_line_ratio,
        }

    def __call__(self, document: Document) -> Drop | Edit | None:
        from tasks.filters.blocks import judge

        return judge("fineweb", self._block, document, self._thresholds)
