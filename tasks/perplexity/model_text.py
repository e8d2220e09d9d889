"""What the language model sees: lines of normalised words, after CCNet (Wenzek et al. 2020, arXiv 1911.00359).

CCNet lower-cases, removes accents, turns digits into 0 and maps punctuation to ASCII, then splits by SentencePiece;
here the units are words and single punctuation marks, so that no tokenizer has to be trained or fetched first.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata

from tasks.contracts.scripts import NO_SPACE_SCRIPTS

_UNIT = re.compile(rf"[{NO_SPACE_SCRIPTS}]|[^\W_{NO_SPACE_SCRIPTS}]+|[^\w\s]|_+")

# Quotes, dashes and stops that NFKD leaves as they are.
_PUNCTUATION = str.maketrans(
    {
        **dict.fromkeys("\u201c\u201d\u201e\u00ab\u00bb\u300c\u300d\u300e\u300f\u301d\u301e", '"'),
        **dict.fromkeys("\u2018\u2019\u201a\u2039\u203a\u00b4`", "'"),
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212", "-"),
        **dict.fromkeys("\u3001\u060c", ","),
        **dict.fromkeys("\u3002\u0964", "."),
        **dict.fromkeys("\u061f", "?"),
        **dict.fromkeys("\u061b", ";"),
        **dict.fromkeys("\u2022\u25cf\u25aa\u00b7", "-"),
    }
)
_ASCII = str.maketrans("123456789`", "000000000'")


def normalise(line: str) -> str:
    """Return one line as units separated by spaces: lower case, no accents, digits as 0, ASCII punctuation.

    >>> normalise("Café № 12: “It’s 3.5”")
    'cafe no 00 : " it \\' s 0 . 0 "'
    """
    if line.isascii():  # the same result, ten times faster
        return " ".join(_UNIT.findall(line.translate(_ASCII).lower()))
    decomposed = unicodedata.normalize("NFKD", line.translate(_PUNCTUATION)).lower()
    plain = "".join("0" if c.isdigit() else c for c in decomposed if unicodedata.category(c) != "Mn")
    return " ".join(_UNIT.findall(plain))


def lines_of(text: str) -> list[str]:
    """Return a document's normalised lines without empty ones; each is one sentence to the model."""
    return [line for line in map(normalise, text.splitlines()) if line]


def fold_of(lines: list[str]) -> int:
    """Return which of the two halves of the reference a document is in, 0 or 1, by its content alone."""
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogatepass")).digest()[0] & 1
