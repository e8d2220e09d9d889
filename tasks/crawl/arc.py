"""ARC files, the format before WARC: one line of a header, then the block (Internet Archive, 1996 and 2002).

Version 1 has five fields: address, IP address, date, media type, length. Version 2 has ten, length still the last.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MOST_LINE_BYTES = 8 << 10
# From its end, since addresses hold blanks: IP address, date, media type, at most five fields of version 2, length.
_LINE = re.compile(
    r"([A-Za-z][A-Za-z0-9+.-]*:\S.*) ([0-9A-Fa-f.:]+|-) ([0-9]{8,20}) ([^ ]+(?:; [^ ]+)?)(?: [^ ]+){0,5}? ([^ ]{1,18})"
)
START = re.compile(
    rb"[A-Za-z][A-Za-z0-9+.-]{1,20}:[^ \r\n][^\r\n]{0,8000} [0-9]{8,20} [^\r\n]{1,200} [^ \r\n]{1,18}[ \t]*\r?\n"
)
NEXT = re.compile(rb"(?<=\n)" + START.pattern)


@dataclass(frozen=True, slots=True)
class Line:
    """A record's header line; `length` is None where it states none that is a number."""

    url: str
    address: str
    date: str
    media_type: str
    length: int | None


def read_line(line: bytes) -> Line | None:
    """Read a header line; None where it is none.

    >>> read_line(b"http://a.example/a b 1.2.3.4 20140301000001 text/html 45\\n").url
    'http://a.example/a b'
    """
    matched = _LINE.fullmatch(line.decode("utf-8", "surrogateescape").strip())
    if matched is None:
        return None
    url, address, date, media_type, length = matched.groups()
    number = int(length) if length.isascii() and length.isdigit() else None
    return Line(url, "" if address == "-" else address, date, media_type, number)


def warc_header(line: Line, block_start: bytes) -> bytes:
    """Return the header of the WARC record that stands for an ARC record: warcinfo, response or resource.

    Args:
        block_start: the first bytes of its block: an answer over HTTP begins with HTTP's own head.
    """
    if line.url.lower().startswith("filedesc:"):
        kind, media_type, url = "warcinfo", line.media_type, ""
    else:
        http = block_start[:5].upper() == b"HTTP/"
        kind, media_type = ("response", "application/http; msgtype=response") if http else ("resource", line.media_type)
        url = line.url
    fields = {"WARC-Type": kind, "WARC-Target-URI": url, "WARC-Date": line.date, "WARC-IP-Address": line.address,
              "Content-Type": media_type}  # fmt: skip
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value)
    return f"WARC/1.1\r\n{lines}\r\n".encode("utf-8", "surrogateescape")
