"""The one form in which records enter a snapshot: what every reader of WARC files agrees on.

Archives write field names in any case, fold lines, end them with a bare LF, invent versions, leave ids out. Readers
differ in which of that they take, so a record could be seen by one stage and not by the next. A record that stands in
the form below already keeps its bytes; any other legal one is written in it, with `Headwater-Raw-Digest`, the SHA-256
of the record as it stood (header, blank line, block); what is no legal record is refused with the reason.

The form: WARC/1.0 or 1.1, CRLF, a header of at most 16 KiB in UTF-8, field names as the standard spells them, each
once (but WARC-Concurrent-To and fields of others), a known type, an id in angle brackets, a date that is one or none,
for what may be a page a target URI whose parts can be read, and no user name and password in any URI.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections import Counter
from dataclasses import dataclass

from tasks.contracts.redaction import without_userinfo
from tasks.contracts.warc import is_uri, unfolded, utc

RAW_DIGEST = "Headwater-Raw-Digest"
PAGES = ("response", "resource")
WITH_URI = (*PAGES, "revisit")
KINDS = frozenset({*WITH_URI, "warcinfo", "request", "metadata", "conversion", "continuation"})
MOST_CANONICAL_BYTES = 16 << 10  # readers give up at 64 KiB (fastwarc 2)
MOST_URI_BYTES = 8 << 10
MOST_VALUE_BYTES = 1 << 10
MANY = "warc-concurrent-to"
_STANDARD = (
    "WARC-Type", "WARC-Record-ID", "WARC-Date", "WARC-Target-URI", "WARC-Concurrent-To", "WARC-Block-Digest",
    "WARC-Payload-Digest", "WARC-IP-Address", "WARC-Refers-To", "WARC-Refers-To-Target-URI", "WARC-Refers-To-Date",
    "WARC-Truncated", "WARC-Warcinfo-ID", "WARC-Filename", "WARC-Profile", "WARC-Identified-Payload-Type",
    "WARC-Segment-Number", "WARC-Segment-Origin-ID", "WARC-Segment-Total-Length", "WARC-Protocol",
    "WARC-Cipher-Suite", "Content-Type", "Content-Length",
)  # fmt: skip
SPELLING = {name.lower(): name for name in _STANDARD}
# Two that differ say two different things of one record, and readers take the first, the last or both.
DECIDING = {"warc-type": "WARC-Type", "content-length": "Content-Length", "warc-target-uri": "WARC-Target-URI",
            "warc-record-id": "WARC-Record-ID"}  # fmt: skip
_IDENTITIES = ("warc-concurrent-to", "warc-refers-to", "warc-warcinfo-id", "warc-segment-origin-id")
_URIS = ("warc-target-uri", "warc-refers-to-target-uri")
HTTP_TYPE = "application/http; msgtype=response"
_LENGTH = re.compile(r"[0-9]{1,18}")
_HEADER = re.compile(
    rb"WARC/1\.[01]\r\n(?:[A-Za-z][A-Za-z0-9_-]*: [^\x00-\x20\x7f][^\x00-\x1f\x7f]*(?<! )\r\n)+\r\n", re.DOTALL
)
_FIELD = re.compile(r"\n([^:\n]+): ([^\r\n]*)")
_SPELT = frozenset(_STANDARD)
_ONCE = _SPELT - {"WARC-Concurrent-To"}
_ID = re.compile(r"<[^\x00-\x20\x7f<>]{1,250}>")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?Z")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,100}")
# The last are bytes that are no UTF-8, as `read_fields` gives them.
_UNSAFE = re.compile('[\x00-\x20\x7f<>"\udc80-\udcff]')
_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")


@dataclass(frozen=True, slots=True)
class Canonical:
    """A record in the form above.

    Attributes:
        content: header, blank line, block and the two line ends after it.
        segmented: whether it is a piece of a longer one.
        notes: what could not be kept of its header.
        offset: of the record it was read from.
    """

    kind: str
    record_id: str
    url: str | None
    segmented: bool
    content: bytes
    notes: tuple[str, ...] = ()
    rewritten: bool = False
    offset: int = 0


def read_fields(header: bytes) -> list[tuple[str, str]]:
    """Return a header's fields in order, names in lower case, folded lines joined; its first line is left out.

    Lines end with CRLF or LF and nothing else. Bytes that are no UTF-8 stay as lone surrogates.
    """
    lines = unfolded(header.decode("utf-8", "surrogateescape").split("\n")[1:])
    pairs = (line.partition(":") for line in lines)
    return [(name.strip().lower(), value.strip()) for name, colon, value in pairs if colon]


def conflict(fields: list[tuple[str, str]]) -> str | None:
    """Return a field that must be one and stands in a header with two values."""
    values: dict[str, str] = {}
    return next(
        (n for n, value in fields if n in DECIDING and values.setdefault(n, value).lower() != value.lower()), None
    )


def _no_fields(header: bytes) -> list[str]:
    lines = unfolded(header.decode("utf-8", "surrogateescape").split("\n")[1:])
    return [line.strip() for line in lines if ":" not in line and line.strip()]


def as_it_stands(header: bytes, block_start: bytes, size: int) -> Canonical | None:
    """Return what a record is whose header has the form above, `content` left empty; None where it has not.

    Args:
        header: with its blank line.
        block_start: the first bytes of the block, which has `size` bytes.
    """
    if len(header) > MOST_CANONICAL_BYTES or not _HEADER.fullmatch(header):
        return None
    try:
        text = header.decode()
    except UnicodeDecodeError:
        return None
    if without_userinfo(text) != text:
        return None
    pairs = _FIELD.findall(text)
    fields: dict[str, str] = dict(pairs)
    others = fields.keys() - _SPELT
    if any(name.lower() in SPELLING for name in others):
        return None
    if len(fields) != len(pairs) and any(
        count > 1 for name, count in Counter(n for n, _ in pairs).items() if name in _ONCE
    ):
        return None
    kind, identity, url = fields.get("WARC-Type", ""), fields.get("WARC-Record-ID", ""), fields.get("WARC-Target-URI")
    fits = (
        kind in KINDS
        and fields.get("Content-Length") == str(size)
        and _ID.fullmatch(identity)
        and ((date := fields.get("WARC-Date")) is None or (_DATE.fullmatch(date) and utc(date)))
        and (url is None if kind not in WITH_URI and not url else url is not None and _is_target(url))
        and not (kind == "response" and _http(block_start) and not _is_http_type(fields.get("Content-Type", "")))
    )
    return Canonical(kind, identity, url, "WARC-Segment-Number" in fields, b"") if fits else None


def in_canonical_form(header: bytes, block: bytes, raw: bytes | None = None) -> Canonical | str:
    """Write a record in the form above, or return why it cannot be.

    Args:
        header: as it stands, with its blank line; its Content-Length is the block's.
        raw: the record's own bytes where the header was made for it.
    """
    fields = [(name, without_userinfo(value)) for name, value in read_fields(header)]
    notes = [f"lines that are no fields: {_shown(' | '.join(others[:5]))}"] if (others := _no_fields(header)) else []
    values: dict[str, str] = {}
    more: list[tuple[str, str]] = []
    if twice := conflict(fields):
        return f"two different {DECIDING[twice]} in one header"
    for name, value in fields:
        if name == MANY or name not in SPELLING:
            more.append((name, value))
        elif values.setdefault(name, value) != value:
            notes.append(f"another {SPELLING[name]} was left out: {_shown(value)}")
    kind = values.get("warc-type", "").lower()
    if kind not in KINDS:
        return f"a WARC header without WARC-Type{f' that the standard knows: {_shown(kind)}' if kind else ''}"
    for name in _URIS:
        uri = target_uri(values.pop(name, ""))
        if _is_target(uri):
            values[name] = uri
        elif name == "warc-target-uri" and kind in WITH_URI:
            return f"no WARC-Target-URI that can be read: {_shown(uri) or 'none'}"
        elif uri:
            notes.append(f"{SPELLING[name]} was left out: {_shown(uri)}")
    digest = hashlib.sha256(header + block if raw is None else raw).digest()
    identity = _identity(values.pop("warc-record-id", ""))
    values["warc-record-id"] = identity or made_up_id(digest)
    stated = values.pop("warc-date", "")
    if date := stated if _DATE.fullmatch(stated) and utc(stated) else utc(stated):
        values["warc-date"] = date
    elif stated:
        notes.append(f"WARC-Date was left out: {_shown(stated)}")
    if kind == "response" and _http(block) and not _is_http_type(values.get("content-type", "")):
        values["content-type"] = HTTP_TYPE
    values |= {RAW_DIGEST.lower(): f"sha256:{digest.hex()}", "content-length": str(len(block))}
    lines, left_out = _lines(values, more)
    if left_out:
        notes.append(f"fields left out: {', '.join(map(_shown, left_out[:5]))}")
    content = b"WARC/1.1\r\n" + "".join(lines).encode() + b"\r\n" + block + b"\r\n\r\n"
    url = values.get("warc-target-uri")
    return Canonical(
        kind, values["warc-record-id"], url, "warc-segment-number" in values, content, tuple(notes), rewritten=True
    )


def _lines(values: dict[str, str], more: list[tuple[str, str]]) -> tuple[list[str], list[str]]:
    """Return the header's lines in the standard's order, and the names of fields that do not fit."""
    lines: list[str] = []
    left_out: list[str] = []
    own = {RAW_DIGEST.lower(): RAW_DIGEST}
    for name in [*list(SPELLING)[:-2], RAW_DIGEST.lower(), "content-type", "content-length"]:
        if name not in values:
            continue
        value = _plain(values[name])
        value = (_identity(value) or value) if name in _IDENTITIES else value
        if len(value.encode()) > (MOST_URI_BYTES if name in _URIS else MOST_VALUE_BYTES):
            left_out.append(name)
        elif value:
            lines.append(f"{SPELLING.get(name) or own[name]}: {value}\r\n")
    room = MOST_CANONICAL_BYTES - sum(len(line.encode()) for line in lines)
    between: list[str] = []
    for name, value in more:
        value = _identity(value) or "" if name == MANY else _plain(value)
        line = f"{SPELLING.get(name, name)}: {value}\r\n"
        if not value or not _NAME.fullmatch(name) or name == RAW_DIGEST.lower() or len(line.encode()) > room:
            left_out += [name] if value and name != RAW_DIGEST.lower() else []
            continue
        room -= len(line.encode())
        between.append(line)
    return [*lines[:-1], *between, lines[-1]], left_out


def target_uri(value: str) -> str:
    """Return a target URI without brackets, blanks around it and a user's password; what a URI cannot hold is escaped.

    >>> target_uri("<http://a.example/a b>")
    'http://a.example/a%20b'
    """
    value = without_userinfo(value.strip("<> \t"))
    safe = _UNSAFE.sub(lambda one: f"%{ord(one[0]) & 0xFF:02X}", value)
    return safe.encode("utf-8", "replace").decode()


def made_up_id(digest: bytes) -> str:
    """Return the id of a record that has none: a name-based UUID over the record itself."""
    return f"<urn:uuid:{uuid.UUID(bytes=digest[:16], version=4)}>"


def content_length(fields: list[tuple[str, str]]) -> int | None:
    """Return the length that a header states, None where it states none, no number, or two that differ."""
    stated = {value for name, value in fields if name == "content-length"}
    only = stated.pop() if len(stated) == 1 else ""
    return int(only) if _LENGTH.fullmatch(only) else None


def _is_target(url: str) -> bool:
    size = len(url) if url.isascii() else len(url.encode("utf-8", "surrogateescape"))
    return size <= MOST_URI_BYTES and is_uri(url)


def _http(block: bytes) -> bool:
    return block[:5].upper() == b"HTTP/"


def _is_http_type(content_type: str) -> bool:
    return content_type.startswith("application/http") and content_type[16:17] in ("", ";", " ")


def _identity(value: str) -> str | None:
    bare = _plain(value).strip("<> ")
    identity = f"<{bare}>"
    return identity if _ID.fullmatch(identity) else None


def _plain(value: str) -> str:
    text = value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return _CONTROL.sub(" ", text).strip()


def _shown(value: str) -> str:
    return _plain(value)[:200]
