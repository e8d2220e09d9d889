"""What every test shares: an empty workspace folder, and quiet libraries."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples each time, so that a change is judged by what it changed; `make fuzz` looks for new ones.
settings.register_profile("fixed", derandomize=True)
settings.load_profile("fixed")

os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("DVC_NO_ANALYTICS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder as the current one, with its own state folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADWATER_STATE", str(tmp_path / ".headwater"))
    return tmp_path


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take minutes, so that the many that take seconds fill the workers' time at the end."""
    items.sort(key=lambda item: "e2e" not in item.keywords)
