"""A marked release says no passage of what was taken down, and nearly everything else."""

from __future__ import annotations

import ast
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.history.output_filter import (
    Filter,
    OutputFilter,
    Withholder,
    make_filter,
    read_filter,
    withheld_by,
)
from flows.proof import affected
from flows.proof.affected import fingerprint
from tasks.contracts.errors import InputError
from tasks.dedup.shingles import shingles, word_bytes
from tests.corpus import ALPHABETS, UNSPACED, prose

ID = "0123456789abcdef"
NONE = np.zeros(0, np.uint32)


def made(texts: list[str], common: list[str] | None = None) -> OutputFilter:
    shared = np.unique(np.concatenate([NONE, *(shingles(text, size=5) for text in common or [])]))
    return read_filter({"filter": make_filter([fingerprint(ID, text) for text in texts], [ID], shared)})


def stream(filter_: OutputFilter, text: str, generator: random.Random) -> tuple[str, str | None]:
    """Send a text in pieces of any size, and return what left."""
    withholder, left, at = Withholder(filter_), "", 0
    while at < len(text):
        size = generator.randint(1, 12)
        left += withholder.push(text[at : at + size])
        at += size
    return left + withholder.finish(), withholder.tombstone


def words_of(script: str, generator: random.Random, words: int) -> list[str]:
    letters = ALPHABETS[script]
    size = (1, 1) if script in UNSPACED else (1, 9)
    return ["".join(generator.choices(letters, k=generator.randint(*size))) for _ in range(words)]


def test_a_hundred_planted_passages_are_withheld_whole() -> None:
    generator = random.Random(3)
    scripts = [script for script in ALPHABETS if script != "digits"] + ["latin"]
    spaces = {script: "" if script in UNSPACED else " " for script in scripts}
    taken = [(script, words_of(script, generator, 300)) for script in scripts for _ in range(10)]
    filter_ = made([spaces[script].join(words) for script, words in taken])
    for script, words in taken:
        begin = generator.randrange(1, 200)
        passage = words[begin : begin + generator.randint(40, 80)]
        before, after = (words_of(script, generator, 20) for _ in range(2))
        if before[-1] == words[begin - 1]:  # else the passage is longer by that
            before[-1] = words[begin - 2] if words[begin - 2] != words[begin - 1] else "x"
        text = spaces[script].join([*before, *passage, *after])
        text = generator.choice([text, text.upper(), text.replace(" ", " \n"), text.replace(" ", ", ")])
        left, tombstone = stream(filter_, text, generator)
        assert tombstone == ID, (script, passage)
        assert text.startswith(left)
        assert left == withheld_by(filter_, text)[0]
        # Word by word, nothing of the passage has left, and all before it has.
        assert (
            word_bytes(left.casefold().encode()).split()
            == word_bytes(spaces[script].join(before).casefold().encode()).split()
        )


def test_other_text_passes_as_it_is() -> None:
    """10,000 passages of the same few syllables, and among them pieces of what is taken down, too short for one."""
    generator = random.Random(4)
    filter_ = made([prose(seed, sentences=40) for seed in range(50)])
    withheld = 0
    for seed in range(500):
        text = prose(1000 + seed, sentences=40)  # twenty of 28 words
        quoted = prose(seed % 50, sentences=40).split()
        begin = generator.randrange(0, 200)
        text = f"{text} {' '.join(quoted[begin : begin + 10])} {text}"
        left, tombstone = stream(filter_, text, generator) if seed % 50 == 0 else withheld_by(filter_, text)
        withheld += tombstone is not None
        assert tombstone is not None or left == text
    assert withheld <= 1


def docstrings() -> list[list[str]]:
    """Return the words of the docstrings of Python's own modules, a document a module."""
    found: list[list[str]] = []
    for path in sorted(Path(ast.__file__).parent.glob("*.py")):
        if len(found) == 40:
            break
        nodes = [
            one
            for one in ast.walk(ast.parse(path.read_bytes()))
            if isinstance(one, ast.Module | ast.ClassDef | ast.FunctionDef)
        ]
        said = " ".join(filter(None, (ast.get_docstring(one) for one in nodes))).split()
        if len(said) > 150:
            found.append(said)
    return found


def test_real_text_of_one_kind_passes_too() -> None:
    documents = docstrings()
    taken, others = documents[::5], [one for number, one in enumerate(documents) if number % 5]
    filter_ = made([" ".join(one) for one in taken])
    generator = random.Random(6)
    passages = [
        " ".join(one[begin : begin + 60])
        for one, begin in ((one, generator.randrange(len(one) - 60)) for one in generator.choices(others, k=2000))
    ]
    withheld = [text for text in passages if withheld_by(filter_, text)[1]]
    assert len(withheld) <= len(passages) / 10_000, withheld


def test_what_many_others_say_neither_counts_nor_ends_a_passage() -> None:
    licence, own = prose(1, sentences=3), prose(2, sentences=1).split()
    page = " ".join([*own[:7], licence, *own[7:]])
    assert withheld_by(made([page]), licence)[1] == ID
    filter_ = made([page], common=[licence])
    assert withheld_by(filter_, licence) == (licence, None)
    assert withheld_by(filter_, f"x {page} x") == ("x ", ID)


def test_a_very_long_text_is_known_by_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(affected, "MOST_SHINGLES", 1000)
    text = prose(9, sentences=300)
    filter_ = made([text])
    assert len(filter_.values) == 1000
    words = text.split()
    assert withheld_by(filter_, " ".join(words[500:620]))[1] == ID
    assert withheld_by(filter_, prose(10, sentences=300))[1] is None


def test_a_row_of_one_word_is_no_passage() -> None:
    zeros = "0 " * 200
    assert withheld_by(made([f"start {zeros} end"]), zeros) == (zeros, None)


@given(st.text(max_size=40), st.integers(1, 5))
def test_what_passes_is_the_text_itself(text: str, size: int) -> None:
    withholder = Withholder(OutputFilter(Filter()))
    pieces = [withholder.push(text[at : at + size]) for at in range(0, len(text), size)]
    assert "".join([*pieces, withholder.finish()]) == text


@pytest.mark.parametrize(
    ("mark", "says"),
    [
        ({}, "has no output filter"),
        ({"filter": {"format": 2}}, "cannot be read"),
        ({"filter": {"texts": [{"tombstone": "x", "shingles": "", "shingle_count": 0}]}}, "cannot be read"),
        ({"filter": {"texts": [{"tombstone": ID, "shingles": "A", "shingle_count": 1}]}}, "cannot be read"),
        ({"filter": {"common": "AAA="}}, "cannot be read"),
    ],
)
def test_a_filter_that_cannot_be_read_is_an_error(mark: dict[str, object], says: str) -> None:
    with pytest.raises(InputError, match=says):
        read_filter(mark)


def test_no_text_stands_in_a_filter() -> None:
    text = prose(5)
    written = str(make_filter([fingerprint(ID, text)], [ID], NONE))
    assert not any(word in written for word in text.split() if len(word) > 6)
    assert make_filter([fingerprint(ID, text)], ["f" * 16], NONE)["texts"] == []
