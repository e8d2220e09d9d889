"""Another threshold measures nothing again, of any rule, and decides as if everything were measured now."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tasks.contracts.base import Drop, Edit, Measured, Rule
from tasks.contracts.document import Document, read_documents
from tasks.contracts.ledger import read_ledger
from tasks.contracts.workspace import state_folder
from tasks.engine import shards
from tasks.filter import rules as rules_package
from tasks.filter.loading import OURS, load, rule_class
from tasks.filter.measurements import Known, Tally
from tasks.filter.stage import Params, judged, run
from tests.corpus import document, prose, write_stage
from tests.tasks.filter.test_same_as_datatrove import TEXTS

THRESHOLDS = [(name, field) for name in sorted(OURS) for field in rule_class(name).thresholds()]
SPLIT = sorted({name for name, _ in THRESHOLDS})
MEASURING = {
    ("c4", "min_words_per_line"): "which lines go",
    ("c4", "max_word_length"): "which lines go",
    ("fineweb", "short_line_length"): "what is short",
    ("refinedweb_lines", "max_uppercase"): "which lines go",
    ("refinedweb_lines", "min_words"): "which lines go",
    ("refinedweb_lines", "short_line_words"): "which lines are shortened",
    ("repeated_lines", "max_line_count"): "which lines go",
    ("repeated_lines", "max_paragraph_count"): "which paragraphs go",
    ("repeated_lines", "min_characters"): "which lines count",
    ("secrets", "min_entropy"): "what is masked",
}
"""Numbers that decide the text which is left, or what is counted: rules after them see another text."""
BASE: Mapping[str, Mapping[str, Any]] = {
    "quality_classifier": {"model": __file__},
    "bad_words": {"words": ["the", "river runs", "日本"], "min_count": 1},
    "c4": {"filter_no_terminal_punct": False, "min_words_per_line": 1},
}
LENIENT: Mapping[str, Mapping[str, Any]] = {
    "length": {"min_words": 1},
    "gopher_quality": {"min_doc_words": 1, "min_stop_words": 0},
    "c4": {"filter_no_terminal_punct": False, "min_words_per_line": 1, "min_num_sentences": 1},
}
NUMBERS = (0, 0.01, 0.05, 0.2, 0.5, 0.9, 1, 2, 3, 5, 20, 100)


def test_every_number_of_a_rule_is_a_threshold_or_said_to_decide_what_is_measured() -> None:
    numbers = {
        (name, field)
        for name in OURS
        for field in rule_class(name).model_fields
        if any(kind in str(get_type_hints(rule_class(name))[field]) for kind in ("int", "float"))
    }
    assert numbers - set(THRESHOLDS) == set(MEASURING)
    assert set(SPLIT) == OURS - {"url", "pii", "secrets"}
    for name in SPLIT:
        assert rule_class(name).__call__ is Rule.__call__, f"{name} decides without measuring apart"


def allowed(name: str, field: str) -> list[Any]:
    """Return values that a threshold may have."""
    kind = rule_class(name)
    default = kind.model_fields[field].default
    if isinstance(default, bool):
        return [False, True]
    candidates = [[[n, number] for n, _ in default] for number in NUMBERS] if isinstance(default, tuple) else NUMBERS
    taken = []
    for value in candidates:
        try:
            kind(**{**BASE.get(name, {}), field: value})
        except ValidationError:
            continue
        taken.append(value)
    return taken


@st.composite
def a_rule(draw: st.DrawFn, name: str) -> dict[str, Any]:
    fields = rule_class(name).thresholds()
    return {name: {**BASE.get(name, {}), **{field: draw(st.sampled_from(allowed(name, field))) for field in fields}}}


@st.composite
def a_list_and_another_with_other_thresholds(draw: st.DrawFn) -> list[list[dict[str, Any]]]:
    names = draw(st.permutations([*SPLIT, "url", "pii", "secrets"]))[: draw(st.integers(1, 13))]
    return [[draw(a_rule(name)) for name in names] for _ in range(3)]


@st.composite
def a_document(draw: st.DrawFn) -> Document:
    made = document(draw(TEXTS), name="page", language=draw(st.sampled_from(["en", "de"])))
    return made.with_scores({"filter.quality": draw(st.sampled_from([0.0, 0.4, 1.0]))})


@pytest.mark.parametrize("name", SPLIT)
@settings(max_examples=40, deadline=None)
@given(st.data())
def test_what_is_measured_depends_on_no_threshold(name: str, data: st.DataObject) -> None:
    one, other = (rule_class(name)(**data.draw(a_rule(name))[name]) for _ in range(2))
    page = data.draw(a_document())
    assert one.measured_by() == other.measured_by()
    assert repr(one.measure(page)) == repr(other.measure(page))


def one_after_another(page: Document, entries: list[dict[str, Any]]) -> list[str]:
    """Return what rules do that are asked in a row, each about the text that the one before has left."""
    answers: list[str] = []
    for entry in entries:
        ((name, given_settings),) = entry.items()
        rule = rule_class(name)(**given_settings)
        try:
            answer = rule(page)
        except ZeroDivisionError:
            return [*answers, f"{name}.error"]
        if answer is None:
            continue
        rule_name = f"{name}.{answer.rule}" if answer.rule else name
        if isinstance(answer, Edit) and answer.text.strip():
            answers.append(repr((rule_name, answer.score, None, answer.detail)))
            page = page.with_text(answer.text)
            continue
        if isinstance(answer, Edit):
            return [*answers, repr((f"{rule_name}.empty", answer.score, None, answer.detail))]
        return [*answers, repr((rule_name, answer.score, answer.threshold, answer.detail))]
    return [*answers, page.text]


def from_what_is_known(page: Document, entries: list[dict[str, Any]], known: Known) -> list[str]:
    answers: list[str] = []
    for given_answer in judged(page, load(entries), known, Tally()):
        if isinstance(given_answer, Document):
            answers.append(given_answer.text)
        elif given_answer.rule.endswith(".error"):
            answers.append(given_answer.rule)
        else:
            row = given_answer
            answers.append(repr((row.rule, row.score, row.threshold, row.detail)))
    return answers


@settings(max_examples=300, deadline=None)
@given(page=a_document(), lists=a_list_and_another_with_other_thresholds())
def test_what_was_known_before_decides_as_what_is_measured_now(page: Document, lists: list[list[Any]]) -> None:
    known = Known()
    for entries in (*lists, lists[0]):
        assert from_what_is_known(page, entries, known) == one_after_another(page, entries), entries


@pytest.fixture
def pages(workspace: Path) -> Path:
    texts = [
        prose(number, sentences=2 + number % 9) + "\nHome\nHome\nthe river\n" * (number % 4) for number in range(40)
    ]
    made = [document(text, name=str(n)).with_scores({"filter.quality": n / 40}) for n, text in enumerate(texts)]
    write_stage(workspace / "extract", [made[:20], made[20:]])
    return workspace


def filtered(pages: Path, entries: list[dict[str, Any]]) -> tuple[Tally, dict[str, bytes]]:
    """Run the stage; return what its log says of each rule, and all files that it wrote."""
    output = pages / "out"
    said: list[logging.LogRecord] = []
    logger = logging.getLogger("tasks.filter.stage")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logger, "handle", said.append)
        run(params=Params(rules=tuple(entries)), inputs={"extract": pages / "extract"}, output=output)
    tally = next((tally for record in said for tally in (record.args or ()) if isinstance(tally, Tally)), Tally())
    return tally, {path.as_posix(): path.read_bytes() for path in sorted(output.rglob("*")) if path.is_file()}


@pytest.fixture(autouse=True)
def _shown(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level(logging.INFO, "tasks.filter.stage")
    # A model is not what is tested: the documents come with their scores.
    monkeypatch.setattr(rule_class("quality_classifier"), "scores", lambda self, page: dict(page.scores))


@pytest.mark.parametrize(("name", "field"), THRESHOLDS)
def test_another_threshold_measures_nothing_again(pages: Path, name: str, field: str) -> None:
    others = [{rule: {**LENIENT[rule]}} for rule in LENIENT if rule != name]
    settings_ = {**BASE.get(name, {}), **LENIENT.get(name, {})}
    first, _ = filtered(pages, [{name: settings_}, *others])
    assert first.measured[name] == 40
    assert not first.known
    now = getattr(rule_class(name)(**settings_), field)
    others_of_it = [rule_class(name)(**{**settings_, field: value}) for value in allowed(name, field)]
    value = next(getattr(other, field) for other in others_of_it if getattr(other, field) != now)
    entries = [{name: {**settings_, field: value}}, *others]
    again, files = filtered(pages, entries)
    assert shards.reused["filter"] == 0, f"{field}: {value} instead of {now} decides nothing"
    assert (again.measured[name], again.known[name]) == (0, 40)
    assert once_more(pages, entries) == files


def once_more(pages: Path, entries: list[dict[str, Any]]) -> dict[str, bytes]:
    """Return the files that the stage writes where nothing is known."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADWATER_STATE", str(pages / "nothing-known"))
        return filtered(pages, entries)[1]


def test_a_looser_threshold_measures_only_what_comes_further(pages: Path) -> None:
    def lists(words: int, sentences: int) -> list[dict[str, Any]]:
        return [
            {"length": {"min_words": words}},
            {"c4": {"filter_no_terminal_punct": False, "min_words_per_line": 2, "min_num_sentences": sentences}},
            {"gopher_repetition": {}},
        ]

    sizes = [
        len(page.text.split()) for part in (0, 1) for page in read_documents(pages / f"extract/part-{part:05d}.parquet")
    ]
    first, _ = filtered(pages, lists(80, 3))
    longer = sum(size >= 80 for size in sizes)
    assert 0 < longer < 40
    assert first.measured == {"length": 40, "c4": longer, "gopher_repetition": longer}
    second, files = filtered(pages, lists(40, 3))
    further = sum(40 <= size < 80 for size in sizes)
    assert further > 0
    assert second.measured["length"] == 0
    assert second.measured["c4"] == further
    assert second.known["c4"] == second.known["gopher_repetition"] == longer
    assert once_more(pages, lists(40, 3)) == files
    back, _ = filtered(pages, lists(80, 4))
    assert not back.measured
    filtered(pages, lists(40, 3))
    assert shards.reused["filter"] == 2, "the whole shards are there"


def test_another_setting_that_decides_the_text_measures_again(pages: Path) -> None:
    filtered(pages, [{"c4": LENIENT["c4"]}, {"fineweb": {}}])
    again, _ = filtered(pages, [{"c4": {**LENIENT["c4"], "min_words_per_line": 3}}, {"fineweb": {}}])
    assert again.measured["c4"] == 40
    assert not again.known


def test_damaged_measurements_are_made_again(pages: Path) -> None:
    filtered(pages, [{"length": {"min_words": 1}}])
    for path in (state_folder() / "shards").glob("*/counts.json"):
        if (part := path.parent / "part-00000.parquet").exists():
            part.write_bytes(b"x")
    again, files = filtered(pages, [{"length": {"min_words": 40}}])
    assert (again.measured["length"], again.known["length"]) == (20, 20)
    assert once_more(pages, [{"length": {"min_words": 40}}]) == files


OWN = """
from tasks.contracts.base import Drop, Measured, Rule, threshold
class Own(Rule):
    most: float = threshold(0.5)
    def measure(self, document):
        {measure}
    def decide(self, measured):
        {decide}
"""


@pytest.mark.parametrize(
    ("measure", "decide", "said"),
    [
        ("return {'a': 1}", "return None", "{'a': 1} (dict) is no measurement"),
        ("return Measured(values={'a': 'much'})", "return None", "the value a of a Measured is 'much' (str)"),
        ("return Measured(values=3)", "return None", "values of a Measured is 3 (int)"),
        ("return Measured(detail=3)", "return None", "detail of a Measured is 3 (int)"),
        ("return Measured(otherwise=False)", "return None", "False (bool) is no answer"),
        ("return Measured(otherwise=Drop(score='x'))", "return None", "score of a Drop is 'x' (str)"),
        ("return Measured()", "return 0.3", "0.3 (float) is no answer"),
        ("return Measured()", "return measured.values['a']", "KeyError: 'a'"),
        ("return document.txet", "return None", "no attribute 'txet'"),
    ],
)
def test_a_wrong_measurement_is_named_with_its_place(
    pages: Path, monkeypatch: pytest.MonkeyPatch, measure: str, decide: str, said: str
) -> None:
    folder = pages / "own_rules"
    folder.mkdir()
    (folder / "own.py").write_text(OWN.format(measure=measure, decide=decide))
    monkeypatch.setattr(rules_package, "__path__", [*rules_package.__path__, str(folder)])
    monkeypatch.delitem(sys.modules, f"{rules_package.__name__}.own", raising=False)
    params = Params(rules=({"own": {}},), max_error_rate=1)
    made = run(params=params, inputs={"extract": pages / "extract"}, output=pages / "out")
    assert made.counts.dropped == {"own.error": 40}
    row = next(read_ledger(pages / "out/dropped/part-00000.parquet"))
    assert said in str(row.detail)
    assert "(own.py, line " in str(row.detail)


def test_numbers_of_any_kind_are_kept_as_they_are() -> None:
    known = Known()
    three: Any = np.int64(3)
    answer = Drop(score=np.float32(0.1), threshold=True, detail="ä\ud800", survivor_id="1")  # type: ignore[arg-type]
    known.add(0, Measured(values={"a": three, "b": float("nan"), "c": float("inf")}, otherwise=answer))
    measured = known.of(0)
    assert measured is not None
    assert repr(dict(measured.values)) == "{'a': 3.0, 'b': nan, 'c': inf}"
    assert measured.otherwise == Drop(score=float(np.float32(0.1)), threshold=1.0, detail="ä\ud800", survivor_id="1")
