"""What is asked of DVC, whose every start costs a second."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.workspace import dvc


@pytest.mark.parametrize("has_run", [False, True])
def test_dvc_is_asked_what_its_cache_lacks_once_something_has_run(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, has_run: bool
) -> None:
    asked: list[str] = []

    def status() -> dict[str, list[object]]:
        asked.append("status")
        return {"dedup": [{"changed outs": {"data/dedup": "not in cache"}}]}

    def put_back(stage: str, _changes: object) -> bool:
        asked.append(stage)
        return True

    monkeypatch.setattr(dvc, "dvc_status", status)
    monkeypatch.setattr(dvc, "put_back_into_cache", put_back)
    if has_run:
        (workspace / "dvc.lock").write_text("schema: '2.0'\n")
    dvc.fill_cache()
    assert asked == (["status", "dedup"] if has_run else [])
