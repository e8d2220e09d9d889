"""One HTTP exchange as bytes: what was asked and what came back, before Scrapy undoes the content coding."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import brotli
import zstandard
from scrapy.core.downloader.handlers.http11 import (
    _LenientHTTP11ClientFactory,
    _LenientHTTP11ClientProtocol,
    _LenientHTTPClientParser,
)
from scrapy.exceptions import IgnoreRequest, StopDownload
from scrapy.http import Headers

from tasks.contracts.answers import codings

REDIRECTS = frozenset({301, 302, 303, 307, 308})
POLICY_FILE = "policy_file"  # in a request's meta: robots.txt and its like, of which only the beginning is read
MOST_POLICY_BYTES = 1 << 20
# Of one answer; web servers send some hundred to some thousand, and fastwarc reads no block of more than 32 KiB.
MOST_HEADER_BYTES = 30_000


class HeadersTooLongError(Exception):
    """An answer's header fields do not end; another try would not help."""


class _Parser(_LenientHTTPClientParser):
    """Scrapy's parser, which by itself reads header fields for as long as they come."""

    read = 0

    def lineReceived(self, line: bytes) -> None:  # noqa: N802 - Twisted's name
        self.read += len(line)
        if self.read > MOST_HEADER_BYTES:
            raise HeadersTooLongError(f"more than {MOST_HEADER_BYTES} bytes of header fields")
        super().lineReceived(line)


class _Protocol(_LenientHTTP11ClientProtocol):
    def request(self, request: Any) -> Any:
        response = super().request(request)
        self._parser.__class__ = _Parser  # as Scrapy's own does: Twisted names the class in the midst of its method
        return response


class BoundedFactory(_LenientHTTP11ClientFactory):
    """Makes connections that bound what is read of an answer's header fields; for Scrapy's pool of them."""

    def buildProtocol(self, _address: Any) -> Any:  # noqa: N802 - Twisted's name
        """Return the protocol of a new connection."""
        return _Protocol(self._quiescentCallback)


class Archive:
    """Keeps each response as received; of a policy file, only as much as is read, whatever its coding."""

    def process_response(self, request: Any, response: Any) -> Any:
        """Keep a copy: Scrapy takes Content-Encoding out of the very headers when it decompresses."""
        if request.meta.get(POLICY_FILE):
            coding = response.headers.get("Content-Encoding", b"").decode("latin-1").strip().lower()
            body = beginning(response.body, coding, MOST_POLICY_BYTES)
            response = response.replace(body=body)
            response.headers.pop("Content-Encoding", None)
            return response
        try:
            codings(b",".join(response.headers.getlist("Content-Encoding")).decode("latin-1"))
        except ValueError as error:  # before Scrapy undoes them, one after the other
            raise IgnoreRequest(str(error)) from error
        request.meta["received"] = response.replace(headers=response.headers.copy())
        return response


def stop_at_limit(data: bytes, request: Any) -> None:
    """Stop reading a policy file where its limit is; a handler of Scrapy's signal `bytes_received`."""
    if POLICY_FILE in request.meta:
        request.meta[POLICY_FILE] += len(data)
        if request.meta[POLICY_FILE] > MOST_POLICY_BYTES:
            raise StopDownload(fail=False)


def beginning(body: bytes, coding: str, limit: int) -> bytes:
    """Return up to `limit` bytes of a body without its content coding, what can be decoded of a broken one."""
    try:
        if coding in ("gzip", "x-gzip"):
            return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(body, limit)
        if coding == "deflate":
            return zlib.decompressobj(zlib.MAX_WBITS).decompress(body, limit)
        if coding == "br":
            return bytes(brotli.Decompressor().process(body, output_buffer_limit=limit))[:limit]
        if coding == "zstd":
            with zstandard.ZstdDecompressor().stream_reader(body) as reader:
                return bytes(reader.read(limit))
    except (zlib.error, brotli.error, zstandard.ZstdError):
        return b""
    return body[:limit]


def request_bytes(request: Any) -> bytes:
    """Return the request as it was sent: Scrapy gives its headers, not the bytes."""
    parts = urlsplit(request.url)
    target = urlunsplit(("", "", parts.path or "/", parts.query, ""))
    lines = [f"{request.method} {target} HTTP/1.1", f"Host: {parts.netloc}"]
    lines += [f"{name}: {value}" for name, value in header_fields(request.headers)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")


def answer_bytes(received: Any, most: int) -> bytes:
    """Return an answer with `most` bytes of its body as HTTP/1.1 would send it, whatever the protocol was."""
    body = received.body[:most]
    fields = "".join(f"{name}: {value}\r\n" for name, value in header_pairs(received.headers, len(body)))
    return f"HTTP/1.1 {status_line(received.status)}\r\n{fields}\r\n".encode("latin-1", "replace") + body


def header_pairs(headers: Headers, length: int) -> list[tuple[str, str]]:
    """Return response headers with the length of the body as stored; chunking is undone already."""
    skipped = {"transfer-encoding", "content-length"}
    pairs = [(name, value) for name, value in header_fields(headers) if name.lower() not in skipped]
    return [*pairs, ("Content-Length", str(length))]


def header_fields(headers: Headers) -> Iterator[tuple[str, str]]:
    """Yield every header field, a repeated one as often as it stands there."""
    for name, values in headers.items():
        for value in values:
            yield name.decode("latin-1"), value.decode("latin-1").replace("\r", " ").replace("\n", " ")


def status_line(status: int) -> str:
    """Return a status with its usual words.

    >>> status_line(404), status_line(599)
    ('404 Not Found', '599 Unknown')
    """
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"{status} Unknown"
