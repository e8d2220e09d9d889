"""Every way in which a page or a host reserves its use is seen, and one policy judges it."""

from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.rights.ai_robots import AI_ROBOTS, GATHERERS, GATHERING, PURPOSES
from tasks.rights.evidence import (
    READER,
    Evidence,
    OptOutPolicy,
    RobotsVerdict,
    Signal,
    find_licenses,
    host_signals,
    judge,
    page_signals,
    read_evidence,
)
from tasks.rights.preferences import refuses_training
from tasks.rights.robots import Robots
from tests.hostile.growth import MOST_GROWTH, growth

URL = "http://h.example/a/page.html"


def said(headers: list[tuple[str, str]], text: str = "") -> list[str]:
    return [str(signal) for signal in page_signals(headers, text)]


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (("X-Robots-Tag", "noai"), ["header:noai"]),
        (("x-robots-tag", "NoAI, NOIMAGEAI"), ["header:noai", "header:noimageai"]),
        (("X-Robots-Tag", "none"), ["header:noindex"]),
        (("X-Robots-Tag", "googlebot: noindex, noai"), ["header:noai@googlebot", "header:noindex@googlebot"]),
        (("X-Robots-Tag", "otherbot: noindex, gptbot: noai"), ["header:noai@gptbot", "header:noindex@otherbot"]),
        (("X-Robots-Tag", "unavailable_after: 25 Jun 2030 15:00:00 PST, noindex"), ["header:noindex"]),
        (("X-Robots-Tag", "max-snippet: 20, nosnippet"), ["header:nosnippet"]),
        (("TDM-Reservation", "1"), ["header:tdm-reservation"]),
        (("tdm-reservation", "0"), []),
        (("Content-Usage", "train-ai=n, search=y"), ["header:content-usage"]),
        (("Content-Usage", "train-ai=y"), []),
        (("X-Robots-Tag", "all, follow"), []),
    ],
)
def test_headers(header: tuple[str, str], expected: list[str]) -> None:
    assert said([header]) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('<meta name="robots" content="noai, noimageai">', ["meta:noai", "meta:noimageai"]),
        ("<META CONTENT='noindex' NAME=ROBOTS>", ["meta:noindex"]),
        ('<meta name="GPTBot" content="noindex">', ["meta:noindex@gptbot"]),
        ('<meta name="Google-Extended" content="noai"/>', ["meta:noai@google-extended"]),
        ('<meta name="robots" content="googlebot: noai">', ["meta:noai@googlebot"]),
        ('<meta name="tdm-reservation" content="1"><meta name="tdm-policy" content="/p">', ["meta:tdm-reservation"]),
        ('<meta name="description" content="noai > noindex"><meta name="robots" content="noai">', ["meta:noai"]),
        ('<!-- <meta name="robots" content="noai"> -->', []),
        ("<script>'<meta name=robots content=noai>'</script><p>x", []),
        ('<meta name="bottom" content="noai">', []),
        ('<p>noai noindex</p><metal name="robots" content="noai">', []),
        ('<body><div><meta name="robots" content="no&#97;i"></div>', ["meta:noai"]),
    ],
)
def test_html(text: str, expected: list[str]) -> None:
    assert said([], text) == expected


def test_the_policy_of_a_tdm_reservation_is_kept() -> None:
    [signal] = page_signals([("tdm-reservation", "1"), ("tdm-policy", "https://h.example/p.json")], "")
    assert signal.value == "https://h.example/p.json"


@pytest.mark.parametrize(
    ("preferences", "refuses"),
    [("train-ai=n", True), ("train-ai=n;x=1, search=y", True), ("bots=n", True), ("bots=n, train-ai=y", False),
     ("search=n", False), ("train-genai=n,train-ai=y", True), ("", False), ("train-ai", False)],
)  # fmt: skip
def test_the_most_specific_preference_decides(preferences: str, refuses: bool) -> None:
    assert refuses_training(preferences) is refuses


def test_files_of_the_host() -> None:
    robots = Robots(
        b"User-agent: *\nAllow: /\nContent-Usage: /a/ train-ai=n\nUser-agent: GPTBot\nUser-agent: Other\nDisallow: /a/"
    )
    tdmrep = (
        b'[{"location": "/a/*", "tdm-reservation": 1, "tdm-policy": "/p"}, {"location": "/", "tdm-reservation": 0}]'
    )
    ai_txt = b"User-Agent: *\nDisallow: *.html\n"
    assert set(host_signals(robots, tdmrep, ai_txt, URL)) == {
        Signal("robots.txt", "disallow", "gptbot", "Disallow: /a/"),
        Signal("robots.txt", "disallow", "other", "Disallow: /a/"),
        Signal("robots.txt", "content-usage", "*", "train-ai=n"),
        Signal("tdmrep.json", "tdm-reservation", "*", "/p"),
        Signal("ai.txt", "disallow", "*", "Disallow: *.html"),
    }
    other = list(host_signals(robots, tdmrep, b"User-Agent: *\nDisallow: *.jpg\nDisallow: /b", "http://h.example/c"))
    assert other == []
    assert list(host_signals(None, None, None, URL)) == []


def test_a_page_whose_path_has_no_ending_is_a_text_to_ai_txt() -> None:
    [signal] = host_signals(None, None, b"User-Agent: *\nDisallow: *.txt\nDisallow: *.jpg", "http://h.example/c")
    assert signal.value == "Disallow: *.txt"


@pytest.mark.parametrize("broken", [b"", b"{}", b"[1, {}]", b"\xff", b"[" * 100_000, b'[{"location": 1}]'])
def test_a_broken_tdmrep_file_reserves_nothing(broken: bytes) -> None:
    assert list(host_signals(None, broken, None, URL)) == []


def test_the_default_policy_honours_every_signal() -> None:
    dropped = ["meta:noai", "header:noimageai", "meta:noindex", "header:tdm-reservation", "tdmrep.json:tdm-reservation",
               "header:content-usage", "robots.txt:content-usage", "ai.txt:disallow", "robots.txt:disallow@gptbot",
               "meta:noai@googlebot", "header:noindex@ccbot"]  # fmt: skip
    assert [judge([signal], OptOutPolicy()).action for signal in dropped] == ["drop"] * len(dropped)
    assert judge(["meta:nosnippet"], OptOutPolicy()).action == "mark"
    # Said to a robot that has nothing to do with models, or obeyed by the crawl already.
    others = ["robots.txt:disallow@mj12bot", "robots.txt:disallow", "meta:noindex@googlebot", "meta:unknown"]
    assert judge(others, OptOutPolicy()).action == "keep"


def test_another_policy_gives_another_verdict_on_the_same_evidence() -> None:
    signals = page_signals([("X-Robots-Tag", "noindex")], '<meta name="robots" content="noai">')
    assert judge(signals, OptOutPolicy()).action == "drop"
    lax = OptOutPolicy(noai="mark", noindex="keep")
    verdict = judge(signals, lax)
    assert (verdict.action, [str(signal) for signal in verdict.because]) == ("mark", ["meta:noai"])
    assert judge(signals, OptOutPolicy(noai="keep", noindex="keep")).action == "keep"
    assert judge(["meta:noindex@googlebot"], OptOutPolicy(agents=("GoogleBot",))).action == "drop"


def test_evidence_of_before_is_of_the_first_reader() -> None:
    stored = (
        b'{"files": {}, "licenses": [], "robots": {"allowed": true, "user_agent": "x"}, "url": "http://h.example/"}'
    )
    again = read_evidence(stored)
    assert again is not None
    assert again.reader == 1 < READER


def test_the_table_of_robots_says_what_each_is_for() -> None:
    assert set(AI_ROBOTS.values()) == set(PURPOSES)
    assert len({name.lower() for name in AI_ROBOTS}) == len(AI_ROBOTS) > 150
    assert len(GATHERERS) >= 70
    assert {AI_ROBOTS[name] for name in GATHERERS} == GATHERING
    assert OptOutPolicy().agents == ("Headwater", *GATHERERS)


def test_each_robot_of_the_table_is_known_wherever_it_is_named() -> None:
    for name, purpose in AI_ROBOTS.items():
        robots = Robots(f"User-agent: {name}\nDisallow: /\n".encode())
        for signals in (
            [*host_signals(robots, None, None, URL)],
            [*page_signals([("X-Robots-Tag", f"{name}: noindex")], "")],
            [*page_signals([], f'<meta name="{name}" content="noindex">')],
        ):
            assert len(signals) == 1, name
            assert (judge(signals, OptOutPolicy()).action == "drop") is (purpose in GATHERING), name


def test_a_crawl_goes_by_its_own_name_too() -> None:
    headers = [("X-Robots-Tag", "mytool: noindex")]
    policy = OptOutPolicy(agents=("GPTBot",))
    assert judge(page_signals(headers, ""), policy).action == "keep"
    assert judge(page_signals(headers, ""), policy.of_crawl("MyTool/1.0 (+a@b.example)")).action == "drop"
    meta = '<meta name="MyTool" content="noindex">'
    assert page_signals([], meta) == ()
    assert [str(signal) for signal in page_signals([], meta, ("mytool",))] == ["meta:noindex@mytool"]


@pytest.mark.parametrize("name", ["agents", "model-config", "model-fields", "copy", "action", "__class__", ""])
def test_a_signal_of_no_known_name_is_kept(name: str) -> None:
    assert judge([f"meta:{name}"], OptOutPolicy()).action == "keep"


def test_evidence_survives_being_stored() -> None:
    evidence = Evidence(
        url=URL,
        robots=RobotsVerdict(record_id="<urn:1>", user_agent="x", allowed=True, agent="*", rule="Allow: /"),
        files={"ai.txt": "<urn:2>"},
        signals=(Signal("meta", "noai"), Signal("robots.txt", "disallow", "gptbot", "Disallow: /é")),
        licenses=("https://creativecommons.org/licenses/by/4.0/",),
    )
    again = read_evidence(evidence.to_bytes())
    assert again == evidence
    assert judge(again.signals, OptOutPolicy()).because[0] == Signal("meta", "noai")
    assert read_evidence(b"fetchTimeMs: 12") is None
    assert read_evidence(b"{}") is None


@given(st.sampled_from(["header", "meta", "robots.txt"]), st.sampled_from(["noai", "disallow"]), st.sampled_from("*ab"))
@settings(max_examples=20)
def test_a_signal_reads_back_from_its_text(place: str, name: str, agent: str) -> None:
    signal = Signal(place, name, agent)  # type: ignore[arg-type]
    assert Signal.parse(str(signal)) == signal


CC = "https://creativecommons.org/licenses/by-sa/4.0/"


@pytest.mark.parametrize(
    ("headers", "text", "expected"),
    [
        ([], f'<p><a class="x" rel="license noopener" href="{CC}">l</a>', (CC,)),
        ([], f'<link href="l.txt" rel="LICENSE"><a href="{CC}">l</a>', ("https://site.example/d/l.txt", CC)),
        ([("Link", f'</next>; rel="next", <{CC}>; rel="license"')], "", (CC,)),
        ([], '<meta name="dc.rights" content="CC0">', ("CC0",)),
        ([], '<a href="/license">our license</a>', ()),
        ([], f"<!-- <a rel=license href={CC}> -->", ()),
        ([], "<a rel=license href=/privacy>p</a><a rel=license href=/terms>t</a>", ()),
        ([], "<link rel=license type=application/rsl+xml href=/l>", ()),
        (
            [("Link", '</l>; rel="license"; type="application/rsl+xml", </m>; rel=license')],
            "",
            ("https://site.example/m",),
        ),
    ],
)
def test_licences(headers: list[tuple[str, str]], text: str, expected: tuple[str, ...]) -> None:
    assert find_licenses(headers, text, "https://site.example/d/p") == expected


TERMS = "https://h.example/license.xml"
RSL = f'<link rel="license" type="application/rsl+xml" href="{TERMS}">'


@pytest.mark.parametrize(
    ("headers", "text", "expected"),
    [
        ([], RSL, ()),
        ([("Link", f'<{TERMS}>; rel="license"; type="application/rsl+xml"')], "", ()),
        ([("Link", f'<{TERMS}>; rel="license"; type="application/rsl+xml", <{CC}>; rel="license"')], "", (CC,)),
        ([], f'{RSL}<a rel="license" href="{TERMS}">l</a><meta name="license" content="{TERMS}">', ()),
        ([("Link", f"<{TERMS}>; rel=license; type=application/rsl+xml")], f'<a rel=license href="{TERMS}">l</a>', ()),
        ([], f'{RSL}<a rel="license" href="{CC}">l</a>', (CC,)),
    ],
)
def test_terms_to_agree_on_are_no_licence(headers: list[tuple[str, str]], text: str, expected: tuple[str, ...]) -> None:
    assert find_licenses(headers, text, "https://site.example/d/p") == expected
    assert {signal.name: signal.value for signal in page_signals(headers, text)} == {"rsl": TERMS}
    assert find_licenses([], f'<a rel="license" href="{TERMS}">l</a>', "https://site.example/d/p", [TERMS]) == ()


@pytest.mark.parametrize("unit", ["<!--", "<script>", '<meta "', "<meta a='", "<a license ", "<meta a=b ", "<"])
def test_a_hostile_page_costs_linear_time(unit: str) -> None:
    assert growth(partial(page_signals, []), lambda n: unit * n, 20_000) <= MOST_GROWTH
    assert growth(lambda text: find_licenses([], "license" + text, ""), lambda n: unit * n, 20_000) <= MOST_GROWTH


@settings(max_examples=60, deadline=None)
@given(st.text("<>!-/ =\"'metalinkrobscptn&#;", max_size=80))
def test_no_text_breaks_it(text: str) -> None:
    page_signals([], text)
    find_licenses([], text, "https://site.example/")
