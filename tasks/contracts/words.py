"""Words, by one rule for every language: what n-grams are made of, and what fertility is counted in.

A word is a run of letters, marks and digits, in Unicode's compatibility form (NFKC) and lower case. Apostrophes
are dropped, other punctuation divides words. Scripts written without spaces (Chinese, Japanese, Thai, Lao, Khmer,
Burmese) give one word a character, since no white space says where their words end.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

NO_SPACE_SCRIPTS = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f"  # Burmese
    "\u1780-\u17ff"  # Khmer
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f"  # Japanese kana, iteration marks
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Chinese characters
)

_CHUNK = re.compile(f"[{NO_SPACE_SCRIPTS}]|[^\\s{NO_SPACE_SCRIPTS}]+")
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
    return _CHUNK.findall(text)


@lru_cache(maxsize=1 << 16)
def normalise_chunk(chunk: str) -> tuple[str, ...]:
    """Return the words of one chunk: none for bare punctuation, several for "well-known"."""
    characters = [_character(c) for c in unicodedata.normalize("NFKC", chunk).lower()]
    return tuple("".join(characters).split())


@lru_cache(maxsize=1 << 16)
def _character(character: str) -> str:
    if character in _APOSTROPHES:
        return ""
    return character if unicodedata.category(character)[0] in "LMN" else " "
