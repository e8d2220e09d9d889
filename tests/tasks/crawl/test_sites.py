"""The crawler against a real HTTP server on the loopback: politeness, limits, what is stored, going on after a kill."""

import json
import multiprocessing
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from fastwarc.warc import ArchiveIterator, WarcRecordType
from warcio.archiveiterator import ArchiveIterator as WarcioIterator

from tasks.contracts.errors import NetworkError, RefusedError
from tasks.contracts.ledger import read_ledger
from tasks.crawl.jobs import Crawl
from tasks.crawl.journal import read_progress
from tasks.crawl.limits import Limits
from tasks.crawl.sample.pages import SamplePage, render
from tasks.crawl.sample.server import Site, serve
from tasks.crawl.sites import crawl_sites
from tests.tasks.crawl.web import Answer, Web, serving


class Counting(Site):
    """A site that counts what is asked of it."""

    def __init__(self, pages: list[SamplePage]) -> None:
        super().__init__(pages)
        self.asked: Counter[str] = Counter()
        inner = self.pages

        class Pages(dict[tuple[str, str], SamplePage]):
            def get(pages, place: Any, default: Any = None) -> Any:  # noqa: N805
                self.asked["http://" + "".join(place)] += 1
                return inner.get(place, default)

        self.pages = Pages(inner)


def page(host: str, path: str, *links: str, text: str = "Some words.", **more: Any) -> SamplePage:
    anchors = " ".join(f'<a href="{link}">x</a>' for link in links)
    body = render(site="Test", title=path, main=f"<h1>{path}</h1><p>{text * 40}</p>{anchors}")
    body = body.replace(b'<a href="/search">Search</a>', b"")
    return replace(SamplePage(host, path, path, body, listed=False), **more)


def crawl_of(port: int, **more: Any) -> Crawl:
    plain = Crawl(
        seeds=["http://a.test.example/"],
        sitemaps=[],
        allowed_domains=[],
        allow_hosts=[],
        ca_file="",
        insecure_hosts=[],
        places={"*.test.example": ("127.0.0.1", port)},
        user_agent="Headwater-test (+nobody@test.example)",
        delay_seconds=0.0,
        concurrency_per_host=4,
        max_delay_seconds=60.0,
        max_wait_seconds=0.3,
        busy_tries=5,
        robots_hours=24.0,
        policy_files=True,
        drop_query=[],
        max_pages=1000,
        limits=Limits(
            max_pages_per_host=1000,
            max_depth=10,
            max_url_length=2000,
            max_path_segments=20,
            max_repeated_segments=3,
            max_query_parameters=10,
            max_queries_per_path=1000,
        ),
        max_bytes=200_000,
        timeout_seconds=10.0,
        processes=1,
        shard_megabytes=1.0,
    )
    return replace(plain, **more)


A = "a.test.example"


@pytest.fixture(scope="module")
def crawled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Counting, Path, object]:
    folder = tmp_path_factory.mktemp("crawl")
    pages = [
        page(A, "/", "/one.html", "/old", "/gone", "/private/x.html", "/big", "/nofollow.html", "/picture.png",
             "http://b.test.example/", "http://elsewhere.example/", "mailto:a@b.example"),
        page(A, "/one.html", "/deep.html#part", "/one.html"),
        page(A, "/deep.html"),
        page(A, "/old", status=302, headers={"Location": "/new.html"}),
        page(A, "/new.html"),
        page(A, "/private/x.html"),
        page(A, "/big", text="x" * 10_000),
        page(A, "/listed.html", listed=True, headers={"X-Robots-Tag": "noai"}),
        page("b.test.example", "/"),
        replace(page(A, "/legacy"), body="<p>café</p>".encode("latin-1"), content_type="text/html; charset=latin-1"),
        replace(page(A, "/nofollow.html"), body=b"<meta name='robots' content='nofollow'><a href='/hidden.html'>x</a>"),
        page(A, "/hidden.html"),
    ]  # fmt: skip
    site = Counting(pages)
    with serve(site) as port:
        crawl = crawl_of(port, seeds=[f"http://{A}/", f"http://{A}/legacy", "http://b.test.example/"], processes=2)
        counts = crawl_sites(crawl, source="sites", state=folder / "state", output=folder / "out")
    return site, folder / "out", counts


def test_every_url_taken_up_is_stored_or_in_the_ledger(crawled: tuple[Counting, Path, object]) -> None:
    _, output, counts = crawled
    counts.check("crawl")  # type: ignore[attr-defined]
    rules = {row.url: row.rule for row in read_ledger(output / "dropped" / "part-00000.parquet")}
    assert rules == {
        f"http://{A}/old": "redirect",
        f"http://{A}/gone": "http_404",
        f"http://{A}/private/x.html": "robots",
        f"http://{A}/big": "too_large",
    }
    stored = {str(record.headers["WARC-Target-URI"]) for record in responses(output)}
    paths = ("/", "/one.html", "/deep.html", "/new.html", "/listed.html", "/legacy", "/nofollow.html")
    assert stored == {f"http://{A}{path}" for path in paths} | {"http://b.test.example/"}


def test_what_robots_txt_forbids_is_never_asked_for(crawled: tuple[Counting, Path, object]) -> None:
    asked = crawled[0].asked
    assert asked[f"http://{A}/private/x.html"] == 0
    assert asked[f"http://{A}/hidden.html"] == 0
    assert asked[f"http://{A}/picture.png"] == 0
    assert asked[f"http://{A}/robots.txt"] >= 1


def test_records_are_as_received_with_right_digests(crawled: tuple[Counting, Path, object]) -> None:
    for part in crawled[1].glob("part-*.warc.gz"):
        with part.open("rb") as stream:
            for record in WarcioIterator(stream, check_digests=True):
                record.raw_stream.read()
                assert record.digest_checker.passed is not False, record.rec_headers
                if record.rec_type == "response":
                    assert record.digest_checker.passed
                    assert record.rec_headers["WARC-IP-Address"] == "127.0.0.1"
    by_url = {
        str(record.headers["WARC-Target-URI"]): dict(record.http_headers)
        for record in responses(crawled[1], decode=False)
    }
    assert by_url[f"http://{A}/one.html"]["Content-Encoding"] == "gzip"
    assert by_url[f"http://{A}/listed.html"]["X-Robots-Tag"] == "noai"
    bodies = {str(record.headers["WARC-Target-URI"]): record.reader.read() for record in responses(crawled[1])}
    assert "café" in bodies[f"http://{A}/legacy"].decode("latin-1")
    assert b"<h1>/one.html</h1>" in bodies[f"http://{A}/one.html"]


def test_the_snapshot_holds_requests_and_robots_txt_too(crawled: tuple[Counting, Path, object]) -> None:
    kinds: Counter[str] = Counter()
    for part in sorted(crawled[1].glob("part-*.warc.gz")):
        with part.open("rb") as stream:
            for record in ArchiveIterator(stream, record_types=WarcRecordType.any_type, parse_http=False):
                kinds[str(record.headers["WARC-Type"])] += 1
    assert kinds["request"] == kinds["response"] == 8
    assert kinds["warcinfo"] == 1
    assert kinds["metadata"] >= 2


def responses(output: Path, decode: bool = True) -> Iterator[Any]:
    for part in sorted(output.glob("part-*.warc.gz")):
        with part.open("rb") as stream:
            kind = WarcRecordType.response
            yield from ArchiveIterator(stream, record_types=kind, auto_decode="all" if decode else "none")


def test_limits_are_kept_and_said(tmp_path: Path) -> None:
    links = [f"/{n}.html" for n in range(12)]
    site = Counting([page(A, "/", *links), *[page(A, link, f"/deep{link}") for link in links]])
    with serve(site) as port:
        crawl = crawl_of(port, max_pages=5)
        crawl = replace(crawl, limits=replace(crawl.limits, max_depth=1))
        counts = crawl_sites(crawl, source="sites", state=tmp_path / "state", output=tmp_path / "out")
    assert counts.out == 5
    assert counts.dropped == {"max_pages": 8, "max_depth": 4}
    assert not (tmp_path / "state").exists()


def test_private_addresses_are_refused_unless_allowed(tmp_path: Path) -> None:
    site = Counting([page("127.0.0.1", "/"), page("localhost", "/")])
    with serve(site) as port:
        seeds = [f"http://127.0.0.1:{port}/", f"http://localhost:{port}/"]
        crawl = crawl_of(port, seeds=seeds, places={})
        with pytest.raises(RefusedError, match="refused_address") as caught:
            crawl_sites(crawl, source="sites", state=tmp_path / "state", output=tmp_path / "out")
        assert not caught.value.transient, "no flow tries again what our own rules refuse"
        assert "127.0.0.1 is at a private or special address" in str(caught.value)
        assert "crawl.allow_hosts" in str(caught.value.fix)
        assert "DNS" not in str(caught.value)
        assert not site.asked
        allowed = replace(crawl, allow_hosts=["localhost"])
        counts = crawl_sites(allowed, source="sites", state=tmp_path / "state2", output=tmp_path / "out2")
    assert counts.out == 1
    assert counts.dropped == {"refused_address": 1}


def test_without_a_network_the_host_that_does_not_resolve_is_named(tmp_path: Path) -> None:
    crawl = crawl_of(80, seeds=["http://no-such-host.invalid/"], places={})
    with pytest.raises(NetworkError) as caught:
        crawl_sites(crawl, source="sites", state=tmp_path / "state", output=tmp_path / "out")
    assert caught.value.transient
    for said in ("not one page could be fetched", "no-such-host.invalid", "found: dns", "check the network"):
        assert said in str(caught.value)
    assert not (tmp_path / "state").exists(), "the next try asks again instead of reading this failure"


def _crawl_in_process(crawl: Crawl, state: Path, output: Path) -> None:
    os.setsid()
    crawl_sites(crawl, source="sites", state=state, output=output)


def test_a_killed_crawl_goes_on_without_asking_again(tmp_path: Path) -> None:
    links = [f"/{n}.html" for n in range(60)]
    copies = [page(A, f"/{n}.html") for n in range(50)]
    copies += [replace(page(A, f"/{n}.html"), body=b"same") for n in range(50, 60)]
    site = Counting([page(A, "/", *links), *copies, page("b.test.example", "/")])
    acknowledged: set[str] = set()
    asked_then: Counter[str] = Counter()
    with serve(site) as port:
        seeds = [f"http://{A}/", "http://b.test.example/"]
        crawl = crawl_of(port, seeds=seeds, delay_seconds=0.05, concurrency_per_host=1)
        for wanted in (15, 35):
            process = multiprocessing.get_context("spawn").Process(
                target=_crawl_in_process, args=(crawl, tmp_path / "state", tmp_path / "out")
            )
            process.start()
            deadline = time.monotonic() + 60
            while sum(site.asked.values()) < wanted and time.monotonic() < deadline:
                time.sleep(0.02)
            os.killpg(process.pid or 0, signal.SIGKILL)
            process.join()
            assert not any(site.asked[url] > asked_then[url] for url in acknowledged)
            # What a crash in the middle of a write leaves behind.
            for journal in sorted((tmp_path / "state").glob("*-000.jsonl"))[-1:]:
                with journal.open("a") as stream:
                    lost = {"event": "done", "url": f"http://{A}/59.html", "rule": "connection", "detail": ""}
                    stream.write(json.dumps(lost) + '\n{"event": "pa')
                with journal.with_suffix(".warc.gz").open("ab") as stream:
                    stream.write(b"\x1f\x8b\x08half a member")
            acknowledged = set(read_progress(tmp_path / "state").pages)
            asked_then = Counter(site.asked)
        again = replace(crawl, delay_seconds=0.0)
        counts = crawl_sites(again, source="sites", state=tmp_path / "state", output=tmp_path / "out")
    assert 10 < len(acknowledged) < 61
    assert all(site.asked[url] == asked_then[url] for url in acknowledged)
    assert (counts.in_, counts.out, counts.dropped) == (62, 53, {"revisit": 9})
    stored = [str(record.headers["WARC-Target-URI"]) for record in responses(tmp_path / "out")]
    assert len(stored) == len(set(stored)) == 53
    rows = {str(row.url) for row in read_ledger(tmp_path / "out" / "dropped" / "part-00000.parquet")}
    assert {*stored, *rows} == {*seeds, *(f"http://{A}{link}" for link in links)}, "not a page is lost"


def test_a_robots_txt_that_changed_is_obeyed_once_it_is_too_old(tmp_path: Path) -> None:
    links = [f"/{n}" for n in range(12)]  # a chain: each is found, and so judged, after the one before
    rules = [b"User-agent: *\nAllow: /\n", b"User-agent: *\nDisallow: /8\n"]

    def robots(count: int) -> Answer:
        return Answer(rules[min(count, 2) - 1], kind="text/plain")

    chain = ["/", *links, "/end"]
    routes = {(A, here): Answer(f'<a href="{there}">{here}</a>'.encode()) for here, there in pairwise(chain)}
    web = Web({(A, "/robots.txt"): robots, **routes})
    with serving(web):
        slow = {"delay_seconds": 0.25, "concurrency_per_host": 1, "policy_files": False}
        crawl = crawl_of(web.port, robots_hours=0.6 / 3600, **slow)
        counts = crawl_sites(crawl, source="sites", state=tmp_path / "state", output=tmp_path / "out")
    assert web.counts[A, "/robots.txt"] >= 2
    forbidden = {str(row.url) for row in read_ledger(tmp_path / "out" / "dropped" / "part-00000.parquet")}
    assert forbidden == {f"http://{A}/8"}, "it came after the change, and the chain ends there"
    assert counts.dropped == {"robots": 1}
    kept = [record.reader.read() for part in (tmp_path / "out").glob("part-*")
            for record in ArchiveIterator(part.open("rb"), record_types=WarcRecordType.metadata)
            if record.headers["WARC-Target-URI"] == f"http://{A}/robots.txt"]  # fmt: skip
    assert sorted(kept) == sorted(rules), "both versions are evidence"


def test_a_host_whose_robots_txt_fails_is_left_alone(tmp_path: Path) -> None:
    site = Site([page(A, "/"), page("b.test.example", "/")])
    site.pages[A, "/robots.txt"] = SamplePage(A, "/robots.txt", "", b"broken", status=503)
    with serve(site) as port:
        crawl = crawl_of(port, seeds=[f"http://{A}/", "http://b.test.example/"])
        counts = crawl_sites(crawl, source="sites", state=tmp_path / "state", output=tmp_path / "out")
    assert (counts.out, counts.dropped) == (1, {"robots": 1})


def test_a_journal_is_plain_json_lines(tmp_path: Path) -> None:
    (tmp_path / "00001-000.jsonl").write_text(
        json.dumps({"event": "taken", "url": "http://a/", "depth": 0}) + "\n" + "{"
    )
    assert read_progress(tmp_path).open_urls() == {"http://a/": 0}
