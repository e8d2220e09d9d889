"""Writes what was fetched as WARC 1.1 (ISO 28500:2017): one gzip member a record, digests, the peer's address."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from typing import Any, BinaryIO

from warcio.archiveiterator import ArchiveIterator
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from tasks.contracts.digests import sha1_digest
from tasks.rights.evidence import CONTENT_TYPE, Evidence

SOFTWARE = "Headwater (Scrapy, warcio)"
IDENTICAL_PAYLOAD = "http://netpreserve.org/warc/1.1/revisit/identical-payload-digest"


def record_id(*parts: str) -> str:
    """Return a record id that is the same for the same fetch: a name-based UUID over URL, date and digest."""
    return f"<urn:uuid:{uuid.UUID(bytes=hashlib.sha256(chr(10).join(parts).encode()).digest()[:16], version=4)}>"


def warc_date(moment: datetime) -> str:
    """Return a moment (UTC) in the form of WARC 1.1, with microseconds."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One exchange to store.

    Attributes:
        status: code and reason ("200 OK").
        body: as received, after the transfer coding, before any content coding.
        broken_off: whether the connection ended before the body did, at the last try too.
    """

    url: str
    when: str
    address: str | None
    request: bytes
    status: str
    headers: Sequence[tuple[str, str]]
    body: bytes
    protocol: str = "HTTP/1.1"
    broken_off: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A policy file or sitemap as it was served; `fetched_from` is where redirects led."""

    url: str
    status: int
    content_type: str
    body: bytes
    fetched_from: str

    @property
    def record_id(self) -> str:
        """The same for the same answer, so that one that was read twice is stored once."""
        return record_id("note", self.url, self.fetched_from, str(self.status), sha1_digest(self.body))


class Writer:
    """Appends records to a stream; each method writes whole members and flushes them."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        self.warc = WARCWriter(stream, gzip=True, warc_version="1.1")

    def _write(self, kind: str, url: str | None, when: str, block: bytes, content_type: str,
               headers: dict[str, str], http: Any = None) -> None:  # fmt: skip
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
                    {"WARC-Record-ID": record_id("warcinfo", when, sha1_digest(block))})  # fmt: skip

    def write_page(self, page: Page, evidence: Evidence) -> dict[str, Any]:
        """Write a request, the evidence and the response, and return what a later reader needs to know of them.

        The evidence stands before the response, so that a reader has it when the page comes.

        Returns:
            "record": the response's id; "digest": of its payload; "when": its date; "kind": its media type;
            "response": where its member begins, counted from the first of the three.
        """
        digest = sha1_digest(page.body)
        identity = record_id(page.url, page.when, digest)
        peer = {"WARC-IP-Address": page.address} if page.address else {}
        start = self.stream.tell()
        evidence_id = record_id("evidence", page.url, page.when)
        self._write("request", page.url, page.when, page.request, "application/http; msgtype=request",
                    {"WARC-Record-ID": record_id("request", page.url, page.when), "WARC-Concurrent-To": identity,
                     **peer})  # fmt: skip
        self._write("metadata", page.url, page.when, evidence.to_bytes(), CONTENT_TYPE,
                    {"WARC-Record-ID": evidence_id, "WARC-Concurrent-To": identity,
                     "WARC-Refers-To": identity})  # fmt: skip
        at = self.stream.tell() - start
        http = StatusAndHeaders(page.status, list(page.headers), protocol=page.protocol)
        if page.broken_off:
            peer = {**peer, "WARC-Truncated": "disconnect"}
        self._write("response", page.url, page.when, page.body, "application/http; msgtype=response",
                    {"WARC-Record-ID": identity, "WARC-Concurrent-To": evidence_id, **peer}, http)  # fmt: skip
        self.stream.flush()
        kind = next((value for name, value in page.headers if name.lower() == "content-type"), "")
        media_type = kind.partition(";")[0].strip().lower()
        return {"record": identity, "digest": digest, "when": page.when, "kind": media_type, "response": at}

    def write_revisit(self, response: bytes, *, original: str, url: str, when: str) -> None:
        """Write a response as a revisit of one with the same payload (WARC 1.1, section 6.7.2), without the payload.

        Args:
            response: the member that holds the whole response record; its id and date stay.
            original: record id of the response that keeps the payload, fetched from `url` at `when`.
        """
        record = next(ArchiveIterator(BytesIO(response)))
        same = ("WARC-Record-ID", "WARC-Concurrent-To", "WARC-IP-Address", "WARC-Payload-Digest", "WARC-Truncated")
        kept = {name: value for name, value in record.rec_headers.headers if name in same}
        headers = {
            **kept,
            "WARC-Profile": IDENTICAL_PAYLOAD,
            "WARC-Refers-To": original,
            "WARC-Refers-To-Target-URI": url,
            "WARC-Refers-To-Date": when,
        }
        self._write("revisit", record.rec_headers["WARC-Target-URI"], record.rec_headers["WARC-Date"], b"",
                    "application/http; msgtype=response", headers, record.http_headers)  # fmt: skip
        self.stream.flush()

    def write_note(self, note: Note, *, when: str) -> None:
        """Write what the crawl was told before it fetched pages (robots.txt, a sitemap) as a metadata record."""
        headers = {"WARC-Record-ID": note.record_id, "Headwater-HTTP-Status": str(note.status)}
        if note.fetched_from != note.url:
            headers["Headwater-Redirected-To"] = note.fetched_from
        self._write("metadata", note.url, when, note.body, note.content_type or "text/plain", headers)
        self.stream.flush()
