"""Gopher's repetition rules: documents that say the same lines or word sequences again and again."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from pydantic import Field

from tasks.contracts.base import Drop, Edit, FrozenModel
from tasks.contracts.document import Document


class GopherRepetition(FrozenModel):
    """Largest shares of repeated lines, paragraphs and n-grams.

    Defaults: Rae et al. 2021 (arXiv:2112.11446), table A1. 0 turns a line or paragraph rule off.

    >>> page = dict(doc_id="1", url="", host="", record_id="1", source="x")
    >>> prose = (
    ...     "The river rises in the hills and runs to the sea. Along its banks are mills, which ground corn for a "
    ...     "hundred villages until steam came. Today most stand empty, but two were made into museums."
    ... )
    >>> GopherRepetition()(Document(**page, text=prose))
    >>> GopherRepetition()(Document(**page, text="Buy now\\n" * 20)).rule
    'gopher_repetition.dup_line_frac'
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

    @cached_property
    def _block(self) -> Any:
        from datatrove.pipeline.filters import GopherRepetitionFilter

        from tasks.filters.blocks import shared_words

        return GopherRepetitionFilter(**{**self.model_dump(), "language": shared_words(self.language)})

    @cached_property
    def _thresholds(self) -> dict[str, float]:
        lines = {name: getattr(self, name) for name in type(self).model_fields if name.endswith("frac")}
        top = {f"top_{n}_gram": share for n, share in self.top_n_grams}
        return {**lines, **top, **{f"duplicated_{n}_n_grams": share for n, share in self.dup_n_grams}}

    def __call__(self, document: Document) -> Drop | Edit | None:
        from tasks.filters.blocks import judge

        return judge("gopher_repetition", self._block, document, self._thresholds)
