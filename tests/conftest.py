"""What every test shares: an empty workspace folder, and quiet libraries."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples each time, so that a change is judged by what it changed; `make fuzz` looks for new ones.
settings.register_profile("fixed", derandomize=True)
settings.load_profile("fixed")

# `make test` must not show in what a `make` of a test says.
for name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS"):
    os.environ.pop(name, None)
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("DVC_NO_ANALYTICS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# PyTorch's threads wait for each other at full speed, and beside other tests for processors that are not free: models
# of some kilobytes take half as long again.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

ROOT = Path(__file__).resolve().parents[1]

SLOW = tuple(
    ROOT / name
    for name in (
        "tests/bench",
        "tests/flows/cli/test_diff.py",
        "tests/flows/cli/test_face.py",
        "tests/flows/cli/test_init.py",
        "tests/flows/cli/test_missing.py",
        "tests/flows/cli/test_plan.py",
        "tests/flows/cli/test_policy.py",
        "tests/flows/cli/test_sign.py",
        "tests/flows/cli/test_takedown.py",
        "tests/flows/history/test_output_filter.py",
        "tests/flows/history/test_trace_index.py",
        "tests/flows/mlflow",
        "tests/flows/pipeline/test_due.py",
        "tests/flows/pipeline/test_preflight.py",
        "tests/flows/pipeline/test_small_corpus.py",
        "tests/flows/pipeline/test_snapshot.py",
        "tests/flows/pipeline/test_stage_run.py",
        "tests/flows/pipeline/test_tryout.py",
        "tests/flows/proof/test_trace.py",
        "tests/flows/proof/test_trace_output.py",
        "tests/flows/services/test_databases.py",
        "tests/flows/services/test_embedded.py",
        "tests/flows/services/test_guard.py",
        "tests/flows/services/test_openai_server.py",
        "tests/flows/test_entry_points.py",
        "tests/flows/test_no_network.py",
        "tests/flows/test_output.py",
        "tests/flows/workspace/test_form.py",
        "tests/flows/workspace/test_params_writer.py",
        "tests/flows/workspace/test_secret_urls.py",
        "tests/fuzz",
        "tests/hostile",
        "tests/tasks/contracts/test_bodies.py",
        "tests/tasks/crawl/test_certificates.py",
        "tests/tasks/crawl/test_common_crawl.py",
        "tests/tasks/crawl/test_credentials.py",
        "tests/tasks/crawl/test_frontier.py",
        "tests/tasks/crawl/test_hostile_servers.py",
        "tests/tasks/crawl/test_ingest.py",
        "tests/tasks/crawl/test_odd_texts.py",
        "tests/tasks/crawl/test_politeness.py",
        "tests/tasks/crawl/test_sites.py",
        "tests/tasks/crawl/test_work_units.py",
        "tests/tasks/crawl/test_zstd_archives.py",
        "tests/tasks/dedup/test_out_of_core.py",
        "tests/tasks/dedup/test_stage.py",
        "tests/tasks/engine",
        "tests/tasks/extract/test_hostile_pages.py",
        "tests/tasks/extract/test_selectors.py",
        "tests/tasks/extract/test_stage.py",
        "tests/tasks/extract/test_worker.py",
        "tests/tasks/filter/test_broken.py",
        "tests/tasks/filter/test_same_as_datatrove.py",
        "tests/tasks/filter/test_thresholds.py",
        "tests/tasks/perplexity/test_stage.py",
        "tests/tasks/rights/test_evidence.py",
        "tests/test_dependencies.py",
        "tests/test_one_owner.py",
        "tests/test_pins.py",
        "tests/training/adapt/test_tuning.py",
        "tests/training/evaluate",
        "tests/training/plan/test_memory.py",
        "tests/training/release/test_hostile_release.py",
        "tests/training/release/test_release_use.py",
        "tests/training/release/test_verify.py",
        "tests/training/train/test_continued.py",
        "tests/training/train/test_dry_run.py",
        "tests/training/train/test_fixed_order.py",
        "tests/training/train/test_machines.py",
        "tests/training/train/test_model.py",
        "tests/training/train/test_optimizers.py",
        "tests/training/train/test_resident.py",
        "tests/training/train/test_resume.py",
        "tests/training/train/test_stops.py",
        "tests/training/train/test_strategies.py",
        "tests/training/train/test_trained_and_loaded.py",
    )
)
"""Folders and files that take more than ten seconds of a processor: begun first, and left out by `make test-fast`."""

LONGEST = tuple(
    ROOT / "tests/e2e" / f"{name}.py"
    for name in (
        "test_docs",
        "test_snapshot",
        "test_interrupted",
        "test_walkthrough",
        "test_wheel",
        "test_contributing",
        "test_adapt",
        "test_pipeline",
        "test_tryout",
        "test_dvc_alone",
    )
)
"""The longest files first, so that no worker is left alone with one. Each takes minutes; the second one needs no
finished run, which the worker with the first one makes meanwhile."""


@pytest.fixture(scope="session", autouse=True)
def quick_disk() -> Iterator[None]:
    """Let nothing in this process wait until the disk has its bytes: no test cuts the power."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fstat)
        yield


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder as the current one, with its own state folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADWATER_STATE", str(tmp_path / ".headwater"))
    return tmp_path


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with whole runs, then what is slow: the many files of a second fill the workers' time at the end."""
    if gone := [str(path) for path in (*SLOW, *LONGEST) if not path.exists()]:
        raise pytest.UsageError(f"tests/conftest.py names what is not there: {', '.join(gone)}")
    for item in items:
        if not item.get_closest_marker("e2e") and {item.path, *item.path.parents}.intersection(SLOW):
            item.add_marker("slow")
    items.sort(key=_rank)


def _rank(item: pytest.Item) -> tuple[int, int]:
    if item.path in LONGEST:
        return 0, LONGEST.index(item.path)
    return (1 if item.get_closest_marker("e2e") else 2 if item.get_closest_marker("slow") else 3), 0
