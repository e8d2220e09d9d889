"""What kind of thing an answer says that it is, and whether it is a page: RFC 9110, Fetch and MIME Sniffing (WHATWG).

The crawl and extract ask here, so that one follows the links of what the other reads.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tasks.contracts.markup import utf16_without_mark

HTML_TYPES = frozenset({"text/html", "application/xhtml+xml"})
# Of these a browser looks at the body (MIME Sniffing, section 7); "" is what says nothing or makes no sense.
UNKNOWN_TYPES = frozenset({"", "unknown/unknown", "application/unknown", "*/*"})
SNIFFED_BYTES = 1445  # the standard's resource header
MOST_PROLOG_BYTES = 1 << 16
_VALUES = re.compile(r'(?:[^",]|"(?:[^"\\]|\\.)*+(?:"|$))++', re.DOTALL)
_ESSENCE = re.compile(r"\s*+([^\s;,/()\"=]++/[^\s;,()\"=]++)")
_CHARSET = re.compile(
    r"""(?:^|[\s;,])charset\s*+=\s*+(?:"((?:[^"\\]|\\.)*+)|'([^';,]*+)|([^\s;,"']++))""", re.IGNORECASE
)
_OPENING = re.compile(
    rb"[\t\n\f\r ]*+<(?:!--|(?:!doctype html|html|head|script|iframe|h1|div|font|table|a|style|title|b|body|br|p|meta|"
    rb"article|main)[\t\n\f\r />])",
    re.IGNORECASE,
)
_ROOT_ANYWHERE = re.compile(rb"<(?:!doctype\s+html|html)[\s>]", re.IGNORECASE)
# What may stand before the root element of XML: blanks, the declaration, instructions, comments, the document type.
_PROLOG = re.compile(
    rb"(?:\s++|<\?(?:[^?]|\?(?!>))*+\?>|<!--(?:[^-]|-(?!->))*+-->|<!doctype[^<>\[]*+(?:\[[^\]]*+\]\s*+)?>)*+",
    re.IGNORECASE,
)
_XHTML_ROOT = re.compile(rb"<(?:[\w.-]{1,100}:)?html[\s/>]", re.IGNORECASE)
_BINARY = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")
_MARKUP = re.compile(rb"<[A-Za-z!/?]")


@dataclass(frozen=True, slots=True)
class MediaType:
    """What a Content-Type says.

    Attributes:
        essence: type and subtype in lower case; "" where there are none.
        charset: as it stands; None where there is none.
    """

    essence: str
    charset: str | None


def media_type(content_type: str) -> MediaType:
    """Read a Content-Type, several fields of it joined by commas (Fetch, section 3.5: the last type counts).

    Less strict than the standard where that can only help: a type ends at a blank too, a charset may stand in single
    quotes, behind a comma or without a type.

    >>> media_type("text/html, Text/HTML; charset=UTF-8"), media_type("charset=utf-8")
    (MediaType(essence='text/html', charset='UTF-8'), MediaType(essence='', charset='utf-8'))
    >>> media_type("text/html;charset=koi8-r, text/plain"), media_type("text/html;charset=koi8-r, text/html")
    (MediaType(essence='text/plain', charset=None), MediaType(essence='text/html', charset='koi8-r'))
    """
    essence, charset, stray = "", None, None
    for value in _VALUES.findall(content_type):
        kind, stated = _ESSENCE.match(value), _CHARSET.search(value)
        label = (stated and re.sub(r"\\(.)", r"\1", stated[1] or stated[2] or stated[3] or "").strip()) or None
        if kind is None or kind[1] == "*/*":
            stray = label or stray
            continue
        if kind[1].lower() != essence:
            essence, charset = kind[1].lower(), label
        else:
            charset = label or charset
    return MediaType(essence, charset or stray)


def is_xml(essence: str) -> bool:
    """Tell whether a type is XML's."""
    return essence in ("text/xml", "application/xml") or essence.endswith("+xml")


def is_html(content_type: str, body: bytes) -> bool:
    """Tell whether an answer is a page of HTML or XHTML.

    What says that it is one is; XML is where its root element says so; what says nothing that makes sense is where it
    begins as HTML does. What says that it is something else is that, whatever it holds.

    >>> is_html("text/html;charset", b""), is_html("text/plain", b"<html>"), is_html("unknown/unknown", b" <html>")
    (True, False, True)
    """
    essence = media_type(content_type).essence
    if essence in HTML_TYPES:
        return True
    if is_xml(essence):
        return _has_html_root(body)
    return essence in UNKNOWN_TYPES and begins_as_html(body)


def begins_as_html(body: bytes) -> bool:
    """Tell whether bytes of which nothing is known begin as HTML does, a byte order mark left out of account."""
    head = _as_ascii(body[:SNIFFED_BYTES])
    if _OPENING.match(head) or (_ROOT_ANYWHERE.search(head) and not _BINARY.search(head)):
        return True
    return head.lstrip().startswith(b"<?xml") and _has_html_root(body)


def is_markup(body: bytes) -> bool:
    """Tell whether bytes are text with a tag in it: no compressed data, which soon hold bytes that are no text."""
    return not _BINARY.search(_as_ascii(body[:SNIFFED_BYTES])) and _MARKUP.search(_as_ascii(body)) is not None


def _has_html_root(body: bytes) -> bool:
    head = _as_ascii(body[:MOST_PROLOG_BYTES])
    prolog = _PROLOG.match(head)
    return prolog is not None and _XHTML_ROOT.match(head, prolog.end()) is not None


def _as_ascii(head: bytes) -> bytes:
    """Return bytes as far as markup is concerned: without a mark, UTF-16 with one byte a character."""
    for mark, name in ((b"\xff\xfe", "utf-16le"), (b"\xfe\xff", "utf-16be")):
        if head.startswith(mark):
            return head[2:].decode(name, "replace").encode("ascii", "replace")
    if (name_of := utf16_without_mark(head)) is not None:
        return head.decode(name_of, "replace").encode("ascii", "replace")
    return head.removeprefix(b"\xef\xbb\xbf")
