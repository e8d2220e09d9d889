"""Keep documents in given languages, as identified by the extract stage."""

from __future__ import annotations

from tasks.contracts.base import Drop, Edit, Measured, Rule, threshold
from tasks.contracts.document import Document
from tasks.contracts.languages import LanguageCode, same_code


class Language(Rule):
    """Languages to keep, and how sure the identification must be.

    The threshold is that of FineWeb (Penedo et al. 2024, arXiv:2406.17557): 0.65.

    >>> Language()(document(language="en", language_score=0.99))
    >>> Language(keep=["English"])(document(language="eng_Latn"))
    >>> Language()(document(language="de", language_score=0.99)).rule
    'other'
    """

    keep: tuple[LanguageCode, ...] = ("en",)
    """Languages to keep, as codes (en, eng), tags (en-US, eng_Latn) or English names."""
    min_score: float = threshold(0.65, ge=0, le=1)
    """Smallest probability of that language."""

    def measure(self, document: Document) -> Measured:
        """Return the language's probability; a source that names its language without one is believed."""
        score = document.language_score
        if same_code(document.language) not in self.keep:
            return Measured(otherwise=Drop(rule="other", score=score, detail=document.language or "unknown"))
        return Measured(values={} if score is None else {"score": score}, detail=document.language)

    def decide(self, measured: Measured) -> Drop | Edit | None:
        """Return whether the probability is too low; one that is no number reaches no threshold."""
        score = measured.values.get("score")
        if score is not None and not score >= self.min_score:
            return Drop(rule="min_score", score=score, threshold=self.min_score, detail=measured.detail)
        return measured.otherwise
