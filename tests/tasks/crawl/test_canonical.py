"""Records as archives write them: each enters a snapshot in one form that extract reads, or is one ledger row."""

import gzip
import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

import pytest
from fastwarc.warc import ArchiveIterator, WarcRecordType
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.contracts.ledger import LedgerRow, read_ledger
from tasks.crawl.archives import take_archives
from tasks.crawl.canonical import RAW_DIGEST, as_it_stands
from tasks.crawl.warc_reader import Record, read_records
from tasks.crawl.warc_writer import Page as Fetched
from tasks.crawl.warc_writer import Writer
from tasks.extract.warc_pages import Page, read_pages
from tasks.rights.evidence import Evidence, RobotsVerdict

BLOCK = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<p>The river</p>"
FIELDS = {
    "WARC-Type": "response",
    "WARC-Record-ID": "<urn:uuid:1>",
    "WARC-Date": "2026-01-02T03:04:05Z",
    "WARC-Target-URI": "http://a.example/",
    "Content-Type": "application/http; msgtype=response",
    "Content-Length": str(len(BLOCK)),
}


def record(
    change: dict[str, str | None] | None = None, *, block: bytes = BLOCK, version: str = "WARC/1.1", more: bytes = b""
) -> bytes:
    fields = {**FIELDS, "Content-Length": str(len(block)), **(change or {})}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value is not None)
    return f"{version}\r\n{lines}".encode() + more + b"\r\n" + block + b"\r\n\r\n"


GOOD = record({"WARC-Record-ID": "<urn:uuid:good>", "WARC-Target-URI": "http://a.example/good"})


def taken(content: bytes, folder: Path) -> tuple[list[Page], list[LedgerRow]]:
    """Take a file in, and return the pages that extract reads and the ledger; the good record is left out."""
    (folder / "a.warc").write_bytes(content + GOOD)
    counts, _ = take_archives([str(folder / "a.warc")], megabytes=1, output=folder / "out")
    pages = [page for part in sorted((folder / "out").glob("part-*")) for page in read_pages(part, 1_000_000)]
    rows = list(read_ledger(folder / "out" / "dropped" / "part-00000.parquet"))
    assert counts.out == len(pages)
    assert counts.in_ == counts.out + sum(row.action == "drop" for row in rows)
    assert pages.pop().url == "http://a.example/good"
    return pages, rows


LEGAL = {
    "lower-case names": record().replace(b"WARC-", b"warc-").replace(b"Content-", b"content-"),
    "upper-case names": record().replace(b"WARC-Target-URI", b"WARC-TARGET-URI").replace(b"-Type", b"-TYPE"),
    "bare LF": record(block=BLOCK.replace(b"\r\n", b"\n")).replace(b"\r\n", b"\n"),
    "LF in the header only": record().partition(BLOCK)[0].replace(b"\r\n", b"\n") + BLOCK + b"\r\n\r\n",
    "version 1.2": record(version="WARC/1.2"),
    "version 0.18": record(version="WARC/0.18"),
    "version in lower case": record(version="warc/1.0"),
    "folded": record(more=b"X-Note: one\r\n two\r\n").replace(b"WARC-Type: r", b"WARC-Type:\r\n\tr"),
    "a header of 200 kB": record(more=b"X-Note: " + b"n" * 200_000 + b"\r\n"),
    "a header of 10,000 lines": record(more=b"X-Note: n\r\n" * 10_000),
    "no id": record({"WARC-Record-ID": None}),
    "an id without brackets": record({"WARC-Record-ID": "urn:uuid:1"}),
    "no content type": record({"Content-Type": None}),
    "content type in capitals": record({"Content-Type": "APPLICATION/HTTP;MSGTYPE=RESPONSE"}),
    "type in capitals": record({"WARC-Type": "RESPONSE"}),
    "brackets around the address": record({"WARC-Target-URI": "<http://a.example/>"}),
    "a port that is none": record({"WARC-Target-URI": "http://a.example:99999/"}),
    "two colons": record({"WARC-Target-URI": "http://a.example::x.html"}),
    "a blank in the address": record({"WARC-Target-URI": "http://a.example/a b"}),
    "bytes that are no UTF-8": record(more=b"X-Note: \xff\xfe\r\n"),
    "NUL": record(more=b"X-Note: a\0b\r\n"),
    "equal fields twice": record(more=b"WARC-Type: response\r\nWARC-Target-URI: http://a.example/\r\n"),
    "no line end behind": record()[:-4] + b"",
    "more line ends behind": record() + b"\r\n\r\n\r\n",
    "an HTTP head of 100 kB": record(block=BLOCK.replace(b"\r\n\r\n", b"\r\nX: " + b"x" * 100_000 + b"\r\n\r\n")),
    "an HTTP head with bare LF": record(block=BLOCK.replace(b"\r\n", b"\n")),
    "a charset with a NUL": record(block=BLOCK.replace(b"text/html", b"text/html; charset=\0utf-8")),
}


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("name", LEGAL)
def test_every_legal_form_is_one_page(name: str, packed: bool, tmp_path: Path) -> None:
    content = gzip.compress(LEGAL[name]) + gzip.compress(GOOD) if packed else LEGAL[name]
    if packed:
        (tmp_path / "a.warc.gz").write_bytes(content)
        take_archives([str(tmp_path / "a.warc.gz")], megabytes=1, output=tmp_path / "out")
        pages = [page for part in sorted((tmp_path / "out").glob("part-*")) for page in read_pages(part, 1_000_000)][
            :-1
        ]
        rows = list(read_ledger(tmp_path / "out" / "dropped" / "part-00000.parquet"))
    else:
        pages, rows = taken(content, tmp_path)
    [page] = pages
    assert page.body == b"<p>The river</p>"
    assert page.host == "a.example"
    assert page.reason is None
    assert [row.action for row in rows if row.action != "note"] == []


@pytest.mark.parametrize(
    ("date", "read"),
    [("2026-01", "2026-01-01T00:00:00Z"), ("20260102030405", "2026-01-02T03:04:05Z"),
     ("2026-01-02T03:04:05+02:00", "2026-01-02T01:04:05Z"), ("2026-01-02 03:04:05", "2026-01-02T03:04:05Z"),
     ("2026-01-02T03:04:05.123456789Z", "2026-01-02T03:04:05Z"), ("2016-12-31T23:59:60Z", "2016-12-31T23:59:59Z"),
     ("0001-01-01T00:00:00+23:59", None), ("9999-12-31T23:59:59-23:59", None), ("2026-13-01T00:00:00Z", None),
     ("yesterday", None), ("2026-01-02T03:04:05+99:99", None)],
)  # fmt: skip
def test_a_date_is_read_or_noted(date: str, read: str | None, tmp_path: Path) -> None:
    [page], rows = taken(record({"WARC-Date": date}), tmp_path)
    assert page.captured_at == read
    assert [(row.action, row.rule) for row in rows] == ([] if read else [("note", "odd_header")])


def test_a_second_value_of_a_field_is_noted(tmp_path: Path) -> None:
    [page], [row] = taken(record(more=b"WARC-Date: 2026-07-07T07:07:07Z\r\n"), tmp_path)
    assert page.captured_at is not None
    assert row.action == "note"
    assert row.detail is not None
    assert "another WARC-Date was left out: 2026-07-07T07:07:07Z" in row.detail


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("WARC-Target-URI", "http://[::1/x", "http://[::1/x"),
        ("WARC-Target-URI", "http://a\u2100b/", "http://a"),
        ("WARC-Target-URI", None, "Target-URI"),
        ("WARC-Target-URI", "/x", "/x"),
        ("WARC-Target-URI", "http:///x", "http:///x"),
        ("WARC-Target-URI", "http://a.example/" + "a" * 9000, "aaaa"),
        ("WARC-Type", "monkeys", "monkeys"),
        ("WARC-Type", None, "WARC-Type"),
        ("Content-Length", None, "length"),
        ("Content-Length", "-1", "length"),
        ("Content-Length", "\u00b2", "length"),
        ("Content-Length", "9" * 5000, "length"),
        ("Content-Length", "99999999999", "99999999999"),
    ],
)
def test_what_is_no_legal_record_is_one_row(name: str, value: str | None, says: str, tmp_path: Path) -> None:
    pages, rows = taken(record({name: value}), tmp_path)
    assert pages == []
    [row] = rows
    assert (row.action, row.rule) == ("drop", "damaged_record")
    assert "a.warc, byte 0" in (row.detail or "")
    assert says in (row.detail or "")


@pytest.mark.parametrize("name", ["WARC-Type", "WARC-Target-URI", "WARC-Record-ID", "Content-Length"])
def test_a_header_that_says_two_things_is_one_row(name: str, tmp_path: Path) -> None:
    other = {"WARC-Type": b"resource", "WARC-Target-URI": b"http://b.example/", "Content-Length": b"3"}
    line = name.encode() + b": " + other.get(name, b"<urn:uuid:2>") + b"\r\n"
    pages, rows = taken(record(more=line), tmp_path)
    assert pages == []
    assert [row.action for row in rows] == ["drop"]


@pytest.mark.parametrize(
    "change", [{"WARC-Segment-Number": "1"}, {"WARC-Type": "continuation", "WARC-Segment-Number": "2"}]
)
def test_a_piece_of_a_record_is_one_row(change: dict[str, str | None], tmp_path: Path) -> None:
    pages, rows = taken(record(change), tmp_path)
    assert pages == []
    assert [(row.action, row.rule) for row in rows] == [("drop", "segmented_record")]


def test_a_file_with_bare_line_feeds_reports_no_damage(tmp_path: Path) -> None:
    block = BLOCK.replace(b"\r\n", b"\n")
    records = [record({"WARC-Record-ID": f"<urn:{n}>"}, block=block).replace(b"\r\n", b"\n") for n in range(5)]
    pages, rows = taken(b"".join(records), tmp_path)
    assert len(pages) == 5
    assert rows == []


@pytest.mark.parametrize("length", [len(BLOCK) + extra for extra in (1, 2, 5, 6, 10, 300, 5000, 10**6, 10**12)])
def test_a_length_that_reaches_too_far_costs_its_own_record_only(length: int, tmp_path: Path) -> None:
    after = [record({"WARC-Record-ID": f"<urn:{n}>", "WARC-Target-URI": f"http://b.example/{n}"}) for n in range(3)]
    pages, rows = taken(record({"Content-Length": str(length)}) + b"".join(after), tmp_path)
    reached = {row.url for row in rows} | {page.url for page in pages}
    assert reached == {"http://a.example/", *(f"http://b.example/{n}" for n in range(3))}


def test_a_rewritten_record_says_what_it_was(tmp_path: Path) -> None:
    raw = record().replace(b"WARC-", b"warc-")
    [one] = [found for found in read_records(io.BytesIO(raw)) if isinstance(found, Record)]
    content = gzip.decompress(one.member)
    head, _, block = content.partition(b"\r\n\r\n")
    digest = hashlib.sha256(raw[: -len(b"\r\n\r\n")]).hexdigest()
    assert f"{RAW_DIGEST}: sha256:{digest}".encode() in head
    assert block == BLOCK + b"\r\n\r\n"
    [again] = [found for found in read_records(io.BytesIO(one.member)) if isinstance(found, Record)]
    assert again.member == one.member, "what has the form keeps its bytes"


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.text("abcXYZ-", min_size=1, max_size=12), st.text(max_size=40)), max_size=6),
    st.text("abc/?=&%é ", max_size=30),
    st.binary(max_size=60),
    st.sampled_from(["200 OK", "404 Not Found", "999"]),
)
def test_what_a_crawl_writes_has_the_form_and_is_one_page(
    headers: Sequence[tuple[str, str]], path: str, body: bytes, status: str
) -> None:
    from tasks.contracts.urls import canonical_url

    url = canonical_url(f"http://a.example/{path}") or "http://a.example/"
    clean = [(name, value.encode("latin-1", "replace").decode("latin-1").replace("\r", " ").replace("\n", " "))
             for name, value in headers]  # fmt: skip
    stream = io.BytesIO()
    fetched = Fetched(url=url, when="2026-01-02T03:04:05.000001Z", address="192.0.2.1", request=b"GET /\r\n\r\n",
                      status=status, headers=clean, body=body)  # fmt: skip
    Writer(stream).write_page(fetched, Evidence(url=url, robots=RobotsVerdict(user_agent="x", allowed=True)))
    stream.seek(0)
    found = list(read_records(stream))
    assert [type(one) for one in found] == [Record] * 3
    assert b"".join(one.member for one in found if isinstance(one, Record)) == stream.getvalue()
    kinds = [
        str(one.record_type)
        for one in ArchiveIterator(io.BytesIO(stream.getvalue()), record_types=WarcRecordType.any_type)
    ]
    assert kinds == ["request", "metadata", "response"]


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=80), st.integers(0, 200))
def test_a_header_that_stands_as_it_is_reads_the_same_for_both_readers(noise: bytes, at: int) -> None:
    whole = record()
    changed = whole[:at] + noise + whole[at:]
    end = changed.find(b"\r\n\r\n") + 4
    seen = as_it_stands(changed[:end], changed[end : end + 5], len(changed) - end - 4)
    if seen is not None:
        [other] = ArchiveIterator(io.BytesIO(changed), record_types=WarcRecordType.any_type, parse_http=False)
        assert (str(other.record_type), other.record_id) == (seen.kind, seen.record_id)
        assert other.headers.get("WARC-Target-URI") == seen.url
        assert other.content_length == len(changed) - end - 4
