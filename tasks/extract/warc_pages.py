"""WARC records to HTML pages: what is a page, its payload decoded, and a drop reason for everything else.

Read with fastwarc; the head of the answer is read and the payload decoded by ourselves: fastwarc leaves `br` alone,
and servers send headers that their bodies belie.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import urljoin

from fastwarc.warc import ArchiveIterator, WarcRecordType

from tasks.contracts.base import Drop
from tasks.contracts.bodies import ERRORS, Body, opened
from tasks.contracts.digests import sha1_digest
from tasks.contracts.http_responses import REFUSALS, no_page
from tasks.contracts.media_types import is_html
from tasks.contracts.urls import host_of
from tasks.contracts.warc import http_answer, utc
from tasks.extract.host_files import HostFile, read_files, signals_of, unreadable
from tasks.rights.evidence import CONTENT_TYPE, Evidence, header_signals, read_evidence
from tasks.rights.robots import ROBOTS_TXT, url_path

MOST_EVIDENCE_BYTES = 1 << 20
MOST_HEAD_BYTES = 1 << 20
MOST_DETAIL = 200
NO_FILES: Mapping[str, HostFile] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One record that ought to be an HTML page, its body free of transfer and content encodings.

    Attributes:
        record_id: the record's id, or its file and offset where it has none.
        offset: the record's first byte in its file.
        content_type: as sent, with the charset; several fields are joined by commas.
        signals: what the crawl's evidence and the HTTP headers reserve, as in `Document.opt_out`.
        terms: addresses of RSL terms that those name: no licence of the page, whatever its HTML calls them.
        cut: why the body ends before its end; "" where it does not.
        reason: why this is no page to extract; body is empty then.
    """

    record_id: str
    url: str
    host: str
    captured_at: str | None
    offset: int
    payload_digest: str | None
    content_type: str
    signals: tuple[str, ...] = ()
    terms: frozenset[str] = frozenset()
    body: bytes = b""
    cut: str = ""
    reason: Drop | None = None


def read_pages(path: Path, max_bytes: int, host_files: Path | None = None) -> Iterator[Page]:
    """Yield one Page for each response or resource record of a WARC file, in order.

    Args:
        max_bytes: a payload above this, decoded, is not read on (`too_large`).
        host_files: what `host_files.collect` wrote for this part, by which evidence of older readers is read anew.

    Raises:
        InputError: the file is not WARC, or ends inside a record.
    """
    kinds = WarcRecordType.response | WarcRecordType.resource | WarcRecordType.metadata
    # The crawl writes a page's evidence before the page.
    evidence: dict[str, Evidence] = {}
    files = read_files(host_files)
    try:
        with path.open("rb") as stream:
            # The head of an answer is read here: fastwarc ends with the file where one is longer than 64 KiB.
            for record in ArchiveIterator(stream, record_types=kinds, parse_http=False):
                if record.record_type != WarcRecordType.metadata:
                    yield _read(record, path.name, max_bytes, evidence.pop(record.record_id or "", None), files)
                elif record.headers.get("Content-Type") == CONTENT_TYPE and (seen := _evidence(record)) is not None:
                    evidence[record.headers.get("WARC-Refers-To") or ""] = seen
    except (OSError, ValueError, EOFError, RuntimeError) as error:
        raise unreadable(path, error) from error


def _evidence(record: Any) -> Evidence | None:
    return read_evidence(record.reader.read(MOST_EVIDENCE_BYTES))


def _read(
    record: Any, name: str, max_bytes: int, evidence: Evidence | None, files: Mapping[str, HostFile] = NO_FILES
) -> Page:
    headers = record.headers
    url = (headers.get("WARC-Target-URI") or "").strip().removeprefix("<").removesuffix(">")
    size = record.content_length
    block = record.reader.read(size if size <= max_bytes + MOST_HEAD_BYTES else MOST_HEAD_BYTES)
    http = http_answer(record.record_type == WarcRecordType.response, headers.get("Content-Type"), block)
    sent = http.items() if http is not None else headers.items()
    content_type = ", ".join(value for name, value in sent if name.lower() == "content-type" and value)
    facts: dict[str, Any] = {
        "record_id": record.record_id or f"{name}#{record.stream_pos}",
        "url": url,
        "host": host_of(url),
        "captured_at": utc(headers.get("WARC-Date")),
        "offset": record.stream_pos,
        "payload_digest": headers.get("WARC-Payload-Digest"),
        "content_type": content_type,
    }
    status = http.status_code if http is not None else None
    if http is not None and (refusal := no_page(status, http.get("Content-Range") or "")) is not None:
        part = refusal == "partial_content"
        detail = f"Content-Range {http.get('Content-Range')}" if part else http.status_line
        rule = refusal if status in REFUSALS else "http_status"
        return Page(**facts, reason=Drop(rule=rule, score=status and float(status), detail=detail[:MOST_DETAIL]))
    payload = block[http.size :] if http is not None else block
    if (length := size - len(block) + len(payload)) > max_bytes:
        return Page(**facts, reason=_too_large(max_bytes, float(length)))
    facts["payload_digest"] = facts["payload_digest"] or sha1_digest(payload)
    seen = signals_of(evidence, files) if evidence else ()
    said = {*header_signals(http.items() if http is not None else ()), *seen}
    facts["signals"] = tuple(sorted({str(signal) for signal in said}))
    facts["terms"] = frozenset(absolute(url, signal.value) for signal in said if signal.name == "rsl")
    try:
        body = opened(payload, http.items() if http is not None else (), max_bytes)
    except ERRORS as error:
        return Page(**facts, reason=Drop(rule="parse_error", detail=f"content encoding: {error}"[:MOST_DETAIL]))
    if body.more:
        return Page(**facts, reason=_too_large(max_bytes, None))
    if is_robots_txt(url) or not is_html(content_type, body.content):
        return Page(**facts, reason=Drop(rule="not_html", detail=content_type[:100] or "no Content-Type"))
    return Page(**facts, body=body.content, cut=_cut(headers.get("WARC-Truncated"), body))


def _cut(truncated: str | None, body: Body) -> str:
    """Return why a body ends before its end: as the archive says (WARC 1.1, section 5.13), and as it shows."""
    said = f"WARC-Truncated: {truncated.strip()}" if truncated and truncated.strip() else ""
    return "; ".join(filter(None, (said, body.cut)))[:MOST_DETAIL]


def is_robots_txt(url: str) -> bool:
    """Tell whether an address is that of a host's robots.txt, which is no page whatever its server calls it."""
    return ROBOTS_TXT in url and url_path(url) == ROBOTS_TXT


def absolute(url: str, link: str) -> str:
    """Return a link of a page as an absolute address, as it stands where it cannot be one."""
    try:
        return urljoin(url, link)
    except ValueError:
        return link


def _too_large(max_bytes: int, size: float | None) -> Drop:
    return Drop(rule="too_large", score=size, threshold=float(max_bytes))
