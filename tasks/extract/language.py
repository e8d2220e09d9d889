"""Which language a text is in, by py3langid, whose model comes inside its package."""

from __future__ import annotations

from functools import cache
from typing import Any

# Enough to be sure, and it bounds the time that a very long text costs.
CLASSIFIED_CHARACTERS = 4_000


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def identify(text: str) -> tuple[str, float]:
    """Return a text's language (ISO 639-1) and its probability, 0 to 1, rounded to six digits.

    >>> identify("The quick brown fox jumps over the lazy dog, and then it goes home to sleep.")[0]
    'en'
    """
    language, probability = _identifier().classify(text[:CLASSIFIED_CHARACTERS])
    return str(language), round(float(probability), 6)
