"""Each reader of what strangers write takes time linear in it: every reader, every shape, at eight times the size."""

import gzip
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest

from tasks.contracts import bodies, document, markup, media_types, urls, words
from tasks.contracts.charset import decode
from tasks.contracts.http_responses import codings, no_page
from tasks.crawl import page_links, retry_after
from tasks.crawl.limits import Counted, Limits
from tasks.decontaminate.hashed_words import split
from tasks.dedup import shingles
from tasks.extract import language_id, metadata
from tasks.filter.loading import load
from tasks.perplexity import model_text as perplexity_text
from tasks.rights import evidence
from tasks.rights.robot_words import robot_words
from tasks.rights.robots import Robots, matches, names_of, pattern_path
from tests.hostile.growth import MOST_GROWTH, growth, seconds
from tests.hostile.shapes import SHAPES

SIZE = 4000
SUSPECT_SECONDS = 0.02
URL = "http://h.example/a/b"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
RULES = ("c4", "fineweb", "gopher_quality", "gopher_repetition", "length", "pii", "refinedweb_lines", "repeated_lines",
         "secrets", "url")  # fmt: skip


def html_signals(text: str) -> object:
    evidence.meta_elements.cache_clear()
    return evidence.most_telling(evidence.html_signals(text))


def robots(text: str) -> object:
    read = Robots(text.encode())
    said = read.decide("Headwater", URL), read.closing(URL), read.crawl_delay("Headwater")
    return said, list(read.statements(URL)), list(evidence.host_signals(read, None, None, URL))


def host_files(text: str) -> object:
    return list(evidence.host_signals(None, text.encode(), text.encode(), URL))


def sitemap(text: str) -> object:
    try:
        return page_links.sitemap_links(f"<urlset>{text}".encode(), URL, 1 << 20, (), ["h.example"])
    except ValueError:
        return None


def body(field: str, coding: str, content: bytes | str) -> object:
    try:
        return bodies.opened(content.encode() if isinstance(content, str) else content, [(field, coding)], 1 << 24)
    except bodies.ERRORS:
        return None


def limits(text: str) -> object:
    most = Limits(
        max_pages_per_host=9, max_depth=9, max_url_length=1 << 30, max_path_segments=1 << 30,
        max_repeated_segments=1 << 30, max_query_parameters=1 << 30, max_queries_per_path=9,
    )  # fmt: skip
    return Counted(most).refusal(f"http://h.example/{text}", 1)


def content_codings(text: str) -> object:
    try:
        return codings(text)
    except ValueError:
        return None


def rule(name: str) -> Callable[[str], object]:
    (loaded,) = load([{name: {}}])
    page: dict[str, Any] = {"doc_id": "1", "host": "h.example", "record_id": "1", "source": "t"}
    return lambda text: loaded.call(document.Document(**page, url=f"http://h.example/{text[:4000]}", text=text))


READERS: dict[str, Callable[[str], object]] = {
    "Link": lambda text: (
        evidence.find_licenses([("Link", text)], "", "http://a.example/"),
        evidence.page_signals([("Link", text)], ""),
    ),
    "X-Robots-Tag": lambda text: evidence.page_signals([("X-Robots-Tag", text)], ""),
    "Content-Usage": lambda text: evidence.page_signals([("Content-Usage", text), ("TDM-Reservation", text)], ""),
    "Content-Signal": lambda text: evidence.page_signals([("Content-Signal", text)], ""),
    "words to robots": lambda text: list(robot_words(text)),
    "names of a robot": names_of.__wrapped__,
    "many header fields": lambda text: evidence.page_signals([("X-Robots-Tag", part) for part in text.split(" ")], ""),
    "signals of a page": html_signals,
    "signals of a page that names RSL": lambda text: html_signals(f"{text} rsl"),
    "licences of a page": lambda text: evidence.find_licenses([], f"license {text}", "http://a.example/"),
    "licences of a page that ends with one": lambda text: evidence.find_licenses(
        [], f"{text} license", "http://a.example/"
    ),
    "links of a page": lambda text: page_links.links_of(text, URL, ("utm_*",), ["h.example", "*.h.example"]),
    "character references": markup.unescaped,
    "few attributes": markup.with_few_attributes,
    "robots.txt": robots,
    "ai.txt and tdmrep.json": host_files,
    "pattern of robots.txt": lambda text: matches(pattern_path("/" + text), pattern_path("/" + text[::-1])),
    "sitemap": sitemap,
    "path of a URL": lambda text: urls.canonical_url(f"http://h.example/{text}", ("utm_*",)),
    "host of a URL": lambda text: urls.canonical_url(f"http://{text}/"),
    "whole URL": urls.canonical_url,
    "limits of a URL": limits,
    "takedown of a URL": lambda text: urls.page_key(f"http://h.example/{text}"),
    "Retry-After": lambda text: retry_after.retry_after(text, NOW),
    "Content-Type": lambda text: decode(b"<p>x</p>", text),
    "Location": lambda text: page_links.location_of(text.encode()),
    "charset of a page": lambda text: decode(text.encode(), ""),
    "Content-Encoding": content_codings,
    "Content-Range": lambda text: no_page(200, text),
    "chunked body": lambda text: body("Transfer-Encoding", "chunked", text.encode()),
    "chunks": lambda text: body("Transfer-Encoding", "chunked", b"1\r\nx\r\n" * len(text)),
    **{f"{coding} body": partial(body, "Content-Encoding", coding) for coding in ("gzip", "deflate", "br", "zstd")},
    "gzip members": lambda text: body(
        "Content-Encoding", "gzip", gzip.compress(text[:20].encode()) * (len(text) // 20)
    ),
    "zstd frames": lambda text: body("Content-Encoding", "zstd", b"\x50\x2a\x4d\x18\0\0\0\0" * len(text)),
    "type of a body": lambda text: media_types.is_html("unknown/unknown", text.encode()),
    "root of XML": lambda text: media_types.is_html("application/xml", b"<?xml version='1.0'?>" + text.encode()),
    "markup of a body": lambda text: media_types.is_markup(text.encode()),
    "date of a page": metadata._day,
    "title of a page": metadata._without_site,
    "JSON-LD": lambda text: metadata._from_json_ld([f'{{"datePublished": "{text}"}}', f'"datePublished"{text}']),
    "language": language_id.identify,
    "languages by line": language_id.languages_by_line,
    "words": words.words,
    "shingles": lambda text: shingles.shingles(text, size=5),
    "n-grams": split,
    "lines for perplexity": perplexity_text.lines_of,
    **{f"filter {name}": rule(name) for name in RULES},
}


@pytest.mark.parametrize("reader", READERS)
def test_a_reader_takes_linear_time(reader: str) -> None:
    read = READERS[reader]
    read("warm up")
    slow = {}
    for name, shape in SHAPES.items():

        def work(text: Any) -> object:
            return read(text)

        if seconds(work, shape(2 * SIZE), 1) > SUSPECT_SECONDS / 8:
            # Once is enough to see that it is linear; more tries only against another program's interruptions.
            # Once is enough to see that it is linear; more tries only against another program's interruptions.
            grown = growth(work, shape, SIZE, tries=1)
            if grown > MOST_GROWTH and (grown := growth(work, shape, SIZE)) > MOST_GROWTH:
                slow[name] = f"{grown:.0f} times longer"
    assert slow == {}


def test_a_quadratic_reader_is_seen() -> None:
    def quadratic(text: str) -> int:
        return sum(len(text[start:].lower()) for start in range(len(text)))

    assert growth(quadratic, SHAPES["words"], SIZE) > MOST_GROWTH
