"""One finished tiny run, shared by the end-to-end tests of all workers."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path

import pytest

from tests.e2e.workspace import FirstRun, Workspace


@pytest.fixture(scope="session")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> FirstRun:
    """The run that whichever worker asks first makes, while the other one waits for it."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    told = shared / "first_run.json"
    with (shared / "first_run.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not told.exists():
            FirstRun.make(shared / "first_run").write(told)
    run = FirstRun.read(told)
    assert run.code == 0, f"`make run` gave {run.code}:\n{run.printed[-8000:]}"
    return run


@pytest.fixture(scope="session")
def finished(first_run: FirstRun, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace in which `make run` has ended well. Tests that change it put it back."""
    return first_run.copy(tmp_path_factory.mktemp("finished") / "workspace")


@pytest.fixture
def fresh(first_run: FirstRun, tmp_path: Path) -> Workspace:
    """A workspace that has only the finished one's crawl snapshot: no other data, no DVC or shard cache."""
    workspace = Workspace.clone(tmp_path / "clone")
    shutil.copy2(first_run.folder / "params.yaml", workspace.folder / "params.yaml")
    shutil.copytree(first_run.folder / "data" / "crawl", workspace.folder / "data" / "crawl")
    workspace.run("dvc", "commit", "--force", "crawl")
    return workspace


@pytest.fixture(scope="module")
def reader(first_run: FirstRun, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A copy of the finished workspace, with a WARC file of the reader's own."""
    workspace = first_run.copy(tmp_path_factory.mktemp("reader") / "workspace")
    parts = sorted((workspace.folder / "data" / "crawl").glob("part-*.warc.gz"))
    (workspace.folder / "pages.warc.gz").write_bytes(b"".join(part.read_bytes() for part in parts))
    return workspace
