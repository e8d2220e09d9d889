"""Text files that people bring: UTF-8, or what their byte order mark says that they are."""

from __future__ import annotations

import codecs
import io
import json
import zlib
from typing import Any, BinaryIO, cast

# The longer marks first: that of UTF-32 begins as that of UTF-16 does.
MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
MARK = "\ufeff"
BUFFER_BYTES = 1 << 20
UNREADABLE = (OSError, EOFError, ValueError, zlib.error)
"""What reading a text file raises, plain or gzip; `json_value` too."""


class _InUtf8(io.RawIOBase):
    """A stream of another encoding's text, as UTF-8; what is none of it becomes U+FFFD."""

    def __init__(self, stream: BinaryIO, encoding: str) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder(encoding)("replace")
        self._ready = b""
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._ready and not self._ended:
            content = self._stream.read(BUFFER_BYTES)
            self._ended = not content
            self._ready = self._decoder.decode(content, self._ended).encode("utf-8", "replace")
        size = min(len(buffer), len(self._ready))
        buffer[:size] = self._ready[:size]
        self._ready = self._ready[size:]
        return size


def in_utf8(stream: BinaryIO) -> BinaryIO:
    """Return a text file's bytes as UTF-8 without a byte order mark at its beginning.

    >>> in_utf8(io.BytesIO("naïve".encode("utf-16"))).read().decode()
    'naïve'
    """
    buffered = (
        stream
        if isinstance(stream, io.BufferedReader)
        else io.BufferedReader(cast("io.RawIOBase", stream), BUFFER_BYTES)
    )
    start = buffered.peek(4)[:4]
    encoding = next((name for mark, name in MARKS if start.startswith(mark)), None)
    if encoding == "utf-8-sig":
        buffered.read(len(codecs.BOM_UTF8))
    elif encoding is not None:
        buffered = io.BufferedReader(_InUtf8(buffered, encoding), BUFFER_BYTES)
    return buffered


def json_value(content: str | bytes, **options: Any) -> Any:
    """Return what a stranger's JSON says.

    Args:
        options: as for `json.loads`.

    Raises:
        ValueError: it is none, or goes deeper than Python follows, which `json` itself reports as no ValueError.
    """
    try:
        return json.loads(content, **options)
    except RecursionError as error:
        raise ValueError("JSON that is nested too deep to be read") from error
