"""A missing input is not an empty one: whatever is taken from a workspace, no command answers as if all were there."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from flows.cli.main import main
from flows.report.page import summary_rows
from tasks.contracts.errors import InputError, ManifestError
from tasks.contracts.manifest import commit_manifest, read_manifest, read_whole
from tests.conftest import ROOT
from tests.flows.proof.traced_workspace import PAGES, make
from training.champions import champion_to_beat, champions, promote

COMMANDS = {
    "trace": ["trace", PAGES[0].url],
    "report": ["report"],
    "policy": ["policy", "check"],
    "picture": ["lineage", "picture"],
}
STAGES = ("crawl", "extract", "filter", "dedup", "perplexity", "holdout", "decontaminate", "mix", "tokenize", "train")
FILES = (
    "extract/part-00001.parquet",
    "filter/dropped/part-00000.parquet",
    "crawl/part-00000.warc.gz",
    "train/order.json",
)


@pytest.fixture
def traced(workspace: Path) -> Path:
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, workspace)
    make(workspace)
    return workspace


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        main([*arguments])
    code = ended.value.code
    return (code if isinstance(code, int) else 0), capsys.readouterr().err


@pytest.mark.parametrize("lost", [*STAGES, *FILES])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_names_what_is_missing_in_data(
    traced: Path, command: str, lost: str, capsys: pytest.CaptureFixture[str]
) -> None:
    place = traced / "data" / lost
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    code, said = call(capsys, *COMMANDS[command])
    assert code == 1
    stage, _, name = lost.partition("/")
    assert stage in said
    assert name in said


@pytest.mark.parametrize("command", COMMANDS)
def test_with_all_there_it_answers(traced: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "incomplete" not in call(capsys, *COMMANDS[command])[1]


@pytest.mark.parametrize(
    "command", [*COMMANDS.values(), ["gc"], ["takedown", "plan"], ["takedown", "list"], ["lineage", "sync"], ["run"]]
)
def test_outside_a_workspace_there_is_no_answer(
    workspace: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = call(capsys, *command)
    assert (code, "there is no dvc.yaml here" in said) == (1, True)
    assert not (workspace / ".headwater").exists(), "nothing is written either"


def test_a_stage_does_not_begin_with_half_of_its_input(traced: Path) -> None:
    read_whole(traced / "data/filter")
    (traced / "data/filter/dropped/part-00001.parquet").unlink()
    with pytest.raises(ManifestError, match="part-00001"):
        read_whole(traced / "data/filter")


def test_the_end_of_a_run_speaks_of_the_stages_of_this_run_only(traced: Path) -> None:
    assert [row.stage for row in summary_rows(traced, ["crawl", "extract"])] == ["crawl", "extract"]


def test_what_was_made_from_another_corpus_is_shown_as_not_run(traced: Path) -> None:
    rows = {row.stage: row for row in summary_rows(traced)}
    assert rows["mix"].kept
    folder = traced / "data/filter"
    manifest = read_manifest(folder)
    (folder / "_manifest.json").unlink()
    commit_manifest(
        folder,
        stage="filter",
        unit="documents",
        params={"other": 1},
        inputs={"extract": traced / "data/extract"},
        counts=manifest.counts,
    )
    rows = {row.stage: row for row in summary_rows(traced)}
    assert rows["filter"].kept
    assert [rows[stage].kept for stage in ("dedup", "mix", "train", "release")] == [None] * 4


def test_without_the_list_of_champions_no_candidate_is_compared_with_nothing(traced: Path) -> None:
    (traced / ".headwater/champions.jsonl").unlink()
    with pytest.raises(InputError, match="list of champions"):
        champion_to_beat("another")
    promote(traced / "data/release")
    assert len(champions()) == 1
