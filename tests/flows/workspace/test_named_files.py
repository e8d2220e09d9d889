"""Files that settings name: what changed in them since the stage ran."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flows.workspace.graph import Stage
from flows.workspace.named_files import MISSING, changed, contents, remember
from tasks.contracts.base import StageParams
from tasks.contracts.manifest import Counts
from tasks.decontaminate.stage import Params as Decontaminate
from tasks.filter.stage import Params as Filter
from tasks.perplexity.stage import Params as Perplexity
from tests.planted import plant_manifest

STAGE = Stage(name="toy", inputs={}, output=Path("data/toy"), params=("toy",))


class Reads(StageParams):
    files: tuple[str, ...] = ("list.txt", "lists")

    def named_files(self) -> tuple[str, ...]:
        return self.files


def finish(number: int = 1) -> None:
    """Make the stage's output."""
    STAGE.output.mkdir(parents=True, exist_ok=True)
    counts = Counts(in_=number, out=number)
    plant_manifest(STAGE.output, stage="toy", unit="documents", params={}, inputs={}, counts=counts)


@pytest.fixture
def files(workspace: Path) -> Path:
    (workspace / "lists" / "ads").mkdir(parents=True)
    (workspace / "lists" / "ads" / "domains").write_text("a.example\n")
    (workspace / "list.txt").write_text("b.example\n")
    finish()
    remember(STAGE, contents(Reads()))
    return workspace


def test_what_holds_the_same_has_not_changed(files: Path) -> None:
    (files / "list.txt").write_text("b.example\n")
    assert changed(STAGE, Reads()) == []


def test_another_content_is_seen_in_a_file_and_in_a_folder(files: Path) -> None:
    (files / "list.txt").write_text("c.example\n")
    assert changed(STAGE, Reads()) == ["list.txt"]
    (files / "lists" / "ads" / "urls").write_text("a.example/x\n")
    assert changed(STAGE, Reads()) == ["list.txt", "lists"]


def test_a_file_that_is_gone_has_changed_and_one_that_stays_away_has_not(files: Path) -> None:
    (files / "list.txt").unlink()
    assert changed(STAGE, Reads()) == ["list.txt"]
    assert contents(Reads())["list.txt"] == MISSING
    remember(STAGE, contents(Reads()))
    assert changed(STAGE, Reads()) == []


def test_of_another_output_nothing_is_known(files: Path) -> None:
    finish(2)
    assert changed(STAGE, Reads()) == ["list.txt", "lists"], "it may have been made from anything"


@pytest.mark.parametrize("damage", [None, "", "{}", "[]"])
def test_without_a_memory_that_can_be_read_all_count_as_changed(files: Path, damage: str | None) -> None:
    memory = files / ".headwater" / "named_files" / "toy.json"
    memory.unlink()
    if damage is not None:
        memory.write_text(damage)
    assert changed(STAGE, Reads()) == ["list.txt", "lists"]


def test_before_there_is_an_output_nothing_has_to_be_forced(workspace: Path) -> None:
    assert changed(STAGE, Reads()) == []


def test_settings_that_name_no_file_need_no_memory(workspace: Path) -> None:
    finish()
    assert changed(STAGE, StageParams()) == []


def test_stages_name_the_files_they_read() -> None:
    rules: tuple[dict[str, Any], ...] = (
        {"url": {"lists": ["ut1"], "hosts_file": "hosts.txt"}},
        {"use": "a.b:C", "with": {"path": "theirs"}},
        {"bad_words": {"lists": ["one.txt", "two.txt"]}},
        {"length": {}},
    )
    assert sorted(Filter(rules=rules).named_files()) == ["hosts.txt", "one.txt", "two.txt", "ut1"]
    assert Decontaminate(benchmarks=("quiz.jsonl",)).named_files() == ("quiz.jsonl",)
    assert Perplexity().named_files() == ()
    assert Perplexity(model="all.bin").named_files() == ("all.bin",)
    named = {"model": {"de": "de.bin", "en": "https://a.example/en.bin"}, "reference": {"files": ("good.txt",)}}
    assert Perplexity.model_validate(named).named_files() == ("de.bin", "good.txt")
