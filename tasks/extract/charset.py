"""Bytes to text: byte order mark, HTTP charset, meta charset, then detection; never an error, never a NUL byte."""

from __future__ import annotations

import re

from resiliparse.parse.encoding import detect_encoding, map_encoding_to_html5

from tasks.contracts.markup import utf16_without_mark

META_BYTES = 4096
MARKS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))
_META = re.compile(
    rb"""<(?:meta|\?xml)[^<>]*?(?:charset|encoding)\s*+=\s*+(?:["']\s*+)?([A-Za-z0-9_.:-]+)""", re.IGNORECASE
)
_HEADER = re.compile(r"""charset\s*+=\s*+(?:["']\s*+)?([A-Za-z0-9_.:-]+)""", re.IGNORECASE)


def decode(body: bytes, content_type: str) -> tuple[str, str]:
    """Return a page's text and the name of the encoding it was read by.

    The order is the HTML standard's (section 13.2.3.2): byte order mark, the HTTP header, meta, then a guess from
    the bytes; UTF-16 without a mark is seen by its NUL bytes before all of these. A declared charset that the bytes
    contradict gives way to UTF-8 if they are valid UTF-8, else to the guess. NUL characters, which XML cannot hold,
    are left out; lone surrogates no decoder here makes.

    >>> decode("naïve".encode("latin-1"), "text/html; charset=iso-8859-1")
    ('naïve', 'cp1252')
    """
    for mark, name in MARKS:
        if body.startswith(mark):
            return _clean(body[len(mark) :].decode(name, errors="replace")), name
    if (unmarked := utf16_without_mark(body)) is not None:
        return _clean(body.decode(unmarked, errors="replace")), unmarked
    declared = [match[1] for match in [_HEADER.search(content_type)] if match]
    declared += [match[1].decode("ascii") for match in [_META.search(body[:META_BYTES])] if match]
    for label in dict.fromkeys([*declared, "utf-8"]):
        name = map_encoding_to_html5(label, fallback_utf8=False) or ""
        # A meta element that could be read as ASCII is not UTF-16, whatever it says (same section).
        if not name or name.startswith("utf-16"):
            continue
        try:
            return _clean(body.decode(name)), name
        except (UnicodeDecodeError, LookupError):
            continue
    name = detect_encoding(body) or "windows-1252"
    try:
        return _clean(body.decode(name, errors="replace")), name
    except LookupError:
        return _clean(body.decode("windows-1252", errors="replace")), "windows-1252"


def _clean(text: str) -> str:
    return text.replace("\x00", "") if "\x00" in text else text
