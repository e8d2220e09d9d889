"""Words: the same whatever the case, punctuation, width or line breaks; characters where a script has no spaces."""

from __future__ import annotations

import pytest

from tasks.contracts.words import words


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("The Quick, brown fox!", "the quick brown fox"),
        ("it’s a dog's life", "its a dogs life"),
        ("broken\n  over\tlines", "broken over lines"),
        ("ＦＵＬＬ　ｗｉｄｔｈ", "full width"),
        ("ligature ﬁne", "ligature fine"),
        ("well-known / «quoted»", "well known quoted"),
    ],
)
def test_form_does_not_matter(one: str, other: str) -> None:
    assert words(one) == words(other)


def test_scripts_without_spaces_give_characters_and_korean_gives_words() -> None:
    assert words("東京都。") == ["東", "京", "都"]
    assert words("한국어 문장") == ["한국어", "문장"]
    assert words("हिन्दी में") == ["हिन्दी", "में"]
