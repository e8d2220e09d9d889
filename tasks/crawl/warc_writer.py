"""Writes what was fetched as WARC 1.1 (ISO 28500:2017): one gzip member a record, digests, the peer's address."""

from __future__ import annotations

import base64
import hashlib
import uuid
from collections.abc import Sequence
from datetime import datetime
from io import BytesIO
from typing import BinaryIO

from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

SOFTWARE = "Headwater (Scrapy, warcio)"


def sha1(content: bytes) -> str:
    """Return a digest labelled as in WARC files: "sha1:" and base 32.

    >>> sha1(b"")
    'sha1:3I42H3S6NNFQ2MSVX7XZKYAYSCX5QBYJ'
    """
    return "sha1:" + base64.b32encode(hashlib.sha1(content, usedforsecurity=False).digest()).decode()


def record_id(*parts: str) -> str:
    """Return a record id that is the same for the same fetch: a name-based UUID over URL, date and digest."""
    return f"<urn:uuid:{uuid.UUID(bytes=hashlib.sha256(chr(10).join(parts).encode()).digest()[:16], version=4)}>"


def warc_date(moment: datetime) -> str:
    """Return a moment (UTC) in the form of WARC 1.1, with microseconds."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Writer:
    """Appends records to a stream; each method writes whole members and flushes them."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        self.warc = WARCWriter(stream, gzip=True, warc_version="1.1")

    def _write(self, kind: str, url: str | None, when: str, block: bytes, content_type: str,
               headers: dict[str, str], http: StatusAndHeaders | None = None) -> None:  # fmt: skip
        more = {"WARC-Date": when, **headers}
        record = self.warc.create_warc_record(
            url or "",
            kind,
            payload=BytesIO(block),
            length=len(block),
            warc_content_type=content_type,
            warc_headers_dict=more,
            http_headers=http,
        )
        if url is None:
            record.rec_headers.remove_header("WARC-Target-URI")
        self.warc.write_record(record)

    def write_info(self, when: str, fields: Sequence[tuple[str, str]]) -> None:
        """Write the warcinfo record that begins a file."""
        block = "".join(f"{name}: {value}\r\n" for name, value in fields).encode()
        self._write("warcinfo", None, when, block, "application/warc-fields",
                    {"WARC-Record-ID": record_id("warcinfo", when, sha1(block))})  # fmt: skip

    def write_page(
        self,
        *,
        url: str,
        when: str,
        address: str | None,
        request: bytes,
        status: str,
        headers: Sequence[tuple[str, str]],
        body: bytes,
        protocol: str = "HTTP/1.1",
    ) -> str:
        """Write a request and its response, and return the response's record id.

        Args:
            status: code and reason ("200 OK").
            body: as received, after the transfer coding, before any content coding.
        """
        identity = record_id(url, when, sha1(body))
        peer = {"WARC-IP-Address": address} if address else {}
        asked = {"WARC-Record-ID": record_id("request", url, when), "WARC-Concurrent-To": identity, **peer}
        self._write("request", url, when, request, "application/http; msgtype=request", asked)
        http = StatusAndHeaders(status, list(headers), protocol=protocol)
        self._write("response", url, when, body, "application/http; msgtype=response",
                    {"WARC-Record-ID": identity, **peer}, http)  # fmt: skip
        self.stream.flush()
        return identity

    def write_note(self, *, url: str, when: str, status: int, content_type: str, body: bytes) -> None:
        """Write what the crawl was told before it fetched pages (robots.txt, a sitemap) as a metadata record."""
        headers = {"WARC-Record-ID": record_id("note", url, when, sha1(body)), "Headwater-HTTP-Status": str(status)}
        self._write("metadata", url, when, body, content_type or "text/plain", headers)
        self.stream.flush()
