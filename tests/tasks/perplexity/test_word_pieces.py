from __future__ import annotations

from pathlib import Path

import pytest

from tasks.perplexity.word_pieces import cut, learn

LINES = [f"the river of {a}{b}{c} runs to the sea" for a in "abcdefgh" for b in "äöüñçé" for c in "αβγδεζ"]


def test_the_same_lines_give_the_same_pieces_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = set()
    for attempt in range(5):
        monkeypatch.setenv("HEADWATER_STATE", str(tmp_path / str(attempt)))
        made.add(learn(LINES, size=200).path.read_bytes())
    assert len(made) == 1


def test_a_word_is_cut_alike_wherever_it_stands(workspace: Path) -> None:
    pieces = learn(LINES, size=200)
    (alone,), (twice,) = cut(["river"], pieces), cut(["river river"], pieces)
    assert twice == f"{alone} {alone}"


def test_pieces_tell_one_word_from_two(workspace: Path) -> None:
    pieces = learn(LINES, size=200)
    one, two = cut(["seathe", "sea the"], pieces)
    assert one != two


def test_without_pieces_the_words_stay() -> None:
    assert list(cut(["a b"], None)) == ["a b"]
