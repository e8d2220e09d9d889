"""Keep documents in given languages, as identified by the extract stage."""

from __future__ import annotations

from pydantic import Field

from tasks.contracts.base import Drop, Rule
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
    min_score: float = Field(0.65, ge=0, le=1)
    """Smallest probability of that language."""

    def __call__(self, document: Document) -> Drop | None:
        if same_code(document.language) not in self.keep:
            return Drop(rule="other", score=document.language_score, detail=document.language or "unknown")
        score = document.language_score
        # A source that names its language without a score is believed; a score that is no number reaches no threshold.
        if score is not None and not score >= self.min_score:
            return Drop(rule="min_score", score=score, threshold=self.min_score, detail=document.language)
        return None
