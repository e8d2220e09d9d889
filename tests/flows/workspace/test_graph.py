from __future__ import annotations

from pathlib import Path

import pytest

from flows.workspace.graph import load_graph, select
from tasks.contracts.errors import InputError, UsageError
from tests.conftest import ROOT


def test_every_stage_has_a_module_and_reads_folders_that_an_earlier_stage_writes() -> None:
    graph = load_graph(ROOT / "dvc.yaml")
    written: set[Path] = set()
    for stage in graph.values():
        assert set(stage.inputs.values()) <= written
        written.add(stage.output)


@pytest.mark.parametrize("name", [name for name in load_graph() if name != "crawl"])
def test_dvc_runs_a_stage_again_when_its_code_changes(name: str) -> None:
    """Code missing from `deps` would leave a stage silently stale. A crawl is a snapshot and names none."""
    stage = load_graph(ROOT / "dvc.yaml")[name]
    text = (ROOT / "dvc.yaml").read_text().split(f"\n  {name}:\n")[1].split("\n\n")[0]
    assert f"{'tasks' if stage.uses_ray else 'training'}/{name}" in text
    # Days of training do not start again because a docstring of the contracts changed: only the layout it reads counts.
    assert ("tasks/contracts/tokens.py" if name == "train" else "tasks/contracts") in text


@pytest.mark.parametrize("name", list(load_graph()))
def test_dvc_runs_a_stage_again_when_its_settings_change(name: str) -> None:
    """All but the gate's policy, which training records as it stands, and what only checks look at."""
    stage = load_graph(ROOT / "dvc.yaml")[name]
    borrowed = set(stage.params_class.borrowed().values())
    if name == "train":
        borrowed -= {"gate", "evaluate.tasks", "tokenizer.vocab_size"}
    assert {name, *borrowed} <= set(stage.params)


def test_no_dvc_yaml_says_where_to_call_from(workspace: Path) -> None:
    with pytest.raises(InputError, match="root of a Headwater workspace"):
        load_graph()


def test_an_unknown_stage_names_those_there_are() -> None:
    with pytest.raises(UsageError, match="crawl, extract"):
        select(load_graph(ROOT / "dvc.yaml"), "scrape")


def test_a_stage_without_a_module_is_an_error(workspace: Path) -> None:
    Path("dvc.yaml").write_text("stages: {polish: {cmd: x, outs: [data/polish]}}\n")
    with pytest.raises(InputError, match="polish"):
        load_graph()
