"""One finished tiny run, shared by the end-to-end tests."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.e2e.workspace import Workspace


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace in which `make run` has ended well. Tests that change it put it back."""
    workspace = Workspace.clone(tmp_path_factory.mktemp("workspace"))
    workspace.run("headwater", "params", "apply", "tiny")
    workspace.first_output = workspace.run("make", "run")  # type: ignore[attr-defined]
    return workspace


@pytest.fixture
def fresh(finished: Workspace, tmp_path: Path) -> Workspace:
    """A workspace that has only the finished one's crawl snapshot: no other data, no DVC or shard cache."""
    workspace = Workspace.clone(tmp_path / "clone")
    shutil.copy2(finished.folder / "params.yaml", workspace.folder / "params.yaml")
    shutil.copytree(finished.folder / "data" / "crawl", workspace.folder / "data" / "crawl")
    workspace.run("dvc", "commit", "--force", "crawl")
    return workspace
