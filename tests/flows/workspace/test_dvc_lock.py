"""dvc.lock, which DVC writes in place: a full disk or a kill that breaks it off does not end the workspace."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest

from flows.workspace.dvc import StageFailedError, keep_lock, stream

LOCK = """schema: '2.0'
stages:
  crawl:
    cmd: python -m flows crawl
    deps:
    - path: tasks/crawl
      hash: md5
      md5: 0c1d4d1a.dir
    outs:
    - path: data/crawl
      hash: md5
      md5: 5b0a4ff0.dir
"""
MORE = f"{LOCK}  extract:\n    cmd: python -m flows extract\n"
BROKEN = ["", "\n", "schema: '2.0'\nstages:\n  crawl:\n", "schema: '2.0'\nsta", LOCK[:-23], "schema: [", "\x01" * 9]
WRITES = "import pathlib, sys; pathlib.Path('dvc.lock').write_text(sys.argv[1]); sys.exit(int(sys.argv[2]))"


def run(content: str, code: int = 0) -> None:
    list(stream([sys.executable, "-c", WRITES, content, str(code)], {}))


@pytest.mark.parametrize("broken", BROKEN, ids=repr)
def test_a_lock_that_is_broken_off_is_put_back(workspace: Path, broken: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    lock = workspace / "dvc.lock"
    run(LOCK)
    run(MORE)
    with pytest.raises(StageFailedError):
        run(broken, code=1)
    assert lock.read_text() == MORE
    lock.write_text(broken)  # by a process that was killed with this one
    keep_lock()
    assert lock.read_text() == MORE
    assert "dvc.lock" in caplog.text


def test_a_lock_that_is_whole_or_gone_is_left_as_it_is(workspace: Path) -> None:
    lock = workspace / "dvc.lock"
    run(MORE)
    lock.write_text(LOCK)  # git checkout
    keep_lock()
    assert lock.read_text() == LOCK
    lock.unlink()
    keep_lock()
    assert not lock.exists()


def test_a_first_lock_that_is_broken_off_goes_away_again(workspace: Path) -> None:
    with pytest.raises(StageFailedError, match="exit code 1"):
        run("", code=1)
    assert not (workspace / "dvc.lock").exists()
    run(LOCK)


def test_a_lock_that_a_merge_left_in_conflict_is_its_owners(workspace: Path) -> None:
    run(LOCK)
    conflict = f"{LOCK}<<<<<<< HEAD\n=======\n>>>>>>> other\n"
    (workspace / "dvc.lock").write_text(conflict)
    keep_lock()
    assert (workspace / "dvc.lock").read_text() == conflict


def test_a_broken_lock_of_which_nothing_is_kept_is_an_error_that_says_what_to_do(workspace: Path) -> None:
    (workspace / "dvc.lock").write_text("")
    with pytest.raises(StageFailedError, match=r"dvc\.lock"):
        run(LOCK)
    assert (workspace / "dvc.lock").read_text() == ""
