"""A run that is killed and stopped, in whatever stage, goes on by the same command and ends with the same bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest

from tests.e2e.workspace import Workspace

pytestmark = pytest.mark.e2e


def test_killed_stopped_and_killed_again_it_ends_with_the_same_bytes(finished: Workspace, fresh: Workspace) -> None:
    def a_shard_is_done() -> bool:
        shards = fresh.folder / ".headwater" / "shards"
        return shards.is_dir() and any(shards.glob("*/_shard.json"))

    def a_checkpoint_is_done() -> bool:
        progress = fresh.folder / ".headwater" / "train" / "progress.jsonl"
        return progress.exists() and progress.read_text().count("\n") > 12

    fresh.kill_when(["headwater", "run"], a_shard_is_done)
    assert "extract" not in fresh.hashes()
    stop_in_train(fresh)
    assert "tokenize" in fresh.hashes()
    fresh.kill_when(["headwater", "run"], a_checkpoint_is_done)
    assert "train" not in fresh.hashes()
    printed = fresh.run("headwater", "run")
    assert "data/release" in printed
    assert fresh.hashes() == finished.hashes()


def stop_in_train(workspace: Workspace) -> None:
    """Run, and end the run by Ctrl-C as soon as the stage train is at work: it ends at once and says how to go on."""
    log = workspace.folder / "interrupted.log"
    with (
        log.open("w") as stream,
        subprocess.Popen(
            ["headwater", "run"],
            cwd=workspace.folder,
            env=workspace.environment,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        ) as process,
    ):
        while "Running stage 'train'" not in log.read_text():
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        time.sleep(1)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(60) == 130, log.read_text()
    assert "to go on from here" in log.read_text()
