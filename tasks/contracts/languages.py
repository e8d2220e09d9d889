"""One code for each language, however it is named: `eng`, `en-US`, `eng_Latn`, `English` and `__label__en` are `en`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Annotated

from pydantic import AfterValidator

# Codes for what is no language: ISO 639-2, section 4.1, and no linguistic content.
UNDETERMINED = "und"
SPECIAL = frozenset({UNDETERMINED, "mul", "mis", "zxx"})
UNSTATED = SPECIAL - {"zxx"}
MOST_CHARACTERS = 100
# What CLDR calls otherwise than ISO 639-1 does, or than those who annotate web pages do: the macrolanguages Norwegian
# and Tagalog stand for the one written language that nearly all of their pages are in.
_OWN = {"nb": "no", "nob": "no", "nor": "no", "fil": "tl", "tgl": "tl"}
_NAMES = {
    "castilian": "es", "farsi": "fa", "flemish": "nl", "mandarin": "zh", "mandarin chinese": "zh", "modern greek": "el",
    "moldovan": "ro", "moldavian": "ro", "serbo-croatian": "sr", "burmese": "my", "myanmar": "my", "kirghiz": "ky",
    "pushto": "ps", "panjabi": "pa", "uighur": "ug", "valencian": "ca", "bokmål": "no", "norwegian bokmal": "no",
    "gaelic": "gd", "haitian": "ht", "oriya": "or", "sinhalese": "si", "kurmanji": "ku", "bangla": "bn",
    "bengali": "bn",
    "chichewa": "ny",
    # Tags that were registered before there were rules for them (RFC 5646, section 2.2.8).
    "i-klingon": "tlh", "i-lux": "lb", "i-navajo": "nv", "i-hak": "hak", "art-lojban": "jbo", "no-bok": "no",
    "no-nyn": "nn",
    "zh-guoyu": "zh", "zh-hakka": "hak", "zh-min-nan": "nan", "zh-xiang": "hsn",
}  # fmt: skip
_NOTHING = frozenset({"unk", "unknown", "none", "null", "n/a"})  # what data sets write where they do not know
_LABEL = "__label__"  # of fastText's models
_END = re.compile(r"[.@;,(/|]")  # de_DE.UTF-8, de_DE@euro, en;q=0.5, "Chinese (Simplified)"
# An extended subtag is the language meant: zh-yue is Cantonese (RFC 5646, section 2.2.2).
_TAG = re.compile(r"([a-z]{2,3})(?:(?<=zh|ar|ms|sw|lv|uz)-([a-z]{3}))?(?:-[a-z0-9]{1,8})*")


@lru_cache(maxsize=4096)
def language_code(named: str) -> str | None:
    """Return a language's code of ISO 639-1, of ISO 639-3 where it has none there, None where no language is named.

    Read are tags of BCP 47, in any case and with hyphens or underscores, codes of ISO 639-1, 639-2 and 639-3, also
    withdrawn ones, of a macrolanguage's main language and of labels that hold one, and names in English (CLDR's).

    >>> [language_code(one) for one in ("eng", "en-US", "eng_Latn", "English", "ger", "cmn_Hans", "iw", "zh-cmn", "xx")]
    ['en', 'en', 'en', 'en', 'de', 'zh', 'he', 'zh', None]
    """
    name = named.strip().lower()
    if not name or len(name) > MOST_CHARACTERS:
        return None
    name = _END.split(name.removeprefix(_LABEL), maxsplit=1)[0].strip()
    tagged = name.replace("_", "-")
    if tagged in _NAMES or tagged in _NOTHING:
        return _NAMES.get(tagged)
    tag = _TAG.fullmatch(tagged)
    for code in (tag[2], tag[1]) if tag else ():
        if code and (known := _known(code)) is not None:
            return known
    return _by_name().get(" ".join(name.replace("_", " ").split()))


def same_code(named: str | None) -> str | None:
    """Return the code of a language that a document states, what it states where that names none."""
    return named and (language_code(named) or named)


def _known(code: str) -> str | None:
    """Return the code that stands for a code."""
    from babel.core import get_global

    if code in _OWN or code in SPECIAL:
        return _OWN.get(code, code)
    alias = get_global("language_aliases").get(code, code).partition("_")[0]
    return _OWN.get(alias, alias) if alias in _codes() else None


@cache
def _codes() -> frozenset[str]:
    """Return the codes of the languages that CLDR knows."""
    from babel.core import Locale, get_global

    tags = {*get_global("likely_subtags"), *Locale("en").languages, *get_global("language_aliases").values()}
    return frozenset(tag.partition("_")[0] for tag in tags) - {UNDETERMINED}


@cache
def _by_name() -> Mapping[str, str]:
    """Return language codes by English names in lower case."""
    from babel.core import Locale

    names = {
        name.lower(): code for tag, name in Locale("en").languages.items() if (code := _known(tag.partition("_")[0]))
    }
    return {**names, **_NAMES}


def checked(named: str) -> str:
    """Return the code of a language.

    Raises:
        ValueError: none is called so.
    """
    code = language_code(named)
    if code is None:
        raise ValueError(
            f"no language is called {named[:40]!r}: give a code (en, eng), a tag (en-US) or an English name"
        )
    return code


LanguageCode = Annotated[str, AfterValidator(checked)]
"""A setting that names a language in any form; its value is the code."""
