"""Answers over HTTP with mutated heads, as extract reads them: each is a page or has its reason."""

from __future__ import annotations

import io
from pathlib import Path
from random import Random
from types import SimpleNamespace

from fastwarc.warc import WarcRecordType

from tasks.contracts.charset import decode
from tasks.extract import warc_pages
from tests.fuzz.harness import Wrong, checked
from tests.fuzz.mutate import mutate, mutate_head
from tests.fuzz.warc import HTTP_VALUES

ANSWERS = 1000
MOST_BYTES = 100_000
HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Encoding: identity\r\n"
    b"Transfer-Encoding: identity\r\nLink: <http://a.example/>; rel=license\r\nX-Robots-Tag: noindex\r\n\r\n"
)
BODY = "<!doctype html><meta charset=utf-8><p>The river rüns to the sea.".encode()
PLANTED = b"TDM-Reservation: 1"


def batch(rng: Random, folder: Path) -> int:
    """Read some answers."""
    for _ in range(ANSWERS):
        planted = rng.random() < 0.5
        head = mutate_head(rng, HEAD, HTTP_VALUES) if rng.random() < 0.8 else mutate(rng, HEAD, rng.randrange(1, 6))
        if planted:
            # As the second line, and the first as it was: what is changed stands behind both.
            head = b"HTTP/1.1 200 OK\r\n" + PLANTED + b"\r\n" + head.partition(b"\n")[2].lstrip(b" \t")
        body = mutate(rng, BODY, rng.randrange(4))
        block = head + body
        with checked(block):
            page = _read(block)
            if page.reason is None:
                text, _ = decode(page.body, page.content_type)
                if "\0" in text:
                    raise Wrong("a NUL in a text", block)
        if planted and page.reason is not None and page.reason.rule == "http_status":
            raise Wrong(f"status 200 was read as {page.reason.detail!r}", block)
        if planted and "header:tdm-reservation" not in page.signals and page.reason is None:
            raise Wrong(f"a header that reserves the page was not seen: {page.signals}", block)
    return ANSWERS


def _read(block: bytes) -> warc_pages.Page:
    record = SimpleNamespace(
        headers={"WARC-Target-URI": "http://a.example/", "Content-Type": "application/http; msgtype=response"},
        content_length=len(block),
        reader=io.BytesIO(block),
        record_type=WarcRecordType.response,
        record_id="<urn:x:1>",
        stream_pos=0,
    )
    return warc_pages._read(record, "part-00000.warc.gz", MOST_BYTES, None)
