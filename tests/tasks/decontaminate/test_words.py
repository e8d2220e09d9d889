"""Words as hashes: the same words whichever way they are split, equal hashes for equal words only."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tasks.decontaminate.words import gram_hashes, locate, partial_sums, split, split_many, split_with_words
from tests.corpus import prose

ODD = (
    "aZ9é’'\u00ad\u00a0\u00b4 \t\n-…“½ﬁ²İßΣς東の"
    + "ｶﾞ\u3099ก้ำ가\u1100\u1161e\u0301\u0338\x00\U0001d400\U00020000😀\ufe0f\ud800"
)


@settings(max_examples=150, deadline=None)
@given(text=st.one_of(st.text(alphabet=ODD, max_size=30), st.text(max_size=30)))
@example(text="\u0301'\u0e49")
def test_all_ways_to_split_a_text_agree(text: str) -> None:
    units, located = split(text), locate(text)
    assert units.hashes.tolist() == located.units.hashes.tolist()
    weights = [None if found.weights is None else found.weights.tolist() for found in (units, located.units)]
    assert weights[0] == weights[1]
    assert split_with_words(text)[1] == located.words
    assert all(0 <= a < b <= len(text) for a, b in zip(located.starts, located.ends, strict=True))
    assert (np.diff(located.starts) >= 0).all()


@settings(max_examples=50, deadline=None)
@given(texts=st.lists(st.text(alphabet=ODD + "abc   ", max_size=20), max_size=40))
def test_many_texts_are_split_as_each_alone(texts: list[str]) -> None:
    found: dict[int, list[int]] = {}
    for numbers, units, ends in split_many(texts):
        for number, start, end in zip(numbers, [0, *ends[:-1]], ends, strict=True):
            found[number] = units.hashes[start:end].tolist()
    assert found == {i: split(text).hashes.tolist() for i, text in enumerate(texts)}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't panic: ３ well-known STEPS.", ["dont", "panic", "3", "well", "known", "steps"]),
        ("Don’t ex\u00adam\u00adple\u200b", ["dont", "example"]),
        ("ﬁne ½ Ⅻ e\u0301té", ["fine", "1", "2", "xii", "ete"]),
        ("東京は cat", ["東", "京", "は", "cat"]),
        ("한국어 문장", ["한국어", "문장"]),
        ("МОСКВА, снег…", ["mockba", "cher"]),
        ("", []),
    ],
)
def test_what_a_word_is(text: str, words: list[str]) -> None:
    assert list(locate(text).words) == words


def test_scripts_without_spaces_weigh_less_a_character() -> None:
    assert split("one two three").weight() == 3
    assert split("東京都").weight() == pytest.approx(2)
    assert split("กขคง").weight() == pytest.approx(1)


def test_places_are_those_of_the_text() -> None:
    text = "A ﬁne “Don’t” 東京 x"
    located = locate(text)
    assert [text[a:b] for a, b in zip(located.starts, located.ends, strict=True)] == (
        ["A", "ﬁne", "Don’t", "東", "京", "x"]
    )


def test_equal_runs_have_equal_hashes_wherever_they_stand_and_others_have_not() -> None:
    words = prose(1, sentences=300)  # more characters than a window
    assert len(words) > 1 << 14
    text = f"{words}\n{words} é"
    hashes = split(text).hashes
    half = len(hashes) // 2
    assert hashes[:half].tolist() == hashes[half : 2 * half].tolist()
    assert len(np.unique(hashes)) == len(set(locate(text).words))
    sums = partial_sums(hashes)
    grams = gram_hashes(sums, np.arange(half), np.arange(half) + 5)
    assert (
        grams[: half - 5].tolist()
        == gram_hashes(sums, np.arange(half, 2 * half - 5), np.arange(half + 5, 2 * half)).tolist()
    )
    assert len(np.unique(grams)) > half - 10


def test_an_order_of_words_is_not_another() -> None:
    def gram(text: str) -> int:
        hashes = split(text).hashes
        return int(gram_hashes(partial_sums(hashes), slice(0, 1), slice(len(hashes), None))[0])

    assert gram("a b c") != gram("c b a")
    assert gram("ab c") != gram("a bc")
    assert gram("a a") != gram("a a a")
