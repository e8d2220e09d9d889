"""Words, by one rule for every language: what n-grams are made of, and what fertility is counted in.

A word is a run of letters, marks and digits, folded as `normal_form` folds a text. Apostrophes are dropped, other
punctuation divides words. Scripts written without spaces give one word a character.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from tasks.contracts.normal_form import folded
from tasks.contracts.scripts import NO_SPACE_SCRIPTS

CHUNK = re.compile(f"[{NO_SPACE_SCRIPTS}]|[^\\s{NO_SPACE_SCRIPTS}]+")
"""What stands between white space, or one character of a script without spaces."""
_APOSTROPHES = frozenset("'\u2018\u2019\u02bc`\u00b4")


def words(text: str) -> list[str]:
    """Return the words of `text`.

    >>> words("Don't panic: ３ well-known STEPS.")
    ['dont', 'panic', '3', 'well', 'known', 'steps']
    >>> words("東京は cat")
    ['東', '京', 'は', 'cat']
    """
    return [word for chunk in chunks(text) for word in normalise_chunk(chunk)]


def chunks(text: str) -> list[str]:
    """Return what stands between white space, and each character of a script without spaces by itself."""
    return CHUNK.findall(text)


@lru_cache(maxsize=1 << 16)
def normalise_chunk(chunk: str) -> tuple[str, ...]:
    """Return the words of one chunk: none for bare punctuation, several for "well-known"."""
    characters = [_character(c) for c in folded(chunk)]
    return tuple("".join(characters).split())


@lru_cache(maxsize=1 << 16)
def _character(character: str) -> str:
    if character in _APOSTROPHES:
        return ""
    return character if unicodedata.category(character)[0] in "LMN" else " "
