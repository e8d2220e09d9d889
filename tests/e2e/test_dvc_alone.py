"""The stages through DVC alone, without a run around them."""

from __future__ import annotations

import pytest

from tests.e2e.workspace import Workspace

pytestmark = pytest.mark.e2e


def test_dvc_alone_rebuilds_all_but_the_crawl_to_the_same_lock_on_one_processor(
    finished: Workspace, fresh: Workspace
) -> None:
    """`dvc repro` and `headwater run` are the same stages: same bytes, whatever the number of processors."""
    settings = fresh.folder / "params.yaml"
    settings.write_text(settings.read_text().replace("num_cpus: null", "num_cpus: 1"))
    fresh.run("dvc", "repro")
    assert fresh.lock() == finished.lock()
