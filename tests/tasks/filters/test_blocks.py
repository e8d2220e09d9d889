"""The shared word splitter gives exactly what datatrove's own does."""

import pytest
from datatrove.utils.word_tokenizers import load_word_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.filters.blocks import shared_words

PIECES = st.sampled_from(
    [
        "don't",
        ":)",
        ": )",
        "U.S.",
        "3.5",
        "a.b(c)",
        "e.g.",
        "(x,y)",
        "...",
        "?!",
        "we'll",
        "\n\n",
        "日本。",
        "—",
        "\xa0",
        "Dr.",
    ]
)
TEXTS = st.lists(PIECES | st.text(max_size=12), max_size=12).map(" ".join)


@settings(max_examples=60, deadline=None)
@given(TEXTS)
def test_same_words_and_sentences_as_spacy(text: str) -> None:
    ours, theirs = shared_words("eng"), load_word_tokenizer("eng")
    assert ours.word_tokenize(text) == theirs.word_tokenize(text)
    assert ours.span_tokenize(text) == theirs.span_tokenize(text)


@pytest.mark.parametrize("text", ["One. Two? Three!", "No end", "", "A line. ", "v1.2 is out."])
def test_sentences_of_known_lines(text: str) -> None:
    assert shared_words("eng").span_tokenize(text) == load_word_tokenizer("eng").span_tokenize(text)


def test_another_kind_of_splitter_is_left_alone() -> None:
    assert shared_words("deu") == "deu"
