"""Our rules decide as datatrove's four filters do, rule by rule, on prose, documentation and made-up texts."""

from __future__ import annotations

import importlib.metadata
import random
import subprocess
import sys
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
from datatrove.data import Document as Datum
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from datatrove.pipeline.filters.base_filter import get_filter_result
from datatrove.utils.text import split_into_sentences
from datatrove.utils.word_tokenizers import load_word_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.contracts.base import Drop, Edit
from tasks.contracts.document import Document
from tasks.contracts.workspace import child_environment
from tasks.filter.loading import rule_class
from tasks.filter.spacy_pieces import Pieces
from tasks.filter.word_splitting import Splitter, Words, splitter

BLOCKS = {
    "gopher_repetition": GopherRepetitionFilter,
    "gopher_quality": GopherQualityFilter,
    "c4": C4QualityFilter,
    "fineweb": FineWebQualityFilter,
}
# Settings that let a text pass the first rules, so that the later ones are compared too.
LAX: dict[str, list[dict[str, Any]]] = {
    "gopher_repetition": [
        {},
        {"dup_line_frac": 0, "dup_para_frac": 0, "dup_line_char_frac": 0, "dup_para_char_frac": 0},
        {
            "dup_line_frac": 0.9,
            "dup_line_char_frac": 0.9,
            "top_n_grams": [[2, 0.5]],
            "dup_n_grams": [[1, 0.3], [3, 0.1]],
        },
        {"dup_line_frac": 0.9, "dup_line_char_frac": 0.9, "top_n_grams": [], "dup_n_grams": [[2, 0.1], [7, 0.02]]},
    ],
    "gopher_quality": [
        {},
        {"min_doc_words": 1, "min_stop_words": 0},
        {"min_doc_words": 1, "min_avg_word_length": 0, "max_non_alpha_words_ratio": 0.3, "max_bullet_lines_ratio": 0.2},
        {"min_doc_words": 0, "max_doc_words": 40, "max_symbol_word_ratio": 0.01, "max_ellipsis_lines_ratio": 0.1},
    ],
    "c4": [
        {},
        {"filter_no_terminal_punct": False, "min_words_per_line": 1, "min_num_sentences": 3},
        {"filter_no_terminal_punct": False, "min_words_per_line": -1, "min_num_sentences": 2, "max_word_length": 8},
        {"filter_curly_bracket": False, "filter_javascript": False, "min_num_sentences": 9, "remove_citations": False},
        {"split_paragraph": False, "min_num_sentences": 2},
    ],
    "fineweb": [
        {},
        {"line_punct_thr": 0.01, "line_punct_exclude_zero": True, "short_line_thr": 0.9, "char_duplicates_ratio": 0.4},
        {"line_punct_thr": 0, "short_line_thr": 1, "char_duplicates_ratio": 1, "new_line_ratio": 0.1},
    ],
}
CASES = [(name, setting) for name, settings_ in LAX.items() for setting in settings_]

MARKS = ["...", "…", "•", "-", "#", "javascript", "lorem ipsum", "{", "Terms of use", "[1]", "[edit]", "java[2]script"]
ODD = ["don't", ":)", "U.S.", "3.5", "e.g.", "(x,y)", "?!", "日本。", "—", "\xa0", "Dr.", "W. E.", "İ", "a.b."]
PLAIN = ["the", "of", "and", "a", "be", "to", "have", "river", "runs", "sea.", "mill.", "corn,", "A.", "etc.", "id"]
WORDS = st.sampled_from([*PLAIN, *MARKS, *ODD])
SEPARATORS = st.sampled_from([" ", " ", " ", " ", "\n", "\n", "\n\n", "  ", "\t", " \n", "\u2028", ". "])
TEXTS = st.lists(st.tuples(WORDS | st.text(max_size=6), SEPARATORS), max_size=60).map(
    lambda pairs: "".join(word + separator for word, separator in pairs)
)


@cache
def documentation() -> tuple[str, ...]:
    """Return texts of installed packages' documentation, also with lines said again and without line ends."""
    generator = random.Random(3)
    # The backport importlib_metadata, once any package imports it, moves a description from the payload to a header.
    metadata = {d.name: d.metadata for d in importlib.metadata.distributions()}
    found = {name: str(m.get("Description") or m.get_payload() or "") for name, m in metadata.items()}  # type: ignore[attr-defined]
    texts = [text[:5_000] for _, text in sorted(found.items()) if len(text) > 400][:30]
    again = ["\n".join(generator.choices(text.splitlines(), k=text.count("\n") + 1)) for text in texts[::3]]
    return (*texts, *again, *(" ".join(text.split()) for text in texts[::3]))


@cache
def theirs(name: str, index: int) -> Any:
    return BLOCKS[name](**LAX[name][index])


def answer_of_datatrove(block: Any, text: str) -> tuple[str, str]:
    datum = Datum(text=text, id="1")
    try:
        keep, reason = get_filter_result(block.filter(datum))
    except ZeroDivisionError:
        return "drop", "empty"  # a text without a word: datatrove divides by their number
    if keep and not datum.text.strip() and datum.text != text:
        return "drop", "empty"  # the stage drops what an edit leaves empty
    return ("keep", datum.text) if keep else ("drop", str(reason).removeprefix("gopher_"))


def our_answer(rule: Any, text: str) -> tuple[str, str]:
    document = Document(doc_id="1", url="", host="", record_id="1", source="t", text=text)
    answer = rule(document)
    if isinstance(answer, Drop):
        return "drop", answer.rule
    if isinstance(answer, Edit):
        return ("keep", answer.text) if answer.text.strip() else ("drop", "empty")
    return "keep", text


@pytest.mark.parametrize(("name", "setting"), CASES)
def test_the_same_decisions_on_documentation(name: str, setting: dict[str, Any]) -> None:
    rule, block = rule_class(name)(**setting), BLOCKS[name](**setting)
    assert len(documentation()) > 40
    for text in documentation():
        assert our_answer(rule, text) == answer_of_datatrove(block, text), text[:200]


@pytest.mark.filterwarnings("ignore:Mean of empty slice", "ignore:invalid value encountered")
@pytest.mark.parametrize("name", BLOCKS)
@settings(max_examples=60, deadline=None)
@given(text=TEXTS)
def test_the_same_decisions_on_made_up_texts(name: str, text: str) -> None:
    for index, setting in enumerate(LAX[name]):
        rule = rule_class(name)(**setting)
        assert our_answer(rule, text) == answer_of_datatrove(theirs(name, index), text), setting


def written(words: Words) -> list[str]:
    """Return the words themselves."""
    return [words._written[start:end] for start, end in pairwise(words.bounds.tolist())]


@settings(max_examples=150, deadline=None)
@given(TEXTS)
def test_the_same_words_and_sentences_as_datatrove(text: str) -> None:
    ours, theirs = splitter("eng"), load_word_tokenizer("eng")
    assert written(ours.words(text)) == theirs.word_tokenize(text)
    for line in text.splitlines():
        assert ours.sentences(line.strip()) == len(split_into_sentences(line.strip(), "eng"))


@cache
def spacy_tokenizer() -> Any:
    return load_word_tokenizer("eng").tokenizer.tokenizer


@cache
def our_pieces() -> Pieces:
    return Pieces(spacy_tokenizer())


PARTS = [
    "foo",
    "Bar",
    "DNS",
    "x",
    "5",
    "km",
    "'s",
    "’s",
    "日本",
    "слово",
    "US$",
    "❤️",
    "🙂",
    "é",
    "a.m",
    "e.g",
    "it",
    "D",
]
PIECES = st.lists(
    st.sampled_from([*PARTS, *".,:;!?()[]<>_#*&'`\"-–—~=/+^…$%@|\\", "。", "、", "„"]), min_size=1, max_size=8
)


@settings(max_examples=300, deadline=None)
@given(PIECES.map("".join))
def test_the_same_words_of_one_piece_as_spacy(piece: str) -> None:
    assert list(our_pieces().split(piece)) == [token.text for token in spacy_tokenizer()(piece)]


@pytest.mark.parametrize("piece", ["x:))", "c(2,1,:)(:)", "__iter__(self):", "'d']),", "x>:(", "it’s)", "a.m.):"])
def test_exceptions_are_found_inside_a_piece_as_by_spacy(piece: str) -> None:
    assert list(our_pieces().split(piece)) == [token.text for token in spacy_tokenizer()(piece)]


def test_new_lines_are_compared_with_words_and_not_with_pieces() -> None:
    setting: dict[str, Any] = {"line_punct_thr": 0, "short_line_thr": 1, "new_line_ratio": 0.3}
    rule = rule_class("fineweb")(**setting)
    assert our_answer(rule, "one two\nthree") == ("drop", "list_ratio")
    assert our_answer(rule, "one two\nthree.") == ("keep", "one two\nthree.")


def test_a_word_is_described_by_its_marks_and_letters() -> None:
    words = splitter("eng").words("A mill, 1850 (b2) ... ok?")
    assert written(words) == ["A", "mill", ",", "1850", "(", "b2", ")", "...", "ok", "?"]
    assert words.letters.tolist() == [True, True, False, False, False, True, False, False, True, False]
    assert words.symbols.tolist() == [False, False, True, False, True, False, True, True, False, True]
    assert words.count_of(["mill", "mill", "mil", "ok", ""]) == 2


def test_hashes_depend_on_the_words_alone() -> None:
    # Trained classifiers are kept with weights by these hashes: they may not change.
    words = splitter("eng").words("Along the river, naïve 🙂")
    assert words.sequences(1)[:2].tolist() == [824129544610017597, 3560315856326889150]
    assert words.sequences(2)[-1] == 17803311507343385588
    assert Splitter("eng").words("🙂 naïve 🙂").sequences(2)[1] == 17803311507343385588


def test_the_name_that_spacy_may_fail_on_is_no_word() -> None:
    assert len(splitter("eng").words("the IS_ALPHA attribute (IS_ALPHA)")) == 4


def test_a_full_vocabulary_starts_afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.filter.word_splitting.REMEMBERED", 1000)
    own = Splitter("eng")
    texts = [f"word{i} and another{i} don't." for i in range(50)]
    before = [own.words(text) for text in texts]
    assert own._vocabulary.size < 3000
    for text, words in zip(texts, before, strict=True):
        assert (words.joined(2) == Splitter("eng").words(text).joined(2)).all()


def test_another_language_is_split_by_datatrove() -> None:
    text = "Der Fluß kommt z.B. aus dem Gebirge. Er fließt ins Meer."
    assert len(splitter("deu").words(text)) == len(load_word_tokenizer("deu").word_tokenize(text))
    assert splitter("deu").sentences(text) == len(split_into_sentences(text, "deu"))


def test_n_grams_are_compared_as_datatrove_writes_them() -> None:
    words = splitter("eng").words("ab c yz a bc")
    assert words.joined(2)[0] == words.joined(2)[3]
    assert words.sequences(2)[0] != words.sequences(2)[3]


def test_words_are_split_without_torch() -> None:
    """spaCy would load it, in every worker, for two seconds."""
    code = "import sys; from tasks.filter.word_splitting import words_of; words_of('One two.', 'eng'); "
    said = subprocess.run(
        [sys.executable, "-c", code + "print('spacy' in sys.modules, 'torch' in sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        env=child_environment(),
    ).stdout
    assert said.split() == ["True", "False"]
