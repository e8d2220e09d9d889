"""A database that others keep for some seconds is waited for; one that is kept for too long is one clear line."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flows.history import run_records
from flows.mlflow.mirror import StageMirror
from flows.services.databases import wait_until_free
from tasks.contracts.errors import LockedError
from tasks.contracts.manifest import Counts
from tests.conftest import ROOT
from tests.planted import plant_manifest

HOLD = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
sys.stdin.read()
"""
PREFECT, MLFLOW = Path(".headwater/prefect/prefect.db"), Path(".headwater/mlflow.db")


@contextmanager
def held(path: Path, seconds: float | None = None) -> Iterator[subprocess.Popen[str]]:
    """Let another program keep a database, for some seconds or for as long as the block runs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        timer = threading.Timer(seconds or 0, holder.terminate)
        if seconds:
            timer.start()
        try:
            yield holder
        finally:
            timer.cancel()
            holder.terminate()


def mirrored() -> StageMirror:
    """Mirror a stage into this workspace's MLflow, as a stage does."""
    output, started_at = Path("data/crawl"), run_records.now()
    with StageMirror(run="r1", stage="crawl", params={}, inputs={}, output=output, started_at=started_at) as mirror:
        output.mkdir(parents=True)
        (output / "part-00000.txt").write_text("pages")
        plant_manifest(output, stage="crawl", unit="documents", params={}, inputs={}, counts=Counts(in_=1, out=1))
    run_records.write_record(
        run="r1", stage="crawl", started_at=started_at, output=output, params={}, mlflow=mirror.ids
    )
    return mirror


def test_a_database_that_is_free_again_is_waited_for(workspace: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    wait_until_free(PREFECT, "Prefect")
    with held(PREFECT, seconds=4) as holder:
        wait_until_free(PREFECT, "Prefect", seconds=30)
        assert "waiting for Prefect's database" in caplog.text
        assert str(holder.pid) in caplog.text
    caplog.clear()
    wait_until_free(PREFECT, "Prefect")
    assert caplog.text == ""


def test_a_database_that_stays_locked_is_one_error_that_names_who_keeps_it(workspace: Path) -> None:
    with held(PREFECT) as holder, pytest.raises(LockedError) as caught:
        wait_until_free(PREFECT, "Prefect", seconds=1)
    assert "Prefect's database stayed locked for 1 s" in str(caught.value)
    assert f"process {holder.pid}" in str(caught.value)


def test_what_is_no_database_is_left_to_its_owner_to_tell(workspace: Path) -> None:
    PREFECT.parent.mkdir(parents=True)
    PREFECT.write_text("no database, but a text as long as the head of one. " * 3)
    wait_until_free(PREFECT, "Prefect")


def test_mlflow_shows_a_stage_although_its_database_was_locked_when_it_began(
    workspace: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """MLflow waits 5 s when it makes its tables: too short for a busy machine."""
    with held(MLFLOW, seconds=15):
        mirror = mirrored()
    assert mirror.ids is not None, caplog.text
    assert caplog.text == ""


def test_a_stage_goes_on_where_mlflow_stays_locked_and_says_so_in_one_line(
    workspace: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADWATER_BUSY_SECONDS", "1")
    with held(MLFLOW):
        assert mirrored().ids is None
    (line,) = caplog.text.splitlines()
    assert "MLflow does not show crawl (its database stayed locked" in line
    assert "headwater lineage sync" in line


def test_a_sync_of_a_locked_mlflow_is_one_clear_error(workspace: Path) -> None:
    mirrored()
    run_records.write_record(
        run="r2", stage="crawl", started_at=run_records.now(), output=Path("data/crawl"), params={}
    )
    script = "from flows.cli.main import main\nmain(['lineage', 'sync'])"
    for name in ("dvc.yaml", "params.yaml"):
        Path(name).write_bytes((ROOT / name).read_bytes())
    with held(MLFLOW) as holder:
        told = command(script)
    assert told.returncode == 1
    assert told.stderr.startswith("error: MLflow's database stayed locked for 1 s")
    assert f"process {holder.pid}" in told.stderr
    assert "Traceback" not in told.stderr


def command(script: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HEADWATER_BUSY_SECONDS": "1"}
    return subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False, timeout=120
    )


RUN = """
from flows.services.embedded import prefect_is_clear, prefect_server
wait = prefect_server()
wait()
print("ready", flush=True)
input()
from prefect import flow
with prefect_is_clear():
    flow(lambda: 7, name="small")()
print("went on", flush=True)
"""


@pytest.mark.e2e
def test_a_run_goes_on_when_prefects_database_was_locked_meanwhile(workspace: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", RUN], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as run:
        assert run.stdin is not None
        assert run.stdout is not None
        assert run.stdout.readline() == "ready\n"
        with held(PREFECT, seconds=12):
            run.stdin.write("\n")
            run.stdin.flush()
            assert run.stdout.readline() == "went on\n"


def test_a_run_does_not_start_beside_a_database_that_stays_locked(workspace: Path) -> None:
    with held(PREFECT):
        told = command(
            "from flows.cli.main import main\nfrom flows.services.embedded import prefect_server\nprefect_server()"
        )
    assert "LockedError: Prefect's database stayed locked for 1 s" in told.stderr
    assert not Path(".headwater/logs/prefect-run.log").exists(), "no server was started"
