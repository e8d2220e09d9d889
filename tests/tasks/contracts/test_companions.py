"""A process beside a run leaves nothing behind, also where the run was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.contracts import companions
from tasks.contracts.companions import companion
from tasks.contracts.workspace import child_environment

VARIABLE = "HEADWATER_TESTED"
KILLED = f"""
import os, signal
from tasks.contracts.companions import companion
with companion("this", variable={VARIABLE!r}, environment=os.environ):
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary folder of a short name, where no other run is at work."""
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)


def test_the_folder_of_a_run_that_was_killed_goes_with_the_next_and_that_of_one_at_work_stays(place: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED], env=child_environment(), check=False)
    assert killed.returncode == -signal.SIGKILL
    (left,) = place.iterdir()
    (other := place / f"{left.name}-other").mkdir()
    with companion("this", variable=VARIABLE, environment=os.environ):
        own = Path(os.environ[VARIABLE]).parent
        assert not left.exists()
        with companion("this", variable=f"{VARIABLE}_TOO", environment=os.environ):
            assert Path(os.environ[VARIABLE]).is_socket()
        assert {*place.iterdir()} == {own, other}, "without a socket it is no other run's, or that run just begins"
    assert VARIABLE not in os.environ
    assert {*place.iterdir()} == {other}


def test_where_temporary_files_have_a_long_path_the_socket_has_a_short_one(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (long := place / ("job-" * 30)).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    monkeypatch.setattr(companions, "SHORT_PLACE", place)
    with companion("this", variable=VARIABLE, environment=os.environ):
        assert Path(os.environ[VARIABLE]).parent.parent == place
