"""One spelling a URL, and no way into a trap."""

import pytest
import scrapy
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.crawl.urls import Counted, Limits, canonical_url

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


LIMITS = Limits(
    max_pages_per_host=100,
    max_depth=5,
    max_url_length=80,
    max_path_segments=6,
    max_repeated_segments=2,
    max_query_parameters=3,
    max_queries_per_path=4,
)


@pytest.mark.parametrize(
    ("path", "depth", "rule"),
    [
        ("/a/b/c/d/e/f", 5, None),
        ("/a", 6, "max_depth"),
        ("/" + "a" * 80, 0, "url_too_long"),
        ("/a/b/c/d/e/f/g", 0, "path_too_deep"),
        ("/a/x/a/y/a", 0, "path_repeats"),
        ("/a?b&c&d&e", 0, "query_parameters"),
        ("/a?b&c&d", 0, None),
    ],
)
def test_each_limit_has_a_rule(path: str, depth: int, rule: str | None) -> None:
    assert Counted(LIMITS).refusal(H + path, depth) == rule


def test_a_path_with_ever_new_queries_is_cut_off_and_its_neighbours_are_not() -> None:
    counted = Counted(LIMITS, [f"{H}/calendar?day={day}" for day in range(4)])
    assert counted.refusal(f"{H}/calendar?day=5", 1) == "query_variants"
    assert counted.refusal(f"{H}/calendar", 1) is None
    assert counted.refusal(f"{H}/other?day=5", 1) is None


def test_a_host_is_full_when_it_is() -> None:
    counted = Counted(LIMITS, [f"{H}/{n}" for n in range(100)])
    assert counted.refusal(f"{H}/x", 1) == "max_pages_per_host"
    assert counted.refusal("http://other.example/x", 1) is None
