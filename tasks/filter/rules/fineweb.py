"""FineWeb's own quality rules: lists, menus and repeated lines; the decisions of datatrove's block."""

from __future__ import annotations

from functools import cached_property

from datatrove.utils.text import TERMINAL_PUNCTUATION
from pydantic import Field, field_validator

from tasks.contracts.base import Drop, Edit, Measured, Rule, threshold
from tasks.contracts.document import Document
from tasks.filter.line_parts import repeated_parts
from tasks.filter.word_splitting import words_of


class Fineweb(Rule):
    """Bounds on lines: how many end a sentence, are short, or stood before.

    Defaults: Penedo et al. 2024 (arXiv:2406.17557), section 3.6; datatrove's code for `new_line_ratio`.

    >>> Fineweb()(document("One line of prose that is long enough, and ends as prose does."))
    >>> Fineweb()(document("Home\\nAbout us\\nContact")).rule
    'line_punct_ratio'
    """

    line_punct_thr: float = threshold(0.12, ge=0, le=1)
    """Smallest share of lines that end in a terminal punctuation mark."""
    line_punct_exclude_zero: bool = threshold(False)
    """Whether documents without one such line are kept."""
    stop_chars: tuple[str, ...] | None = None
    """The terminal punctuation marks, a character each; null: those of every script (datatrove's list)."""
    short_line_thr: float = threshold(0.67, ge=0, le=1)
    """Largest share of short lines."""
    short_line_length: int = Field(30, ge=0)
    """What is short, in characters."""
    char_duplicates_ratio: float = threshold(0.01, ge=0, le=1)
    """Largest share of characters in lines that stood before."""
    new_line_ratio: float = threshold(0.3, ge=0)
    """Most new lines a word."""
    language: str = "eng"
    """Whose words: datatrove's language code."""

    @field_validator("stop_chars")
    @classmethod
    def _characters(cls, marks: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if any(len(mark) != 1 for mark in marks or ()):
            raise ValueError("one character each")
        return marks

    @cached_property
    def _stops(self) -> frozenset[str]:
        return frozenset(TERMINAL_PUNCTUATION if self.stop_chars is None else self.stop_chars)

    def measure(self, document: Document) -> Measured:
        """Return the shares of lines, and of characters in lines that stood before, and new lines a word."""
        text = document.text
        lines = [line for line in text.split("\n") if line and not line.isspace()]
        if not lines:
            return Measured(otherwise=Drop(rule="empty"))
        breaks = text.count("\n")
        return Measured(
            values={
                "line_punct_ratio": sum(line[-1] in self._stops for line in lines) / len(lines),
                "short_line_ratio": sum(len(line) <= self.short_line_length for line in lines) / len(lines),
                "char_dup_ratio": repeated_parts(lines)[1] / (len(text) - breaks),
                "list_ratio": breaks / max(1, len(words_of(text, self.language))) if breaks else 0.0,
            }
        )

    def decide(self, measured: Measured) -> Drop | Edit | None:
        """Return the first bound that is crossed, in datatrove's order."""
        values = measured.values
        if not values:
            return measured.otherwise
        ended = values["line_punct_ratio"]
        if ended < self.line_punct_thr and not (ended == 0 and self.line_punct_exclude_zero):
            return Drop(rule="line_punct_ratio", score=ended, threshold=self.line_punct_thr)
        for name, bound in (
            ("short_line_ratio", self.short_line_thr),
            ("char_dup_ratio", self.char_duplicates_ratio),
            ("list_ratio", self.new_line_ratio),
        ):
            if values[name] > bound:
                return Drop(rule=name, score=values[name], threshold=bound)
        return None
