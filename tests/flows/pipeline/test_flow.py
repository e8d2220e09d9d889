"""What the flow tries again, a stage whose run record says that its failure may pass; and of what it asks DVC again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from flows.history.run_records import now, write_record
from flows.pipeline import flow
from flows.pipeline.flow import _may_pass
from flows.workspace.graph import load_graph, stages_until
from tasks.contracts.errors import InputError, NetworkError
from tasks.contracts.manifest import Counts, commit_manifest

STAGES = tuple(load_graph())


def failed(stage: str, error: BaseException, run: str = "r1") -> None:
    write_record(run=run, stage=stage, started_at=now(), error=error)


@pytest.fixture
def may_pass(workspace: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    monkeypatch.setenv("HEADWATER_RUN", "r1")
    return lambda stage: _may_pass(None, SimpleNamespace(name=stage), None)


def test_a_network_that_did_not_answer_is_tried_again(may_pass) -> None:  # type: ignore[no-untyped-def]
    failed("crawl", NetworkError("no answer"))
    assert may_pass("crawl") is True


@pytest.mark.parametrize("error", [InputError("no page"), ValueError("a bug"), KeyboardInterrupt()])
def test_what_will_not_pass_is_not_tried_again(may_pass, error: BaseException) -> None:  # type: ignore[no-untyped-def]
    failed("crawl", error)
    assert may_pass("crawl") is False


def test_a_stage_without_a_record_is_not_tried_again(may_pass) -> None:  # type: ignore[no-untyped-def]
    assert may_pass("crawl") is False
    failed("crawl", NetworkError("no answer"), run="r2")
    failed("evaluate", NetworkError("no answer"))
    assert may_pass("crawl") is False, "another run's failure, or another stage's, is not this one's"


def test_the_newest_record_decides(may_pass) -> None:  # type: ignore[no-untyped-def]
    failed("crawl", NetworkError("no answer"))
    failed("crawl", InputError("no page"))
    assert may_pass("crawl") is False
    failed("crawl", NetworkError("no answer"))
    assert may_pass("crawl") is True
    output = Path("data/crawl")
    output.mkdir(parents=True)
    commit_manifest(output, stage="crawl", unit="urls", params={}, inputs={}, counts=Counts(in_=1, out=1))
    write_record(run="r1", stage="crawl", started_at=now(), output=output)
    assert may_pass("crawl") is False


@pytest.mark.parametrize(
    ("clean", "forced", "until", "settled"),
    [
        (STAGES, (), None, STAGES),
        ((), (), None, ()),
        (STAGES, ("dedup",), None, ("crawl", "extract", "filter")),
        ([*STAGES[:3], *STAGES[4:]], (), None, STAGES[:3]),
        (STAGES, ("train",), "filter", ("crawl", "extract", "filter")),
    ],
)
def test_dvc_is_asked_again_of_what_a_stage_before_may_change(
    monkeypatch: pytest.MonkeyPatch,
    clean: Sequence[str],
    forced: Sequence[str],
    until: str | None,
    settled: Sequence[str],
) -> None:
    monkeypatch.setattr(flow, "up_to_date", lambda: set(clean))
    assert flow._settled(stages_until(load_graph(), until), forced) == set(settled)
