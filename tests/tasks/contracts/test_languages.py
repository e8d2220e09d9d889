"""However a language is named, it has one code."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from tasks.contracts.languages import LanguageCode, language_code

NAMED = {
    "en": ["en", "EN", "eng", "ENG", "en-US", "en_US", "en-us-x-twain", "English", "english", "ENGLISH", "eng_Latn",
           "en-Latn-GB", "en_GB.UTF-8", "en_US@euro", "__label__en", "__label__eng_Latn", " en ", "American English",
           "English (US)", "English, British", "en;q=0.8", "en, de", "en-GB-oed", "eng-GB"],
    "de": ["de", "ger", "deu", "German", "de-CH-1996", "deu_Latn", "Swiss High German", "DE"],
    "fr": ["fr", "fre", "fra", "French", "fr-CA", "Canadian French"],
    "zh": ["zh", "chi", "zho", "cmn", "Chinese", "zh-Hans", "zh_TW", "zh-Hant-HK", "cmn_Hani", "cmn_Hans",
    "zh-cmn-Hans-CN",
           "Mandarin", "Simplified Chinese", "Chinese (Traditional)", "zh-guoyu"],
    "yue": ["yue", "yue_Hant", "zh-yue", "zh-yue-HK", "Cantonese"],
    "he": ["he", "heb", "iw", "iw-IL", "Hebrew", "heb_Hebr"], "id": ["id", "ind", "in", "Indonesian"],
    "yi": ["yi", "yid", "ji", "ydd_Hebr", "Yiddish"], "ro": ["ro", "rum", "ron", "mo", "Romanian", "Moldavian"],
    "no": ["no", "nor", "nb", "nob", "nob_Latn", "Norwegian", "Norwegian Bokmål", "no-bok"],
    "nn": ["nn", "nno", "Norwegian Nynorsk"], "tl": ["tl", "tgl", "fil", "Filipino", "fil_Latn"],
    "el": ["el", "gre", "ell", "Greek", "ell_Grek"], "nl": ["nl", "dut", "nld", "Dutch", "Flemish", "nl-BE"],
    "fa": ["fa", "per", "fas", "pes_Arab", "Persian", "Farsi"],
    "ar": ["ar", "ara", "arb", "arb_Arab", "ar-arb", "Arabic"],
    "sw": ["sw", "swa", "swh", "Swahili"], "sq": ["sq", "alb", "sqi", "als", "Albanian"],
    "ms": ["ms", "may", "msa", "zsm", "Malay"],
    "sr": ["sr", "srp", "sr-Latn", "srp_Cyrl", "sh", "hbs", "Serbian"],
    "pt": ["pt", "por", "pt-BR", "Portuguese (Brazil)"],
    "es": ["es", "spa", "es-419", "Spanish", "Spanish; Castilian", "Castilian"],
    "ja": ["ja", "jpn", "ja-JP", "Japanese"],
    "cs": ["cs", "cze", "ces", "Czech"], "cy": ["cy", "wel", "cym"], "eu": ["eu", "baq", "eus"],
    "lv": ["lv", "lav", "lvs"],
    "ltg": ["ltg"], "haw": ["haw", "Hawaiian"], "tlh": ["tlh", "Klingon", "i-klingon"],
    "nan": ["nan", "zh-min-nan", "zh-nan"],
    "zxx": ["zxx"], "und": ["und"],
}  # fmt: skip
NO_LANGUAGE = ["", " ", "xx", "x-default", "qqq-x", "unknown", "unk", "None", "null", "lang1", "a", "C", "POSIX", "5",
               "en1", "englisch und deutsch", "x" * 10_000, "-", "__label__", "e n"]  # fmt: skip
TWO_LETTERS = [
    "aa", "ab", "af", "ak", "am", "an", "ar", "as", "av", "ay", "az", "ba", "be", "bg", "bi", "bm", "bn", "bo", "br",
    "bs", "ca", "ce", "ch", "co", "cr", "cs", "cu", "cv", "cy", "da", "de", "dv", "dz", "ee", "el", "en", "eo", "es",
    "et", "eu", "fa", "ff", "fi", "fj", "fo", "fr", "fy", "ga", "gd", "gl", "gn", "gu", "gv", "ha", "he", "hi", "ho",
    "hr", "ht", "hu", "hy", "hz", "ia", "id", "ie", "ig", "ii", "ik", "io", "is", "it", "iu", "ja", "jv", "ka", "kg",
    "ki", "kj", "kk", "kl", "km", "kn", "ko", "kr", "ks", "ku", "kv", "kw", "ky", "la", "lb", "lg", "li", "ln", "lo",
    "lt", "lu", "lv", "mg", "mh", "mi", "mk", "ml", "mn", "mr", "ms", "mt", "my", "na", "nd", "ne", "ng", "nl", "nn",
    "no", "nr", "nv", "ny", "oc", "oj", "om", "or", "os", "pa", "pi", "pl", "ps", "pt", "qu", "rm", "rn", "ro", "ru",
    "rw", "sa", "sc", "sd", "se", "sg", "si", "sk", "sl", "sm", "sn", "so", "sq", "sr", "ss", "st", "su", "sv", "sw",
    "ta", "te", "tg", "th", "ti", "tk", "tl", "tn", "to", "tr", "ts", "tt", "ty", "ug", "uk", "ur", "uz", "ve", "vi",
    "vo", "wa", "wo", "xh", "yi", "yo", "za", "zh", "zu",
]  # fmt: skip


@pytest.mark.parametrize("code", NAMED)
def test_a_language_has_one_code(code: str) -> None:
    assert {name: language_code(name) for name in NAMED[code]} == dict.fromkeys(NAMED[code], code)


@pytest.mark.parametrize("named", NO_LANGUAGE)
def test_what_names_no_language_has_none(named: str) -> None:
    assert language_code(named) is None
    with pytest.raises(ValidationError, match="no language is called"):
        TypeAdapter(LanguageCode).validate_python(named)


def test_codes_of_iso_639_1_stand_for_themselves() -> None:
    assert [code for code in TWO_LETTERS if language_code(code) != code] == []


def test_what_the_model_finds_is_named_so_too() -> None:
    from tasks.extract.language_id import _model

    odd = {str(name) for name in _model().identifier.nb_classes if language_code(str(name)) is None}
    assert odd == set()
