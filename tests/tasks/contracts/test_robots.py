"""robots.txt as RFC 9309 says, on odd files too; the same answers as Protego where both follow the standard."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from protego import Protego

from tasks.contracts.robots import MOST_BYTES, Decision, Robots, matches

HOST = "http://h.example"


def allowed(text: str | bytes, path: str, agent: str = "Headwater/0.1") -> bool:
    return Robots(text.encode() if isinstance(text, str) else text).decide(agent, HOST + path).allowed


def test_the_standards_own_example() -> None:
    text = """
        User-Agent: *
        Disallow: *.gif$
        Disallow: /example/
        Allow: /publications/

        User-Agent: foobot
        Disallow:/
        Allow:/example/page.html
        Allow:/example/allowed.gif

        User-Agent: barbot
        User-Agent: bazbot
        Disallow: /example/page.html

        User-Agent: quxbot
        """
    assert not allowed(text, "/x/y.gif")
    assert allowed(text, "/publications/")
    assert not allowed(text, "/example/", "other")
    assert allowed(text, "/example/page.html", "FooBot/2.1")
    assert not allowed(text, "/", "foobot")
    assert not allowed(text, "/example/page.html", "bazbot")
    assert allowed(text, "/example/page.html", "quxbot")


def test_the_longest_rule_decides_and_allow_at_equal_length() -> None:
    text = "User-agent: *\nAllow: /p\nDisallow: /\nDisallow: /page\nAllow: /page"
    assert allowed(text, "/page")
    assert allowed(text, "/p")
    assert not allowed("User-agent: *\nAllow: /\nDisallow: /page", "/page/x")
    assert allowed("User-agent: *\nDisallow: /*.php\nAllow: /page.php$", "/page.php")
    assert not allowed(text, "/x")


def test_groups_of_one_name_are_one_group_and_a_named_group_hides_the_general_one() -> None:
    text = "User-agent: headwater\nDisallow: /a\nUser-agent: *\nDisallow: /\nUser-agent: HEADWATER\nDisallow: /b"
    assert [allowed(text, path) for path in ("/a", "/b", "/c")] == [False, False, True]


def test_the_decision_names_group_and_line() -> None:
    robots = Robots(b"User-agent: *\nDisallow: /private/ # ours\n")
    assert robots.decide("x", f"{HOST}/private/a") == Decision(False, "*", "Disallow: /private/")
    assert robots.decide("x", f"{HOST}/public") == Decision(True, "*", "")
    assert robots.decide("x", f"{HOST}/robots.txt").allowed


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfUser-agent: *\nDisallow: /a",
        "User-agent: *\nDisallow: /a".encode("utf-16"),
        b"User-agent: *\rDisallow: /a\r",
        b"user-AGENT : *\r\ndisALLOW : /a\r\n",
        b"\xff\xfe\xfa broken \x80\nUser-agent: *\nDisallow: /a"[2:],
        b"User-agent: *\nUnknown: x\nDisallow: /a\nmore nonsense",
        b"User-agent: *\nDisallow: a",
    ],
)
def test_odd_files_are_understood(content: bytes) -> None:
    assert not allowed(content, "/a/x")
    assert allowed(content, "/b")


@pytest.mark.parametrize(
    ("rule", "path"),
    [("/caf%c3%a9", "/café"), ("/café", "/caf%C3%A9"), ("/%7Ejoe", "/~joe/x"), ("/*?s=", "/find?s=1"),
     ("/x%2Fy", "/x%2fy")],
)  # fmt: skip
def test_spellings_of_one_path_are_one(rule: str, path: str) -> None:
    assert not allowed(f"User-agent: *\nDisallow: {rule}", path)


def test_what_is_beyond_the_limit_is_ignored_and_the_rest_counts() -> None:
    line = b"Disallow: /%06d\n"
    body = b"User-agent: *\nDisallow: /first\n" + b"".join(line % n for n in range(60_000))
    assert len(body) > MOST_BYTES
    robots = Robots(body)
    assert not robots.decide("x", f"{HOST}/first").allowed
    last = body[:MOST_BYTES].count(b"\n") - 3
    assert not robots.decide("x", f"{HOST}/{last:06d}").allowed
    assert robots.decide("x", f"{HOST}/059999").allowed


def test_delays_sitemaps_and_who_is_shut_out() -> None:
    text = b"""User-agent: *
Crawl-delay: 2.5
Sitemap: http://h.example/s.xml
Disallow: /x
User-agent: GPTBot
User-agent: CCBot
Disallow: /
User-agent: slow
Crawl-delay: nan
"""
    robots = Robots(text)
    assert robots.crawl_delay("Headwater") == 2.5
    assert robots.crawl_delay("slow") is None
    assert robots.sitemaps == ["http://h.example/s.xml"]
    assert robots.closed_to(f"{HOST}/y") == ("ccbot", "gptbot")
    assert robots.closed_to(f"{HOST}/x") == ("*", "ccbot", "gptbot")


def test_content_usage_lines_go_by_the_longest_path() -> None:
    text = b"User-agent: *\nAllow: /\nContent-Usage: train-ai=n\nContent-Usage: /open/ train-ai=y\n"
    robots = Robots(text)
    assert robots.content_usage(f"{HOST}/a") == (("*", "train-ai=n"),)
    assert robots.content_usage(f"{HOST}/open/a") == (("*", "train-ai=y"),)


def test_a_hostile_pattern_costs_no_time() -> None:
    started = time.process_time()
    assert not matches("/" + "*a" * 2000 + "b$", "/" + "a" * 5000)
    assert time.process_time() - started < 0.5


PATHS = st.one_of(st.text("a", max_size=4), st.text("ab/", max_size=3)).map(lambda text: "/" + text)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.booleans(), PATHS), max_size=4, unique_by=lambda rule: rule[1]), PATHS)
def test_the_same_answers_as_protego(rules: list[tuple[bool, str]], path: str) -> None:
    # Without wildcards: Protego counts those as no octet of a rule's length, RFC 9309 counts every octet.
    text = "User-agent: *\n" + "".join(f"{'Allow' if allow else 'Disallow'}: {rule}\n" for allow, rule in rules)
    assert allowed(text, path) == Protego.parse(text).can_fetch(HOST + path, "x")


@settings(max_examples=80, deadline=None)
@given(st.binary(max_size=300))
def test_no_bytes_break_it(content: bytes) -> None:
    Robots(content).decide("x", HOST)
    Robots(b"User-agent: *\nDisallow: " + content).closed_to(HOST)
