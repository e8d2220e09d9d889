"""Drop documents that are too short or too long, in words and in characters."""

from __future__ import annotations

from tasks.contracts.base import Drop, Measured, Rule, threshold
from tasks.contracts.document import Document


class Length(Rule):
    """The bounds of a document. Words are what stands between spaces.

    The defaults are those of Gopher (Rae et al. 2021, arXiv:2112.11446, table A1): 50 to 100,000 words.

    >>> rule = Length(min_words=3)
    >>> rule(document("three words here"))
    >>> rule(document("two words")).rule
    'min_words'
    """

    min_words: int = threshold(50, ge=0)
    """Fewest words."""
    max_words: int = threshold(100_000, ge=1)
    """Most words."""
    min_characters: int = threshold(0, ge=0)
    """Fewest characters."""
    max_characters: int = threshold(10_000_000, ge=1)
    """Most characters."""

    def measure(self, document: Document) -> Measured:
        """Count words and characters."""
        return Measured(values={"words": len(document.text.split()), "characters": len(document.text)})

    def decide(self, measured: Measured) -> Drop | None:
        """Return the first bound that is crossed."""
        words, characters = measured.values["words"], measured.values["characters"]
        bounds = (
            ("min_words", words, self.min_words, words < self.min_words),
            ("max_words", words, self.max_words, words > self.max_words),
            ("min_characters", characters, self.min_characters, characters < self.min_characters),
            ("max_characters", characters, self.max_characters, characters > self.max_characters),
        )
        for name, score, bound, crossed in bounds:
            if crossed:
                return Drop(rule=name, score=float(score), threshold=float(bound))
        return None
