"""Captures: what the WARC files of the crawl hold about a page, and what was seen when it was fetched.

A capture is a response, resource or revisit record. The crawl wrote beside it, as a metadata record that refers to it,
how robots.txt was obeyed, what the page and its host reserve, and which licences the page names; the archives of others
have no such record, and then there is none to show but what the record's own headers say.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastwarc.warc import ArchiveIterator, WarcRecordType

from flows.history.trace_index import Index, Place
from tasks.contracts.document import make_doc_id
from tasks.contracts.errors import InputError
from tasks.contracts.warc import HttpHead, http_answer
from tasks.rights.evidence import CONTENT_TYPE, Evidence, header_signals, read_evidence

CAPTURES = ("response", "resource", "revisit")
MOST_EVIDENCE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Capture:
    """One fetch of a page, as the crawl's WARC files hold it.

    Attributes:
        kind: "response", "resource" or "revisit".
        doc_id: of the document that this record becomes.
        refers_to: for a revisit, the record that keeps the payload.
        captured_at: as the record says, RFC 3339 in UTC.
        address: IP address of the server.
        evidence: what the crawl wrote down when it fetched the page; None in other archives.
        header_signals: what the response's own HTTP headers reserve.
    """

    kind: str
    record_id: str
    doc_id: str
    url: str
    warc: str
    offset: int
    captured_at: str | None
    status: str | None
    content_type: str | None
    address: str | None
    payload_digest: str | None
    refers_to: str | None
    evidence: Evidence | None
    header_signals: tuple[str, ...] = ()


def read_captures(index: Index, places: Iterable[Place]) -> list[Capture]:
    """Read the captures at places of WARC files, each with its evidence; places of other records are left out."""
    found: list[Capture] = []
    for place in places:
        record = read_record(index.parts[place.stage].data / place.file, place.at)
        if record.headers.get("WARC-Type") not in CAPTURES:
            continue
        identity = record.record_id or f"{place.file}#{place.at}"
        found.append(_capture(index, place, record, identity, _evidence(index, identity)))
    return found


def read_record(path: Path, offset: int) -> Any:
    """Return the WARC record that begins at a byte of a file, with its content read.

    Raises:
        InputError: no record begins there.
    """
    try:
        with path.open("rb") as stream:
            stream.seek(offset)
            record = next(iter(ArchiveIterator(stream, record_types=WarcRecordType.any_type, parse_http=False)))
            record.freeze()
            return record
    except (OSError, StopIteration, ValueError, RuntimeError) as error:
        raise InputError(
            "no WARC record can be read where one is expected",
            where=f"{path}, byte {offset}",
            found=str(error) or "nothing",
            fix="`dvc checkout data/crawl` restores the file; `headwater verify --deep` says what else is wrong",
        ) from error


def _capture(index: Index, place: Place, record: Any, identity: str, evidence: Evidence | None) -> Capture:
    headers = record.headers
    http = http_answer(headers.get("WARC-Type") == "response", headers.get("Content-Type"), record.reader.read())
    return Capture(
        kind=headers.get("WARC-Type"),
        record_id=identity,
        doc_id=make_doc_id(index.source, identity),
        url=(headers.get("WARC-Target-URI") or "").strip().removeprefix("<").removesuffix(">"),
        warc=place.file,
        offset=place.at,
        captured_at=headers.get("WARC-Date"),
        status=_status(http),
        content_type=http.get("Content-Type") if http is not None else headers.get("Content-Type"),
        address=headers.get("WARC-IP-Address"),
        payload_digest=headers.get("WARC-Payload-Digest"),
        refers_to=headers.get("WARC-Refers-To"),
        evidence=evidence,
        header_signals=tuple(sorted({str(one) for one in header_signals(http.items())})) if http is not None else (),
    )


def _status(http: HttpHead | None) -> str | None:
    if http is None or http.status_code is None:
        return None
    _, _, reason = http.status_line.partition(str(http.status_code))
    phrase = HTTPStatus(http.status_code).phrase if http.status_code in HTTPStatus._value2member_map_ else ""
    return f"{http.status_code} {reason.strip() or phrase}".strip()


def _evidence(index: Index, record_id: str) -> Evidence | None:
    """Return what the crawl wrote down about one record."""
    for place in index.find("record", [record_id]):
        if place.content != "warc":
            continue
        record = read_record(index.parts[place.stage].data / place.file, place.at)
        if record.headers.get("Content-Type") == CONTENT_TYPE and record.headers.get("WARC-Refers-To") == record_id:
            return read_evidence(record.reader.read(MOST_EVIDENCE_BYTES))
    return None
