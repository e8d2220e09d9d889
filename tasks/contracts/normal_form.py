"""When two texts are one text: the normal form that dedup, takedowns and the choice of held-out documents share.

Were there two forms, one text could be one document for dedup and two for the split, and be held out and trained on.
"""

from __future__ import annotations

import unicodedata
from typing import Final

# Lower case, and a space for all that `str.split` takes for white space.
_ASCII_FOLD: Final = bytes(0x20 if chr(c).isspace() else ord(chr(c).lower()) for c in range(128)) + bytes(128)


def normal_form(text: str) -> str:
    """Return the form in which two equal texts are equal: Unicode NFKC, case folded, white space collapsed.

    >>> normal_form("  Die\\u00a0 STRASSE\\n") == normal_form("die Straße")
    True
    """
    return " ".join(folded(text).split())


def folded(text: str) -> str:
    """Return a text without differences of case and of Unicode form; its white space stays."""
    return unicodedata.normalize("NFKC", text).casefold()


def normal_bytes(text: str) -> bytes:
    """Return `normal_form(text)` in UTF-8, faster for ASCII."""
    if text.isascii():
        ascii_folded = text.encode().translate(_ASCII_FOLD)
        return b" ".join(ascii_folded.split()) if b"  " in ascii_folded else ascii_folded.strip()
    return normal_form(text).encode("utf-8", "surrogatepass")
