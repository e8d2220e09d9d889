"""What the fields of a WARC record and the head of an HTTP answer mean: one reading of them for every stage.

Whatever the bytes are, these functions answer; none of them raises.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from urllib.parse import urlsplit

# WARC 1.0 and 1.1 (sections 5.4) by their profile of ISO 8601, which allows less precision; and the 14 digits of ARC
# files, dates with an offset and with a blank for the T, which some tools write.
_DATE = re.compile(
    r"([0-9]{4})(?:-?([0-9]{2})(?:-?([0-9]{2})"
    r"(?:[T ]?([0-9]{2})(?::?([0-9]{2})(?::?([0-9]{2})(?:[.,][0-9]{1,18})?)?)?)?)?)?"
    r" ?(Z|[+-][0-9]{2}:?[0-9]{2})?",
    re.IGNORECASE,
)
_USUAL_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-5][0-9](?:\.[0-9]{1,18})?Z")
_USUAL_URI = re.compile(r"https?://[A-Za-z0-9][A-Za-z0-9.-]*(?::[0-9]{1,4})?(?:[/?#][!#-;=?-~]*)?")
_URI = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):[^\x00-\x20\x7f<>\"]+")
_STATUS = re.compile(rb"HTTP/[0-9.]{1,8}[ \t]+([0-9]{3})(?![0-9])", re.IGNORECASE)
_HEAD_END = re.compile(rb"\n\r?\n")


def utc(date: str | None) -> str | None:
    """Return a date as RFC 3339 in UTC to the second, None where it is none or leaves the calendar.

    >>> utc("2026-01-02T03:04:05.678Z"), utc("2016-01"), utc("20140301000001"), utc("0001-01-01T00:00:00+23:59")
    ('2026-01-02T03:04:05Z', '2016-01-01T00:00:00Z', '2014-03-01T00:00:01Z', None)
    """
    if date and _USUAL_DATE.fullmatch(date):
        try:
            datetime.fromisoformat(date[:19])
        except ValueError:
            return None
        return f"{date[:19]}Z"
    parts = _DATE.fullmatch((date or "").strip())
    if parts is None:
        return None
    year, month, day, hour, minute, second = (
        int(part or lowest) for part, lowest in zip(parts.groups(), "011000", strict=False)
    )
    zone = parts[7] or "Z"
    try:
        offset = timedelta() if zone in "Zz" else timedelta(hours=int(zone[1:3]), minutes=int(zone[-2:]))
        place = timezone(-offset if zone[0] == "-" else offset)
        # A leap second is the second before it.
        moment = datetime(year, month, day, hour, minute, min(second, 59) if second == 60 else second, tzinfo=place)
        return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="seconds") + "Z"
    except (ValueError, OverflowError):
        return None


def is_uri(text: str) -> bool:
    """Tell whether a text is an absolute URI whose parts can be read; one of the web has a host.

    A port is not asked for: archives hold addresses with odd ones, and nothing here connects to them.

    >>> [is_uri(text) for text in ("http://a.example/x", "dns:a.example", "http://h:x/", "http://[::1/x", "/x")]
    [True, True, True, False, False]
    """
    if _USUAL_URI.fullmatch(text):
        return True
    matched = _URI.fullmatch(text)
    if matched is None:
        return False
    try:
        host = urlsplit(text).hostname
    except ValueError:
        return False
    return bool(host) or matched[1].lower() not in ("http", "https", "ftp")


@dataclass(frozen=True, slots=True)
class HttpHead:
    """The head of an HTTP answer.

    Attributes:
        status_line: its first line.
        status_code: None where that line is no status line.
        fields: (name, value) in order, a repeated one as often as it stands there.
        size: bytes up to where the body begins.
    """

    status_line: str
    status_code: int | None
    fields: Sequence[tuple[str, str]]
    size: int

    def get(self, name: str) -> str | None:
        """Return the first value of a field, named in any case."""
        name = name.lower()
        return next((value for one, value in self.fields if one.lower() == name), None)

    def items(self) -> Sequence[tuple[str, str]]:
        """Return every field."""
        return self.fields


def http_head(block: bytes) -> HttpHead:
    """Read the head of an HTTP answer, however long and odd it is (RFC 9112, sections 2 to 5).

    Lines end with CRLF or LF, a folded one goes on with the next, one without a colon says nothing; bytes are read
    as ISO 8859-1. A head without an end is all there is.

    >>> head = http_head(b"HTTP/1.1 200 OK\\nX-A: one\\n two\\nodd\\n\\nbody")
    >>> head.status_code, list(head.fields), head.size
    (200, [('X-A', 'one two')], 35)
    """
    end = _HEAD_END.search(block)
    size = end.end() if end else len(block)
    first, *lines = block[:size].decode("latin-1").split("\n")
    pairs = (line.partition(":") for line in unfolded(lines))
    fields = [(name.strip(), value.strip()) for name, colon, value in pairs if colon]
    status = _STATUS.match(block, 0, min(size, 64))
    return HttpHead(first.strip(), int(status[1]) if status else None, fields, size)


def http_answer(response: bool, content_type: str | None, block: bytes) -> HttpHead | None:
    """Return the head of the HTTP answer that a record's block holds, None where it holds something else.

    Args:
        response: whether the record is a response; one that says nothing of its block, or says what its payload is,
            is known by how the block begins.
        content_type: of the record.
    """
    stated = (content_type or "").partition(";")[0].strip().lower()
    if stated == "application/http" or (response and block[:5].upper() == b"HTTP/"):
        return http_head(block)
    return None


def unfolded(lines: Sequence[str]) -> Sequence[str]:
    """Return lines of a header with each folded one put behind the one that it goes on from.

    >>> unfolded(["A: 1", " 2", "B: 3"])
    ['A: 1 2', 'B: 3']
    """
    if not any(line[:1] in (" ", "\t") for line in lines):
        return lines
    pieces: list[list[str]] = []
    for line in lines:
        if line[:1] in (" ", "\t") and pieces:
            pieces[-1].append(line.strip())
        else:
            pieces.append([line.strip()])
    return [" ".join(piece) for piece in pieces]
