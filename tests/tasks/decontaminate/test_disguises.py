"""A leak is found through each disguise of its letters, on the page's side and on the item's."""

from __future__ import annotations

import html
import random
import unicodedata
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.decontaminate.folding import folded
from tasks.decontaminate.hashed_words import locate, split, split_with_words
from tests.hostile.growth import MOST_GROWTH, growth

TEXT = (
    "Which café of the naïve baker Exposes a Simple price of 35 coins for Hot KIPPERS, BROWN pies & two MUGS of fine "
    "coffee?"
)
CYRILLIC = str.maketrans("aceiopsxyjhABCEHIKMOPTXSJ", "асеіорѕхуј\u04bbАВСЕНІКМОРТХЅЈ")
GREEK = str.maketrans("aiopuvxkABEZHIKMNOPTYX", "αιορυνχκΑΒΕΖΗΙΚΜΝΟΡΤΥΧ")


def mathematical(text: str, first: int) -> str:
    return "".join(
        chr(first + ord(c) - 65 + (-6 if c.islower() else 0)) if c.isascii() and c.isalpha() else c for c in text
    )


def full_width(text: str) -> str:
    return "".join(chr(ord(c) + 0xFEE0) if c.isascii() and c.isalnum() else c for c in text)


def sprinkled(text: str, characters: str) -> str:
    generator = random.Random(1)
    return "".join(c + (generator.choice(characters) if c.isalpha() else "") for c in text)


DISGUISES: dict[str, Callable[[str], str]] = {
    "decomposed": lambda text: unicodedata.normalize("NFD", text),
    "without accents": lambda text: text.replace("é", "e").replace("ï", "i"),
    "with accents": lambda text: text.replace("e", "ẽ").replace("a", "å").replace("o", "ø").replace("l", "ł"),
    "zalgo": lambda text: sprinkled(text, "\u0301\u0316\u0336\u0353"),
    "Cyrillic look-alikes": lambda text: text.translate(CYRILLIC),
    "Greek look-alikes": lambda text: text.translate(GREEK),
    "Armenian and Lisu look-alikes": lambda text: text.replace("o", "օ").replace("n", "ո").replace("B", "ꓐ"),
    "small capitals": lambda text: text.replace("a", "ᴀ").replace("r", "ʀ").replace("t", "ᴛ"),
    "mathematical bold": lambda text: mathematical(text, 0x1D400),
    "mathematical monospace": lambda text: mathematical(text, 0x1D670),
    "circled": lambda text: "".join(chr(0x24D0 + ord(c) - 97) if "a" <= c <= "z" else c for c in text),
    "full width": full_width,
    "ligatures": lambda text: text.replace("ffee", "ﬀee").replace("fi", "ﬁ"),
    "zero width": lambda text: sprinkled(text, "\u200b\u200c\u200d\u2060\ufeff"),
    "soft hyphens": lambda text: sprinkled(text, "\u00ad"),
    "direction marks": lambda text: sprinkled(text, "\u200e\u200f\u202a\u202c\u2066\u2069\u061c"),
    "tags, selectors and fillers": lambda text: sprinkled(text, "\U000e0041\U000e0100\ufe0f\u034f\u115f\u3164"),
    "digits of other scripts": lambda text: text.replace("35", "٣٥"),
    "decimal references": lambda text: "".join(f"&#{ord(c)};" for c in text),
    "hexadecimal references": lambda text: "".join(f"&#x{ord(c):X};" if c.isalpha() else c for c in text),
    "named references": lambda text: html.escape(text).replace("é", "&eacute;").replace(" ", "&nbsp;"),
    "references escaped twice": lambda text: html.escape(html.escape(text).replace("é", "&eacute;")),
    "references escaped three times": lambda text: html.escape(html.escape("".join(f"&#{ord(c)};" for c in text))),
    "several at once": lambda text: sprinkled(full_width(text.translate(CYRILLIC)), "\u200b\u0301"),
}


@pytest.mark.parametrize("name", DISGUISES)
def test_a_disguised_text_has_the_words_of_the_plain_one(name: str) -> None:
    plain, disguised = split(TEXT).hashes.tolist(), DISGUISES[name](TEXT)
    assert disguised != TEXT
    assert split(disguised).hashes.tolist() == plain
    located = locate(disguised)
    assert located.units.hashes.tolist() == plain
    assert located.words == split_with_words(TEXT)[1]


def test_places_of_words_hold_their_character_references() -> None:
    text = "a &#x42;&amp;eacute; &lt;c&gt; e\u0301nd"
    located = locate(text)
    assert [text[a:b] for a, b in zip(located.starts, located.ends, strict=True)] == [
        "a", "&#x42;&amp;eacute;", "c", "e\u0301nd",
    ]  # fmt: skip
    assert located.words == ("a", "be", "c", "end")


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="ab&;#x41amplt gé\u200b\u0301аΝ", max_size=40))
def test_all_ways_to_split_a_text_with_references_agree(text: str) -> None:
    units, located = split(text), locate(text)
    assert units.hashes.tolist() == located.units.hashes.tolist()
    assert split_with_words(text)[1] == located.words
    assert all(0 <= a < b <= len(text) for a, b in zip(located.starts, located.ends, strict=True))
    assert (np.diff(located.starts) >= 0).all()


def test_ascii_is_never_changed_but_to_small_letters_and_numbers_never_to_letters() -> None:
    assert "".join(folded(chr(code)) for code in range(128)) == "".join(chr(code).lower() for code in range(128))
    for code in range(0x20000):
        if chr(code).isdecimal():
            assert folded(chr(code)) == str(unicodedata.decimal(chr(code)))


@pytest.mark.parametrize("text", ["ΝΕΡΟ ΥΔΩΡ", "Вода ЮГ ПОЕЗД", "ÉCOLE Ça", "ÅNGSTRÖM"])
def test_a_text_of_another_script_is_the_same_in_capitals(text: str) -> None:
    assert split(text).hashes.tolist() == split(text.lower()).hashes.tolist()


def test_different_words_of_another_script_stay_different() -> None:
    words = ["вода", "завод", "народ", "город", "погода", "работа", "дорога", "сторона", "голова", "молоко"]
    assert len(set(split(" ".join(words)).hashes.tolist())) == len(words)


@pytest.mark.parametrize("unit", ["&", "&amp;", "&#", "Ν"])
def test_time_is_linear_in_what_looks_like_references(unit: str) -> None:
    assert growth(locate, lambda n: unit * n, 10_000) <= MOST_GROWTH
