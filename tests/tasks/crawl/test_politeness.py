"""One crawl of a web whose hosts behave each in a way of its own: what is asked, what is left alone, what is said."""

import gzip
import io
import json
import zlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import pairwise
from pathlib import Path

import brotli
import pytest
import zstandard
from fastwarc.warc import ArchiveIterator, WarcRecordType

from tasks.contracts.document import make_doc_id
from tasks.contracts.errors import NetworkError, RefusedError
from tasks.contracts.ledger import LedgerRow, read_ledger
from tasks.contracts.manifest import Counts
from tasks.crawl.fetch import MOST_KEPT_REFUSALS
from tasks.crawl.sites import crawl_sites
from tasks.rights.evidence import CONTENT_TYPE, READER, OptOutPolicy, judge, read_evidence
from tests.tasks.crawl.test_sites import crawl_of
from tests.tasks.crawl.web import Answer, Route, Web, serving

D = ".test.example"
BIG = 40_000_000
CC_BY = "https://creativecommons.org/licenses/by/4.0/"


def links(name: str, *paths: str) -> Answer:
    return Answer(name.encode() + "".join(f'<p>words<a href="{path}">x</a></p>' for path in paths).encode())


def unique(text: str) -> Answer:
    return Answer(f"<html><body><p>{text}</p></body></html>".encode())


def to(url: str) -> Answer:
    return Answer(b"", 302, {"Location": url})


def robots(text: str | bytes, **headers: str) -> Answer:
    return Answer(text if isinstance(text, bytes) else text.encode(), headers=headers, kind="text/plain")


def busy(times: int, status: int, after: str) -> Route:
    return lambda count: Answer(b"", status, {"Retry-After": after}) if count <= times else unique(f"after {after}")


def in_two_seconds(count: int) -> Answer:
    moment = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
    return Answer(b"", 503, {"Retry-After": moment}) if count == 1 else unique("after a date")


def bomb(coding: str) -> Answer:
    content = b"<p>" + b"x" * BIG
    deflate = zlib.compressobj(9)
    packed: dict[str, Callable[[], bytes]] = {
        "gzip": lambda: gzip.compress(content),
        "deflate": lambda: deflate.compress(content) + deflate.flush(),
        "br": lambda: brotli.compress(content, quality=1),
        "zstd": lambda: zstandard.compress(content),
    }
    return Answer(packed[coding](), headers={"Content-Encoding": coding})


GONE_FOR_GOOD: dict[str, dict[str, Route]] = {
    "robots": {"/robots.txt": robots("User-agent: *\nDisallow: /\n")},
    "crawl_delay": {"/robots.txt": robots("User-agent: *\nCrawl-delay: 3600\n")},
    "http_404": {"/": Answer(status=404)},
    "http_403": {"/": Answer(status=403)},
    "redirect": {"/": to("https://elsewhere.example/")},
    "too_large": {"/": Answer(b"x" * 20_000)},
}
PERHAPS_LATER: dict[str, dict[str, Route]] = {
    "robots": {"/robots.txt": Answer(status=502)},
    "robots.txt: answered 503": {"/robots.txt": Answer(status=503)},
    "http_500": {"/": Answer(status=500)},
    "http_408": {"/": Answer(status=408)},
    "host_busy": {"/": Answer(status=429)},
    "connection": {"/": Answer(hang_up=True)},
    "robots.txt: connection": {"/robots.txt": Answer(hang_up=True)},
}


@pytest.mark.parametrize("reason", [*GONE_FOR_GOOD, *PERHAPS_LATER])
def test_a_crawl_without_a_page_is_tried_again_only_where_another_try_may_find_one(reason: str, tmp_path: Path) -> None:
    final = reason in GONE_FOR_GOOD
    answers = (GONE_FOR_GOOD if final else PERHAPS_LATER)[reason]
    with serving(Web({("one" + D, path): answer for path, answer in answers.items()})) as site:
        crawl = replace(crawl_of(site.port, seeds=[f"http://one{D}/"]), busy_tries=1, max_bytes=10_000)
        with pytest.raises(NetworkError, match=reason.rpartition(": ")[2]) as caught:
            crawl_sites(crawl, source="sites", state=tmp_path / "state", output=tmp_path / "out")
    assert isinstance(caught.value, RefusedError) is final
    assert caught.value.transient is not final


def web() -> Web:
    no = "User-agent: *\nDisallow: /no\n"
    many = no + "".join(f"Disallow: /{number:06d}\n" for number in range(120_000))
    routes: dict[tuple[str, str], Route] = {}

    def host(name: str, rules: Route | None, **pages: Route) -> None:
        if rules is not None:
            routes[name + D, "/robots.txt"] = rules
        routes[name + D, "/"] = links(name, *[f"/{page}" for page in pages])
        for page, answer in pages.items():
            routes[name + D, f"/{page}"] = answer

    # robots.txt in all its states
    host("hops5", to(f"http://hop1{D}/r"), no=unique("a"), yes=unique("hops5"))
    for at in range(1, 5):
        routes[f"hop{at}{D}", "/r"] = to(f"http://hop{at + 1}{D}/r")
    routes[f"hop5{D}", "/r"] = robots(no)
    host("hops6", to(f"http://hop0{D}/r"), no=unique("hops6"))
    routes[f"hop0{D}", "/r"] = to(f"http://hop1{D}/r")
    host("missing", None, no=unique("missing"))
    host("login", Answer(b"", 401), no=unique("login"))
    host("broken", Answer(b"", 500), no=unique("broken"))
    host("dead", Answer(hang_up=True), no=unique("dead"))
    host("huge", robots(many), **{"no": unique("b"), "119999": unique("huge")})
    host("mark", robots(b"\xef\xbb\xbf" + no.encode()), no=unique("c"), yes=unique("mark"))
    host("packed", robots(gzip.compress(no.encode()), **{"Content-Encoding": "gzip"}), no=unique("d"))
    host("packedbomb", robots(gzip.compress(no.encode() + b"\n" * BIG), **{"Content-Encoding": "gzip"}), no=unique("e"))
    host("inward", to("http://127.0.0.1:{port}/r"), no=unique("inward"))
    host("pause", robots("User-agent: *\nCrawl-delay: 0.5\n"), a=unique("p1"), b=unique("p2"), c=unique("p3"))
    host("slow", robots("User-agent: *\nCrawl-delay: 3600\n"), a=unique("slow"))
    # busy hosts
    host("busy", None, a=busy(2, 429, "1"), b=unique("busy b"))
    host("date", None, a=in_two_seconds)
    host("never", None, a=busy(999, 503, "0"), b=busy(999, 503, "0"))
    host("later", None, **{f"{number}": busy(999, 429, "99999") for number in range(9)})
    # addresses and sizes
    host("leaky", None, a=to("http://127.0.0.1:{port}/secret"), b=to("http://2130706433:{port}/secret"),
         c=to("http://[::1]:{port}/secret"), d=to("file:///etc/hostname"))  # fmt: skip
    host("bombs", None, gz=bomb("gzip"), br=bomb("br"), zst=bomb("zstd"), df=bomb("deflate"), flow=Answer(endless=True))
    # one payload at several addresses, one of them not HTML by its header
    same = unique("the same payload everywhere")
    host("twin", None, a=same, b=same, c=replace(same, kind="text/plain"), d=Answer(b""), e=Answer(b""))
    # reservations
    rules = (
        "User-agent: *\nAllow: /\nUser-agent: GPTBot\nDisallow: /gpt\n\nUser-agent: *\nContent-Usage: /pref train-ai=n"
    )
    host(
        "reserve",
        robots(rules),
        gpt=unique("gpt"),
        pref=unique("pref"),
        tdm=unique("tdm"),
        header=Answer(b"<p>header</p>", headers={"X-Robots-Tag": "noai", "Link": f'<{CC_BY}>; rel="license"'}),
        meta=Answer(b"<meta name=robots content=noimageai><p>meta</p>"),
        free=Answer(f'<p>free</p><a rel="license" href="{CC_BY}">l</a>'.encode()),
    )
    tdmrep = [{"location": "/tdm", "tdm-reservation": 1, "tdm-policy": "/policy.json"}]
    routes[f"reserve{D}", "/.well-known/tdmrep.json"] = Answer(json.dumps(tdmrep).encode(), kind="application/json")
    host("aitxt", None, page=unique("ai.txt"))
    routes[f"aitxt{D}", "/ai.txt"] = robots("User-Agent: *\nDisallow: *.txt\n")
    routes[f"aitxt{D}", "/.well-known/tdmrep.json"] = Answer(b"<html>we answer everything</html>")
    # what only readers of 2026 know
    host(
        "signals",
        robots(
            "User-agent: *\nContent-Signal: /signal ai-train=no\nAllow: /\n\nUser-agent Headwater-test\nDisallow /no"
        ),
        signal=unique("signal"),
        terms=Answer(
            b"<p>terms</p>", headers={"Link": '<http://rsl.example/l>; rel="license"; type="application/rsl+xml"'}
        ),
        named=Answer(b'<meta name="headwater-test" content="noindex"><p>named</p>'),
        no=unique("closed without a colon"),
        hold=Answer(b'<p>hold<a href="/beyond">x</a>', headers={"X-Robots-Tag": "headwater-test: nofollow"}),
    )
    host(
        "rsl", robots("License: http://rsl.example/license.xml\n"), a=Answer(b'<p>r</p><a rel=license href="/l">l</a>')
    )
    price = {"crawler-price": "USD 0.01", "Link": '<http://rsl.example/l>; rel="license"'}
    host("paid", None, a=Answer(b"<p>pay</p>", 402, price), b=Answer(b"<p>court</p>", 451), c=unique("free of charge"))
    routes.update({(f"paidmany{D}", f"/{n}"): Answer(b"<p>pay</p>", 402, price) for n in range(MOST_KEPT_REFUSALS + 5)})
    routes[f"paidmany{D}", "/"] = links("paidmany", *[f"/{n}" for n in range(MOST_KEPT_REFUSALS + 5)])
    host("paidrobots", Answer(b"pay", 402), no=unique("paidrobots"))
    host("lawrobots", Answer(b"court", 451), no=unique("lawrobots"))
    # ways into nowhere
    host("trap", None, a=links("trap", "/a/b/a/b/a/b/a/b", "/x?1&2&3&4&5&6&7&8&9&10&11", "/" + "y" * 2000, "/s?v=1",
                               "/s?v=2", "/s?v=3", "/A/../s%3Fplain", "/s?v=1#again",
                               "//TRAP.test.example:80/s?v=1"))  # fmt: skip
    for variant in (1, 2, 3):
        routes[f"trap{D}", f"/s?v={variant}"] = unique(f"variant {variant}")
    routes[f"trap{D}", "/s%3Fplain"] = unique("plain")
    return Web(routes)


class Crawled:
    """What a crawl left behind."""

    def __init__(self, web: Web, counts: Counts, output: Path) -> None:
        self.web = web
        self.counts = counts
        self.rows: dict[str, LedgerRow] = {
            row.url or "": row for row in read_ledger(output / "dropped" / "part-00000.parquet")
        }
        self.records: list[tuple[str, dict[str, str], bytes]] = []
        for part in sorted(output.glob("part-*.warc.gz")):
            for record in ArchiveIterator(part.open("rb"), record_types=WarcRecordType.any_type, parse_http=False):
                headers = {str(name): str(value) for name, value in record.headers.items()}
                self.records.append((headers["WARC-Type"], headers, record.reader.read()))

    def stored(self, host: str) -> set[str]:
        start = f"http://{host}{D}"
        return {h["WARC-Target-URI"].removeprefix(start) for kind, h, _ in self.records
                if kind == "response" and h["WARC-Target-URI"].startswith(f"{start}/")}  # fmt: skip

    def rules(self, host: str) -> dict[str, str]:
        start = f"http://{host}{D}"
        return {url.removeprefix(start): row.rule for url, row in self.rows.items() if url.startswith(f"{start}/")}

    def detail(self, url: str) -> str:
        return self.rows[url].detail or ""

    def asked(self, host: str, path: str) -> int:
        return self.web.counts[f"{host}{D}", path]


@pytest.fixture(scope="module")
def crawled(tmp_path_factory: pytest.TempPathFactory) -> Crawled:
    folder = tmp_path_factory.mktemp("politeness")
    site = web()
    with serving(site):
        for place, route in list(site.routes.items()):
            if isinstance(route, Answer) and "{port}" in route.headers.get("Location", ""):
                site.routes[place] = to(route.headers["Location"].format(port=site.port))
        hosts = sorted({host for host, path in site.routes if path == "/"})
        crawl = crawl_of(
            site.port,
            seeds=[f"http://{host}/" for host in hosts],
            allowed_domains=["127.0.0.1", "[::1]", "::1"],
            concurrency_per_host=2,
            busy_tries=3,
            max_wait_seconds=3.0,
            timeout_seconds=20.0,
        )
        crawl = replace(crawl, limits=replace(crawl.limits, max_queries_per_path=2))
        counts = crawl_sites(crawl, source="sites", state=folder / "state", output=folder / "out")
    return Crawled(site, counts, folder / "out")


def test_nothing_is_lost_on_the_way(crawled: Crawled) -> None:
    crawled.counts.check("crawl")
    assert crawled.counts.out == sum(kind == "response" for kind, _, _ in crawled.records)
    assert sum(crawled.counts.dropped.values()) == len(crawled.rows)


@pytest.mark.parametrize("host", ["hops5", "huge", "mark", "packed", "packedbomb"])
def test_robots_txt_is_obeyed_however_it_is_served(crawled: Crawled, host: str) -> None:
    assert crawled.rules(host) == {"/no": "robots"}
    assert crawled.asked(host, "/no") == 0
    assert "Disallow: /no (for *)" in crawled.detail(f"http://{host}{D}/no")
    assert crawled.stored(host) >= {"/"}


def test_what_stands_beyond_the_limit_of_robots_txt_is_ignored(crawled: Crawled) -> None:
    assert "/119999" in crawled.stored("huge")


@pytest.mark.parametrize("host", ["missing", "login", "hops6"])
def test_without_a_robots_txt_all_is_allowed(crawled: Crawled, host: str) -> None:
    assert crawled.stored(host) == {"/", "/no"}


def test_a_robots_txt_that_cannot_be_read_forbids_the_host(crawled: Crawled) -> None:
    assert crawled.rules("broken") == {"/": "robots"}
    assert "500" in crawled.detail(f"http://broken{D}/")
    assert crawled.rules("dead") == {"/": "connection"}
    assert crawled.rules("inward") == {"/": "refused_address"}
    for host in ("broken", "dead", "inward"):
        assert crawled.asked(host, "/") == crawled.asked(host, "/no") == 0


def test_crawl_delay_is_kept_and_one_that_is_too_long_closes_the_host(crawled: Crawled) -> None:
    times = crawled.web.times(f"pause{D}")[1:]  # the first was robots.txt itself
    gaps = [after - before for before, after in pairwise(times)]
    assert len(gaps) == 5
    # The pause is between requests as sent; the server sees them after connecting, which takes a moment.
    assert sum(gaps) >= 2.2, gaps
    assert crawled.rules("slow") == {"/": "crawl_delay"}
    assert "3600" in crawled.detail(f"http://slow{D}/")
    assert crawled.asked("slow", "/") == 0


def test_a_busy_host_is_asked_again_after_the_pause_it_wants(crawled: Crawled) -> None:
    assert crawled.stored("busy") == {"/", "/a", "/b"}
    asked = [moment for moment, host, path in crawled.web.log if (host, path) == (f"busy{D}", "/a")]
    assert len(asked) == 3
    assert all(after - before >= 0.95 for before, after in pairwise(asked))
    assert crawled.stored("date") == {"/", "/a"}
    first, second = [moment for moment, host, path in crawled.web.log if (host, path) == (f"date{D}", "/a")]
    assert second - first >= 0.9  # a date has whole seconds
    others = [
        moment for moment, host, _ in crawled.web.log if not host.startswith("busy") and asked[0] < moment < asked[1]
    ]
    assert others, "only that host waits"


def test_a_host_that_stays_busy_is_given_up(crawled: Crawled) -> None:
    assert crawled.rules("never") == {"/a": "host_busy", "/b": "host_busy"}
    assert crawled.asked("never", "/a") + crawled.asked("never", "/b") <= 6
    assert crawled.rules("later") == {f"/{number}": "host_busy" for number in range(9)}
    assert sum(crawled.asked("later", f"/{number}") for number in range(9)) <= 2, "no more than were on their way"
    assert "Retry-After 99999 s" in crawled.detail(f"http://later{D}/5")


def test_no_redirect_leads_to_a_private_address(crawled: Crawled) -> None:
    rules = crawled.rules("leaky")
    assert rules == {"/a": "redirect", "/b": "redirect", "/c": "redirect", "/d": "redirect"}
    refused = {url for url, row in crawled.rows.items() if row.rule == "refused_address"}
    port = crawled.web.port
    assert refused >= {f"http://127.0.0.1:{port}/secret", f"http://[::1]:{port}/secret"}
    assert not [path for _, _, path in crawled.web.log if path == "/secret"]
    assert not crawled.web.times("127.0.0.1")
    assert not crawled.web.times("[::1]")


def test_bombs_end_at_the_limit(crawled: Crawled) -> None:
    paths = ["/gz", "/br", "/zst", "/df", "/flow"]
    assert crawled.rules("bombs") == dict.fromkeys(paths, "too_large")


def test_traps_are_cut_off_with_a_rule_each(crawled: Crawled) -> None:
    rules = crawled.rules("trap")
    assert sorted(rules.values()) == ["path_repeats", "query_parameters", "query_variants", "url_too_long"]
    assert rules["/a/b/a/b/a/b/a/b"] == "path_repeats"
    assert crawled.stored("trap") == {"/", "/a", "/s?v=1", "/s?v=2", "/s%3Fplain"}
    assert crawled.asked("trap", "/s?v=1") == 1


def test_a_repeated_payload_is_a_revisit_that_names_the_original(crawled: Crawled) -> None:
    assert crawled.stored("twin") == {"/", "/a", "/c", "/d", "/e"}
    assert crawled.rules("twin") == {"/b": "revisit"}
    of = {(kind, h["WARC-Target-URI"]): (h, body) for kind, h, body in crawled.records if "WARC-Target-URI" in h}
    original, _ = of["response", f"http://twin{D}/a"]
    revisit, block = of["revisit", f"http://twin{D}/b"]
    assert revisit["WARC-Profile"] == "http://netpreserve.org/warc/1.1/revisit/identical-payload-digest"
    assert revisit["WARC-Refers-To"] == original["WARC-Record-ID"]
    assert revisit["WARC-Refers-To-Target-URI"] == original["WARC-Target-URI"]
    assert revisit["WARC-Refers-To-Date"] == original["WARC-Date"]
    assert revisit["WARC-Payload-Digest"] == original["WARC-Payload-Digest"]
    assert block.startswith(b"HTTP/1.1 200")
    assert block.endswith(b"\r\n\r\n"), "headers, and no payload"
    row = crawled.rows[f"http://twin{D}/b"]
    assert row.record_id == revisit["WARC-Record-ID"]
    assert row.survivor_id == make_doc_id("sites", original["WARC-Record-ID"])
    assert ("request", f"http://twin{D}/b") in of
    assert of["metadata", f"http://twin{D}/b"][0]["WARC-Refers-To"] == revisit["WARC-Record-ID"]


def test_an_answer_that_withholds_a_page_is_a_rule_and_is_kept(crawled: Crawled) -> None:
    assert crawled.stored("paid") == {"/", "/c"}
    assert crawled.rules("paid") == {"/a": "payment_required", "/b": "legal_reasons"}
    assert crawled.asked("paid", "/a") == crawled.asked("paid", "/b") == 1, "no passing fault"
    for path, status, told in (("/a", "402 Payment Required", "USD 0.01"), ("/b", "451 Unavailable For Legal", "")):
        detail = crawled.detail(f"http://paid{D}{path}")
        assert detail.startswith(status)
        assert told in detail
        [(headers, body)] = [
            (h, b) for kind, h, b in crawled.records if h.get("WARC-Target-URI") == f"http://paid{D}{path}"
        ]
        assert headers["WARC-Type"] == "metadata", "evidence, and no page"
        assert headers["WARC-Record-ID"] in detail
        assert body.startswith(f"HTTP/1.1 {status}".encode())
        assert told.encode() in body
        assert body.endswith(b"</p>")


def test_of_a_host_that_asks_for_money_everywhere_some_answers_are_kept(crawled: Crawled) -> None:
    rules = crawled.rules("paidmany")
    assert set(rules.values()) == {"payment_required"}
    assert len(rules) == MOST_KEPT_REFUSALS + 5
    kept = [h for kind, h, _ in crawled.records if h.get("WARC-Target-URI", "").startswith(f"http://paidmany{D}/")
            and kind == "metadata" and h["Content-Type"].startswith("application/http")]  # fmt: skip
    assert len(kept) == MOST_KEPT_REFUSALS


def test_a_host_that_withholds_its_robots_txt_is_left_alone(crawled: Crawled) -> None:
    for host, status in (("paidrobots", "402"), ("lawrobots", "451")):
        assert crawled.rules(host) == {"/": "robots"}
        assert status in crawled.detail(f"http://{host}{D}/")
        assert crawled.asked(host, "/") == 0


def test_what_is_said_to_this_crawler_by_name_is_obeyed(crawled: Crawled) -> None:
    assert crawled.rules("signals") == {"/no": "robots"}
    assert crawled.asked("signals", "/no") == 0
    assert crawled.asked("signals", "/beyond") == 0, "a header forbade to follow the page's links"


@pytest.mark.parametrize(
    ("page", "signals"),
    [
        ("http://signals.test.example/signal", ["robots.txt:content-signal"]),
        ("http://signals.test.example/terms", ["header:rsl"]),
        ("http://signals.test.example/named", ["meta:noindex@headwater-test"]),
        ("http://rsl.test.example/a", ["robots.txt:rsl"]),
        ("http://reserve.test.example/gpt", ["robots.txt:disallow@gptbot"]),
        ("http://reserve.test.example/pref", ["robots.txt:content-usage"]),
        ("http://reserve.test.example/tdm", ["tdmrep.json:tdm-reservation"]),
        ("http://reserve.test.example/header", ["header:noai"]),
        ("http://reserve.test.example/meta", ["meta:noimageai"]),
        ("http://reserve.test.example/free", []),
        ("http://aitxt.test.example/page", ["ai.txt:disallow"]),
    ],
)
def test_evidence_is_stored_beside_each_page(crawled: Crawled, page: str, signals: list[str]) -> None:
    kinds = [one for one in crawled.records if one[1].get("WARC-Target-URI") == page]
    (metadata, content), (response, _) = [
        next((h, body) for kind, h, body in kinds if kind == wanted) for wanted in ("metadata", "response")
    ]
    assert metadata["Content-Type"] == CONTENT_TYPE
    assert metadata["WARC-Refers-To"] == metadata["WARC-Concurrent-To"] == response["WARC-Record-ID"]
    evidence = read_evidence(content)
    assert evidence is not None
    assert [str(signal) for signal in evidence.signals] == signals
    assert evidence.robots.allowed
    # Judged again from what is stored, under two policies, without asking the host.
    policy = OptOutPolicy().of_crawl("Headwater-test (+nobody@test.example)")
    assert (judge(evidence.signals, policy).action == "drop") is bool(signals)
    keep = OptOutPolicy(**dict.fromkeys(set(OptOutPolicy.model_fields) - {"agents"}, "keep"))
    assert judge(evidence.signals, keep).action == "keep"
    assert evidence.reader == READER
    if page.endswith(("/header", "/free")):
        assert evidence.licenses == (CC_BY,)
    files = {evidence.robots.record_id, *evidence.files.values()} - {""}
    kept = {h["WARC-Record-ID"]: body for kind, h, body in crawled.records if kind == "metadata"}
    assert files <= set(kept), "the bytes that the evidence names are in the snapshot"
    if "reserve" in page:
        assert kept[evidence.robots.record_id].startswith(b"User-agent: *\nAllow: /")


def test_the_snapshot_reads_back_with_warcio(crawled: Crawled, tmp_path: Path) -> None:
    from warcio.archiveiterator import ArchiveIterator as Warcio

    from tasks.crawl.warc_writer import Note, Writer

    stream = io.BytesIO()
    note = Note(url="http://a/robots.txt", status=200, content_type="", body=b"x", fetched_from="http://b/r")
    Writer(stream).write_note(note, when="2026-01-01T00:00:00Z")
    stream.seek(0)
    [record] = Warcio(stream, check_digests=True)
    assert record.rec_headers["Headwater-Redirected-To"] == "http://b/r"
