"""Servers that send what costs much to read: the crawl of the other hosts goes on, and ends."""

import gzip
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
from fastwarc.warc import ArchiveIterator, WarcRecordType
from scrapy.settings import Settings

from tasks.contracts.ledger import LedgerRow, read_ledger
from tasks.contracts.manifest import Counts
from tasks.crawl.hosts import MOST_RULES_BYTES, HostGate, HostRules
from tasks.crawl.sites import crawl_sites
from tasks.extract.warc_pages import read_pages
from tests.tasks.crawl.test_sites import crawl_of
from tests.tasks.crawl.web import Answer, Route, Web, serving

D = ".test.example"
BODY = b"<html><body><p>words</p></body></html>"
LONG = 15_000


def page(*links: str, **more: object) -> Answer:
    anchors = "".join(f'<a href="{link}">x</a>' for link in links)
    return Answer(b"<html><body>" + anchors.encode() + b"</body></html>", **more)  # type: ignore[arg-type]


def unlike(text: str, **more: object) -> Answer:
    return Answer(f"<html><body><p>{text}</p></body></html>".encode(), **more)  # type: ignore[arg-type]


HEADS = {
    "link": [("Link", "<" * LONG)] * 1,
    "quotes": [("Link", '<a>;"' * (LONG // 5))] * 1,
    "robots": [("X-Robots-Tag", "a: noai," * (LONG // 8))] * 1,
    "usage": [("Content-Usage", "a=n," * (LONG // 4))] * 1,
}
BODIES = {
    "attributes": "<p " + " ".join(f"a{n}=b" for n in range(50_000)) + ">text</p>",
    "metas": '<meta name=robots content="' + "a: noai, " * 50_000 + '">',
    "reference": '<meta name=robots content="&#' + "1" * 5000 + ';noai">',
    "open": "<a " * 200_000,
    "nested": "<div>" * 50_000,
    "entities": "&" * 300_000,
    "text": "word " * 200_000,
}
STATUSES = (201, 202, 205, 206, 207, 208, 226)


@dataclass(frozen=True)
class Crawled:
    counts: Counts
    rows: dict[str, LedgerRow]
    stored: set[str]
    web: Web
    silence: float
    output: Path


@pytest.fixture(scope="module")
def crawled(tmp_path_factory: pytest.TempPathFactory) -> Crawled:
    folder = tmp_path_factory.mktemp("hostile")
    routes: dict[tuple[str, str], Route] = {}
    for name, fields in HEADS.items():
        routes["heads" + D, f"/{name}"] = unlike(name, fields=tuple(fields))
    routes["heads" + D, "/many"] = unlike("many", fields=(("Link", "<" * LONG),) * 100)
    routes["heads" + D, "/endless"] = unlike("endless", endless_head=True)
    routes["heads" + D, "/codings"] = Answer(gzip.compress(BODY), headers={"Content-Encoding": "gzip," * 3000})
    for name, body in BODIES.items():
        routes["bodies" + D, f"/{name}"] = unlike(name + body)
    routes["bodies" + D, "/le"] = Answer('<html><body><a href="/le2">ελ</a>'.encode("utf-16-le"))
    routes["bodies" + D, "/be"] = Answer(
        '<html><meta name=robots content=noai><a href="/be2">ελ</a>'.encode("utf-16-be")
    )
    routes["bodies" + D, "/le2"], routes["bodies" + D, "/be2"] = unlike("le2"), unlike("be2")
    for status in STATUSES:
        routes["parts" + D, f"/{status}"] = unlike(f"status {status}", status=status)
    routes["parts" + D, "/203"] = unlike("status 203", status=203)
    routes["parts" + D, "/range"] = unlike("a part", headers={"Content-Range": "bytes 0-99/1000"})
    routes["parts" + D, "/all"] = unlike("all of it", headers={"Content-Range": "bytes 0-99/100"})
    robots = "".join(f"User-agent: r{n}\n" for n in range(6000)) + "".join(f"Disallow: /{n}\n" for n in range(6000))
    robots += "".join(f"User-agent: r{n}\nDisallow: /\n" for n in range(6000))
    routes["rules" + D, "/robots.txt"] = Answer(robots.encode())
    routes |= {("rules" + D, f"/x{n}"): unlike(f"rules {n}") for n in range(20)}
    routes |= {("good" + D, f"/{n}"): unlike(f"good {n}") for n in range(60)}
    for host in ("heads", "bodies", "parts", "rules", "good"):
        routes[host + D, "/"] = page(
            *sorted(path for name, path in routes if name == host + D and path != "/robots.txt")
        )
    with serving(Web(routes)) as web:
        seeds = [f"http://{host}{D}/" for host in ("heads", "bodies", "parts", "rules", "good")]
        crawl = crawl_of(web.port, seeds=seeds, delay_seconds=0.02, concurrency_per_host=1, max_bytes=4_000_000)
        counts = crawl_sites(crawl, source="sites", state=folder / "state", output=folder / "out")
    times = web.times("good" + D)
    silence = max(after - before for before, after in pairwise(times)) / (times[-1] - times[0])
    rows = {row.url or "": row for row in read_ledger(folder / "out" / "dropped" / "part-00000.parquet")}
    stored = set()
    for part in sorted((folder / "out").glob("part-*.warc.gz")):
        for record in ArchiveIterator(part.open("rb"), record_types=WarcRecordType.response):
            stored.add(str(record.headers["WARC-Target-URI"]).removeprefix("http://"))
    return Crawled(counts, rows, stored, web, silence, folder / "out")


def rule(crawled: Crawled, host: str, path: str) -> str:
    row = crawled.rows.get(f"http://{host}{D}{path}")
    return row.rule if row is not None else ""


def test_hostile_pages_are_stored_like_others(crawled: Crawled) -> None:
    assert crawled.counts.in_ == crawled.counts.out + sum(crawled.counts.dropped.values())
    for host, names in (("heads", HEADS), ("bodies", BODIES)):
        assert {name for name in names if f"{host}{D}/{name}" not in crawled.stored} == set()
    assert {f"rules{D}/x{n}" for n in range(20)} | {f"good{D}/{n}" for n in range(60)} <= crawled.stored


def test_headers_that_do_not_end_and_codings_over_codings_are_rows(crawled: Crawled) -> None:
    assert rule(crawled, "heads", "/endless") == "too_large"
    assert rule(crawled, "heads", "/many") == "too_large"
    assert rule(crawled, "heads", "/codings") == "too_large"
    assert crawled.web.counts["heads" + D, "/endless"] == 1, "asked for once: it stays what it is"


def test_no_host_waits_for_anothers_pages(crawled: Crawled) -> None:
    """The good host's sixty requests go out one after the other: a page that holds the process up is a long silence."""
    assert crawled.silence < 0.5


def test_what_is_a_part_is_no_page(crawled: Crawled) -> None:
    assert {status: rule(crawled, "parts", f"/{status}") for status in STATUSES} == {s: f"http_{s}" for s in STATUSES}
    assert rule(crawled, "parts", "/range") == "partial_content"
    assert {f"parts{D}/203", f"parts{D}/all"} <= crawled.stored


def test_utf16_without_a_mark_is_read_in_either_order(crawled: Crawled) -> None:
    assert {f"bodies{D}/le2", f"bodies{D}/be2"} <= crawled.stored
    pages = {
        page.url: page for part in sorted(crawled.output.glob("part-*.warc.gz")) for page in read_pages(part, 1 << 30)
    }
    assert "meta:noai" in pages[f"http://bodies{D}/be"].signals


def test_the_rules_of_many_hosts_are_bounded() -> None:
    crawler = SimpleNamespace(settings=Settings({"USER_AGENT": "t"}), signals=SimpleNamespace(connect=lambda *_: None))
    gate = HostGate(crawler)
    for number in range(1000):
        rules = HostRules(read_at=0.0, size=1 << 19)
        gate.hosts[f"http://h{number}"] = rules
        gate._remember(f"http://h{number}", rules)
        gate._remember(f"http://h{number}", rules)
    assert len(gate.hosts) * (1 << 19) <= MOST_RULES_BYTES
    assert "http://h999" in gate.hosts
