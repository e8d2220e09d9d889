"""A page's bytes to its text, as browsers do it: which encoding it is in, and when what it declares is not believed.

The crawl and extract ask here, so that both read one text. Never an error, never a NUL character.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from resiliparse.parse.encoding import detect_encoding

from tasks.contracts.encodings import REPLACEMENT, decode_as, encoding_of
from tasks.contracts.markup import utf16_without_mark
from tasks.contracts.media_types import is_xml, media_type

MARKS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16le"), (b"\xfe\xff", "utf-16be"))
# The standard's prescan looks at 1024 bytes, and a meta element that its parser meets later changes the encoding too
# (section 13.2.3.4). Behind them what stands in scripts is not looked at.
PRESCAN_BYTES = 1024
LATE_META_BYTES = 1 << 16
# Characters beyond ASCII that make it certain that bytes which are all UTF-8 are UTF-8: of pairs of Chinese in GBK, the
# encoding that looks most like it, one in seven does.
CERTAIN_CHARACTERS = 8
# Measured on texts in 13 languages, read in each of 14 encodings: read in their own, under 1 in 1000 of the characters
# beyond ASCII have no meaning; Japanese read as windows-1252, at least 39 in 1000; any other read as UTF-8, two thirds.
MOST_ERRORS_OF_UTF8 = 0.5
MOST_ERRORS = 0.03
FEWEST_ERRORS = 3
_FALLBACK = "windows-1252"
_DETECTED = {"cp949": "euc-kr", "iso2022-jp": "iso-2022-jp", "mac-cyrillic": "x-mac-cyrillic", "mac-roman": "macintosh"}
_MEANINGLESS = re.compile("[\ufffd\x80-\x9f]")
_BEYOND_ASCII = re.compile("[^\x00-\x7f]")
_EASTERN = frozenset({"shift_jis", "euc-jp", "iso-2022-jp", "euc-kr", "gbk", "gb18030", "big5", "utf-8"})
_LETTERS = {"shift_jis": re.compile("[ぁ-ヺ]"), "euc-jp": re.compile("[ぁ-ヺ]"), "euc-kr": re.compile("[가-힣]")}
GUESSED_BYTES = 1 << 16
SHARE_OF_LETTERS = 0.2  # of what is beyond ASCII; in 60 pages each, kana are 30 to 78 in 100, Hangul 96 to 100
_JAPANESE_ESCAPE = re.compile(rb"\x1b\$[@B]")
_TAG = re.compile(rb"<(?:(!--)|([!?]|/(?![a-z]))|/?([a-z][^\t\n\f\r />]*+))", re.IGNORECASE)
_END_OF = {name: re.compile(rb"</" + name, re.IGNORECASE) for name in (b"script", b"style")}
_ATTRIBUTE = re.compile(
    rb"[\t\n\f\r /]*+([^\t\n\f\r />][^\t\n\f\r />=]*+)[\t\n\f\r ]*+"
    rb"(?:=[\t\n\f\r ]*+(?:\"([^\"]*+)\"|'([^']*+)'|([^\"'\t\n\f\r >][^\t\n\f\r >]*+)?))?"
)
_IN_CONTENT = re.compile(
    rb"charset[\t\n\f\r ]*+=[\t\n\f\r ]*+(?:\"([^\"]*+)\"|'([^']*+)'|([^\"'\t\n\f\r ;][^\t\n\f\r ;]*+))", re.IGNORECASE
)
_XML = re.compile(rb"\s{0,100}<\?xml\s[^>]{0,200}?encoding\s*+=\s*+(?:\"([^\"]*+)\"|'([^']*+)')")


def decode(body: bytes, content_type: str) -> tuple[str, str]:
    """Return a page's text and the encoding that it was read in, as the WHATWG Encoding Standard names it.

    The order is the HTML standard's (section 13.2.3.2): byte order mark, the HTTP header, meta or the XML declaration,
    then UTF-8, then a guess from the bytes; UTF-16 without a mark is seen by its NUL bytes before all of these. What
    is declared is believed, and a byte that has no meaning in it becomes U+FFFD, unless the bytes speak against it:

    - it says UTF-8, and of what is not ASCII more than half is no UTF-8;
    - it says another, and all of it is valid UTF-8, with at least 8 characters beyond ASCII;
    - it says another, and more than 3 in 100 of the characters beyond ASCII, and at least 3, have no meaning in it;
    - it says UTF-16, and there is no NUL byte.

    Then the next in that order is asked. If all are refused, the one in which the least has no meaning.

    Args:
        content_type: the header's fields, several joined by commas.

    >>> decode("naïve".encode("latin-1"), "text/html; charset=iso-8859-1")
    ('naïve', 'windows-1252')
    """
    for mark, name in MARKS:
        if body.startswith(mark):
            return _clean(decode_as(name, body[len(mark) :])), name
    if (unmarked := utf16_without_mark(body)) is not None:
        return _clean(decode_as(unmarked, body)), unmarked
    refused: list[tuple[int, str, str]] = []
    for name in _candidates(body, content_type):
        if name in (one for _, one, _ in refused):
            continue
        text = decode_as(name, body)
        errors = _errors(name, text, body)
        if not _speaks_against(name, errors, text, body):
            return _clean(text), name
        refused.append((errors, name, text))
    _, name, text = min(refused, key=lambda one: one[0])
    return _clean(text), name


def _clean(text: str) -> str:
    return text.replace("\x00", "") if "\x00" in text else text


def _candidates(body: bytes, content_type: str) -> Iterator[str]:
    """Yield the encodings that a page may be in, the likeliest first."""
    media = media_type(content_type)
    declared = media.charset and encoding_of(media.charset)
    # What has no NUL byte is not UTF-16, whatever it says; markup would have one in each character.
    if declared and not (declared.startswith("utf-16") and b"\0" not in body):
        yield declared
    inside: tuple[Callable[[bytes], str | None], ...] = (_from_meta, _from_xml)
    for look in reversed(inside) if is_xml(media.essence) else inside:
        if (found := look(body)) is not None:
            yield found
    if body.isascii() and _JAPANESE_ESCAPE.search(body):
        yield "iso-2022-jp"
    yield "utf-8"
    yield _guess(body)


def _guess(body: bytes) -> str:
    """Return the encoding that some bytes look most like."""
    guess = (detect_encoding(body, html5_compatible=False) or _FALLBACK).replace("_", "-")
    name = encoding_of(_DETECTED.get(guess, guess)) or _FALLBACK
    if name in _EASTERN:
        return name
    # The detector knows Shift_JIS without NEC's characters and EUC-KR without Microsoft's, and gives up at the first.
    for eastern, letters in _LETTERS.items():
        text = decode_as(eastern, body[:GUESSED_BYTES])
        beyond = len(_BEYOND_ASCII.findall(text))
        errors = text.count(REPLACEMENT)
        if errors <= MOST_ERRORS * beyond and len(letters.findall(text)) > SHARE_OF_LETTERS * beyond:
            return eastern
    return _FALLBACK if name.startswith("utf-16") or name == "replacement" else name


def _errors(name: str, text: str, body: bytes) -> int:
    """Return how many characters stand for bytes that have no meaning in an encoding."""
    if name == "utf-8":
        # A page may hold U+FFFD itself, where somebody before it did not know an encoding; and control characters.
        return text.count(REPLACEMENT) - body.count(b"\xef\xbf\xbd") if REPLACEMENT in text else 0
    if name == "x-user-defined" or text.isascii():
        return 0
    return len(_MEANINGLESS.findall(text)) if _MEANINGLESS.search(text) else 0


def _speaks_against(name: str, errors: int, text: str, body: bytes) -> bool:
    if body.isascii() or name == "replacement":
        return False
    if name == "utf-8":
        return errors > MOST_ERRORS_OF_UTF8 * len(_BEYOND_ASCII.findall(text)) if errors else False
    if _is_certainly_utf8(body):
        return True
    return errors >= FEWEST_ERRORS and errors > MOST_ERRORS * len(_BEYOND_ASCII.findall(text))


def _is_certainly_utf8(body: bytes) -> bool:
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return False
    characters = _BEYOND_ASCII.finditer(text)
    return sum(1 for _ in zip(characters, range(CERTAIN_CHARACTERS), strict=False)) == CERTAIN_CHARACTERS


def _from_meta(body: bytes) -> str | None:
    """Return the encoding that a meta element names, as the HTML standard's prescan finds it (section 13.2.3.2)."""
    head = body[:LATE_META_BYTES]
    position = 0
    while (tag := _TAG.search(head, position)) is not None:
        if tag[1] or tag[2]:
            # A comment's two hyphens may be those that end it.
            end, place = (b"-->", tag.start() + 2) if tag[1] else (b">", tag.end())
            position = head.find(end, place) + len(end)
            if position < len(end):
                return None
            continue
        attributes, position = _attributes(head, tag.end())
        name, opens = tag[3].lower(), not tag[0].startswith(b"</")
        if name == b"meta" and opens and (found := _from_attributes(attributes)) is not None:
            return found
        if opens and tag.start() >= PRESCAN_BYTES and (closing := _END_OF.get(name)) is not None:
            closed = closing.search(head, position)
            if closed is None:
                return None
            position = closed.start()
    return None


def _attributes(head: bytes, position: int) -> tuple[dict[bytes, bytes], int]:
    attributes: dict[bytes, bytes] = {}
    while (attribute := _ATTRIBUTE.match(head, position)) is not None:
        position = attribute.end()
        attributes.setdefault(attribute[1].lower(), attribute[2] or attribute[3] or attribute[4] or b"")
    return attributes, position


def _from_attributes(attributes: dict[bytes, bytes]) -> str | None:
    label = attributes.get(b"charset")
    if label is None:
        content = _IN_CONTENT.search(attributes.get(b"content", b""))
        if content is None or attributes.get(b"http-equiv", b"").lower() != b"content-type":
            return None
        label = content[1] or content[2] or content[3] or b""
    return _inside(label)


def _from_xml(body: bytes) -> str | None:
    declaration = _XML.match(body[:PRESCAN_BYTES])
    return _inside(declaration[1] or declaration[2] or b"") if declaration else None


def _inside(label: bytes) -> str | None:
    """Return the encoding of a label that stands in the page: one that could be read as ASCII is not UTF-16."""
    name = encoding_of(label.decode("latin-1"))
    if name is not None and name.startswith("utf-16"):
        return "utf-8"
    return _FALLBACK if name == "x-user-defined" else name
