"""The body of an answer without its transfer and content codings: RFC 9112, section 7; RFC 9110, section 8.4.

What servers and archives hold is not always what their headers say: bodies that break off, that stand there decoded
already, that are put together of several gzip members. What can be read is read, and what ends early says so. Time
and memory are linear in the bytes, with a limit to what comes out.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Protocol

import brotli
import zstandard

from tasks.contracts.http_responses import codings
from tasks.contracts.media_types import is_markup

GZIP_MAGIC = b"\x1f\x8b"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
ZSTD_SKIPPABLE = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18", re.DOTALL)  # RFC 8878, section 3.1.2
MOST_WINDOW_BYTES = 1 << 27  # of zstd, as its command line allows; RFC 9659 asks for 8 MiB
MOST_STREAMS = 10_000  # gzip members or zstd frames of one body
MOST_PIECE = 1 << 16
FIRST_PIECE = 1 << 9
_SIZE = re.compile(rb"[ \t]*([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\n]*)?\r?\n")
ERRORS = (ValueError, zlib.error, brotli.error, zstandard.ZstdError)


@dataclass(frozen=True, slots=True)
class Body:
    """What a body holds.

    Attributes:
        cut: why it ends before its end; "" where it does not.
        more: whether more than the limit would come out; then `content` is that much of it.
    """

    content: bytes
    cut: str = ""
    more: bool = False


def opened(payload: bytes, fields: Sequence[tuple[str, str]], limit: int) -> Body:
    """Return a payload without the codings that its header fields name.

    A coding that the body does not bear is passed over: archives decode bodies and keep the header, servers write it
    and send plain text.

    Args:
        fields: the answer's; those of one name are one list.
        limit: bytes that may come out of any of the codings.

    Raises:
        ValueError: too many codings are named; or the body is no markup, and one is unknown or nothing can be decoded.
            Also the decoders' own errors (`ERRORS`).
    """
    transfer = [coding for coding in _listed(fields, "transfer-encoding") if coding != "identity"]
    body = Body(payload)
    if "chunked" in transfer:
        body = _dechunked(payload)
    applied = [*codings(", ".join(_listed(fields, "content-encoding"))), *(one for one in transfer if one != "chunked")]
    applied = [coding for coding in applied if coding != "identity"]
    failure: Exception | None = None
    for coding in reversed(applied):
        if not body.content or body.more:
            break
        try:
            body = _without(coding, body, limit)
        except ERRORS as error:
            failure = failure or error
    if failure is not None and not is_markup(body.content):
        raise failure
    if not applied and not transfer and (stated := _listed(fields, "content-length")) and stated[0].isdecimal():
        missing = int(stated[0][:18]) - len(payload)
        body = (
            replace(body, cut=f"{missing} bytes of Content-Length {stated[0][:18]} are missing")
            if missing > 0
            else body
        )
    return replace(body, content=body.content[:limit], more=True) if len(body.content) > limit else body


def decompressed(payload: bytes, coding: str, limit: int) -> Body:
    """Return a payload without one content coding.

    Raises:
        ValueError: the coding is not known; also the decoders' own errors, where nothing can be decoded.
    """
    decode = _DECODERS.get(coding)
    if decode is None:
        raise ValueError(f"unknown content encoding {coding[:40]!r}")
    return decode(payload, limit)


def _listed(fields: Sequence[tuple[str, str]], name: str) -> list[str]:
    values = ",".join(value for one, value in fields if one.lower() == name)
    return [value for part in values.lower().split(",") if (value := part.strip())]


def _without(coding: str, body: Body, limit: int) -> Body:
    try:
        found = decompressed(body.content, coding, limit)
    except ERRORS:
        if is_markup(body.content):
            return body
        raise
    if found.cut and is_markup(body.content):
        return body
    return replace(found, cut="; ".join(filter(None, (body.cut, found.cut))))


def _dechunked(payload: bytes) -> Body:
    parts: list[bytes] = []
    position = 0
    while (line := _SIZE.match(payload, position)) is not None:
        size = int(line[1], 16)
        if not size:
            return Body(b"".join(parts))
        part = payload[line.end() : line.end() + size]
        parts.append(part)
        position = line.end() + size
        if len(part) < size:
            break
        position += 2 if payload[position : position + 2] == b"\r\n" else 1
    # What does not begin with a chunk's size was put together already.
    return Body(b"".join(parts), "chunked: the last chunk is missing") if parts else Body(payload)


class _Decoder(Protocol):
    """One compressed stream: feed it, and it says how many of the bytes are behind its end."""

    ended: bool
    unused: int

    def feed(self, data: bytes, room: int) -> bytes: ...


class _Zlib:
    def __init__(self, bits: int) -> None:
        self._inner = zlib.decompressobj(bits)
        self.ended = False
        self.unused = 0

    def feed(self, data: bytes, room: int) -> bytes:
        content = self._inner.decompress(data, room)
        self.ended, self.unused = self._inner.eof, len(self._inner.unused_data)
        return content


class _Brotli:
    def __init__(self) -> None:
        self._inner = brotli.Decompressor()
        self.ended = False
        self.unused = 0

    def feed(self, data: bytes, room: int) -> bytes:
        content = bytes(self._inner.process(data, output_buffer_limit=room))
        while len(content) < room and (more := self._inner.process(b"", output_buffer_limit=room - len(content))):
            content += more
        self.ended = self._inner.is_finished()
        return content


@cache  # making one takes longer than most frames
def _zstd_context() -> zstandard.ZstdDecompressor:
    return zstandard.ZstdDecompressor(max_window_size=MOST_WINDOW_BYTES)


class _Zstd:
    def __init__(self) -> None:
        self._inner = _zstd_context().decompressobj()
        self.ended = False
        self.unused = 0

    def feed(self, data: bytes, room: int) -> bytes:
        content = self._inner.decompress(data)
        self.ended, self.unused = self._inner.eof, len(self._inner.unused_data)
        return content[:room]


@dataclass(frozen=True, slots=True)
class _Stream:
    """One stream of a payload as far as it could be read.

    Attributes:
        end: the first byte behind it.
    """

    content: bytes
    end: int
    whole: bool
    error: Exception | None = None


def _stream(
    make: Callable[[], _Decoder], payload: bytes, start: int, room: int, most_piece: int = MOST_PIECE
) -> _Stream:
    """Read one compressed stream that begins at a byte, as far as it goes or up to `room` bytes."""
    decoder = make()
    view = memoryview(payload)
    parts: list[bytes] = []
    position, size, left = start, FIRST_PIECE, room
    while not decoder.ended and position < len(payload) and left > 0:
        piece = bytes(view[position : position + size])
        try:
            content = decoder.feed(piece, left)
        except ERRORS as error:
            content, ended = _before_the_fault(make, view[start:position], piece, left)
            return _Stream(b"".join((*parts, content)), position, ended, None if ended else error)
        parts.append(content)
        left -= len(content)
        position += len(piece) - decoder.unused
        size = min(2 * size, most_piece)
    return _Stream(b"".join(parts), position, decoder.ended)


def _before_the_fault(make: Callable[[], _Decoder], before: memoryview, piece: bytes, room: int) -> tuple[bytes, bool]:
    """Return what comes out of a piece before the byte at which its decoder gives up, and whether that was the end.

    Brotli's decoder takes what stands behind its end for a fault.
    """
    decoder = make()
    parts: list[bytes] = []
    try:
        for start in range(0, len(before), FIRST_PIECE):
            decoder.feed(bytes(before[start : start + FIRST_PIECE]), 1 << 40)
        for number in range(len(piece)):
            if decoder.ended:
                break
            content = decoder.feed(piece[number : number + 1], room)
            parts.append(content)
            room -= len(content)
    except ERRORS:
        pass
    return b"".join(parts), decoder.ended


def _read(coding: str, streams: Sequence[_Stream], limit: int) -> Body:
    """Return what some streams hold, one behind the other."""
    content = b"".join(stream.content for stream in streams)
    if len(content) > limit:
        return Body(content[:limit], more=True)
    last = streams[-1]
    if last.whole:
        more = len(streams) >= MOST_STREAMS
        return Body(content, f"{coding}: what is behind its first {MOST_STREAMS} streams was not read" if more else "")
    if not content and last.error is not None:
        raise last.error
    said = "is damaged" if last.error is not None else "ends early"
    return Body(content, f"{coding}: the body {said}, {len(content)} bytes of it could be read")


def _goes_on(streams: Sequence[_Stream], room: int) -> bool:
    return streams[-1].whole and room > 0 and len(streams) < MOST_STREAMS


def _gzip(payload: bytes, limit: int) -> Body:
    streams: list[_Stream] = []
    position, room = 0, limit + 1
    while not streams or (_goes_on(streams, room) and payload.startswith(GZIP_MAGIC, position)):
        streams.append(_stream(lambda: _Zlib(zlib.MAX_WBITS | 16), payload, position, room))
        position, room = streams[-1].end, room - len(streams[-1].content)
    return _read("gzip", streams, limit)


def _deflate(payload: bytes, limit: int) -> Body:
    # Servers send both zlib streams, as the RFC says, and bare deflate.
    stream = _stream(lambda: _Zlib(zlib.MAX_WBITS), payload, 0, limit + 1)
    if not stream.whole and len(stream.content) <= limit:
        bare = _stream(lambda: _Zlib(-zlib.MAX_WBITS), payload, 0, limit + 1)
        stream = max(stream, bare, key=lambda one: (one.whole, len(one.content)))
    return _read("deflate", [stream], limit)


def _br(payload: bytes, limit: int) -> Body:
    return _read("br", [_stream(_Brotli, payload, 0, limit + 1)], limit)


def _zstd(payload: bytes, limit: int) -> Body:
    streams: list[_Stream] = []
    position, room = 0, limit + 1
    while not streams or _goes_on(streams, room):
        if ZSTD_SKIPPABLE.match(payload, position):
            end = position + 8 + int.from_bytes(payload[position + 4 : position + 8], "little")
            streams.append(_Stream(b"", min(end, len(payload)), end <= len(payload)))
        elif streams and not payload.startswith(ZSTD_MAGIC, position):
            break
        else:
            # Of few bytes much may come out, and this decoder has no limit of its own.
            streams.append(_stream(_Zstd, payload, position, room, FIRST_PIECE))
        position, room = streams[-1].end, room - len(streams[-1].content)
    return _read("zstd", streams, limit)


_DECODERS: dict[str, Callable[[bytes, int], Body]] = {
    "gzip": _gzip, "x-gzip": _gzip, "deflate": _deflate, "br": _br, "zstd": _zstd,
}  # fmt: skip
