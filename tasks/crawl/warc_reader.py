"""Reads WARC and ARC files record by record, as they are found: compressed or not, whole or damaged.

What enters the snapshot has the form of canonical.py. A record that has it keeps its bytes, where it is one gzip
member (as the standard recommends) even the compressed ones; any other is written anew, a member of its own. What
cannot be read is reported with its offset, and reading goes on at the next record. Time is linear in the bytes.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import zstandard
from fastwarc.warc import ArchiveIterator, WarcRecordType

from tasks.contracts.bodies import ZSTD_MAGIC, ZSTD_SKIPPABLE
from tasks.crawl import arc
from tasks.crawl.canonical import (
    Canonical,
    as_it_stands,
    conflict,
    content_length,
    in_canonical_form,
    read_fields,
    target_uri,
)
from tasks.crawl.streams import (
    CHUNK_BYTES,
    DICTIONARY_MAGIC,
    GZIP_MAGIC,
    MOST_RECORD_BYTES,
    MOST_URLS,
    OVERLAP,
    Buffered,
    Damage,
    Frames,
    Member,
    Skipped,
    compress,
)

_MAGIC = re.compile(re.escape(GZIP_MAGIC))
WARC_START = re.compile(rb"WARC/[0-9]{1,3}\.[0-9]{1,3}[ \t]*\r?\n", re.IGNORECASE)
# Where reading goes on after damage: a page may hold the words above.
_NEXT_RECORD = re.compile(WARC_START.pattern + rb"(?=[!-9;-~]{1,100}[ \t]*:)", re.IGNORECASE)
_FRAME = re.compile(re.escape(ZSTD_MAGIC) + rb"|" + ZSTD_SKIPPABLE.pattern, re.DOTALL)
_MEMBER = re.compile(_MAGIC.pattern + rb"|" + _FRAME.pattern)
_MEMBER_OR_RECORD = re.compile(rb"(?-i:" + _MEMBER.pattern + rb")|" + _NEXT_RECORD.pattern, re.IGNORECASE)
_HEADER_END = re.compile(rb"\n\r?\n|\n(?=" + WARC_START.pattern + rb")", re.IGNORECASE)
_CONCURRENT_RESPONSE = re.compile(rb"(?is)(?=.*\nwarc-type:[ \t]*response)(?=.*\nwarc-concurrent-to:)")
MOST_PLAIN_BYTES = 32 << 20
MOST_HEADER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Record:
    """One record in the form of canonical.py, and the gzip member that holds it.

    Attributes:
        notes: what could not be kept of its header; "" is nothing.
        segmented: whether it is a piece of a longer one.
        offset: where it begins, as in Damage.
    """

    kind: str
    member: bytes
    record_id: str
    url: str | None
    segmented: bool
    notes: tuple[str, ...]
    offset: int


def read_records(stream: BinaryIO, start: int = 0, stop: int | None = None) -> Iterator[Record | Damage]:
    """Yield the records of a WARC or ARC file, and the damaged places between them, in order.

    Args:
        start: of a file of WARC members, leave out what begins before this byte (the stream stands there already).
        stop: and what begins at this byte or later.
    """
    source = Buffered(stream, start)
    plain = False
    context: zstandard.ZstdDecompressor | None = None
    if start:
        _skip_to_slice(source)
    else:
        plain = not source.fill(4).startswith(GZIP_MAGIC[:2]) and not _FRAME.match(source.buffer)
    while source.fill(CHUNK_BYTES):
        # Files of both kinds are put behind each other: `cat a.warc b.warc.gz`.
        if plain or WARC_START.match(source.buffer):
            plain = False
            for one in _plain(source, among_members=True):
                yield one if isinstance(one, Damage) else _record(one, compress(one.content))
            continue
        if _FRAME.match(source.buffer):
            frames = Frames(source, _begins_record, context)
            yield from _frame_records(frames)
            context = frames.context
            continue
        if not source.buffer.startswith(GZIP_MAGIC):
            yield from _between_members(source, context)
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
        return _header_of(stream.read(CHUNK_BYTES)) is not None


def _header_of(compressed: bytes | bytearray) -> bytes | None:
    """Return the WARC header with which a member begins, None where none begins here."""
    if not compressed.startswith(GZIP_MAGIC):
        return None
    try:
        content = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(compressed, CHUNK_BYTES // 8)
    except zlib.error:
        return None
    return content.partition(b"\r\n\r\n")[0] if content.startswith(b"WARC/") else None


def _begins_member(compressed: bytes | bytearray, context: zstandard.ZstdDecompressor | None = None) -> bool:
    """Tell whether a gzip member or zstd frame of a WARC or ARC file begins here, and not a page's compressed body."""
    if ZSTD_SKIPPABLE.match(compressed):
        return compressed.startswith(DICTIONARY_MAGIC)
    try:
        if compressed.startswith(ZSTD_MAGIC):
            content = Frames(Buffered(BytesIO(compressed[:OVERLAP])), context=context).read()
            # Of a first block that is longer than what was looked at nothing comes out.
            if not content:
                return True
        elif compressed.startswith(GZIP_MAGIC):
            content = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(compressed[:CHUNK_BYTES], OVERLAP)
        else:
            return False
    except zlib.error:
        return False
    return _begins_record(content)


def _begins_record(content: bytes) -> bool:
    return WARC_START.match(content) is not None or arc.START.match(content) is not None


def _may_begin_slice(compressed: bytes | bytearray) -> bool:
    """Tell whether a slice may begin with this member: not with a response that belongs to the records before it."""
    header = _header_of(compressed)
    return header is not None and not _CONCURRENT_RESPONSE.match(header)


def _skip_to_slice(source: Buffered) -> None:
    """Consume up to where a slice may begin; the magic number alone also stands inside members."""
    while source.fill(CHUNK_BYTES) and not _may_begin_slice(source.buffer):
        source.skip_to(_MAGIC, at_least=1)


def _plain_case(source: Buffered) -> Record | Damage | None:
    """Return the record of a whole member that holds exactly one; None leaves it to the careful reader.

    Nearly every member is such a one, and this costs little more than decompressing it, which finds damage.
    """
    decompress = zlib.decompressobj(zlib.MAX_WBITS | 16)
    pieces = []
    used = size = 0
    while not decompress.eof:
        buffer = source.fill(used + CHUNK_BYTES)
        chunk = buffer[used : used + CHUNK_BYTES]
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
    offset = source.offset
    end = content.find(b"\r\n\r\n") + 4
    if end >= 4 and content.endswith(b"\r\n\r\n"):
        canonical = as_it_stands(content[:end], content[end : end + 5], len(content) - end - 4)
        if canonical is not None:
            return _record(canonical, source.take(used), offset)
    head = _warc_head(content) if WARC_START.match(content) else ""
    if isinstance(head, str) or head.length is None or head.ends_at:
        return None
    if content[head.size + head.length :].strip(b"\r\n") or head.size + head.length > len(content):
        return None
    source.take(used)
    rewritten = _rewritten(head, content[head.size : head.size + head.length], offset)
    return rewritten if isinstance(rewritten, Damage) else _record(rewritten, compress(rewritten.content), offset)


def _record(canonical: Canonical, member: bytes, offset: int | None = None) -> Record:
    at = canonical.offset if offset is None else offset
    return Record(canonical.kind, member, canonical.record_id, canonical.url, canonical.segmented, canonical.notes, at)


def _between_members(source: Buffered, context: zstandard.ZstdDecompressor | None) -> Iterator[Damage]:
    offset = source.offset
    skipped = _skip_to_next(source, context)
    if not skipped.blank:
        yield from skipped.damages(offset, f"{skipped.size} bytes that are no gzip member")


def _skip_to_next(source: Buffered, context: zstandard.ZstdDecompressor | None) -> Skipped:
    """Consume up to the next gzip member, zstd frame of records or uncompressed record."""
    return source.skip_to(
        _MEMBER_OR_RECORD, accept=lambda found: not _FRAME.match(found) or _begins_member(found, context)
    )


def _frame_records(frames: Frames) -> Iterator[Record | Damage]:
    """Yield the records of some zstd frames."""
    broken: Damage | None = None
    going = True
    while going:
        content = Buffered(frames, frames.offset)  # type: ignore[arg-type]
        for one in _plain(content):
            if broken is not None:
                yield broken
                broken = None
            if isinstance(one, Damage):
                broken = replace(one, offset=frames.place(one.offset))
            else:
                yield _record(one, compress(one.content), frames.place(one.offset))
        going = frames.go_on()
    if frames.damage is not None:
        # A record that ends with its damaged frame is one damaged place, not two.
        detail = f"{broken.detail}; {frames.damage}" if broken else frames.damage
        kept = broken is None and frames.begun
        broken = Damage(frames.place(content.offset), detail, broken.url if broken else None, kept=kept)
    if broken is not None:
        yield broken
    if frames.damage is not None and frames.source.fill(1):
        _skip_to_next(frames.source, frames.context)


def _member_records(source: Buffered) -> Iterator[Record | Damage]:
    """Yield a member's records; a member with exactly one whole record is kept as it is."""
    offset = source.offset
    member = Member(source)
    content = Buffered(member)  # type: ignore[arg-type]
    waiting: Canonical | None = None
    single = True
    broken: Damage | None = None
    for one in _plain(content):
        if broken is not None:
            yield broken
            broken = None
        if isinstance(one, Damage):
            single = False
            broken = replace(one, offset=offset)
            continue
        if waiting is not None:
            single = False
            yield _record(waiting, compress(waiting.content), offset)
        waiting = one
    member.read()
    if waiting is not None and member.damage is not None and "incorrect" in member.damage:
        # The member's own checksum says that its bytes are not those that were written.
        yield Damage(offset, f"a record in a {member.damage}", waiting.url)
        waiting = member.damage = None
    if waiting is not None:
        verbatim = single and member.damage is None and member.small and not waiting.rewritten
        same = verbatim and content.offset == len(waiting.content)
        yield _record(waiting, bytes(member.compressed) if same else compress(waiting.content), offset)
    if member.damage is not None:
        # A record that ends with its damaged member is one damaged place, not two.
        detail = f"{broken.detail}; {member.damage}" if broken else member.damage
        broken = Damage(offset, detail, broken.url if broken else None, kept=broken is None and waiting is not None)
    if broken is not None:
        yield broken
    if member.damage is not None and source.fill(1) and not source.buffer.startswith(GZIP_MAGIC):
        _skip_to_next(source, None)


@dataclass(frozen=True, slots=True)
class _Head:
    """A record's header: how many bytes it takes, the same as WARC, and the block's length where it states one.

    Attributes:
        raw: the header as it stands, where it is none of WARC.
        inner: where in it what looks like another record begins; 0: nowhere.
        ends_at: where it was cut off, and the next record's begins; 0: nowhere.
    """

    size: int
    header: bytes
    length: int | None
    url: str | None
    raw: bytes | None = None
    inner: int = 0
    ends_at: int = 0


@dataclass(frozen=True, slots=True)
class _Form:
    """How records of one kind are read.

    Attributes:
        start: how a record begins.
        following: how the next one is found where the bytes do not lead to it.
        among_members: whether gzip members may stand between them.
    """

    name: str
    start: re.Pattern[bytes]
    following: re.Pattern[bytes]
    read_head: Callable[[bytes | bytearray], _Head | str]
    among_members: bool

    def skip(self, content: Buffered, *, at_least: int = 0, most: int | None = None) -> Skipped:
        """Consume up to the next record, or member of records."""
        return content.skip_to(self._next, at_least=at_least, most=most, accept=self._begins)

    def find(self, content: bytes | bytearray, start: int, stop: int) -> int | None:
        """Return where between two bytes the next record, or member of records, begins."""
        match = self._next.search(content, start, stop)
        while match is not None and not self._begins(content[match.start() : match.start() + OVERLAP]):
            match = self._next.search(content, match.start() + 1, stop)
        return None if match is None else match.start()

    @property
    def _next(self) -> re.Pattern[bytes]:
        pattern = self.following.pattern + (rb"|(?-i:" + _MEMBER.pattern + rb")" if self.among_members else b"")
        return re.compile(pattern, re.IGNORECASE if self.name == "WARC" else 0)

    def _begins(self, content: bytes | bytearray) -> bool:
        return _MEMBER.match(content) is None or _begins_member(content)


def _plain(content: Buffered, *, among_members: bool = False) -> Iterator[Canonical | Damage]:
    """Yield each record of an uncompressed stream; where members may stand in it, up to the first."""
    if arc.START.match(content.fill(CHUNK_BYTES)):
        form = _Form("ARC", arc.START, arc.NEXT, _arc_head, among_members)
    else:
        form = _Form("WARC", WARC_START, _NEXT_RECORD, _warc_head, among_members)
    while content.fill(CHUNK_BYTES):
        if form.start.match(content.buffer):
            yield from _one(content, form)
            continue
        if among_members and _begins_member(content.buffer):
            return
        offset = content.offset
        skipped = form.skip(content)
        if not skipped.blank:
            yield from skipped.damages(offset, f"{skipped.size} bytes that are no {form.name} record")


def _one(content: Buffered, form: _Form) -> Iterator[Canonical | Damage]:
    """Yield the record that begins here, or say what is wrong with it."""
    offset = content.offset
    head = form.read_head(content.buffer)
    if isinstance(head, str):
        head = form.read_head(content.fill(MOST_HEADER_BYTES))
    if isinstance(head, str):
        yield from form.skip(content, at_least=5).damages(offset, head)
        return
    if head.ends_at:
        content.take(head.ends_at)
        yield Damage(offset, "a WARC header that runs into the next record", head.url)
        return
    if head.length is None:
        content.take(head.size)
        yield Damage(offset, "a header without a valid length", head.url)
        after = content.offset
        yield from form.skip(content).others("bytes behind a record without a length")
        return
    length, total = head.length, head.size + head.length
    if length > MOST_RECORD_BYTES:
        detail = f"a record of {length} bytes, more than {MOST_RECORD_BYTES}"
        yield Damage(offset, detail, head.url)
        content.take(head.size)
        yield from form.skip(content, most=length).others(detail)
        return
    buffer = content.fill(total + OVERLAP)
    end = total + len(buffer[total : total + OVERLAP]) - len(buffer[total : total + OVERLAP].lstrip(b"\r\n"))
    whole = end == len(buffer) >= total or form.start.match(buffer, end) is not None
    whole = whole or (form.among_members and _MEMBER.match(buffer, end) is not None and _begins_member(buffer[end:]))
    again = None if whole else form.find(buffer, head.size, total + OVERLAP)
    there = again if again is not None and again < total else min(total, len(buffer))
    if there < total:
        detail = f"a record of {length} bytes of which {there - head.size} are there"
        detail += " before the next one" if again is not None else ""
        yield Damage(offset, detail, head.url)
        yield from _second(head, offset)
        content.take(head.size)
        yield from content.skip(there - head.size).others(detail)
        return
    content.take(head.size)
    block = content.take(length)
    rewritten = _finished(head, block, offset)
    yield rewritten
    yield from _second(head, offset, kept=not isinstance(rewritten, Damage))
    if not whole or _NEXT_RECORD.search(block):
        # A length that is wrong and leads to some later record's end, or a page about archives: its length is the law,
        # or any page could put records into an archive, but what is in it is not passed over in silence.
        inside = Skipped.of(offset + head.size, block).others("the block of the record before, by its Content-Length")
        yield from (replace(damage, kept=True) for damage in inside)
    if form.among_members:
        yield from _members_in(block, offset + head.size)
    if not whole and end == total:
        after = content.offset
        skipped = form.skip(content)
        detail = f"{skipped.size} bytes behind a record's Content-Length of {length}"
        kept = not isinstance(rewritten, Damage)
        if kept:
            yield Damage(after, detail, head.url, kept=True)
        yield from skipped.others(detail)
    while content.fill(2).startswith((b"\r", b"\n")):
        content.take(1)


def _members_in(block: bytes, offset: int) -> Iterator[Damage]:
    """Yield the gzip members of records that stand in a block that was kept, as its Content-Length has it."""
    at, looks = block.find(GZIP_MAGIC), 0
    while at >= 0:
        looks += 1
        if looks > MOST_URLS:
            yield Damage(offset + at, f"more than {MOST_URLS} gzip members in the record before", kept=True)
            return
        if _begins_member(member := block[at : at + OVERLAP]):
            fields = read_fields((_header_of(member) or b"") + b"\r\n\r\n")
            url = next((target_uri(value) for name, value in fields if name == "warc-target-uri" and value), None)
            yield Damage(offset + at, "a member of records lost in the block of the record before", url, kept=True)
        at = block.find(GZIP_MAGIC, at + 1)


def _second(head: _Head, offset: int, kept: bool = False) -> Iterator[Damage]:
    """Yield the record into whose header another one, cut off in its own, may have run; of one that was kept, both."""
    if head.inner and kept:
        yield Damage(offset, "a header in which another record seems to begin", head.url, kept=True)
    if head.inner:
        yield Damage(offset + head.inner, "a record whose header stands in the one before", kept=kept)


def _warc_head(content: bytes | bytearray) -> _Head | str:
    end = _HEADER_END.search(content, 0, MOST_HEADER_BYTES)
    if end is None or len(end[0]) == 1:
        return "a WARC header without an end"
    header = bytes(content[: end.end()])
    fields = read_fields(header)
    url = next((target_uri(value) for name, value in fields if name == "warc-target-uri" and value), None)
    length = content_length(fields)
    # An address may end like a record's first line, so only what makes no sense as one header is taken for two.
    match = _NEXT_RECORD.search(header, 5)
    inner = match.start() if match else 0
    member = header.find(GZIP_MAGIC)
    two = member > 0 or length is None or conflict(fields) is not None
    inner = min(one for one in (inner, member) if one > 0) if member > 0 else inner
    return _Head(len(header), header, length, url, inner=inner, ends_at=inner if two else 0)


def _arc_head(content: bytes | bytearray) -> _Head | str:
    end = content.find(b"\n", 0, arc.MOST_LINE_BYTES) + 1
    raw = bytes(content[:end])
    line = arc.read_line(raw)
    if line is None:
        return "a header line that is none of an ARC record"
    header = arc.warc_header(line, bytes(content[end : end + 5]))
    return _Head(end, header, line.length, target_uri(line.url), raw)


def _finished(head: _Head, block: bytes, offset: int) -> Canonical | Damage:
    """Return a record in the form of canonical.py: as it stands where it has it, else rewritten."""
    canonical = as_it_stands(head.header, block[:5], len(block)) if head.raw is None else None
    if canonical is None:
        return _rewritten(head, block, offset)
    return replace(canonical, content=b"".join((head.header, block, b"\r\n\r\n")), offset=offset)


def _rewritten(head: _Head, block: bytes, offset: int) -> Canonical | Damage:
    canonical = in_canonical_form(head.header, block, raw=None if head.raw is None else head.raw + block)
    if isinstance(canonical, Canonical) and not _read_alike(canonical, len(block)):
        canonical = "a header that two readers take for two different ones"
    if isinstance(canonical, str):
        return Damage(offset, canonical, head.url)
    return replace(canonical, offset=offset)


def _read_alike(canonical: Canonical, length: int) -> bool:
    """Tell whether the reader that later stages use sees in a rewritten record what this one does."""
    try:
        records = [
            (record.record_id, record.headers.get("WARC-Target-URI"), record.content_length, record.record_type)
            for record in ArchiveIterator(
                BytesIO(canonical.content), record_types=WarcRecordType.any_type, parse_http=False
            )
        ]
    except (OSError, ValueError, EOFError, RuntimeError):
        return False
    kind = getattr(WarcRecordType, canonical.kind)
    return records == [(canonical.record_id, canonical.url, length, kind)]


def header_fields(header: bytes) -> dict[str, str]:
    """Return a header's fields by lower-case name, the first of each; folded lines are joined."""
    fields: dict[str, str] = {}
    for name, value in read_fields(header):
        fields.setdefault(name, value)
    return fields


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
