"""Answers of servers that mean well: the crawl follows the links of what extract reads, and stores what it received."""

from __future__ import annotations

import gzip
import zlib

import brotli
import pytest
import zstandard

from tasks.contracts.ledger import LedgerRow, read_ledger
from tasks.crawl.sites import crawl_sites
from tasks.extract.warc_pages import Page, read_pages
from tests.tasks.crawl.test_sites import crawl_of
from tests.tasks.crawl.web import Answer, Route, Web, serving

HOST = "odd.test.example"
FILLED = "x" * 3000  # so that nothing of interest stands in a body's first bytes


def page(name: str) -> bytes:
    return f'<html><body><p>{name} {FILLED}</p><a href="/to-{name}">Река</a></body></html>'.encode()


def halves(content: bytes) -> tuple[bytes, bytes]:
    return content[:1000], content[1000:]


def zstd(content: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(content)


def coded(coding: str, body: bytes) -> Answer:
    return Answer(body, headers={"Content-Encoding": coding})


ODD: dict[str, Answer] = {
    "members": coded("gzip", b"".join(map(gzip.compress, halves(page("members"))))),
    "frames": coded("zstd", b"".join(map(zstd, halves(page("frames"))))),
    "twice": coded("gzip, br", brotli.compress(gzip.compress(page("twice")))),
    "bare": coded("deflate", zlib.compress(page("bare"))[2:-4]),
    "belied": coded("gzip", page("belied")),
    "belied-br": coded("br", b"\n" * 2000 + page("belied-br")),
    "unheard-of": coded("utf-8", page("unheard-of")),
    "early": coded("gzip", gzip.compress(page("early"))[:-9]),
    "broken-off": Answer(page("broken-off"), cut=len(page("broken-off")) - 9),
    "no-type": Answer(page("no-type"), kind=""),
    "unknown": Answer(page("unknown"), kind="unknown/unknown"),
    "charset": Answer(page("charset"), kind="charset=utf-8"),
    "two-types": Answer(page("two-types"), kind="text/html, text/html; charset=UTF-8"),
    "xhtml": Answer(b"<?xml version='1.0'?>" + page("xhtml"), kind="application/xml"),
    "utf16": Answer(b"\xff\xfe" + page("utf16").decode().encode("utf-16-le")),
    "russian": Answer(page("russian").decode().encode("cp1251"), kind="text/html; charset=windows-1251"),
}
NO_PAGES = {
    "plain": Answer(page("plain"), kind="text/plain"), "json": Answer(page("json"), kind="application/json"),
    "feed": Answer(b"<rss><channel>" + page("feed"), kind="application/xml"),
}  # fmt: skip
MOVED = {"/straße": "/stra%C3%9Fe", "/я?q=ü": "/%D1%8F?q=%C3%BC"}


@pytest.fixture(scope="module")
def crawled(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Page], dict[str, LedgerRow], Web]:
    folder = tmp_path_factory.mktemp("odd")
    routes: dict[tuple[str, str], Route] = {(HOST, f"/{name}"): answer for name, answer in {**ODD, **NO_PAGES}.items()}
    routes |= {(HOST, f"/to-{name}"): Answer(f"<html><p>to {name}".encode()) for name in (*ODD, *NO_PAGES)}
    for number, location in enumerate([*(place.encode() for place in MOVED), "/straße2".encode("latin-1")]):
        routes[HOST, f"/moved{number}"] = Answer(b"", 302, {"Location": location.decode("latin-1")})
    routes |= {(HOST, place): Answer(f"<html><p>{place}".encode()) for place in (*MOVED.values(), "/stra%DFe2")}
    start = "".join(f'<a href="{path}">x</a>' for _, path in routes if "/to-" not in path and "%" not in path)
    routes[HOST, "/"] = Answer(f"<html><body>{start}</body></html>".encode())
    with serving(Web(routes)) as web:
        crawl = crawl_of(web.port, seeds=[f"http://{HOST}/"], delay_seconds=0.01)
        crawl_sites(crawl, source="sites", state=folder / "state", output=folder / "out")
    rows = {row.url or "": row for row in read_ledger(folder / "out" / "dropped" / "part-00000.parquet")}
    pages = [page for part in sorted((folder / "out").glob("part-*.warc.gz")) for page in read_pages(part, 1 << 30)]
    return {one.url.removeprefix(f"http://{HOST}"): one for one in pages}, rows, web


@pytest.mark.parametrize("name", ODD)
def test_links_are_followed_from_every_page_that_is_read(
    crawled: tuple[dict[str, Page], dict[str, LedgerRow], Web], name: str
) -> None:
    pages, _, web = crawled
    assert web.counts[HOST, f"/to-{name}"] == 1
    assert pages[f"/{name}"].reason is None
    assert FILLED.encode() in pages[f"/{name}"].body.replace(b"\0", b"")
    assert pages[f"/{name}"].cut.partition(":")[0] == {"early": "gzip", "broken-off": "WARC-Truncated"}.get(name, "")


@pytest.mark.parametrize("name", NO_PAGES)
def test_and_from_nothing_else(crawled: tuple[dict[str, Page], dict[str, LedgerRow], Web], name: str) -> None:
    pages, _, web = crawled
    assert web.counts[HOST, f"/to-{name}"] == 0
    assert pages[f"/{name}"].reason is not None


def test_a_redirect_is_followed_whatever_bytes_it_is_written_in(
    crawled: tuple[dict[str, Page], dict[str, LedgerRow], Web],
) -> None:
    pages, rows, _ = crawled
    assert {*MOVED.values(), "/stra%DFe2"} <= pages.keys()
    assert rows[f"http://{HOST}/moved0"].detail == f"302 to http://{HOST}/stra%C3%9Fe"
