"""One spelling a URL; when two are one page; which hosts a pattern names, for all who ask."""

import pytest
import scrapy
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.contracts.document import Document
from tasks.contracts.urls import TRACKING, canonical_url, named, page_key
from tasks.mix.shares import Group
from tasks.perplexity.reference import Reference

H = "http://h.example"


@pytest.mark.parametrize(
    ("spelling", "expected"),
    [
        ("HTTP://H.Example", f"{H}/"),
        ("http://h.example:80/", f"{H}/"),
        ("https://h.example:443/a", "https://h.example/a"),
        ("http://h.example:8080/a", "http://h.example:8080/a"),
        ("http://h.example./a", f"{H}/a"),
        ("http://user:secret@h.example/a", f"{H}/a"),
        (f"{H}/a/b/../c/./d", f"{H}/a/c/d"),
        (f"{H}/../../a", f"{H}/a"),
        (f"{H}/a/%2e%2E/b", f"{H}/b"),
        (f"{H}/a/..", f"{H}/"),
        (f"{H}/a/b/.", f"{H}/a/b/"),
        (f"{H}/%7euser/%c3%a9", f"{H}/~user/%C3%A9"),
        (f"{H}/é b", f"{H}/%C3%A9%20b"),
        (f"{H}/a%2fb", f"{H}/a%2Fb"),
        (f"{H}/a?", f"{H}/a"),
        (f"{H}/a?#x", f"{H}/a"),
        (f"{H}/a?b=%7e#top", f"{H}/a?b=~"),
        (f"{H}?q", f"{H}/?q"),
        (f"  {H}/a\n\tb ", f"{H}/ab"),
        ("http://bücher.example/", "http://xn--bcher-kva.example/"),
        ("http://BÜCHER.example/", "http://xn--bcher-kva.example/"),
        ("http://xn--bcher-kva.example/", "http://xn--bcher-kva.example/"),
        ("http://2130706433/", "http://127.0.0.1/"),
        ("http://0x7f000001/", "http://127.0.0.1/"),
        ("http://0177.0.0.01/", "http://127.0.0.1/"),
        ("http://127.1/", "http://127.0.0.1/"),
        ("http://[::FFFF:7F00:1]:80/", "http://[::ffff:127.0.0.1]/"),
        ("http://[0:0:0:0:0:0:0:1]/", "http://[::1]/"),
        ("http://%31%32%37.0.0.1/", "http://127.0.0.1/"),
        ("http://h.example/a/.\\b\\..\\?c\\..\\d", "http://h.example/a/?c%5C..%5Cd"),
        ("http:\\\\h.example\\@other.example/", "http://h.example/@other.example/"),
    ],
)
def test_one_spelling(spelling: str, expected: str) -> None:
    assert canonical_url(spelling) == expected


@pytest.mark.parametrize(
    "url",
    ["", "/relative", "mailto:a@h.example", "ftp://h.example/", "file:///etc/passwd", "javascript:alert(1)", "http://",
     "http:///x", "http://a..b/", "http://h.example:99999/", "http://[::1", "http://h ost/", "http://1.2.3.4.5/",
     "data:text/html,x", "http://h.example:0/", "http://<script>/"],
)  # fmt: skip
def test_what_is_no_url_of_the_web(url: str) -> None:
    assert canonical_url(url) is None


def test_named_parameters_are_left_out() -> None:
    drop = ["utm_*", "gclid"]
    assert canonical_url(f"{H}/a?UTM_Source=x&id=1&gclid=2&utm", drop) == f"{H}/a?id=1&utm"
    assert canonical_url(f"{H}/a?utm_source=x", drop) == f"{H}/a"
    assert canonical_url(f"{H}/a?utm_source=x") == f"{H}/a?utm_source=x"


@settings(max_examples=200, deadline=None)
@given(
    st.text("aé%2eE/.?&=#:;[]|\\ ~+'\"<>", max_size=25), st.sampled_from([f"{H}/", "https://A.example:443", "http://"])
)
def test_a_spelling_once_made_stays_and_is_what_scrapy_sends(rest: str, start: str) -> None:
    url = canonical_url(start + rest)
    if url is not None:
        assert canonical_url(url) == url
        assert scrapy.Request(url).url == url


def test_a_pattern_with_a_star_before_a_domain_names_the_domain_too_whoever_asks() -> None:
    document = Document(doc_id="1", url="", host="a.example", record_id="1", source="x", text="")
    for pattern, is_named in (("*.A.example", True), ("a.example", True), ("*.b.example", False), ("a.*", True)):
        assert named("a.example", [pattern]) is is_named
        assert Group(name="g", hosts=(pattern,)).takes(document) is is_named
        assert Reference(hosts=(pattern,)).holds(document) is is_named


@given(st.text("aé%2eE/.?&=#:;[]|\\ ~+", max_size=25))
def test_the_canonical_url_of_a_page_is_the_same_page(rest: str) -> None:
    url = canonical_url(f"http://A.example:80/{rest}", TRACKING)
    if url is not None:
        assert page_key(url) == page_key(f"https://a.example/{rest}")
