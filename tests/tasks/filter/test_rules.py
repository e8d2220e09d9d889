"""Each rule finds what is planted and leaves alone what only looks like it."""

from __future__ import annotations

import gzip
import random
from pathlib import Path
from typing import Any

import pytest

from tasks.contracts.base import Drop, Edit
from tasks.contracts.document import Document
from tasks.contracts.errors import ParamsError
from tasks.filter.loading import load

PROSE = "The river rises in the hills and runs to the sea, where it is met with the tide. "
_LETTERS = "abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ"


def ask(rule: str, text: str = "…", url: str = "https://a.example/", **settings: Any) -> Drop | Edit | None:
    (loaded,) = load([{rule: settings}])
    host = url.split("/")[2] if "//" in url else ""
    return loaded.call(Document(doc_id="1", url=url, host=host, record_id="1", source="t", text=text))


def noise(size: int, letters: str = _LETTERS + "23456789") -> str:
    return "".join(random.Random(size).choices(letters, k=size))


# ---- lists of URLs


@pytest.fixture
def ut1(tmp_path: Path) -> Path:
    (tmp_path / "lists" / "gambling").mkdir(parents=True)
    (tmp_path / "lists" / "adult").mkdir()
    (tmp_path / "lists" / "gambling" / "domains").write_text("# list\nbets.example\n\n192.0.2.7\n")
    (tmp_path / "lists" / "gambling" / "urls.gz").write_bytes(gzip.compress(b"games.example/poker\n"))
    (tmp_path / "lists" / "adult" / "domains.gz").write_bytes(gzip.compress(b"x.example\n"))
    return tmp_path / "lists"


@pytest.mark.parametrize(
    ("url", "detail"),
    [
        ("https://bets.example/", "gambling: bets.example"),
        ("https://www.a.bets.example/x", "gambling: bets.example"),
        ("http://192.0.2.7/", "gambling: 192.0.2.7"),
        ("https://games.example/poker", "gambling: games.example/poker"),
        ("https://www.games.example/Poker/rules?x=1", "gambling: games.example/poker"),
        ("https://x.example/a", "adult: x.example"),
    ],
)
def test_a_listed_address_is_dropped(ut1: Path, url: str, detail: str) -> None:
    answer = ask("url", url=url, lists=[str(ut1)])
    assert isinstance(answer, Drop)
    assert (answer.rule, answer.detail) == ("url.list", detail)


@pytest.mark.parametrize(
    "url", ["https://mybets.example/", "https://games.example/pokers", "https://bets.example.org/"]
)
def test_an_address_that_only_resembles_a_listed_one_stays(ut1: Path, url: str) -> None:
    assert ask("url", url=url, lists=[str(ut1)]) is None


def test_categories_files_and_single_folders(ut1: Path) -> None:
    assert ask("url", url="https://x.example/", lists=[str(ut1)], categories=["gambling"]) is None
    assert ask("url", url="https://x.example/", lists=[str(ut1 / "adult")])
    assert ask("url", url="https://bets.example/", lists=[str(ut1 / "gambling" / "domains")])


def test_a_folder_without_lists_says_what_it_should_hold(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="domains"):
        ask("url", lists=[str(tmp_path)])
    with pytest.raises(ParamsError, match="not there"):
        ask("url", lists=[str(tmp_path / "none")])


# ---- RefinedWeb's lines


@pytest.mark.parametrize(
    "line",
    [
        "HOME ABOUT CONTACT US",
        "12,345 67",
        "3 likes",
        "1.2k followers",
        "Menu",
        "Sign in",
        "Read more...",
        "3 items in cart",
    ],
)
def test_a_line_of_a_menu_goes(line: str) -> None:
    answer = ask("refinedweb_lines", f"{PROSE * 9}\n{line}\n{PROSE}")
    assert isinstance(answer, Edit)
    assert answer.text == f"{PROSE * 9}\n{PROSE}"


@pytest.mark.parametrize(
    "line",
    ["", "The NATO and EU summit", "He has 3 likes and dislikes", "We read more books", "Logins are kept for 3 days."],
)
def test_a_line_of_prose_stays(line: str) -> None:
    assert ask("refinedweb_lines", f"{PROSE * 9}\n{line}\n{PROSE}") is None


def test_a_short_line_is_shortened_and_a_long_one_is_not() -> None:
    answer = ask("refinedweb_lines", f"{PROSE * 9}\nThe mills of the valley. Read more...\n")
    assert isinstance(answer, Edit)
    assert "\nThe mills of the valley.\n" in answer.text
    assert ask("refinedweb_lines", f"{PROSE * 2}Read more...") is None


def test_a_page_of_such_lines_is_dropped() -> None:
    answer = ask("refinedweb_lines", f"{PROSE}\n3 likes\nSign in")
    assert isinstance(answer, Drop)
    assert answer.score == pytest.approx(4 / 22)


# ---- repeated lines


def test_only_what_stands_too_often_goes_and_its_first_place_stays() -> None:
    text = "\n".join(
        [PROSE, "Back to the top", "}", PROSE + "2", "Back to the top", "}", "}", "}", "Back to the top", "end"]
    )
    assert ask("repeated_lines", text) is None
    answer = ask("repeated_lines", text, max_line_count=2)
    assert isinstance(answer, Edit)
    assert answer.text.count("Back to the top") == 1
    assert answer.text.count("}") == 4
    assert [line for line in answer.text.split("\n") if line != "}"] == [PROSE, "Back to the top", PROSE + "2", "end"]


def test_a_repeated_paragraph_stands_once() -> None:
    answer = ask("repeated_lines", f"{PROSE}\nmore\n\n{PROSE}\nmore\n\nThe end of it.\n\n\nAnother one.")
    assert isinstance(answer, Edit)
    assert answer.text == f"{PROSE}\nmore\n\nThe end of it.\n\n\nAnother one."


def test_a_page_that_is_mostly_repetition_is_dropped() -> None:
    assert isinstance(ask("repeated_lines", "Buy it now\n" * 10), Drop)
    assert isinstance(ask("repeated_lines", "Buy it now\n" * 10, max_removed=1), Edit)


# ---- bad words


def test_words_phrases_and_lists_count_whole_words(tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_text("# mine\ngrawlix\nblue language\n色情\n")
    settings: dict[str, Any] = {"words": [], "lists": [str(tmp_path / "more.txt")], "min_count": 3, "min_share": 0.05}
    answer = ask("bad_words", "Grawlix! Such BLUE  language, and 好色情片.", **settings)
    assert isinstance(answer, Drop)
    assert answer.detail == "blue language 1, grawlix 1, 色情 1"
    assert ask("bad_words", "grawlixes and blue languages. grawlix grawlix", **settings) is None
    assert ask("bad_words", "grawlix " * 3 + PROSE * 9, **settings) is None


# ---- personal data beyond test_pii.py


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("to DE89 3704 0044 0532 0130 00 by Friday", "to <iban> by Friday"),
        ("GB82WEST12345698765432.", "<iban>."),
        ("SSN 123-45-6789,", "SSN <national_id>,"),
        ("NI number AB 12 34 56 C", "NI number <national_id>"),
        ("DNI 12345678Z", "DNI <national_id>"),
    ],
)
def test_account_and_identity_numbers_are_masked(text: str, expected: str) -> None:
    answer = ask("pii", text)
    assert isinstance(answer, Edit)
    assert answer.text == expected


@pytest.mark.parametrize(
    "text",
    [
        "DE88 3704 0044 0532 0130 00",
        "666-45-6789 and 123-00-6789 and 123-45-0000",
        "GB 12 34 56 C",
        "12345678A",
        "SHA1 da39a3ee and ISO 8601:2004",
    ],
)
def test_numbers_that_fail_their_check_stay(text: str) -> None:
    assert ask("pii", text) is None


def test_private_addresses_only_when_asked_and_a_drop_when_asked() -> None:
    assert ask("pii", "at 192.168.0.1 and ::1, x[1::2]") is None
    answer = ask("pii", "at 192.168.0.1 and fe80::1ff, x[1::2]", public_ip_only=False)
    assert isinstance(answer, Edit)
    assert answer.text == "at <ip> and <ip>, x[1::2]"
    assert isinstance(ask("pii", "mail joe@corp.example", action="drop"), Drop)


# ---- secrets

# Put together here, so that no scanner takes this file for a leak.
PLANTED = {
    "aws": "AKIA" + noise(16, "ABCDEFGHJKLMNPQRSTUVWXYZ234567"),
    "github": "ghp_" + noise(36),
    "gitlab": "glpat-" + noise(20),
    "slack": "xoxb-" + noise(30),
    "google": "AIza" + noise(35),
    "stripe": "sk_live_" + noise(24),
    "npm": "npm_" + noise(36),
    "pypi": "pypi-AgEI" + noise(70),
    "hugging_face": "hf_" + noise(34),
    "openai": "sk-proj-" + noise(48),
    "sendgrid": "SG." + noise(22) + "." + noise(43),
    "jwt": "eyJ" + noise(20) + ".eyJ" + noise(40) + "." + noise(43),
    "private_key": "-----BEGIN RSA PRIVATE KEY-----\n" + noise(400) + "\n-----END RSA PRIVATE KEY-----",
}


@pytest.mark.parametrize("kind", PLANTED)
def test_a_planted_key_is_masked(kind: str) -> None:
    answer = ask("secrets", f"Use {PLANTED[kind]} for it.")
    assert isinstance(answer, Edit)
    assert (answer.text, answer.detail) == ("Use <secret> for it.", f"{kind}: 1")


def test_only_the_password_of_an_address_and_of_an_assignment_is_masked() -> None:
    word = noise(20)
    answer = ask("secrets", f"postgres://app:{word}@db.corp.example/x and API_KEY = '{word}'")
    assert isinstance(answer, Edit)
    assert answer.text == "postgres://app:<secret>@db.corp.example/x and API_KEY = '<secret>'"


@pytest.mark.parametrize(
    "text",
    [
        "AKIAIOSFODNN7EXAMPLE",
        "AKIA" + "A" * 16,
        "token = 'your-token-goes-here'",
        "password = 'xxxxxxxxxxxxxxxx'",
        "postgres://user:password@localhost",
        "a task-oriented-approach-to-the-whole-of-it-all sk-",
        "key = get_the_key_from_the_environment()",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert ask("secrets", text, min_entropy=3.2) is None


def test_a_page_with_a_secret_can_be_dropped_and_a_kind_ignored() -> None:
    assert isinstance(ask("secrets", PLANTED["npm"], action="drop"), Drop)
    assert ask("secrets", PLANTED["npm"], ignore=["npm"]) is None
