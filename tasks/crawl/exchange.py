"""One HTTP exchange as bytes: what was asked and what came back, before its content coding is undone."""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from scrapy.core.downloader.handlers.http11 import (
    _LenientHTTP11ClientFactory,
    _LenientHTTP11ClientProtocol,
    _LenientHTTPClientParser,
)
from scrapy.exceptions import IgnoreRequest, StopDownload
from scrapy.http import Headers

from tasks.contracts.bodies import ERRORS, Body, opened
from tasks.contracts.http_responses import codings

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
        return _Protocol(self._quiescentCallback)  # type: ignore[no-untyped-call]  # Twisted has no type for it


class Archive:
    """Keeps each response as received, and gives it on without its content coding, as extract will read it.

    Scrapy would refuse what its headers belie or what ends early. Of a policy file it keeps only as much as is read.
    """

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes

    @classmethod
    def from_crawler(cls, crawler: Any) -> Archive:
        """Make it from Scrapy's settings."""
        return cls(crawler.settings.getint("DOWNLOAD_MAXSIZE"))

    def process_response(self, request: Any, response: Any) -> Any:
        """Keep a copy, and decode."""
        coded = [
            ("Content-Encoding", value.decode("latin-1")) for value in response.headers.getlist("Content-Encoding")
        ]
        plain = response.headers.copy()
        plain.pop("Content-Encoding", None)
        if request.meta.get(POLICY_FILE):
            try:
                body = opened(response.body, coded, MOST_POLICY_BYTES)
            except ERRORS:  # rather what it may say than nothing
                body = Body(response.body[:MOST_POLICY_BYTES])
            return response.replace(body=body.content, headers=plain)
        try:
            codings(",".join(value for _, value in coded))
        except ValueError as error:
            raise IgnoreRequest(str(error)) from error
        request.meta["received"] = response.replace(headers=response.headers.copy())
        if not coded:
            return response
        try:
            body = opened(response.body, coded, self.most_bytes)
        except ERRORS:  # it is stored all the same, and extract says in the ledger what is wrong with it
            body = Body(b"")
        if body.more:
            raise IgnoreRequest(f"more than {self.most_bytes} bytes without its content coding")
        return response.replace(body=body.content, headers=plain)


def stop_at_limit(data: bytes, request: Any) -> None:
    """Stop reading a policy file where its limit is; a handler of Scrapy's signal `bytes_received`."""
    if POLICY_FILE in request.meta:
        request.meta[POLICY_FILE] += len(data)
        if request.meta[POLICY_FILE] > MOST_POLICY_BYTES:
            raise StopDownload(fail=False)


def request_bytes(request: Any) -> bytes:
    """Return the request as it was sent: Scrapy gives its headers, not the bytes."""
    parts = urlsplit(request.url)
    target = urlunsplit(("", "", parts.path or "/", parts.query, ""))
    lines = [f"{request.method} {target} HTTP/1.1", f"Host: {parts.netloc}"]
    lines += [f"{name}: {value}" for name, value in header_fields(request.headers)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")


def answer_bytes(received: Any, most: int) -> bytes:
    """Return an answer with `most` bytes of its body as HTTP/1.1 would send it, whatever the protocol was."""
    body: bytes = received.body[:most]
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


def content_type(headers: Headers) -> str:
    """Return the Content-Type, several fields of it joined by commas."""
    return ", ".join(value for name, value in header_fields(headers) if name.lower() == "content-type")


def status_line(status: int) -> str:
    """Return a status with its usual words.

    >>> status_line(404), status_line(599)
    ('404 Not Found', '599 Unknown')
    """
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"{status} Unknown"
