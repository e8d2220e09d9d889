"""What the flow tries again: a stage whose run record says that its failure may pass, and no other."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from flows.history.run_records import now, write_record
from flows.pipeline.flow import _may_pass
from tasks.contracts.errors import InputError, NetworkError
from tasks.contracts.manifest import Counts, commit_manifest


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
