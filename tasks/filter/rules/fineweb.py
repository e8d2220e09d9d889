"""FineWeb's own quality rules: lists, menus and repeated lines; the decisions of datatrove's block."""

from __future__ import annotations

from functools import cached_property

from datatrove.utils.text import TERMINAL_PUNCTUATION
from pydantic import Field, field_validator

from tasks.contracts.base import Drop, Rule
from tasks.contracts.document import Document
from tasks.filter.line_parts import repeated_parts
from tasks.filter.word_splitting import fewest_words, words_of


class Fineweb(Rule):
    """Bounds on lines: how many end a sentence, are short, or stood before.

    Defaults: Penedo et al. 2024 (arXiv:2406.17557), section 3.6; datatrove's code for `new_line_ratio`.

    >>> Fineweb()(document("One line of prose that is long enough, and ends as prose does."))
    >>> Fineweb()(document("Home\\nAbout us\\nContact")).rule
    'line_punct_ratio'
    """

    line_punct_thr: float = Field(0.12, ge=0, le=1)
    """Smallest share of lines that end in a terminal punctuation mark."""
    line_punct_exclude_zero: bool = False
    """Whether documents without one such line are kept."""
    stop_chars: tuple[str, ...] | None = None
    """The terminal punctuation marks, a character each; null: those of every script (datatrove's list)."""
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

    @field_validator("stop_chars")
    @classmethod
    def _characters(cls, marks: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if any(len(mark) != 1 for mark in marks or ()):
            raise ValueError("one character each")
        return marks

    @cached_property
    def _stops(self) -> frozenset[str]:
        return frozenset(TERMINAL_PUNCTUATION if self.stop_chars is None else self.stop_chars)

    def __call__(self, document: Document) -> Drop | None:
        text = document.text
        lines = [line for line in text.split("\n") if line and not line.isspace()]
        if not lines:
            return Drop(rule="empty")
        ended = sum(line[-1] in self._stops for line in lines) / len(lines)
        if ended < self.line_punct_thr and not (ended == 0 and self.line_punct_exclude_zero):
            return Drop(rule="line_punct_ratio", score=ended, threshold=self.line_punct_thr)
        short = sum(len(line) <= self.short_line_length for line in lines) / len(lines)
        if short > self.short_line_thr:
            return Drop(rule="short_line_ratio", score=short, threshold=self.short_line_thr)
        breaks = text.count("\n")
        repeated = repeated_parts(lines)[1] / (len(text) - breaks)
        if repeated > self.char_duplicates_ratio:
            return Drop(rule="char_dup_ratio", score=repeated, threshold=self.char_duplicates_ratio)
        listed = breaks / max(1, fewest_words(text, self.language))
        if listed > self.new_line_ratio:
            listed = breaks / len(words_of(text, self.language))
        if listed > self.new_line_ratio:
            return Drop(rule="list_ratio", score=listed, threshold=self.new_line_ratio)
        return None
