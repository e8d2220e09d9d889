"""Reads a page's tags without a parse tree, in time linear in its length, however broken or hostile it is.

The crawl reads links and reservations by it and extract reservations, so that both see one page.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from functools import cache

MOST_ATTRIBUTES = 40  # of one element; what stands behind them is not read
MOST_VALUE_CHARACTERS = 1 << 16  # of one attribute; a page's longest known keyword list has some thousands
MOST_PARSED_ATTRIBUTES = 1000
SNIFFED_BYTES = 512
_CLOSING = {name: re.compile(f"</{name}", re.I) for name in ("script", "style")}
_COMMENT_END = re.compile("--!?>")
_ATTRIBUTE = re.compile(r"""[\s/]*([^\s=>/"']+)(?:\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s>"']+)))?""")
# A quote that is never closed ends the tag here; parsers take all that follows for its value.
_LONG_TAG = re.compile(r"""<[A-Za-z][^\s/>"'<]*+((?:[^<>"']++|"[^"]*+"|'[^']*+')*+)""")
_LICENSE = re.compile("license|creativecommons", re.I)


@cache
def _opening(names: frozenset[str]) -> re.Pattern[str]:
    alternatives = "|".join(sorted({*names, *_CLOSING}, key=lambda name: (-len(name), name)))
    return re.compile(rf"<(?:!--|({alternatives})(?=[\s/>]))", re.I)


def tags(
    text: str, names: frozenset[str], *, of_licenses: frozenset[str] = frozenset()
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield (name, attributes) of the elements of some names; what stands in comments, scripts and styles is left out.

    A comment ends as HTML's parsers end it (sections 13.2.5.43 to 13.2.5.52): "<!-->" and "<!--->" are whole, "--!>"
    is an end too.

    Args:
        of_licenses: those of the names whose elements are of interest only where they speak of a licence.
    """
    opening = _opening(names)
    position = 0
    cue = end = -1  # where the next word about a licence stands, and the next ">": both only ever move on
    while (match := opening.search(text, position)) is not None:
        name = (match[1] or "").lower()
        position = match.end()
        if not name:
            position = _end_of_comment(text, position)
            if position < 0:
                return
            continue
        if name in _CLOSING:
            if name in names:
                attributes, position = _attributes(text, position)
                yield name, attributes
            closing = _CLOSING[name].search(text, position)
            if closing is None:
                return
            position = closing.end()
            continue
        if name in of_licenses:
            if cue < position:
                word = _LICENSE.search(text, position)
                cue = len(text) if word is None else word.start()
            if end < position:
                end = text.find(">", position)
                end = len(text) if end < 0 else end
            if cue >= end:
                continue
        attributes, position = _attributes(text, position)
        yield name, attributes


def _end_of_comment(text: str, position: int) -> int:
    """Return where a comment ends whose text begins at a place, -1 where it does not end."""
    for whole in (">", "->"):
        if text.startswith(whole, position):
            return position + len(whole)
    end = _COMMENT_END.search(text, position)
    return -1 if end is None else end.end()


def _attributes(text: str, position: int) -> tuple[dict[str, str], int]:
    attributes: dict[str, str] = {}
    for _ in range(MOST_ATTRIBUTES):
        attribute = _ATTRIBUTE.match(text, position)
        if attribute is None or attribute.end() == position:
            break
        position = attribute.end()
        value = attribute[2] if attribute[2] is not None else attribute[3] or attribute[4] or ""
        value = value[:MOST_VALUE_CHARACTERS]
        attributes.setdefault(attribute[1][:MOST_VALUE_CHARACTERS].lower(), unescaped(value) if "&" in value else value)
    return attributes, position


def with_few_attributes(text: str) -> str:
    """Return a page without the attributes of an element behind its first `MOST_PARSED_ATTRIBUTES`.

    Parsers of HTML compare each attribute of an element with all before it: 50,000 of them take half a minute.

    >>> with_few_attributes("<p " + "".join(f"a{n}=b " for n in range(9000)) + ">text</p>")[-23:]
    'a998=b a999=b >text</p>'
    """
    kept: list[str] = []
    position = 0
    for tag in _LONG_TAG.finditer(text):
        if tag.end() - tag.start() < MOST_PARSED_ATTRIBUTES * 2:
            continue
        end = tag.start(1)
        for _ in range(MOST_PARSED_ATTRIBUTES):
            attribute = _ATTRIBUTE.match(text, end, tag.end())
            if attribute is None or attribute.end() == end:
                break
            end = attribute.end()
        else:
            kept += (text[position:end], " ")
            position = tag.end()
    return "".join((*kept, text[position:])) if kept else text


def unescaped(value: str) -> str:
    """Return a text with its character references resolved; as it is where one is a number too long for Python.

    >>> unescaped("a&amp;b &#65;"), unescaped("&#" + "1" * 5000 + ";")[:4]
    ('a&b A', '&#11')
    """
    try:
        return html.unescape(value)
    except ValueError:  # more digits than sys.get_int_max_str_digits()
        return value


def utf16_without_mark(body: bytes) -> str | None:
    """Return "utf-16le" or "utf-16be" where a body's beginning is plainly that without a byte order mark.

    A page begins with markup, whose characters are ASCII: of their two bytes one is NUL, always on the same side. No
    other encoding of the web has NUL bytes in text. HTML's own standard looks at `<?` alone (section 13.2.3.2).

    >>> utf16_without_mark("<html lang=el>".encode("utf-16-be")), utf16_without_mark(b"<html lang=el>")
    ('utf-16be', None)
    """
    head = body[:SNIFFED_BYTES]
    head = head[: len(head) & ~1]
    for name, characters, zeros in (("utf-16le", head[0::2], head[1::2]), ("utf-16be", head[1::2], head[0::2])):
        begins = len(head) >= 8 and not any(zeros[:4]) and characters[:4].isascii() and all(characters[:4])
        # A page that begins with other letters shows it by most of its markup.
        mostly = len(head) >= 32 and zeros.count(0) * 2 > len(zeros) and characters.count(0) * 8 <= len(characters)
        if begins or mostly:
            return name
    return None
