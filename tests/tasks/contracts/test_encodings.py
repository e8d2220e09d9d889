"""Every table and every kind of error of the WHATWG Encoding Standard."""

from __future__ import annotations

import hashlib

import pytest
from webencodings.labels import LABELS

from tasks.contracts.encodings import decode_as, encoding_of

# The first 16 hex digits of the SHA-256 of what the standard's own steps and indexes (commit a985b62a, 21 May 2026)
# make of `every_pair`, as UTF-8. None of the tables was taken from here; they agree.
DIGESTS = {
    "big5": "eb37b683bc3b8d41", "euc-jp": "729da9b1379c2dbd", "euc-kr": "42e8e5e2b5646caf",
    "gb18030": "0dfd53ac1e467329", "gbk": "0dfd53ac1e467329", "ibm866": "aa5a1af090aa709c",
    "iso-2022-jp": "547ac4496978743a", "iso-8859-10": "ebaa6f1d02c233e1", "iso-8859-13": "341bcccf750354c3",
    "iso-8859-14": "00825afcf804f297", "iso-8859-15": "48703cb908372a0b", "iso-8859-16": "3e886618472b47db",
    "iso-8859-2": "3a288371854ffa48", "iso-8859-3": "e0d7057f080da816", "iso-8859-4": "fd353a610a346bb5",
    "iso-8859-5": "0294ddadc1277443", "iso-8859-6": "1c0de1ca245520bf", "iso-8859-7": "7404fe8479c987b4",
    "iso-8859-8": "66ab21d71a54d94a", "iso-8859-8-i": "66ab21d71a54d94a", "koi8-r": "3d3bd3d9257913dc",
    "koi8-u": "5e64d388e657021a", "macintosh": "97bc02643dbb06a1", "shift_jis": "06eef6314f687274",
    "utf-8": "1134090a6b3a3c62", "windows-1250": "0e8be96a65bf45e8", "windows-1251": "6a09f88ba65b9d8d",
    "windows-1252": "3359ea2b2045f0a0", "windows-1253": "90dad5ce34cb549e", "windows-1254": "f3e1215165c1d1b7",
    "windows-1255": "278fce9a71e9edc5", "windows-1256": "0d68c8fc2552f0fd", "windows-1257": "4b46f9926412fa26",
    "windows-1258": "2cc72ec8c94eb98a", "windows-874": "b0cdb1449d3eabae", "x-mac-cyrillic": "b9cf9fa9538f5936",
    "x-user-defined": "1ba16109c5fb2898",
}  # fmt: skip


def every_pair(encoding: str) -> bytes:
    """All pairs of bytes, each on a line of its own."""
    pairs = (bytes((first, second)) for first in range(256) for second in range(256))
    if encoding == "iso-2022-jp":
        return b"".join(b"\x1b$B" + pair + b"\x1b(B\n" for pair in pairs if 0x1B not in pair)
    return b"".join(pair + b"\n" for pair in pairs)


def test_each_encoding_is_here() -> None:
    assert {*DIGESTS} == {*LABELS.values()} - {"utf-16le", "utf-16be", "replacement"}


@pytest.mark.parametrize("encoding", DIGESTS)
def test_each_table_is_the_standards(encoding: str) -> None:
    text = decode_as(encoding, every_pair(encoding))
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == DIGESTS[encoding]


@pytest.mark.parametrize(("label", "encoding"), [
    ("latin1", "windows-1252"), ("ASCII", "windows-1252"), ("iso-8859-1", "windows-1252"), ("\tL5\n", "windows-1254"),
    ("shift_jis", "shift_jis"), ("x-sjis", "shift_jis"), ("Windows-31J", "shift_jis"), ("ms932", "shift_jis"),
    ("ks_c_5601-1987", "euc-kr"), ("korean", "euc-kr"), ("gb2312", "gbk"), ("GB_2312-80", "gbk"), ("chinese", "gbk"),
    ("big5-hkscs", "big5"), ("x-x-big5", "big5"), ("logical", "iso-8859-8-i"), ("visual", "iso-8859-8"),
    ("tis-620", "windows-874"), ("x-mac-ukrainian", "x-mac-cyrillic"), ("x-user-defined", "x-user-defined"),
    ("unicode", "utf-16le"), ("ucs-2", "utf-16le"), ("utf8", "utf-8"), ("hz-gb-2312", "replacement"),
    ("iso-2022-kr", "replacement"), ("utf-7", None), ("utf-32", None), ("cp949", None), ("shift_jis_2004", None),
    ("", None), ("x" * 100_000, None), ("latin\u017f", None), ("\xa0utf-8", None),
])  # fmt: skip
def test_labels(label: str, encoding: str | None) -> None:
    assert encoding_of(label) == encoding


@pytest.mark.parametrize(("encoding", "body", "text"), [
    # What only browsers' tables hold.
    ("shift_jis", b"\x87\x40\x87\x8a\xed\x40\xfb\xfc\x81\x60\xf0\x40\x80\xb1", "①㈱纊髙～\ue000\x80ｱ"),
    ("euc-jp", b"\xad\xa1\xad\xea\xf9\xa1\xa1\xc1\xa1\xdd\x8e\xb1\x8f\xb0\xa1\x8f\xa2\xb7", "①㈱纊～－ｱ丂～"),
    ("iso-2022-jp", b"a\x1b$B-!-j\x1b(B~\x1b(J~\\\x1b(I1\x1b(B.", "a①㈱~‾¥ｱ."),
    ("euc-kr", b"\x8c\x63\xb0\xa1\xa2\xe6\xc6\x52", "똠가€힣"),
    ("big5", b"\xa4\xa4\xf9\xd6\x87\x7a\x8e\x69\xa1\x45\x88\x62\xfe\xfe\xff.", "中碁㡵箸‧\u00ca\u0304秔\ufffd."),
    ("gbk", b"\x80\xa8\xbc\xa6\xd9\xa3\xa0\x81\x30\x81\x30\x90\x30\x81\x30", "€ḿ︐\u3000\x80𐀀"),
    ("windows-1252", b"\x80\x81\x8d\x8f\x90\x9d\xff", "€\x81\x8d\x8f\x90\x9dÿ"),
    ("windows-1251", b"\xc0\x98\xff", "А\x98я"), ("windows-1255", b"\xca\xd9", "\u05ba\ufffd"),
    ("koi8-u", b"\xae\xbe", "ўЎ"), ("windows-874", b"\x81\xa1\xdb", "\x81ก\ufffd"),
    ("x-user-defined", b"a\x80\xff", "a\uf780\uf7ff"), ("iso-8859-8-i", b"\xe0\xa1", "א\ufffd"),
    ("replacement", b"any bytes", "\ufffd"), ("replacement", b"", ""),
    ("utf-16le", b"a\0\0\xd8b\0", "a\ufffdb"), ("utf-8", b"a\xf0\x9f\x98b\xc0\x80", "a\ufffdb\ufffd\ufffd"),
    # A stray byte costs itself, and takes no ASCII with it.
    ("shift_jis", b"\x82\xa0\xff\x82\xa2\x81<\x81", "あ\ufffdい\ufffd<\ufffd"),
    ("shift_jis", b"\xa0\xfd\x81\xfd.", "\ufffd\ufffd\ufffd."),
    ("euc-jp", b"\xa4\xa2\xff\xa4\xa4\xa4<\x8f\xa2<\x8f", "あ\ufffdい\ufffd<\ufffd<\ufffd"),
    ("euc-kr", b"\xb0\xa1\xff\xb0\xa1\xb0<\xb0", "가\ufffd가\ufffd<\ufffd"),
    ("big5", b"\xa4\xa4\x80\xa4\xa4\xa4<\xa4", "中\ufffd中\ufffd<\ufffd"),
    ("gbk", b"\xd6\xd0\xff\xd6\xd0\xd6<\xd6", "中\ufffd中\ufffd<\ufffd"),
    ("gb18030", b"\x810<\x810\x81<\x810", "\ufffd0<\ufffd0\ufffd<\ufffd"),
    ("gb18030", b"\x841\xa50.\x810\x81", "\ufffd.\ufffd"),
    ("iso-2022-jp", b"\x1b$B$\"\x1b(B\xff\x1b$B$\"$\x1b(B\x1b(B<\x1b<\x1b$B$\n",
     "あ\ufffdあ\ufffd\ufffd<\ufffd<\ufffd"),
])  # fmt: skip
def test_what_browsers_read(encoding: str, body: bytes, text: str) -> None:
    assert decode_as(encoding, body) == text
