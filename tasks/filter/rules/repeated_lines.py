"""Lines and paragraphs that one document says again and again: kept once, and pages made of them dropped."""

from __future__ import annotations

import re
from collections import Counter

from pydantic import Field

from tasks.contracts.base import Drop, Edit, Measured, Rule, threshold
from tasks.contracts.document import Document

_PARAGRAPH_BREAK = re.compile(r"(\n{2,})")


class RepeatedLines(Rule):
    """How often a line or a paragraph may stand in a document. 0 turns a number's rule off.

    A unit that stands more often keeps its first place only. That is milder than Gopher's repetition rules, which drop
    the whole document; lines that recur in many documents are the dedup stage's.

    >>> text = "Back to the top\\nThe first part.\\nBack to the top\\nThe second.\\nBack to the top"
    >>> RepeatedLines(max_line_count=2)(document(text)).text
    'Back to the top\\nThe first part.\\nThe second.'
    >>> RepeatedLines(max_removed=0.1)(document("Back to the top\\n" * 9)).rule
    'max_removed'
    """

    max_line_count: int = Field(3, ge=0)
    """Most times that one line stands in a document as it is."""
    max_paragraph_count: int = Field(1, ge=0)
    """Most times that one paragraph (between empty lines) stands in a document as it is."""
    min_characters: int = Field(8, ge=1)
    """Shortest line or paragraph that counts, in characters: a lone bracket recurs in any code."""
    max_removed: float = threshold(0.5, ge=0, le=1)
    """Largest share of characters that may be removed before the document is dropped."""

    def measure(self, document: Document) -> Measured:
        """Remove what stands too often, and return which share of the characters that is."""
        text, paragraphs = document.text, 0
        if self.max_paragraph_count and "\n\n" in text:
            parts = _PARAGRAPH_BREAK.split(text)
            keep = self._first_places(parts[::2], self.max_paragraph_count)
            paragraphs = keep.count(False)
            if paragraphs:
                text = "".join(
                    part + gap for part, gap, kept in zip(parts[::2], [*parts[1::2], ""], keep, strict=True) if kept
                ).rstrip("\n")
        lines = 0
        if self.max_line_count:
            split = text.split("\n")
            keep = self._first_places(split, self.max_line_count)
            lines = keep.count(False)
            if lines:
                text = "\n".join(line for line, kept in zip(split, keep, strict=True) if kept)
        if not paragraphs and not lines:
            return Measured()
        share = 1 - len(text) / len(document.text)
        detail = f"{lines} lines and {paragraphs} paragraphs removed"
        return Measured(values={"removed": share}, detail=detail, otherwise=Edit(text=text, score=share, detail=detail))

    def decide(self, measured: Measured) -> Drop | Edit | None:
        """Return whether too much is removed; else the text without it."""
        share = measured.values.get("removed", 0.0)
        if share > self.max_removed:
            return Drop(rule="max_removed", score=share, threshold=self.max_removed, detail=measured.detail)
        return measured.otherwise

    def _first_places(self, units: list[str], most: int) -> list[bool]:
        """Return, for each unit, whether it stays."""
        stripped = [unit.strip() for unit in units]
        if len(set(stripped)) == len(stripped):
            return [True] * len(units)
        counts = Counter(stripped)
        seen: set[str] = set()
        keep = []
        for unit in stripped:
            often = counts[unit] > most and len(unit) >= self.min_characters
            keep.append(not often or unit not in seen)
            seen.add(unit)
        return keep
