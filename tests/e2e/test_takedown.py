"""A takedown in a finished workspace: the texts and their copies are gone, and nothing else was made again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.check_takedown import LATER, drill
from tests.e2e.workspace import FirstRun

pytestmark = pytest.mark.e2e


def test_what_is_taken_down_leaves_every_later_shard(first_run: FirstRun, tmp_path: Path) -> None:
    workspace = first_run.copy(tmp_path / "workspace")
    found = drill(workspace.folder, 3, "mix", environment=workspace.environment)
    assert found.grams > 100
    assert not any(found.left[stage] for stage in LATER), found.left
    assert found.rules["takedown"] >= 6, "the pages and their exact copies"
    assert found.rules["takedown_near"] >= 3, "the near copies"
    held, parts = found.held["extract"]
    assert found.changed["extract"][0] <= held < parts
    assert found.hits["extract"] == parts - found.changed["extract"][0]
    assert found.marked == 1
