"""robots.txt as RFC 9309 says, on odd files too; the same answers as Protego where both follow the standard."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from protego import Protego

from tasks.rights.robots import MOST_BYTES, MOST_STATEMENTS, Decision, Robots, matches, names_of
from tests.hostile.growth import MOST_GROWTH, growth

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


def test_rules_on_one_path_are_said_separately() -> None:
    text = "User-agent: *\nContent-Usage: /a train-ai=y\nContent-Usage: /a\ttrain-ai=n\nContent-Usage: search=y\n"
    assert Robots(text.encode()).content_usage(f"{HOST}/a") == (("*", "train-ai=y"), ("*", "train-ai=n"))


def test_statements_are_bounded_and_each_name_goes_by_its_own_longest_path() -> None:
    text = "User-agent: *\nContent-Usage: /a/b train-ai=n\nContent-Signal: ai-train=no\nNoindex: /a\n"
    robots = Robots((text + "Content-Usage: /a/b search=y\n" * 1000).encode())
    assert set(robots.statements(f"{HOST}/a/b")) == {
        ("*", "content-usage", "train-ai=n"),
        ("*", "content-usage", "search=y"),
        ("*", "content-signal", "ai-train=no"),
        ("*", "noindex", "Noindex: /a"),
    }
    assert [name for _, name, _ in robots.statements(f"{HOST}/b")] == ["content-signal"]
    many = "".join(f"Content-Usage: /a a{number}=n\n" for number in range(1000))
    assert len(Robots(f"User-agent: *\n{many}".encode()).content_usage(f"{HOST}/a")) == MOST_STATEMENTS


def test_licences_are_said_to_everyone_and_prose_is_none() -> None:
    text = b"License: https://h.example/l.xml\nUser-agent: x\nDisallow: /\nLicense: /b.xml\nlicense all you like\n"
    assert Robots(text).licenses == ["https://h.example/l.xml", "/b.xml"]


@pytest.mark.parametrize(
    ("user_agent", "names"),
    [
        ("Headwater/0.1 (+mailto:a@b.example)", ("headwater",)),
        ("Mozilla/5.0 (compatible; MyBot/1.0; +https://h.example/OtherBot/2.0)", ("mybot",)),
        ("Mozilla/5.0 (compatible; MyBot; +https://h.example/)", ("mybot",)),
        ("Mozilla/5.0 (Linux; Android 6) AppleWebKit/5 (KHTML, like Gecko) Chrome/9 Mobile (compatible; B/2)", ("b",)),
        ("Mine/1 Headwater/2 by somebody", ("mine", "headwater")),
        ("Headwater (x", ("headwater",)),
        ("Mozilla/5.0", ("mozilla",)),
        ("", ()),
        ("(", ()),
    ],
)  # fmt: skip
def test_a_robot_goes_by_the_products_of_its_header(user_agent: str, names: tuple[str, ...]) -> None:
    assert names_of(user_agent) == names


def test_a_robot_of_two_names_must_be_let_in_under_both() -> None:
    text = "User-agent: mine\nAllow: /\nCrawl-delay: 1\nUser-agent: headwater\nDisallow: /b\nCrawl-delay: 3\n"
    robots = Robots(text.encode())
    agent = "Mine/1 Headwater/2"
    assert robots.decide(agent, f"{HOST}/b") == Decision(False, "headwater", "Disallow: /b")
    assert robots.decide(agent, f"{HOST}/c") == Decision(True, "mine", "Allow: /")
    assert robots.crawl_delay(agent) == 3.0


def test_an_ai_txt_speaks_to_everyone_before_it_names_a_robot() -> None:
    text = b"Disallow: /\nUser-agent: x\nAllow: /\n"
    assert Robots(text).closed_to(f"{HOST}/a") == ()
    assert Robots(text, ai_txt=True).closed_to(f"{HOST}/a") == ("*",)
    blocks = b"Training: allow\nAgent: a\n  Training: deny\nAgent: b\n  Training: allow\nTraining-Deny: /c\n"
    assert Robots(blocks, ai_txt=True).closed_to(f"{HOST}/x") == ("a",)


WORDS = st.sampled_from(
    ["User-agent", "Disallow", "Allow", "user agent", "Disalow", "Useragent", "dissallow", "Sitemap"]
)
SIGNS = st.sampled_from([": ", ":", " ", "\t", " : "])
VALUES = st.sampled_from(["/", "/a", "/b", "x", "*", "y", ""])
LINES = st.tuples(WORDS, SIGNS, VALUES).map("".join)


@settings(max_examples=300, deadline=None)
@given(st.lists(LINES, max_size=8), st.sampled_from(["/", "/a", "/b/c"]))
def test_what_protego_closes_is_closed(lines: list[str], path: str) -> None:
    """Where the two read a file in different ways, this one fetches less; but for empty names, which name nobody."""
    text = "\n".join(lines)
    if not Protego.parse(text).can_fetch(HOST + path, "x"):
        assert not allowed(text, path, "x")


def test_a_hostile_pattern_costs_no_time() -> None:
    def work(path: str) -> None:
        assert not matches("/" + "*a" * (len(path) // 2) + "b$", path)

    assert growth(work, lambda n: "/" + "a" * n, 3000) <= MOST_GROWTH


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
