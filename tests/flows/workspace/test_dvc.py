"""What is asked of DVC, whose every start costs a second."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.workspace import dvc

LOCK = "schema: '2.0'\nstages:\n" + "".join(f"  {name}:\n    cmd: python\n" for name in ("crawl", "dedup", "mix"))


@pytest.mark.parametrize(
    ("lock", "status", "put_back", "up_to_date", "asked"),
    [
        (None, {}, True, set(), []),
        (LOCK, {}, True, {"crawl", "dedup", "mix"}, ["status"]),
        (LOCK, {"dedup": ["changed command"], "train": ["new"]}, False, {"crawl", "mix"}, ["status", "dedup", "train"]),
        (LOCK, {"dedup": [{"changed outs": {}}]}, True, {"crawl", "dedup", "mix"}, ["status", "dedup"]),
        (LOCK, None, True, set(), ["status"]),
        ("schema: '2.0'\n", {}, True, set(), ["status"]),
    ],
    ids=["nothing has run", "all is", "one is not", "one lacks its cache", "DVC cannot say", "an empty lock"],
)
def test_dvc_is_asked_what_is_up_to_date_once_something_has_run(
    workspace: Path,
    monkeypatch: pytest.MonkeyPatch,
    lock: str | None,
    status: dict[str, list[object]] | None,
    put_back: bool,
    up_to_date: set[str],
    asked: list[str],
) -> None:
    were: list[str] = []

    def asked_for_all() -> dict[str, list[object]] | None:
        were.append("status")
        return status

    def asked_for_one(stage: str, _changes: object) -> bool:
        were.append(stage)
        return put_back

    monkeypatch.setattr(dvc, "dvc_status", asked_for_all)
    monkeypatch.setattr(dvc, "put_back_into_cache", asked_for_one)
    if lock is not None:
        (workspace / "dvc.lock").write_text(lock)
    assert dvc.up_to_date() == up_to_date
    assert were == asked
