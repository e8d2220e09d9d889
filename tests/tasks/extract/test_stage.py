"""Records become documents or ledger rows: odd pages and wrong input."""

import gzip
import shutil
from pathlib import Path
from typing import Any, get_args

import brotli
import pytest

from tasks.contracts.charset import decode
from tasks.contracts.document import Document, read_documents, write_documents
from tasks.contracts.errors import HeadwaterError, InputError
from tasks.contracts.ledger import LedgerRow, read_ledger
from tasks.contracts.manifest import Counts, Manifest, commit_manifest
from tasks.extract import stage
from tasks.extract.stage import Params, run
from tasks.extract.worker_messages import EngineName
from tasks.rights.evidence import CONTENT_TYPE, Evidence, RobotsVerdict, Signal
from tests.tasks.extract.pages import ARTICLE, PROSE, record
from tests.tasks.extract.pages import PAGE as ARTICLE_PAGE

BODY = f"<body><article><h1>Rivers</h1>{PROSE * 4}</article></body>"
PAGE = f"<html><head><title>Rivers</title></head>{BODY}</html>".encode()
ONE_LINE = b"<html><body><article>" + PROSE.encode() * (30_000_000 // len(PROSE)) + b"</article></body></html>"
ENGINES = get_args(EngineName)


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADWATER_STATE", str(tmp_path / "state"))
    return tmp_path


def extracted(
    workspace: Path, records: list[bytes], user_agent: str = "Headwater/0.1", **params: Any
) -> tuple[Manifest, list[Document], list[LedgerRow]]:
    crawl, output = workspace / "crawl", workspace / "extract"
    crawl.mkdir(exist_ok=True)
    (crawl / "part-00000.warc.gz").write_bytes(b"".join(records))
    counts = Counts(in_=len(records), out=len(records))
    params_of_crawl = {"source": "warc", "user_agent": user_agent}
    commit_manifest(crawl, stage="crawl", unit="records", params=params_of_crawl, inputs={}, counts=counts)
    manifest = run(params=Params(**params), inputs={"crawl": crawl}, output=output)
    documents = list(read_documents(output / "part-00000.parquet"))
    return manifest, documents, list(read_ledger(output / "dropped" / "part-00000.parquet"))


def test_pages_and_reasons(workspace: Path) -> None:
    noai = PAGE.replace(b"<head>", b'<head><meta name="robots" content="noai">')
    unclosed = b"<html><body>" + b"<div>" * 100_000 + PROSE.encode() * 4 + b"</body></html>"
    records = [
        record(1, PAGE),
        record(2, brotli.compress(PAGE), {"Content-Encoding": "br"}),
        record(3, b"%x\r\n%s\r\n0\r\n\r\n" % (len(PAGE), PAGE), {"Transfer-Encoding": "chunked"}),
        record(4, PAGE.replace(b"river", b"ri\x00ver")),
        record(5, b"{}", {"Content-Type": "application/json"}),
        record(6, PAGE, status="404 Not Found"),
        record(7, b""),
        record(8, noai),
        record(9, PAGE, {"X-Robots-Tag": "googlebot: noindex, noai"}),
        record(10, gzip.compress(b"<p>" + b"x" * 30_000_000), {"Content-Encoding": "gzip"}),
        record(11, unclosed),
        record(12, b"not brotli", {"Content-Encoding": "br"}),
        record(13, ONE_LINE),
    ]
    manifest, documents, rows = extracted(workspace, records, engine="trafilatura")
    kept = {str(d.record_id)[10:-1]: d for d in documents}
    assert set(kept) == {"1", "2", "3", "4"}
    assert kept["1"].text == kept["2"].text == kept["3"].text == kept["4"].text
    assert (kept["1"].title, kept["1"].language, kept["1"].captured_at) == ("Rivers", "en", "2026-01-02T03:04:05Z")
    assert (kept["1"].warc_path, kept["1"].warc_offset) == ("part-00000.warc.gz", 0)
    assert kept["2"].warc_offset == len(records[0])
    rules = {str(r.record_id)[10:-1]: r.rule for r in rows if r.action == "drop"}
    expected = {"5": "not_html", "6": "http_status", "7": "empty", "8": "opt_out", "9": "opt_out", "10": "too_large"}
    assert rules == {**expected, "11": "empty", "12": "parse_error", "13": "too_large"}
    assert "nested" in next(str(r.detail) for r in rows if r.rule == "empty" and "11" in str(r.record_id))
    manifest.counts.check("here")


def nested(depth: int) -> bytes:
    """A page with a sentence at the bottom of nested elements, its closing tags included."""
    bottom = "<p>At the very bottom stands a lighthouse, and its keeper reads every night until the lamp goes out.</p>"
    deep = "<div>" * depth + bottom + "</div>" * depth
    return f"<html><body><article>{ARTICLE}{deep}</article></body></html>".encode()


def test_events_are_not_cut_where_a_tree_is(workspace: Path) -> None:
    depths = [100, 300, 100_000]
    _, documents, rows = extracted(workspace, [record(d, nested(d)) for d in depths], engine="combined")
    assert ["lighthouse" in document.text for document in documents] == [True] * 3
    assert not rows


@pytest.mark.parametrize("engine", ["trafilatura", "resiliparse"])
def test_a_page_that_is_cut_for_its_depth_is_marked_and_a_whole_one_is_not(workspace: Path, engine: str) -> None:
    depths = [100, *range(246, 262), 300, 100_000]
    _, documents, rows = extracted(workspace, [record(depth, nested(depth)) for depth in depths], engine=engine)
    assert len(documents) == len(depths), "what stands above the cut is kept"
    whole = {int(str(d.record_id)[10:-1]) for d in documents if "lighthouse" in d.text}
    marked = {int(str(r.record_id)[10:-1]) for r in rows}
    assert {(r.action, r.rule) for r in rows} == {("note", "truncated_depth")}
    assert 100 in whole - marked
    assert {300, 100_000} <= marked - whole
    assert whole | marked == set(depths), "text went missing unseen"
    assert len(whole & marked) <= 1, "only the deepest page that is whole cannot be told from a cut one"
    scored = {int(str(d.record_id)[10:-1]) for d in documents if d.scores == {"extract.truncated_depth": 1.0}}
    assert scored == marked


def test_a_line_of_thirty_megabytes_that_is_allowed_costs_at_most_its_own_row(workspace: Path) -> None:
    settings: dict[str, Any] = {"max_page_bytes": 40_000_000, "page_seconds": 2.0, "max_failure_rate": 1.0}
    records = [record(1, PAGE), record(2, ONE_LINE), record(3, PAGE)]
    _, documents, rows = extracted(workspace, records, **settings)
    kept = {str(d.record_id)[10:-1] for d in documents}
    rules = {str(r.record_id)[10:-1]: r.rule for r in rows}
    assert {"1", "3"} <= kept
    assert kept | set(rules) == {"1", "2", "3"}
    assert set(rules.values()) <= {"timeout", "out_of_memory"}, "whole HTML is neither empty nor broken"


@pytest.mark.parametrize("engine", ENGINES)
def test_whatever_a_page_holds_it_costs_only_its_own_row(workspace: Path, engine: str) -> None:
    odd = [
        b"\x00" * 1000,
        PAGE.replace(b"river", b"ri\x00ver"),
        b"<html><body>" + b"<div>" * 100_000 + PROSE.encode() * 4 + b"</body></html>",
        b"<" * 200_000,
        b"<html><body><table>" + b"<tr><td><b>" * 5_000,
        PAGE.decode().replace("river", "rivière").encode("utf-16-le"),
        b"\xff\xfe" + bytes(range(256)) * 50,
        PAGE.replace(b"<head>", b"<head><meta charset=utf-16>").replace(b"hills", "h\u00efls".encode("latin-1")),
        b"<?xml version='1.0' encoding='utf-8'?>" + PAGE,
        b"<p>" + b"&#xD800;&#0;&unknown;" * 100 + b"</p>",
        b"not html at all",
    ]
    records = [record(n, body) for n, body in enumerate([ARTICLE_PAGE.encode(), *odd, ARTICLE_PAGE.encode()])]
    manifest, documents, rows = extracted(
        workspace, records, engine=engine, max_failure_rate=1.0, page_seconds=4.0, language_by_line=True
    )
    manifest.counts.check("here")
    kept = {int(str(d.record_id)[10:-1]): d for d in documents}
    expected = {0, len(odd) + 1} if engine == "justext" else {0, 2, 9, len(odd) + 1}  # it takes short prose for a menu
    assert expected <= set(kept)
    dropped = {int(str(r.record_id)[10:-1]) for r in rows if r.action == "drop"}
    assert set(kept) | dropped == set(range(len(records)))
    assert {r.rule for r in rows} <= {"empty", "parse_error", "crashed", "timeout", "truncated_depth"}
    assert (kept[0].author, kept[0].published, kept[0].language) == ("Ann Example", "2026-01-31", "en")
    assert kept[0].scores == {"extract.line_language.en": 1.0}


@pytest.mark.parametrize("engine", ENGINES)
def test_batches_and_earlier_pages_change_no_byte(
    workspace: Path, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [record(n, ARTICLE_PAGE.replace("flood", f"flood of {1800 + n % 7}").encode()) for n in range(20)]
    hashes = []
    for size in (1, 7, 32):
        monkeypatch.setattr(stage, "PAGES_PER_BATCH", size)
        monkeypatch.setenv("HEADWATER_STATE", str(workspace / f"state-{size}"))
        manifest, documents, _ = extracted(workspace, records, engine=engine)
        assert len(documents) == 20
        hashes.append(manifest.model_dump_json())
    assert len(set(hashes)) == 1


def test_more_failed_pages_than_allowed_fail_the_stage(workspace: Path) -> None:
    broken = record(3, b"not brotli", {"Content-Encoding": "br"})
    picture = record(4, b"", {"Content-Type": "image/png"})
    with pytest.raises(HeadwaterError) as caught:
        extracted(workspace, [record(1, PAGE), record(2, PAGE), broken, picture], max_failure_rate=0.3)
    for said in ("at most 30% of 3 pages", "extract.max_failure_rate", "33.3%: parse_error 1", "ledger"):
        assert said in str(caught.value)
    assert not (workspace / "extract" / "_manifest.json").exists()


def test_a_crawl_without_a_page_says_what_it_holds(workspace: Path) -> None:
    with pytest.raises(InputError, match="no HTML page") as caught:
        extracted(workspace, [record(1, b"{}", {"Content-Type": "application/json"})])
    for said in (
        "not_html: 1",
        "1 records",
        "status 2xx",
        "HTML content type",
        "crawl.source",
        str(workspace / "crawl"),
    ):
        assert said in str(caught.value)


def test_text_passes_through_with_its_language(workspace: Path) -> None:
    text = "The river rises in the hills and runs to the sea."
    crawl = workspace / "crawl"
    document = Document(doc_id="1", url="", host="", record_id="1", source="books", text=text)
    write_documents(crawl / "part-00000.parquet", [document])
    counts = Counts(in_=1, out=1)
    commit_manifest(crawl, stage="crawl", unit="documents", params={"source": "text"}, inputs={}, counts=counts)
    run(params=Params(), inputs={"crawl": crawl}, output=workspace / "extract")
    (kept,) = read_documents(workspace / "extract" / "part-00000.parquet")
    assert (kept.doc_id, kept.source, kept.text, kept.language) == ("1", "books", text, "en")


@pytest.mark.parametrize(
    ("body", "content_type", "expected"),
    [
        ("naïve".encode("latin-1"), "text/html; charset=iso-8859-1", "naïve"),
        ("naïve".encode(), "text/html; charset=ascii-nonsense", "naïve"),
        (b'<meta charset="koi8-r">' + "река".encode("koi8-r"), "text/html", '<meta charset="koi8-r">река'),
        (b"\xef\xbb\xbfok", "text/html; charset=latin-1", "ok"),
        (b"a\x00b", "", "ab"),
        (b"", "", ""),
    ],
)
def test_bytes_become_text(body: bytes, content_type: str, expected: str) -> None:
    assert decode(body, content_type)[0] == expected


def evidence_record(number: int, *signals: Signal) -> bytes:
    """What the crawl stores before a page: here of hosts, which the page itself does not show."""
    verdict = RobotsVerdict(user_agent="x", allowed=True)
    block = Evidence(url="https://a.example/", robots=verdict, signals=signals).to_bytes()
    head = (
        f"WARC/1.1\r\nWARC-Type: metadata\r\nWARC-Record-ID: <urn:uuid:e{number}>\r\n"
        f"WARC-Refers-To: <urn:uuid:{number}>\r\nWARC-Date: 2026-01-02T03:04:05Z\r\nContent-Type: {CONTENT_TYPE}\r\n"
        f"Content-Length: {len(block)}\r\n\r\n"
    )
    return gzip.compress(head.encode() + block + b"\r\n\r\n", mtime=0)


def test_stored_evidence_headers_and_html_are_judged_by_one_policy(workspace: Path) -> None:
    noai = PAGE.replace(b"<head>", b'<head><meta name="robots" content="noai">')
    records = [
        evidence_record(1, Signal("ai.txt", "disallow", "*", "Disallow: *.txt")) + record(1, PAGE),
        evidence_record(2, Signal("tdmrep.json", "tdm-reservation")) + record(2, PAGE),
        record(3, PAGE, {"Content-Usage": "train-ai=n"}),
        record(4, noai),
        record(5, PAGE, {"X-Robots-Tag": "nosnippet"}),
        record(6, PAGE),
    ]
    manifest, documents, rows = extracted(workspace, records, opt_out={"noai": "keep", "ai_txt": "mark"})
    kept = {str(d.record_id)[10:-1]: d.opt_out for d in documents}
    assert kept == {"1": ("ai.txt:disallow",), "4": ("meta:noai",), "5": ("header:nosnippet",), "6": ()}
    said = {(str(r.record_id)[10:-1], r.action, r.rule, r.detail) for r in rows}
    assert said == {
        ("1", "note", "opt_out", "ai.txt:disallow"),
        ("2", "drop", "opt_out", "tdmrep.json:tdm-reservation"),
        ("3", "drop", "opt_out", "header:content-usage"),
        ("5", "note", "opt_out", "header:nosnippet"),
    }
    assert manifest.counts.dropped == {"opt_out": 2}
    assert manifest.counts.in_ == 6


def test_what_withholds_a_page_is_a_rule_of_its_own(workspace: Path) -> None:
    records = [
        record(1, PAGE, status="402 Payment Required", headers={"crawler-price": "USD 0.01"}),
        record(2, PAGE, status="451 Unavailable For Legal Reasons"),
        record(3, PAGE, status="403 Forbidden"),
        record(4, PAGE),
    ]
    _, documents, rows = extracted(workspace, records)
    assert [str(d.record_id)[10:-1] for d in documents] == ["4"]
    said = {(str(r.record_id)[10:-1], r.rule, r.score) for r in rows}
    assert said == {("1", "payment_required", 402.0), ("2", "legal_reasons", 451.0), ("3", "http_status", 403.0)}


def test_what_addresses_the_crawl_by_its_own_name_counts(workspace: Path) -> None:
    meta = PAGE.replace(b"<head>", b'<head><meta name="mytool" content="noindex">')
    records = [record(1, meta), record(2, PAGE, {"X-Robots-Tag": "mytool: noindex"}), record(3, PAGE)]
    _, documents, rows = extracted(workspace, records, user_agent="MyTool/1.0")
    assert [str(d.record_id)[10:-1] for d in documents] == ["3"]
    assert [r.detail for r in rows] == ["meta:noindex@mytool", "header:noindex@mytool"]
    shutil.rmtree(workspace / "extract")
    _, documents, rows = extracted(workspace, records, user_agent="Other/1.0")
    assert len(documents) == 3
    assert rows == []


def test_terms_that_a_header_or_the_host_names_are_no_licence_of_the_page(workspace: Path) -> None:
    terms = "https://a.example/licence-a"
    named = PAGE.replace(b"<head>", b'<head><link rel="license" href="/licence-a">')
    records = [
        record(1, named, {"Link": f'<{terms}>; rel="license"; type="application/rsl+xml"'}),
        evidence_record(2, Signal("robots.txt", "rsl", value=terms)) + record(2, named),
        record(3, named),
    ]
    _, documents, _ = extracted(workspace, records, opt_out={"rsl": "mark"})
    assert [(d.license, d.opt_out) for d in documents] == [
        (None, ("header:rsl",)),
        (None, ("robots.txt:rsl",)),
        ("https://a.example/licence-a", ()),
    ]


def test_a_body_that_ends_early_is_kept_with_a_note(workspace: Path) -> None:
    cut = gzip.compress(PAGE * 3)[:-12]
    truncated = gzip.decompress(record(4, PAGE)).replace(b"WARC-Date", b"WARC-Truncated: length\r\nWARC-Date", 1)
    records = [
        record(1, cut, {"Content-Encoding": "gzip"}),
        record(2, b"%x\r\n%s" % (len(PAGE) + 9, PAGE), {"Transfer-Encoding": "chunked"}),
        record(3, PAGE, {"Content-Length": str(len(PAGE) + 100)}),
        gzip.compress(truncated, mtime=0),
        record(5, PAGE, {"Content-Length": str(len(PAGE)), "Content-Type": "text/html, text/html; charset=UTF-8"}),
        record(6, gzip.compress(b"<html><body>")[:-9], {"Content-Encoding": "gzip"}),
        record(7, brotli.compress(PAGE), {"Content-Encoding": "br", "Content-Length": "99999"}),
    ]
    manifest, documents, rows = extracted(workspace, records)
    assert [str(d.record_id)[10:-1] for d in documents] == ["1", "2", "3", "4", "5", "7"]
    assert all("runs to the sea" in d.text for d in documents)
    said = {(str(r.record_id)[10:-1], r.action, r.rule): str(r.detail) for r in rows}
    assert set(said) == {
        *((number, "note", "truncated") for number in "1234"),
        ("6", "drop", "empty"),
    }
    assert "gzip: the body ends early" in said["1", "note", "truncated"]
    assert said["2", "note", "truncated"] == "chunked: the last chunk is missing"
    assert said["3", "note", "truncated"] == f"100 bytes of Content-Length {len(PAGE) + 100} are missing"
    assert said["4", "note", "truncated"] == "WARC-Truncated: length"
    assert "ends early" in said["6", "drop", "empty"]
    manifest.counts.check("here")
