"""RefinedWeb's line-wise corrections: menus, counters and buttons that extraction left in the text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property

from pydantic import Field, field_validator

from tasks.contracts.base import Drop, Edit, Measured, Rule, threshold
from tasks.contracts.document import Document
from tasks.filter.line_parts import shortened

_NUMERICAL = re.compile(r"(?=\D*\d)[\d\s.,:;/%()+-]++")
_COUNTER = re.compile(
    r"[\d.,]++ ?[kKmM]?\+? (?:likes?|shares?|comments?|views?|followers?|following|replies|reply|retweets?|votes?"
    r"|points?|reviews?|ratings?|downloads?|subscribers?|reactions?)\W*",
    re.IGNORECASE,
)


class RefinedwebLines(Rule):
    """Which lines go, which are shortened, and how many a document may have.

    Source: Penedo et al. 2023 (arXiv:2306.01116), appendix G.2: a line goes that is mainly upper case, only numbers, a
    counter ("3 likes") or one word; a line of at most ten words loses a phrase at its beginning, its end or anywhere;
    a document is dropped where the flagged lines hold more than 5 % of its words. The paper gives an example of each
    kind of phrase; the lists below are ours. 0 turns a number's rule off.

    >>> prose = "The river rises in the hills and runs to the sea, where it meets the tide. " * 3
    >>> RefinedwebLines()(document(prose + "\\n3 likes")).detail
    '1 line removed, 0 shortened'
    >>> RefinedwebLines()(document("HOME\\nSign in\\nThe river rises.")).rule
    'flagged_words'
    """

    max_uppercase: float = Field(0.5, ge=0, le=1)
    """Largest share of a line's letters that are upper case ("mainly" in the paper)."""
    remove_numerical: bool = True
    """Whether lines of numbers only go."""
    remove_counters: bool = True
    """Whether counters go."""
    min_words: int = Field(2, ge=0)
    """Fewest words of a line."""
    short_line_words: int = Field(10, ge=0)
    """Most words of a line that phrases are cut out of."""
    at_beginning: tuple[str, ...] = ("sign-in", "sign in", "log in", "login", "skip to content", "share this")
    """Phrases cut from the beginning of a short line, whatever their case."""
    at_end: tuple[str, ...] = ("read more...", "read more…", "read more", "continue reading", "see more", "load more")
    """Phrases cut from the end of a short line."""
    anywhere: tuple[str, ...] = ("items in cart", "add to cart", "add to wishlist", "click here to subscribe")
    """Phrases cut from a short line wherever they stand."""
    max_flagged_words: float = threshold(0.05, ge=0, le=1)
    """Largest share of a document's words in lines that were removed or shortened; 1 drops none."""

    @field_validator("at_beginning", "at_end", "anywhere")
    @classmethod
    def _not_blank(cls, phrases: tuple[str, ...]) -> tuple[str, ...]:
        if any(not phrase.strip() for phrase in phrases):
            raise ValueError("no phrase may be blank")
        return phrases

    @cached_property
    def _phrases(self) -> re.Pattern[str] | None:
        begin, end, inside = (_alternatives(given) for given in (self.at_beginning, self.at_end, self.anywhere))
        # Each run of spaces or digits is tried from its start only, and never given back: linear in the line.
        forms = [
            *([rf"\A\s*(?:{begin})(?!\w)[\s:|–-]*"] if begin else []),
            *([rf"(?:(?<!\s)\s++)?(?<!\w)(?:{end})\s*\Z"] if end else []),
            *([rf"(?:(?<!\s)\s++)?(?:(?<!\d)\d++\s*+)?(?<!\w)(?:{inside})(?!\w)"] if inside else []),
        ]
        return re.compile("|".join(forms), re.IGNORECASE) if forms else None

    def measure(self, document: Document) -> Measured:
        """Correct the lines, and return which share of the words stands in those that are not as they were."""
        kept: list[str] = []
        words = flagged = removed = shortened_lines = 0
        first: str | None = None
        for line in document.text.split("\n"):
            size = len(line.split())
            words += size
            left = self._corrected(line, size)
            if left != line:
                flagged += size
                first = first if first is not None else line
                removed += left is None
                shortened_lines += left is not None
            if left is not None:
                kept.append(left)
        if first is None:
            return Measured()
        share = flagged / words
        detail = f"{removed} line{'' if removed == 1 else 's'} removed, {shortened_lines} shortened"
        edit = Edit(text="\n".join(kept), score=share, detail=detail)
        return Measured(values={"flagged": share}, detail=shortened(first.strip()), otherwise=edit)

    def decide(self, measured: Measured) -> Drop | Edit | None:
        """Return whether too much is flagged; else the corrected text."""
        share = measured.values.get("flagged", 0.0)
        if share > self.max_flagged_words:
            return Drop(rule="flagged_words", score=share, threshold=self.max_flagged_words, detail=measured.detail)
        return measured.otherwise

    def _corrected(self, line: str, words: int) -> str | None:
        """Return the line, what is left of it, or None where it goes; a blank line stays."""
        if not words:
            return line
        if words < self.min_words:
            return None
        if self.remove_numerical and _NUMERICAL.fullmatch(line):
            return None
        if self.remove_counters and line[:20].lstrip()[:1].isdigit() and _COUNTER.fullmatch(line.strip()):
            return None
        if self.max_uppercase and _uppercase(line) > self.max_uppercase:
            return None
        if words <= self.short_line_words and self._phrases and self._phrases.search(line):
            left = self._phrases.sub("", line)
            return left if left.strip() else None
        return line


def _uppercase(line: str) -> float:
    if line.islower():
        return 0.0
    letters = sum(map(str.isalpha, line))
    return sum(map(str.isupper, line)) / letters if letters else 0.0


def _alternatives(phrases: Sequence[str]) -> str:
    return "|".join(re.escape(phrase) for phrase in sorted(phrases, key=lambda phrase: (-len(phrase), phrase)))
