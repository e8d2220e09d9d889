"""What is asked of DVC, whose every start costs a second."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from flows.workspace import dvc
from flows.workspace.graph import load_graph
from tests.conftest import ROOT


@pytest.mark.parametrize(("has_run", "stale"), [(False, set(load_graph())), (True, {"dedup"})])
def test_dvc_is_asked_what_is_stale_once_something_has_run(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, has_run: bool, stale: set[str]
) -> None:
    asked: list[bool] = []

    def status() -> dict[str, list[object]]:
        asked.append(True)
        return {"dedup": [{"changed deps": {"data/filter": "modified"}}]}

    monkeypatch.setattr(dvc, "dvc_status", status)
    shutil.copy2(ROOT / "dvc.yaml", workspace)
    if has_run:
        (workspace / "dvc.lock").write_text("schema: '2.0'\n")
    assert dvc.stale_stages() == stale
    assert len(asked) == has_run
