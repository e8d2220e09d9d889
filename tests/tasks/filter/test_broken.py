"""A filter that is broken is named with its file and line; the others do their work."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli import filters as command
from tasks.contracts.errors import HeadwaterError, ParamsError
from tasks.contracts.ledger import read_ledger
from tasks.filter import rules
from tasks.filter.loading import OURS, available, load
from tasks.filter.stage import Params, run
from tests.conftest import ROOT
from tests.corpus import corpus, write_stage

HEAD = "from tasks.contracts.base import Drop, Edit, Rule\n\n\nclass Own(Rule):\n    "
CALL = HEAD + "def __call__(self, document):\n        "
FILES = {
    "syntax": (CALL.replace("document):", "document)") + "return None\n", "SyntaxError", 5),
    "indentation": (CALL + "x = 1\n            return None\n", "IndentationError", 7),
    "null byte": (CALL + 'return "\0"\n', "null bytes", None),
    "import": ("import no_such_thing\n" + CALL + "return None\n", "No module named 'no_such_thing'", 1),
    "name": (CALL + "return None\n\n\nLIMIT = undefined + 1\n", "NameError", 9),
    "exit": ("raise SystemExit(3)\n", "SystemExit", 1),
    "no class": ('"""Nothing."""\n', "nothing called Own", None),
    "another name": (CALL.replace("class Own", "class Mine") + "return None\n", "nothing called Own", None),
    "plain class": (CALL.replace("(Rule)", "") + "return None\n", "Own", None),
    "no call": (HEAD + "limit: int = 3\n", "__call__(self, document)", None),
    "field": (HEAD + "limit: int = Field(3)\n", "NameError", 5),
    "default": (
        HEAD + 'limit: int = "many"\n\n    def __call__(self, document):\n        return None\n',
        "limit",
        None,
    ),
}
ANSWERS = {
    "bool": ("return False", "False (bool) is no answer", 5),
    "text": ("return document.text", "(str) is no answer", 5),
    "document": ("return document", "(Document) is no answer", 5),
    "no rule": ("return Drop(rule=None)", "rule of a Drop is None", 5),
    "score": ('return Drop(rule="own", score="much")', "score of a Drop is 'much' (str)", 5),
    "detail": ('return Drop(rule="own", detail=7)', "detail of a Drop is 7 (int)", 5),
    "edit": ('return Edit(rule="own", text=None)', "the text of an Edit is None", 5),
    "attribute": ("return document.txet", "AttributeError: 'Document' object has no attribute 'txet'", 6),
    "division": ("return 1 / document.text.count('\\0')", "ZeroDivisionError", 6),
    "exit": ("raise SystemExit(2)", "SystemExit: 2", 6),
    "deep": ("return json.loads(document.text)", "JSONDecodeError", 6),
}


@pytest.fixture
def folder(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of somebody's own rules beside ours, thirty documents, and the workspace's own params.yaml."""
    own = workspace / "own_rules"
    own.mkdir()
    monkeypatch.setattr(rules, "__path__", [*rules.__path__, str(own)])
    for name in ("dvc.yaml", "params.yaml"):
        (workspace / name).write_bytes((ROOT / name).read_bytes())
    write_stage(workspace / "data" / "extract", corpus(30), stage="extract")
    yield own
    import sys

    sys.modules.pop(f"{rules.__name__}.own", None)
    importlib.invalidate_caches()


def write(folder: Path, text: str) -> None:
    (folder / "own.py").write_text(text)
    importlib.invalidate_caches()


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_cannot_be_loaded_is_one_message_with_its_line(folder: Path, name: str) -> None:
    text, said, line = FILES[name]
    write(folder, text)
    with pytest.raises(ParamsError) as caught:
        Params(rules=({"length": {}}, {"own": {}}))
    message = str(caught.value)
    assert said in message
    assert "filter.rules[1]" in message
    assert line is None or f"own.py, line {line})" in message
    assert len(message.splitlines()) <= 5


@pytest.mark.parametrize("name", FILES)
def test_it_hides_no_other_filter(folder: Path, name: str) -> None:
    write(folder, FILES[name][0])
    assert "own" in available()
    result = CliRunner().invoke(command.app, ["list", "--json"])
    assert result.exception is None
    listed = {row["name"]: row["what"] for row in json.loads(result.stdout)}
    assert {*OURS, "own"} <= set(listed)
    assert name == "default" or listed["own"].startswith("broken: ")
    assert not any(listed[rule].startswith("broken") for rule in OURS)
    shown = CliRunner().invoke(command.app, ["show", "length"])
    assert shown.exception is None
    Params(rules=({"length": {}}, {"url": {}}))


def text_of(body: str) -> str:
    """Somebody's file whose call does this in its line 6."""
    return (CALL.replace("\n\n\n", "\nimport json\n\n", 1) if "json" in body else CALL) + body + "\n"


@pytest.mark.parametrize("name", ANSWERS)
def test_a_bug_is_told_with_its_line_before_hours_of_work(folder: Path, name: str, workspace: Path) -> None:
    body, said, line = ANSWERS[name]
    write(folder, text_of(body))
    params = Params(rules=({"length": {"min_words": 10}}, {"own": {}}))
    with pytest.raises(HeadwaterError, match="every one of the first 20 documents") as caught:
        run(params=params, inputs={"extract": workspace / "data/extract"}, output=workspace / "out")
    assert said in str(caught.value)
    assert f"(own.py, line {line})" in str(caught.value)


@pytest.mark.parametrize("name", ANSWERS)
def test_a_bug_on_a_few_documents_costs_those_and_a_row_each(folder: Path, name: str, workspace: Path) -> None:
    body, said, line = ANSWERS[name]
    chosen = "if hash(document.doc_id[:1]) and document.doc_id[0] in '01':"
    write(folder, text_of(f"{chosen} {body}"))
    params = Params(rules=({"own": {}}, {"length": {"min_words": 10}}), max_error_rate=0.9)
    manifest = run(params=params, inputs={"extract": workspace / "data/extract"}, output=workspace / "out")
    rows = [row for path in sorted((workspace / "out/dropped").glob("*")) for row in read_ledger(path)]
    assert 0 < manifest.counts.dropped["own.error"] == len(rows) < 30
    assert manifest.counts.out == 30 - len(rows), "the other filter kept its documents"
    for row in rows:
        assert row.rule == "own.error"
        assert said in str(row.detail)
        assert f"(own.py, line {line})" in str(row.detail)


def test_too_many_failures_name_the_first_with_its_line_and_page(folder: Path, workspace: Path) -> None:
    write(folder, text_of("if document.doc_id[0] in '01234567': return document.txet"))
    params = Params(rules=({"own": {}},))
    with pytest.raises(HeadwaterError, match="too many documents") as caught:
        run(params=params, inputs={"extract": workspace / "data/extract"}, output=workspace / "out")
    assert "own.error" in str(caught.value)
    assert "no attribute 'txet' (own.py, line 6) on https://a.example/page-" in str(caught.value)


@pytest.mark.parametrize("name", ["syntax", "indentation", "null byte", "import", "name", "exit", "field"])
def test_a_class_of_another_package_is_named_in_the_same_way(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    text, said, line = FILES[name]
    module = f"package_of_{name.replace(' ', '_')}"
    (workspace / f"{module}.py").write_text(text)
    monkeypatch.syspath_prepend(str(workspace))
    with pytest.raises(ParamsError, match="cannot be made") as caught:
        load([{"use": f"{module}:Own"}])
    assert said in str(caught.value)
    assert line is None or f"{module}.py, line {line})" in str(caught.value)


def test_ours_are_there() -> None:
    assert set(available()) >= OURS
