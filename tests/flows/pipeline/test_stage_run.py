"""Running one stage: what drops everything stops the run, and says by which rules."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

import pytest

from flows.history.run_records import read_records
from flows.pipeline.stage_run import FORCED_VARIABLE, forced, run_stage
from tasks.contracts.errors import CorpusTooSmallError, DiskFullError
from tasks.contracts.manifest import Counts, Manifest
from tests.planted import plant_manifest

GRAPH = """
stages:
  extract: {cmd: none, outs: [data/extract]}
  filter: {cmd: none, deps: [data/extract], params: [filter], outs: [data/filter]}
"""


@pytest.fixture
def dropping(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A workspace whose filters drop every document."""
    (workspace / "dvc.yaml").write_text(GRAPH)
    (workspace / "params.yaml").write_text("ray: {}\nfilter: {rules: []}\n")

    def run(*, params: object, inputs: Mapping[str, Path], output: Path) -> object:
        output.mkdir()
        counts = Counts(in_=1200, out=0, dropped={"length.min_words": 200, "language.other": 1000})
        return plant_manifest(output, stage="filter", unit="documents", params={}, inputs=inputs, counts=counts)

    counts = Counts(in_=1200, out=1200)
    Path("data/extract").mkdir(parents=True)
    plant_manifest(Path("data/extract"), stage="extract", unit="documents", params={}, inputs={}, counts=counts)
    monkeypatch.setattr("tasks.filter.stage.run", run)
    monkeypatch.setattr("flows.pipeline.stage_run.ray_on_demand", lambda _: nullcontext())


def test_a_stage_that_keeps_nothing_stops_the_run_and_says_why(dropping: None) -> None:
    with pytest.raises(CorpusTooSmallError) as stopped:
        run_stage("filter")
    said = str(stopped.value)
    for part in (
        "filter kept none of 1,200 documents",
        "data/filter/dropped",
        "language.other 1,000, length.min_words 200",
        "headwater filters try",
        "section filter of params.yaml",
    ):
        assert part in said
    assert [record.status for record in read_records()] == ["failed"]


def test_a_full_disk_is_told_with_what_the_stage_took_the_last_time(
    dropping: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*, output: Path, **_: object) -> Manifest:
        output.mkdir()
        (output / "part").write_bytes(bytes(2_500_000))
        counts = Counts(in_=1200, out=1200)
        return plant_manifest(output, stage="filter", unit="documents", params={}, inputs={}, counts=counts)

    def full(*, output: Path, **_: object) -> Manifest:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("tasks.filter.stage.run", run)
    run_stage("filter")
    monkeypatch.setattr("tasks.filter.stage.run", full)
    with pytest.raises(DiskFullError, match=r"the disk is full: .*; the last output of filter took 2\.5 MB$"):
        run_stage("filter")
    error = read_records()[-1].error
    assert error is not None
    assert error.message.endswith("took 2.5 MB")


@pytest.mark.parametrize(("told", "is_forced"), [("crawl", True), ("", False), (None, False)])
def test_a_flow_says_that_a_stage_is_forced(monkeypatch: pytest.MonkeyPatch, told: str | None, is_forced: bool) -> None:
    """Its DVC is a fork, whose command line says nothing."""
    monkeypatch.delenv(FORCED_VARIABLE, raising=False)
    if told is not None:
        monkeypatch.setenv(FORCED_VARIABLE, told)
    assert forced() is is_forced
