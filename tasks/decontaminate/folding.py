"""What different spellings of one letter have in common, so that a disguised leak reads like the item.

A letter with marks becomes the letter without them, and one that looks like a Latin letter becomes that letter,
whatever its script: "ρаss" and "pass" are one word. It is done on items and pages alike, and character by character,
so words of a Greek or Russian text stay as different from each other as they are; only few of them meet.

Look-alikes are those of Unicode's security mechanisms (UTS #39, confusables.txt), as the package
confusable-homoglyphs brings them. Latin letters and digits of ASCII are never changed: "1" and "l" stay apart.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterator
from functools import cache, lru_cache

MARKS = range(0x0300, 0x0370)
"""Combining diacritical marks, of Latin, Greek and Cyrillic letters: dropped."""

# What may be left of markup: a character reference, its "&" itself escaped up to five times. Bounded, so that a page
# of ampersands costs no more than one of letters.
_ENTITY = re.compile(
    r"&(?:(?:amp|AMP|#38|#[xX]26);){0,5}(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});"
)
_ESCAPED_AMPERSAND = re.compile(r"^&(?:(?:amp|AMP|#38|#[xX]26);)+(?=.)")
_LATIN_NAME = re.compile(
    r"(?:(?:CROSSED )?NEGATIVE (?:CIRCLED|SQUARED) )?LATIN (?:CAPITAL |SMALL )?LETTER (?:SMALL CAPITAL |DOTLESS )?"
    r"([A-Z])(?: WITH .*)?"
)
_LATIN = re.compile("[A-Za-z]")


def has_entities(text: str) -> bool:
    """Return whether character references may stand in a text."""
    return "&" in text and _ENTITY.search(text) is not None


def without_entities(text: str) -> str:
    """Return a text with its character references replaced, those that were escaped twice too.

    >>> without_entities("&#x41;&amp;lt;b&amp;amp;gt; AT&T; x&y")
    'A<b> AT&T; x&y'
    """
    return _ENTITY.sub(lambda match: character_of(match[0]), text) if "&" in text else text


def entity_places(text: str) -> Iterator[tuple[str, int, int]]:
    """Yield a text as pieces, a character reference or what stands between two: (characters, start, end)."""
    position = 0
    for match in _ENTITY.finditer(text):
        yield text[position : match.start()], position, match.start()
        yield character_of(match[0]), match.start(), match.end()
        position = match.end()
    yield text[position:], position, len(text)


@lru_cache(maxsize=4096)
def character_of(entity: str) -> str:
    """Return what a character reference stands for; itself where it names nothing."""
    return html.unescape(_ESCAPED_AMPERSAND.sub("&", entity))


def by_shape(text: str) -> str:
    """Return a text in which capitals that look like one Latin letter while their small form looks like another are
    Latin where their word has Latin letters; as long as before.

    >>> by_shape("BROWΝ ΝΕΡΟ")
    'BROWN ΝΕΡΟ'
    """
    pattern, table = _with_two_faced()
    return pattern.sub(lambda m: m[0].translate(table) if _LATIN.search(m[0]) else m[0], text)


def folded(character: str) -> str:
    """Return the small letter or digit that a character counts as; the character itself where it is like no other.

    >>> "".join(map(folded, "ＡéЅοꓐ٣"))
    'aesob3'
    """
    digit = unicodedata.decimal(character, None)
    if digit is not None:
        return str(digit)
    bare = "".join(c for c in unicodedata.normalize("NFKD", character) if ord(c) not in MARKS)
    base = bare if len(bare) == 1 else character
    lower = base.lower()
    return _like(lower if len(lower) == 1 else base)


@lru_cache(maxsize=1)
def _with_two_faced() -> tuple[re.Pattern[str], dict[int, str]]:
    """Return what matches a word that has such a capital, and the Latin letter of each."""
    capitals = "".join(two_faced())
    word = rf"(?<!\w)[^\W{capitals}]*+[{capitals}]\w*+"  # possessive: time is linear in the letters
    return re.compile(word), {ord(capital): letter for capital, letter in two_faced().items()}


@lru_cache(maxsize=1)
def two_faced() -> dict[str, str]:
    """Return capital → Latin letter where capital and small letter look like two different ones ("Ν" and "ν")."""
    found = {}
    for code in (*range(0x370, 0x530), *range(0x531, 0x557)):
        capital = chr(code)
        shape = _shape(capital)
        if capital.lower() != capital and shape and folded(capital) != shape:
            found[capital] = shape.upper()
    return found


@cache
def _like(lower: str) -> str:
    """Return the ASCII letter that a small letter, or else its capital, looks like."""
    if lower.isascii() or not (lower.isalpha() or _LATIN_NAME.fullmatch(unicodedata.name(lower, ""))):
        return lower
    upper = lower.upper()
    return _shape(lower) or (_shape(upper) if len(upper) == 1 else "") or lower


def _shape(character: str) -> str:
    """Return the small ASCII letter that a character looks like, "" where there is none."""
    named = _LATIN_NAME.fullmatch(unicodedata.name(character, ""))
    if named:
        return named[1].lower()
    alike = _look_alikes().get(character, [])
    letter = next((one.lower() for one in alike if len(one) == 1 and one.isascii() and one.isalpha()), "")
    # The list holds "l", "I", "1" and "|" to be alike: a capital is meant for the capital of them.
    return "i" if letter == "l" and character != character.lower() else letter


@lru_cache(maxsize=1)
def _look_alikes() -> dict[str, list[str]]:
    from confusable_homoglyphs.confusables import confusables_data

    # Some entries carry direction marks around the character.
    return {
        key.strip("\u200e"): [str(one["c"]).strip("\u200e") for one in alike] for key, alike in confusables_data.items()
    }
