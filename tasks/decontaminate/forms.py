"""What a short text and a place of a page must have in common: the same words, and the same operators between them.

"12 + 7" has two words that stand side by side on many pages ("12, 7"), so an operator beside a number or a single
letter counts too, and an expression that goes on ("5 * 12 + 7") is another one. "=", brackets, spaces and ordinary
punctuation do not count: "12+7 = 19" is the question "12 + 7 = ?" and its answer "19".

Two numbers alone are a doubtful sum where "9-4", "9/4" or "9×4" may be a range, a date or a size.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence

from tasks.decontaminate.folding import without_entities
from tasks.decontaminate.hashed_words import Located

FEWEST_WORDS = {"asked": 4.5, "both": 3}
"""Fewest words of a question alone (seven Chinese characters), and of one with its answer; below, they are everyday
phrases. Measured with fourteen public benchmarks on 3,200 clean pages: 12 false positives from four words, 1 here."""
FEWEST_TOKENS = 3
"""Fewest numbers, words and operators of a text with an operator between two of them, such as "2 + 2"."""
FEWEST_NUMBERS = 6
"""Fewest numbers and letters of a text that has nothing else; lists and tables are full of shorter runs."""

_SYMBOLS = {
    "*": "×∗·⋅∙‧⁎✕✖⨉⨯",
    "/": "÷∕⁄➗",
    "-": "‐‑‒–—−﹣－➖",
    "+": "＋﹢➕",
    ":": "∶",
    "<": "≤",
    ">": "≥",
}
_WRITTEN = str.maketrans({symbol: operator for operator, symbols in _SYMBOLS.items() for symbol in symbols})
_OPERATORS = frozenset("+-*/^%<>")
_INSIDE_NUMBERS = frozenset(".,:")
# Emphasis around an answer or a question ("12 + 30 = **42**"), the line above a sum, the next number of a list.
_NO_OPERATORS = re.compile(r"(?<=[=|])\s*\*+|(?<!\*)\*++(?=\s+[=|])|-{3,}|(?<=[,;])\s*[-+]")
_WORD_OPERATOR = (
    r"(?:x(?=[ \t]*\d)|\\?(?:times|cdot|div)\b|plus\b|minus\b|over\b|mod\b|(?:divided|multiplied)[ \t]+by\b)"
)
_OPERATOR = rf"[ \t]*(?:[-+*/^%]|{_WORD_OPERATOR})[ \t]*"
_GOES_ON = re.compile(rf"[.,]\d|{_OPERATOR}(?:[\d(]|[A-Za-z]\b)", re.IGNORECASE)
_WENT_BEFORE = re.compile(rf"(?:\d[.,]|(?:[\d)]|\b[A-Za-z]){_OPERATOR})\Z", re.IGNORECASE)
_NEAR = 20  # characters of an expression's neighbourhood
_NUMBER = r"(?:\d+(?: [.,] \d+)*|[a-z])"
_GLUED = re.compile(r"(?<=\d)x(?=\d)")
_SIGNED = re.compile(r"(?:^| )\w+ [-+*/^%<>]+ \w")
_WORDED = re.compile(rf"(?:^|(?<![.,]) ){_NUMBER} {_WORD_OPERATOR} {_NUMBER}\b|\b\d+x\d")
_NUMBERS_ALONE = re.compile(rf"{_NUMBER}(?: {_NUMBER})*")
_TWO_NUMBERS = re.compile(rf"{_NUMBER} [-/*x+] {_NUMBER}")
_SURELY = re.compile(r"[*∗·⋅∙⁎÷➗−➖\\]")
_PLUS = re.compile(r"\w\+|\+\W")  # but not "10 +3"
_ASKS = re.compile(r"[ \t*)]*(?:=|\n[-_─=]{2})")


def written(text: str) -> str:
    """Return a text with its operators as ASCII has them, without what shows nothing.

    >>> written("7 &times; 8 − ３")
    '7 * 8 - 3'
    """
    text = without_entities(text)
    if text.isascii():
        return text
    text = "".join(character for character in text if unicodedata.category(character) != "Cf")
    return unicodedata.normalize("NFKC", text.translate(_WRITTEN)).translate(_WRITTEN)


def fits(role: str, words: Sequence[str], weight: float, form: str) -> bool:
    """Return whether a text that is too short for n-grams is long enough to be found whole.

    Args:
        role: of the text in its item, as ItemText has it.
        weight: how many words it weighs; a character of a script without spaces is less than one.
    """
    if role == "part" or len(words) < 2:
        return False
    if is_sum(form):
        return len(_GLUED.sub(" x ", form).split(" ")) >= FEWEST_TOKENS
    if _NUMBERS_ALONE.fullmatch(form):
        return len(words) >= FEWEST_NUMBERS
    return weight >= FEWEST_WORDS[role]


def is_sum(form: str) -> bool:
    """Return whether a form has an operator, as a sign or a word, between two numbers, letters or a number and a word.

    >>> [is_sum(form) for form in ("12 + 7", "12 times 7", "12x7 84", "15 % of 200", "a to b", "12 7")]
    [True, True, True, True, False, False]
    """
    return _SIGNED.search(form) is not None or _WORDED.search(form) is not None


def form_of(text: str, words: Located, first: int, end: int) -> str:
    """Return words `first` up to `end` with the operators that count between them.

    >>> from tasks.decontaminate.hashed_words import locate
    >>> text = "So 12 × 7 = 84, well-known and/or 3.5"
    >>> form_of(text, locate(text), 0, 10)
    'so 12 * 7 84 well known and or 3 . 5'
    """
    tokens = [words.words[first]]
    for i in range(first + 1, end):
        before, after = int(words.ends[i - 1]), int(words.starts[i])
        gap = written(text[before:after]) if before <= after else "/"  # the two numbers of "½"
        tokens += _counting(gap, words.words[i - 1], words.words[i])
        tokens.append(words.words[i])
    return " ".join(tokens)


def _counting(gap: str, before: str, after: str) -> list[str]:
    """Return the operators of a gap that count, as one token."""
    if before[-1:].isdigit() and after[:1].isdigit():
        if gap in _INSIDE_NUMBERS:
            return [gap]
        if gap.strip(" ") == ":":
            return ["/"]
    if not any(word[:1].isdigit() or len(word) == 1 for word in (before, after)):
        return []
    found = "".join(character for character in _NO_OPERATORS.sub("", gap) if character in _OPERATORS)
    return [found] if found else []


def stands_alone(text: str, words: Located, first: int, end: int) -> bool:
    """Return whether no expression goes on where these words end in a number or begin with one.

    >>> from tasks.decontaminate.hashed_words import locate
    >>> text = "5 * 12 + 7 = 67"
    >>> stands_alone(text, locate(text), 1, 3), stands_alone(text, locate(text), 0, 3)
    (False, True)
    """
    start, stop = int(words.starts[first]), int(words.ends[end - 1])
    if (first and words.ends[first - 1] > start) or (end < len(words.words) and words.starts[end] < stop):
        return False  # half of a "½"
    if words.words[end - 1].isdigit() and _GOES_ON.match(written(text[stop : stop + _NEAR])):
        return False
    return not (words.words[first].isdigit() and _WENT_BEFORE.search(written(text[max(0, start - _NEAR) : start])))


def is_doubtful(text: str, words: Located, first: int, end: int, form: str) -> bool:
    """Return whether words of this form may be no sum but a range, a date or a size: two numbers that no "=" follows.

    >>> from tasks.decontaminate.hashed_words import locate
    >>> for text in ("pages 9-4", "9-4 = 5", "9 − 4", "9 + 4"):
    ...     words = locate(text)
    ...     first = len(words.words) - (3 if "=" in text else 2)
    ...     print(is_doubtful(text, words, first, first + 2, form_of(text, words, first, first + 2)))
    True
    False
    False
    False
    """
    if not _TWO_NUMBERS.fullmatch(form):
        return False
    start, stop = int(words.starts[first]), int(words.ends[end - 1])
    between, after = text[start:stop], written(text[stop : stop + _NEAR])
    surely = _SURELY.search(without_entities(between)) or _PLUS.search(written(between))
    return (not surely or "\n" in between) and not _ASKS.match(after)


def form_hash(form: str) -> int:
    """Return the 64 bits by which a form is known, and counted among the n-grams that documents have in common."""
    return int.from_bytes(hashlib.sha256(f"whole {form}".encode()).digest()[:8], "little")
