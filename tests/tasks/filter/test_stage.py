"""The list of rules decides what is kept; every drop and edit is in the ledger."""

from pathlib import Path
from typing import Any

import pytest

from tasks.contracts.document import Document, read_documents, write_documents
from tasks.contracts.errors import HeadwaterError, ParamsError
from tasks.contracts.ledger import read_ledger
from tasks.contracts.manifest import Counts, Manifest, commit_manifest
from tasks.filter.stage import Params, run

EXTERNAL = """
from tasks.contracts.base import Drop
class NoCats:
    def __init__(self, word): self.word = word
    def __call__(self, document):
        return Drop(rule="cats") if self.word in document.text else None
class Broken:
    def __call__(self, document): raise RuntimeError("boom")
"""


def document(number: int, text: str) -> Document:
    return Document(
        doc_id=f"{number:032x}",
        url=f"https://a.example/{number}",
        host="a.example",
        record_id=str(number),
        source="t",
        text=text,
        language="en",
        language_score=0.99,
    )


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADWATER_STATE", str(tmp_path / "state"))
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "other_package.py").write_text(EXTERNAL)
    texts = ["a cat sat here", "a dog sat here", "mail joe@corp.example now", "short"]
    folder = tmp_path / "extract"
    write_documents(folder / "part-00000.parquet", [document(i, text) for i, text in enumerate(texts)])
    counts = Counts(in_=4, out=4)
    commit_manifest(folder, stage="extract", unit="documents", params={}, inputs={}, counts=counts)
    return tmp_path


def filtered(workspace: Path, *rules: dict[str, Any], name: str = "filter", **more: Any) -> tuple[Manifest, Path]:
    output = workspace / name
    params = Params(rules=rules, **more)
    return run(params=params, inputs={"extract": workspace / "extract"}, output=output), output


def test_drops_and_edits_are_in_the_ledger(workspace: Path) -> None:
    manifest, output = filtered(workspace, {"length": {"min_words": 2}}, {"pii": None})
    assert manifest.counts.model_dump() == {"in_": 4, "out": 3, "dropped": {"length.min_words": 1}}
    assert [d.text for d in read_documents(output / "part-00000.parquet")][2] == "mail <email> now"
    rows = list(read_ledger(output / "dropped" / "part-00000.parquet"))
    assert [(r.action, r.rule, r.detail) for r in rows] == [
        ("edit", "pii", "email: 1"),
        ("drop", "length.min_words", None),
    ]


def test_a_filter_is_one_new_file_and_one_line(workspace: Path) -> None:
    manifest, _ = filtered(workspace, {"use": "other_package:NoCats", "with": {"word": "cat"}})
    assert manifest.counts.dropped == {"cats": 1}


def test_any_datatrove_filter_is_taken_unchanged(workspace: Path) -> None:
    use = {"use": "datatrove.pipeline.filters:RegexFilter", "with": {"regex_exp": "dog"}}
    manifest, _ = filtered(workspace, use)
    assert manifest.counts.out == 3
    assert list(manifest.counts.dropped) == ["RegexFilter.dropped"]


def test_the_same_rule_may_stand_twice(workspace: Path) -> None:
    manifest, _ = filtered(workspace, {"length": {"min_words": 2}}, {"length": {"min_words": 0, "max_words": 3}})
    assert manifest.counts.dropped == {"length.max_words": 2, "length.min_words": 1}


def test_a_rule_that_fails_drops_the_document_and_the_stage_above_the_limit(workspace: Path) -> None:
    broken = {"use": "other_package:Broken"}
    manifest, _ = filtered(workspace, broken, max_error_rate=1.0)
    assert manifest.counts.dropped == {"Broken.error": 4}
    with pytest.raises(HeadwaterError, match="too many documents"):
        filtered(workspace, broken, name="again")


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"gopher_qualty": {}}, "gopher_quality"),
        ({"length": {"min_word": 3}}, "min_words"),
        ({"length": {"min_words": -1}}, "greater than or equal to 0"),
        ({"url": {"deny_patterns": ["("]}}, "no regular expression"),
        ({"length": {}, "url": {}}, "NAME: {settings}"),
        ({"use": "no_colon"}, "package.module:Class"),
    ],
)
def test_a_wrong_entry_says_what_is_allowed(rule: dict[str, Any], said: str) -> None:
    with pytest.raises(ParamsError) as caught:
        Params(rules=(rule,))
    assert "filter.rules[0]" in str(caught.value)
    assert said in str(caught.value)


def test_a_missing_package_is_an_error_of_params(workspace: Path) -> None:
    with pytest.raises(ParamsError, match="cannot be made"):
        filtered(workspace, {"use": "no_such_package:Thing"})


def test_the_same_input_gives_the_same_bytes(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = filtered(workspace, {"pii": None}, name="one")
    monkeypatch.setenv("HEADWATER_STATE", str(workspace / "other-state"))
    second, _ = filtered(workspace, {"pii": None}, name="two")
    assert first == second


def test_an_edit_that_leaves_nothing_is_a_drop(workspace: Path) -> None:
    manifest, _ = filtered(workspace, {"c4": {"min_num_sentences": -1}})
    assert manifest.counts.dropped == {"c4.empty": 4}


def test_the_content_of_a_list_decides_and_not_its_path(workspace: Path) -> None:
    (workspace / "list.txt").write_text("cat\n")
    (workspace / "copy.txt").write_text("cat\n")
    rule = {"words": [], "min_count": 1, "min_share": 0.0}
    first, _ = filtered(workspace, {"bad_words": {**rule, "lists": ["list.txt"]}}, name="one")
    moved, _ = filtered(workspace, {"bad_words": {**rule, "lists": ["copy.txt"]}}, name="two")
    assert first == moved
    assert first.counts.dropped == {"bad_words": 1}
    (workspace / "list.txt").write_text("dog\ncat\n")
    changed, _ = filtered(workspace, {"bad_words": {**rule, "lists": ["list.txt"]}}, name="three")
    assert changed.counts.dropped == {"bad_words": 2}


def test_a_language_that_cannot_be_split_is_an_error_of_params(workspace: Path) -> None:
    with pytest.raises(ParamsError, match="language"):
        filtered(workspace, {"fineweb": {"language": "no such"}})
