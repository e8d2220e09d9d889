"""Shingles: what counts as a word, and the true Jaccard that every near duplicate is verified with."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.contracts.normal_form import normal_bytes
from tasks.dedup import shingles as module
from tasks.dedup.shingles import jaccard, shingle_sets, shingles, words

NUMBERS = st.sets(st.integers(0, 2**32 - 1), max_size=60)
ODD_TEXT = st.text(st.sampled_from("abAB é1_'.,\n\t\x1c\u00a0世界กहि\u0301\ud800ﬁ"), max_size=60)


def as_shingles(numbers: set[int]) -> np.ndarray:
    return np.array(sorted(numbers), dtype=np.uint32)


@given(left=NUMBERS, right=NUMBERS)
@settings(max_examples=50)
def test_jaccard_is_intersection_over_union(left: set[int], right: set[int]) -> None:
    union = left | right
    expected = len(left & right) / len(union) if left and right else 0.0
    found = jaccard(as_shingles(left), as_shingles(right), left_size=len(left), right_size=len(right))
    assert found == pytest.approx(expected)


def test_a_capped_set_estimates_the_similarity_of_the_whole_texts() -> None:
    rng = np.random.default_rng(0)
    shared, only_left, only_right = (rng.integers(0, 2**32, n, dtype=np.uint32) for n in (30_000, 5_000, 5_000))
    left, right = np.unique(np.concatenate([shared, only_left])), np.unique(np.concatenate([shared, only_right]))
    estimate = jaccard(left[:4_000], right[:4_000], left_size=len(left), right_size=len(right))
    assert estimate == pytest.approx(30_000 / 40_000, abs=0.03)
    against_whole = jaccard(left[:4_000], right, left_size=len(left), right_size=len(right))
    assert against_whole == pytest.approx(30_000 / 40_000, abs=0.03)


def test_scripts_without_spaces_are_split_into_characters() -> None:
    assert words("今日は晴れ") == list("今日は晴れ")
    assert words("สวัสดี") == list("สวัสดี")
    assert len(shingles("今日はとても良い天気です", size=5)) > 3


def test_vowel_signs_stay_inside_their_word() -> None:
    assert words("हिन्दी भाषा") == ["हिन्दी", "भाषा"]


def test_case_punctuation_and_spaces_do_not_change_shingles() -> None:
    assert np.array_equal(
        shingles("One, two;  THREE four five six.", size=5), shingles("one two three four five six", size=5)
    )


def test_a_text_shorter_than_a_shingle_has_none() -> None:
    assert len(shingles("only four words here", size=5)) == 0
    assert len(shingles("now there are five words", size=5)) == 1


@given(texts=st.lists(ODD_TEXT, max_size=6), size=st.integers(1, 4))
@settings(max_examples=200)
def test_sets_made_together_are_those_of_each_text_and_as_large_as_its_set_of_word_runs(
    texts: list[str], size: int
) -> None:
    together = shingle_sets([normal_bytes(text) for text in texts], size=size)
    for text, found in zip(texts, together, strict=True):
        split = words(text)
        runs = {tuple(split[at : at + size]) for at in range(len(split) - size + 1)}
        assert len(found) == len(runs)
        assert np.array_equal(found, shingles(text, size=size))
        assert (found[1:] > found[:-1]).all()


def test_words_are_hashed_alike_wherever_they_stand_in_a_text(monkeypatch: pytest.MonkeyPatch) -> None:
    text = " ".join(f"word{n % 700}" for n in range(5_000)) + " " + "x" * 3_000 + " end of the text here"
    whole = shingles(text, size=5)
    assert len(whole) == 700 + 6
    monkeypatch.setattr(module, "_PIECE", 1_000)
    words_only = " ".join(f"word{n % 700}" for n in range(5_000))
    assert np.array_equal(shingles(words_only, size=5), whole[np.isin(whole, shingles(words_only, size=5))])
    assert len(shingles(words_only, size=5)) == 700
    assert len(shingles(text, size=5)) > 0, "a word longer than a piece is cut and stops nothing"
