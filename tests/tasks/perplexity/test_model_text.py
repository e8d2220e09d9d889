"""Normalisation after CCNet: what the language model sees of a line."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.perplexity.model_text import fold_of, lines_of, normalise


@given(line=st.text(max_size=80))
@settings(max_examples=50)
def test_units_are_separated_by_single_spaces_and_hold_no_digit_but_0(line: str) -> None:
    found = normalise(line)
    assert found == " ".join(found.split())
    assert not any(c.isdigit() and c != "0" for c in found)
    assert not {"<s>", "</s>", "<unk>"} & set(found.split()), "lmplz refuses its own symbols in a text"


@given(line=st.text(alphabet=st.characters(max_codepoint=127), max_size=80))
@settings(max_examples=50)
def test_a_line_is_normalised_alike_beside_non_ascii_text(line: str) -> None:
    assert normalise(f"{line} é").split() == [*normalise(line).split(), "e"]


def test_case_accents_digits_and_typography_do_not_matter() -> None:
    assert normalise("Déjà “vu” – 1999") == normalise('deja "vu" - 2024')
    assert normalise("<s> and <unk>") == "< s > and < unk >"
    assert normalise("今日は。") == "今 日 は ."


def test_blank_lines_are_left_out() -> None:
    assert lines_of("One.\n\n \nTwo") == ["one .", "two"]
    assert lines_of("") == []


def test_folds_halve_documents_by_content() -> None:
    folds = [fold_of([f"line {number}"]) for number in range(400)]
    assert 150 < sum(folds) < 250
