"""The normal form: what it leaves out; and dedup, takedowns and the held-out split call the same texts one text."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from tasks.contracts.normal_form import normal_bytes, normal_form
from tasks.contracts.words import words
from tasks.dedup import signatures
from tasks.holdout.stage import rank
from tasks.rights.takedowns import text_sha256

ODD_TEXT = st.text(st.sampled_from("abAB é1_'.,\n\t\x1c\u00a0世界กहि\u0301\ud800ﬁßẞſςΣσİıŉ"), max_size=40)
SPELLINGS = (str.upper, str.lower, str.casefold, str.swapcase, lambda text: f" {text}\n", lambda text: text)


def test_it_ignores_width_case_and_spaces_only() -> None:
    assert normal_form("Ｆｕｌｌ  Width\n") == "full width"
    assert normal_form("Straße ΟΔΟΣ") == normal_form("STRASSE οδός".replace("ό", "ο"))
    assert normal_bytes("a b") == normal_bytes(" A\tB ")
    assert normal_bytes("a b") != normal_bytes("a, b")


@given(text=ODD_TEXT)
@settings(max_examples=200)
def test_the_fast_way_gives_the_same(text: str) -> None:
    assert normal_bytes(text) == normal_form(text).encode("utf-8", "surrogatepass")


def test_dedup_compares_texts_in_this_form() -> None:
    assert vars(signatures)["normal_bytes"] is normal_bytes


@given(text=st.one_of(ODD_TEXT, st.text(max_size=20)), respell=st.sampled_from(SPELLINGS))
@example(text="Straße", respell=str.upper)
@example(text="ΟΔΟΣ", respell=str.lower)
@settings(max_examples=300)
def test_what_is_one_text_for_one_is_one_for_all(text: str, respell: Callable[[str], str]) -> None:
    other = respell(text)
    assume(normal_form(text))
    one = normal_form(text) == normal_form(other)
    assert (text_sha256(text) == text_sha256(other)) is one
    assert (rank(text, 7) == rank(other, 7)) is one
    assert not one or words(text) == words(other)
