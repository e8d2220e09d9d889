"""Reads WARC and ARC files record by record, as they are found: compressed or not, whole or damaged.

A record's bytes are kept as they stand. Where every record is one gzip member (as the standard recommends) even
the compressed bytes are kept; otherwise each record becomes a member of its own. What cannot be read is reported
with its offset, and reading goes on at the next record.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from warcio.archiveiterator import ArchiveIterator
from warcio.exceptions import ArchiveLoadFailed
from warcio.warcwriter import WARCWriter

from tasks.contracts.redaction import without_userinfo

GZIP_MAGIC = b"\x1f\x8b\x08"
WARC_START = re.compile(rb"WARC/[01]\.\d+[ \t]*\r?\n", re.IGNORECASE)
ARC_START = re.compile(rb"(?:filedesc|https?|dns|ftp)://?\S[^\n]* \d+\r?\n|dns:[^\n]* \d+\r?\n")
HEADER_END = re.compile(rb"\r?\n\r?\n")
_KIND = re.compile(rb"\nwarc-type:[ \t]*([a-z]+)[ \t]*\r\n", re.IGNORECASE)
_LENGTH = re.compile(rb"\ncontent-length:[ \t]*(\d{1,12})[ \t]*\r\n", re.IGNORECASE)
_CONCURRENT_RESPONSE = re.compile(rb"(?is)(?=.*\nwarc-type:[ \t]*response)(?=.*\nwarc-concurrent-to:)")
_FOLDED = re.compile(rb"\n[ \t]")
CHUNK = 1 << 16
MOST_PLAIN_BYTES = 32 << 20
MOST_HEADER_BYTES = 1 << 18
MOST_RECORD_BYTES = 256 << 20  # a bigger record is no web page, and would have to fit into memory


@dataclass(frozen=True, slots=True)
class Record:
    """One record: its type, and the gzip member that holds it."""

    kind: str
    member: bytes


@dataclass(frozen=True, slots=True)
class Damage:
    """A place that could not be read.

    Attributes:
        offset: in the file, compressed where it is; inside a member that holds several records, the member's.
    """

    offset: int
    detail: str
    url: str | None = None


class Buffered:
    """A stream with look-ahead that counts what was consumed."""

    def __init__(self, stream: BinaryIO, offset: int = 0) -> None:
        self.stream = stream
        self.buffer = bytearray()
        self.offset = offset
        self.ended = False

    def fill(self, size: int) -> bytearray:
        """Return the buffer after reading until it holds `size` bytes, or the stream's end."""
        while len(self.buffer) < size and not self.ended:
            chunk = self.stream.read(max(CHUNK, size - len(self.buffer)))
            self.ended = not chunk
            self.buffer += chunk
        return self.buffer

    def take(self, size: int) -> bytes:
        """Consume and return up to `size` bytes."""
        self.fill(size)
        taken = bytes(self.buffer[:size])
        del self.buffer[:size]
        self.offset += len(taken)
        return taken

    def give_back(self, content: bytes) -> None:
        """Undo the last `take` of these bytes."""
        self.buffer[:0] = content
        self.offset -= len(content)

    def skip_to(self, pattern: re.Pattern[bytes]) -> int:
        """Consume up to the next match at a line's start (or the end), and return how many bytes that were."""
        start = self.offset
        while True:
            self.fill(CHUNK)
            found = pattern.search(self.buffer)
            if found is not None:
                self.take(found.start())
                return self.offset - start
            if self.ended:
                self.take(len(self.buffer))
                return self.offset - start
            self.take(max(0, len(self.buffer) - 256))
            if not self.fill(CHUNK):
                return self.offset - start


class Member:
    """One gzip member as a stream of its content, which also keeps the compressed bytes while they are few."""

    def __init__(self, source: Buffered) -> None:
        self.source = source
        self.decompress = zlib.decompressobj(zlib.MAX_WBITS | 16)
        self.compressed = bytearray()
        self.small = True
        self.finished = False
        self.damage: str | None = None

    def read(self, _size: int = -1) -> bytes:
        """Return some content, or nothing at the end of the member or where it is damaged."""
        while not self.finished:
            chunk = self.source.take(1 << 16)
            if not chunk:
                self.finished, self.damage = True, "the file ends inside a gzip member"
                return b""
            try:
                content = self.decompress.decompress(chunk)
            except zlib.error as error:
                self.finished, self.damage = True, f"damaged gzip member: {error}"
                # The next member may begin in this chunk; one byte stays consumed, so that reading goes on.
                self.source.give_back(chunk if self.compressed else chunk[1:])
                return b""
            if self.decompress.eof:
                self.finished = True
                unused = self.decompress.unused_data
                self.source.give_back(unused)
                chunk = chunk[: len(chunk) - len(unused)]
            if self.small:
                self.compressed += chunk
                self.small = len(self.compressed) <= MOST_RECORD_BYTES
            if content:
                return content
        return b""


def read_records(stream: BinaryIO, start: int = 0, stop: int | None = None) -> Iterator[Record | Damage]:
    """Yield the records of a WARC or ARC file, and the damaged places between them, in order.

    Args:
        start: of a file of WARC members, leave out what begins before this byte (the stream stands there already).
        stop: and what begins at this byte or later.
    """
    source = Buffered(stream, start)
    if start:
        _skip_to_slice(source)
    elif not source.fill(4).startswith(GZIP_MAGIC[:2]):
        for found in _plain(source):
            yield Record(found[0], compress(found[1])) if isinstance(found, tuple) else found
        return
    while source.fill(CHUNK):
        if not source.buffer.startswith(GZIP_MAGIC):
            yield from _between_members(source)
            continue
        if stop is not None and source.offset >= stop and _may_begin_slice(source.buffer):
            return
        if (record := _plain_case(source)) is not None:
            yield record
        else:
            yield from _member_records(source)


def starts_with_members(path: Path) -> bool:
    """Tell whether a file begins with a gzip member that begins a WARC record, and so may be read in slices."""
    with path.open("rb") as stream:
        return _header_of(stream.read(CHUNK)) is not None


def _header_of(compressed: bytes | bytearray) -> bytes | None:
    """Return the WARC header with which a member begins, None where none begins here."""
    if not compressed.startswith(GZIP_MAGIC):
        return None
    try:
        content = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(compressed, CHUNK // 8)
    except zlib.error:
        return None
    return content.partition(b"\r\n\r\n")[0] if content.startswith(b"WARC/") else None


def _may_begin_slice(compressed: bytes | bytearray) -> bool:
    """Tell whether a slice may begin with this member: not with a response that belongs to the records before it."""
    header = _header_of(compressed)
    return header is not None and not _CONCURRENT_RESPONSE.match(header)


def _skip_to_slice(source: Buffered) -> None:
    """Consume up to where a slice may begin; the magic number alone also stands inside members."""
    magic = re.compile(re.escape(GZIP_MAGIC))
    while source.fill(CHUNK) and not _may_begin_slice(source.buffer):
        if source.buffer.startswith(GZIP_MAGIC):
            source.take(1)
        source.skip_to(magic)


def _plain_case(source: Buffered) -> Record | None:
    """Return the record of a whole member that holds exactly one, as it stands; None leaves it to the careful reader.

    Nearly every member is such a one, and this costs little more than decompressing it, which finds damage.
    """
    decompress = zlib.decompressobj(zlib.MAX_WBITS | 16)
    pieces = []
    used = size = 0
    while not decompress.eof:
        buffer = source.fill(used + CHUNK)
        chunk = buffer[used : used + CHUNK]
        if not chunk or size > MOST_PLAIN_BYTES:
            return None
        try:
            pieces.append(decompress.decompress(chunk, MOST_PLAIN_BYTES))
        except zlib.error:
            return None
        if decompress.unconsumed_tail:
            return None
        used += len(chunk)
        size += len(pieces[-1])
    used -= len(decompress.unused_data)
    content = b"".join(pieces)
    end = content.find(b"\r\n\r\n") + 2
    if end < 2 or not content.startswith(b"WARC/1."):
        return None
    lengths, kinds = _LENGTH.findall(content, 0, end), _KIND.findall(content, 0, end)
    if len(lengths) != 1 or len(kinds) != 1 or _FOLDED.search(content, 0, end):
        return None
    if len(content) != end + 2 + int(lengths[0]) + 4 or not content.endswith(b"\r\n\r\n"):
        return None
    return Record(kinds[0].decode().lower(), source.take(used))


def _between_members(source: Buffered) -> Iterator[Damage]:
    offset = source.offset
    zeros = not source.buffer.strip(b"\0")
    skipped = source.skip_to(re.compile(re.escape(GZIP_MAGIC)))
    if not zeros:
        yield Damage(offset, f"{skipped} bytes that are no gzip member")


def _member_records(source: Buffered) -> Iterator[Record | Damage]:
    """Yield a member's records; a member with exactly one whole record is kept as it is."""
    offset = source.offset
    member = Member(source)
    content = Buffered(member)  # type: ignore[arg-type]
    waiting: tuple[str, bytes] | None = None
    single = True
    broken: Damage | None = None
    for found in _plain(content):
        if broken is not None:
            yield broken
            broken = None
        if isinstance(found, Damage):
            single = False
            broken = Damage(offset, found.detail, found.url)
            continue
        if waiting is not None:
            single = False
            yield Record(waiting[0], compress(waiting[1]))
        waiting = found
    member.read()
    if waiting is not None:
        verbatim = single and member.damage is None and member.small and waiting[1].startswith(b"WARC/")
        same = verbatim and content.offset == len(waiting[1])
        yield Record(waiting[0], bytes(member.compressed) if same else compress(waiting[1]))
    if member.damage is not None:
        # A record that ends with its damaged member is one damaged place, not two.
        detail = f"{broken.detail}; {member.damage}" if broken else member.damage
        broken = Damage(offset, detail, broken.url if broken else None)
    if broken is not None:
        yield broken
    if member.damage is not None and source.fill(1) and not source.buffer.startswith(GZIP_MAGIC):
        source.skip_to(re.compile(re.escape(GZIP_MAGIC)))


def _plain(content: Buffered) -> Iterator[tuple[str, bytes] | Damage]:
    """Yield (type, bytes) of each record of an uncompressed stream."""
    first = content.fill(CHUNK)
    if ARC_START.match(first):
        yield from _arc(content)
        return
    while content.fill(CHUNK // 8):
        if not WARC_START.match(content.buffer):
            offset = content.offset
            blank = not content.buffer.strip()
            skipped = content.skip_to(WARC_START)
            if not blank:
                yield Damage(offset, f"{skipped} bytes that are no WARC record")
            continue
        yield from _one(content)


def _one(content: Buffered) -> Iterator[tuple[str, bytes] | Damage]:
    """Yield the record that begins here, or say what is wrong with it."""
    offset = content.offset
    end = HEADER_END.search(content.buffer) or HEADER_END.search(content.fill(MOST_HEADER_BYTES))
    if end is None or end.end() > MOST_HEADER_BYTES:
        content.take(8)
        content.skip_to(WARC_START)
        yield Damage(offset, "a WARC header without an end")
        return
    header = bytes(content.buffer[: end.end()])
    fields = header_fields(header)
    url = fields.get("warc-target-uri", "").strip("<> ") or None
    length = fields.get("content-length", "")
    if not length.isdigit() or not fields.get("warc-type"):
        content.take(8)
        content.skip_to(WARC_START)
        yield Damage(
            offset, "a WARC header without " + ("WARC-Type" if length.isdigit() else "a valid Content-Length"), url
        )
        return
    if int(length) > MOST_RECORD_BYTES:
        _discard(content, len(header) + int(length))
        yield Damage(offset, f"a record of {length} bytes, more than {MOST_RECORD_BYTES}", url)
        return
    raw = content.take(len(header) + int(length))
    if len(raw) < len(header) + int(length):
        yield Damage(offset, f"a record of {length} bytes of which {len(raw) - len(header)} are there", url)
        return
    tail = content.fill(4)[:4]
    if not WARC_START.match(content.buffer) and tail.strip(b"\r\n"):
        again = WARC_START.search(raw, 8)
        if again is not None:
            content.give_back(raw[again.start() :])
            yield Damage(offset, f"a record whose Content-Length {length} reaches into the next record", url)
            return
        yield fields["warc-type"].lower(), raw + b"\r\n\r\n"
        after = content.offset
        skipped = content.skip_to(WARC_START)
        yield Damage(after, f"{skipped} bytes behind a record's Content-Length of {length}", url)
        return
    while content.fill(2).startswith((b"\r", b"\n")):
        content.take(1)
    yield fields["warc-type"].lower(), raw + b"\r\n\r\n"


def _discard(content: Buffered, size: int) -> None:
    while size > 0 and (taken := len(content.take(min(size, CHUNK)))):
        size -= taken


def header_fields(header: bytes) -> dict[str, str]:
    """Return a header's fields by lower-case name, the first of each; folded lines are joined."""
    fields: dict[str, str] = {}
    last = ""
    for line in header.decode("utf-8", "replace").splitlines()[1:]:
        if line[:1] in (" ", "\t") and last:
            fields[last] = f"{fields[last]} {line.strip()}".strip()
            continue
        name, _, value = line.partition(":")
        last = name.strip().lower()
        fields.setdefault(last, value.strip())
    return fields


def _arc(content: Buffered) -> Iterator[tuple[str, bytes] | Damage]:
    """Yield an ARC file's records as WARC records, made by warcio."""
    offset = content.offset
    try:
        for record in ArchiveIterator(_Reader(content), arc2warc=True, verify_http=False):
            stream = BytesIO()
            WARCWriter(stream, gzip=False, warc_version="1.1").write_record(record)
            yield record.rec_type, stream.getvalue()
    except (ArchiveLoadFailed, ValueError, EOFError, IndexError, AttributeError, KeyError, zlib.error) as error:
        yield Damage(offset, f"an ARC file that cannot be read further: {str(error).strip().splitlines()[:1]}")
    content.skip_to(re.compile(rb"\Z(?!)"))


class _Reader:
    """A Buffered as the file object that warcio reads."""

    def __init__(self, content: Buffered) -> None:
        self.content = content

    def read(self, size: int = CHUNK) -> bytes:
        return self.content.take(size)


def inflated(member: bytes) -> bytes:
    """Return a gzip member's content.

    Raises:
        ValueError: it is damaged, not one whole member, or more than a record may be.
    """
    decompress = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        content = decompress.decompress(member, MOST_RECORD_BYTES + MOST_HEADER_BYTES)
    except zlib.error as error:
        raise ValueError(f"damaged gzip member: {error}") from error
    if not decompress.eof or decompress.unused_data:
        raise ValueError("not one whole gzip member")
    return content


def without_userinfo_member(member: bytes) -> bytes:
    """Return a record's member without user names and passwords in the URLs of its WARC header, ids included."""
    for most in (CHUNK // 8, MOST_HEADER_BYTES):
        start = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(member, most)
        if end := HEADER_END.search(start):
            break
    else:
        return member
    head = start[: end.start()].decode("utf-8", "surrogateescape")
    clean = without_userinfo(head)
    if clean == head:
        return member
    return compress(clean.encode("utf-8", "surrogateescape") + inflated(member)[end.start() :])


def compress(content: bytes) -> bytes:
    """Return a gzip member without a time in it, so that equal content gives equal bytes."""
    compressor = zlib.compressobj(6, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    return compressor.compress(content) + compressor.flush()
