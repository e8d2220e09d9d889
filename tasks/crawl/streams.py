"""Bytes read ahead: a stream that says what it passed over, gzip members and zstd frames as streams, and damage."""

from __future__ import annotations

import io
import re
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import zstandard

from tasks.contracts.bodies import MOST_WINDOW_BYTES, ZSTD_MAGIC, ZSTD_SKIPPABLE
from tasks.crawl.canonical import target_uri

CHUNK_BYTES = 1 << 16
OVERLAP = 16 << 10  # of two windows that are searched: longer than what is searched for
MOST_RECORD_BYTES = 256 << 20  # a bigger record is no web page, and would have to fit into memory
PIECE_BYTES = 1 << 10  # of a zstd frame: of each 4 bytes, 128 KiB may come out
GZIP_MAGIC = b"\x1f\x8b\x08"
MOST_DICTIONARY_BYTES = 8 << 20  # that readers of .warc.zst must take
CUT = "the file ends inside a zstd frame"
DICTIONARY_MAGIC = b"\x5d\x2a\x4d\x18"
MOST_URLS = 1000  # of one damaged place: each is a row, and one row speaks for what is beyond
_URL = re.compile(rb"(?:^|\n)WARC-Target-URI[ \t]*:[ \t]*(?:\r?\n[ \t]+)?([^\r\n]{1,2000})", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Damage:
    """A place that could not be read.

    Attributes:
        offset: in the file, compressed where it is; inside a member that holds several records, the member's.
        kept: the record there was kept all the same; this says what is odd about it.
    """

    offset: int
    detail: str
    url: str | None = None
    kept: bool = False


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
            chunk = self.stream.read(max(CHUNK_BYTES, size - len(self.buffer)))
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

    def skip(self, size: int) -> Skipped:
        """Consume so many bytes, and say what they were."""
        offset = self.offset
        return Skipped.of(offset, self.take(size))

    def skip_to(
        self,
        pattern: re.Pattern[bytes],
        *,
        at_least: int = 0,
        most: int | None = None,
        accept: Callable[[bytes | bytearray], bool] = lambda _: True,
    ) -> Skipped:
        """Consume up to the next match behind `at_least` bytes, the end, or `most` bytes, and say what that was.

        Args:
            accept: tells of what begins with a match whether it is one.
        """
        skipped = Skipped()
        while True:
            room = None if most is None else most - skipped.size
            self.fill(CHUNK_BYTES + OVERLAP if room is None else min(room, CHUNK_BYTES + OVERLAP))
            match = pattern.search(self.buffer, max(0, at_least - skipped.size))
            while match is not None and not accept(self.buffer[match.start() : match.start() + OVERLAP]):
                match = pattern.search(self.buffer, match.start() + 1)
            # What begins in the overlap is seen whole in the next window.
            last = self.ended or (room is not None and room <= CHUNK_BYTES)
            end = match.start() if match else len(self.buffer) if last else max(0, len(self.buffer) - OVERLAP)
            end = end if room is None else min(end, room)
            skipped.add(self.offset, self.take(end))
            if match is not None or last or not self.buffer:
                skipped.add(self.offset, b"\n", real=False)
                return skipped


class Skipped:
    """Bytes that were passed over: how many, and the records among them by the addresses in their headers."""

    def __init__(self) -> None:
        self.size = 0
        self.blank = True
        self.urls: list[tuple[int, str]] = []
        self.more = 0
        self._tail = b"\n"

    @classmethod
    def of(cls, offset: int, content: bytes) -> Skipped:
        """Return what was passed over in one piece."""
        skipped = cls()
        skipped.add(offset, content)
        skipped.add(offset + len(content), b"\n", real=False)
        return skipped

    def add(self, offset: int, content: bytes, *, real: bool = True) -> None:
        """Add the bytes that begin at an offset; those that are not real only end a line."""
        self.size += len(content) if real else 0
        self.blank = self.blank and not content.strip(b"\r\n\0 \t")
        window = self._tail + content
        for match in _URL.finditer(window):
            if match.end() == len(window):
                self._tail = window[match.start() :]
                return
            self._note(offset - len(self._tail) + match.start(1), match[1])
        cut = window.rfind(b"\n", max(0, len(window) - OVERLAP))
        self._tail = window[cut:] if cut >= 0 else b""

    def _note(self, offset: int, url: bytes) -> None:
        if len(self.urls) < MOST_URLS:
            self.urls.append((offset, target_uri(url.decode("utf-8", "surrogateescape"))))
        else:
            self.more += 1

    def damages(self, offset: int, detail: str) -> Iterator[Damage]:
        """Yield a damaged place for each record among the bytes, one where there is none."""
        yield Damage(offset, detail, self.urls[0][1] if self.urls else None)
        yield from self._lost(self.urls[1:], detail)

    def others(self, detail: str) -> Iterator[Damage]:
        """Yield a damaged place for each record among the bytes, none where there is none."""
        yield from self._lost(self.urls, detail)

    def _lost(self, urls: Sequence[tuple[int, str]], detail: str) -> Iterator[Damage]:
        yield from (Damage(at, f"a record lost in {detail}", url) for at, url in urls)
        if self.more:
            yield Damage(self.urls[-1][0], f"{self.more} more records lost in {detail}")


class Member:
    """One gzip member as a stream of its content, which also keeps the compressed bytes while they are few.

    Args:
        piece: compressed bytes that are read at once: where one of them is damaged, nothing comes out of all of them.
        most_kept: compressed bytes that are few.
    """

    def __init__(self, source: Buffered, *, piece: int = CHUNK_BYTES, most_kept: int = MOST_RECORD_BYTES) -> None:
        self.source = source
        self.piece = piece
        self.most_kept = most_kept
        self.decompress = zlib.decompressobj(zlib.MAX_WBITS | 16)
        self.compressed = bytearray()
        self.small = True
        self.finished = False
        self.damage: str | None = None

    def read(self, _size: int = -1) -> bytes:
        """Return some content, or nothing at the end of the member or where it is damaged."""
        while not self.finished:
            chunk = self.source.take(self.piece if self.compressed else OVERLAP)
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
            if not self.compressed and not content and not self.decompress.eof:
                # A magic number in front of something else: as a header it may go on to the end of the file.
                self.finished, self.damage = True, f"a gzip member with nothing in its first {len(chunk)} bytes"
                self.source.give_back(chunk[1:])
                return b""
            if self.decompress.eof:
                self.finished = True
                unused = self.decompress.unused_data
                self.source.give_back(unused)
                chunk = chunk[: len(chunk) - len(unused)]
            if self.small:
                self.compressed += chunk
                self.small = len(self.compressed) <= self.most_kept
            if content:
                return content
        return b""


class Frames:
    """Zstandard frames one behind the other as a stream of their content: the proposed form of `.warc.zst` (IIPC 1.0).

    A record may stand in several frames, and several records in one, as the `zstd` command makes it of a whole file. A
    skippable frame is passed over, but one of the kind that holds the dictionary of the frames behind it.

    Args:
        begins: tells of a frame's content whether a record begins with it; the stream ends before such a frame, and
            goes on with it after `go_on`.
        context: what decompresses them, with the dictionary of the frames before.

    Attributes:
        damage: why it cannot be read further.
        begun: whether anything came out of the frame that is read.
        offset: how many bytes of content came before this stream.
    """

    def __init__(
        self,
        source: Buffered,
        begins: Callable[[bytes], bool] = lambda _: False,
        context: zstandard.ZstdDecompressor | None = None,
    ) -> None:
        self.source = source
        self.context = context or zstandard.ZstdDecompressor(max_window_size=MOST_WINDOW_BYTES)
        self.damage: str | None = None
        self.begun = False
        self.offset = 0
        self._begins = begins
        self._frame: Any = None
        self._size = 0
        self._ahead = b""
        self._places: list[tuple[int, int]] = [(0, source.offset)]

    def go_on(self) -> bool:
        """Return whether the stream ended before a frame that begins a record, and go on with that."""
        self.offset = self._size - len(self._ahead)
        self._places = self._places[-1:]
        return bool(self._ahead)

    def read(self, _size: int = -1) -> bytes:
        """Return some content, or nothing at the end of the stream or where a frame is damaged."""
        if self._ahead:
            if self._size - len(self._ahead) != self.offset:
                return b""  # not gone on yet
            ahead, self._ahead = self._ahead, b""
            return ahead
        while self.damage is None and (self._frame is not None or self._next()):
            piece = self.source.take(PIECE_BYTES)
            if not piece:
                self.damage = CUT
                break
            try:
                content: bytes = self._frame.decompress(piece)
            except zstandard.ZstdError as error:
                self.damage = f"damaged zstd frame: {error}"
                # The next frame may begin in this piece; one byte stays consumed, so that reading goes on.
                self.source.give_back(piece[1:])
                break
            if self._frame.eof:
                self.source.give_back(self._frame.unused_data)
                self._frame = None
            first = bool(content) and not self.begun
            self.begun = self.begun or bool(content)
            self._size += len(content)
            if first and self._size - len(content) > self.offset and self._begins(content):
                self._ahead = content
                return b""
            if content:
                return content
        return b""

    def place(self, offset: int) -> int:
        """Return where in the file the frame begins that holds a byte of the content."""
        return self._places[bisect_right(self._places, (offset, MOST_RECORD_BYTES << 20)) - 1][1]

    def _next(self) -> bool:
        """Begin the next frame, if one is there."""
        while ZSTD_SKIPPABLE.match(head := bytes(self.source.fill(8)[:8])) and self.damage is None:
            self._skip(head[:4] == DICTIONARY_MAGIC, int.from_bytes(head[4:8], "little"))
        if self.damage is None and 0 < len(head) < len(ZSTD_MAGIC) and ZSTD_MAGIC.startswith(head):
            self.damage = CUT
            self.source.take(len(head))
        if self.damage is not None or not head.startswith(ZSTD_MAGIC):
            return False
        self._frame = self.context.decompressobj()
        self.begun = False
        self._places.append((self._size, self.source.offset))
        return True

    def _skip(self, dictionary: bool, size: int) -> None:
        self.source.take(8)
        if dictionary and size > MOST_DICTIONARY_BYTES:
            self.damage = f"a zstd dictionary of {size} bytes, more than {MOST_DICTIONARY_BYTES}"
        elif dictionary:
            content = self.source.take(size)
            size -= len(content)
            if not size:
                self._use(content)
        while size > 0 and (passed := len(self.source.take(min(size, CHUNK_BYTES)))):
            size -= passed
        if size:
            self.damage = CUT

    def _use(self, dictionary: bytes) -> None:
        try:
            if dictionary.startswith(ZSTD_MAGIC):
                with zstandard.ZstdDecompressor(max_window_size=MOST_WINDOW_BYTES).stream_reader(dictionary) as reader:
                    dictionary = reader.read(MOST_DICTIONARY_BYTES + 1)
            if len(dictionary) > MOST_DICTIONARY_BYTES:
                raise ValueError(f"more than {MOST_DICTIONARY_BYTES} bytes")
            known = zstandard.ZstdCompressionDict(dictionary, dict_type=zstandard.DICT_TYPE_FULLDICT)
            self.context = zstandard.ZstdDecompressor(dict_data=known, max_window_size=MOST_WINDOW_BYTES)
        except (zstandard.ZstdError, ValueError) as error:
            self.damage = f"a zstd dictionary that cannot be read: {error}"


class Unpacked(io.RawIOBase):
    """What stands in gzip members and zstd frames, one behind the other, and in plain bytes behind those.

    All that comes out before a damaged place is given; there it ends.

    Attributes:
        damage: why it ended there.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self.damage: str | None = None
        self._source = Buffered(stream)
        self._part: Member | Frames | None = None
        self._plain = False
        self._ready = b""

    @staticmethod
    def begins(start: bytes) -> bool:
        """Tell whether a file that starts so is compressed."""
        return start.startswith((GZIP_MAGIC, ZSTD_MAGIC)) or ZSTD_SKIPPABLE.match(start) is not None

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Read some content; 0 bytes at the end."""
        self._ready = self._ready or self._read()
        size = min(len(buffer), len(self._ready))
        buffer[:size] = self._ready[:size]
        self._ready = self._ready[size:]
        return size

    def _read(self) -> bytes:
        while self.damage is None and (self._part is not None or self._source.fill(len(ZSTD_MAGIC))):
            if self._part is None:
                start = bytes(self._source.buffer[: len(ZSTD_MAGIC)])
                self._plain = self._plain or not self.begins(start)
                if self._plain:
                    return self._source.take(CHUNK_BYTES)
                gzip = start.startswith(GZIP_MAGIC)
                self._part = Member(self._source, piece=PIECE_BYTES, most_kept=0) if gzip else Frames(self._source)
            if content := self._part.read():
                return content
            self.damage, self._part = self._part.damage, None
        return b""


def compress(content: bytes) -> bytes:
    """Return a gzip member without a time in it, so that equal content gives equal bytes."""
    compressor = zlib.compressobj(6, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    return compressor.compress(content) + compressor.flush()
