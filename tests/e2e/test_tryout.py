"""Runs from the form that fail, are cancelled and are killed, through Prefect and DVC; then the schedule's run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e.ports import check_ports, listening
from tests.e2e.test_foreign_page import Up, started, wait_until
from tests.e2e.workspace import FirstRun, Workspace

pytestmark = pytest.mark.e2e

UNTIL = "filter"
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
# What the person who starts `up` has set for other servers of Prefect.
OWN = {
    "PREFECT_SERVER_API_AUTH_STRING": "admin:pass-word",
    "PREFECT_API_AUTH_STRING": "someone:elsewhere",
    "PREFECT_API_URL": "http://127.0.0.1:9/api",
    "PREFECT_API_KEY": "pnu_key",
    "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "false",
    "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": "*",
    "PREFECT_CLIENT_CUSTOM_HEADERS": '{"Authorization": "Bearer x"}',
}
NOTHING_KEPT = {"rules": [{"length": {"min_words": 99_999, "max_words": 100_000}}]}


@pytest.fixture(scope="module")
def up(first_run: FirstRun, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with started(first_run.copy(tmp_path_factory.mktemp("tryout") / "workspace"), **OWN) as running:
        yield running


def test_the_users_own_prefect_settings_do_not_stop_up(up: Up) -> None:
    assert up.kept["prefect_secret"] == "admin:pass-word", "a person's own clients go on as they are"
    check_ports(listening(psutil.Process(up.process.pid)))


def start(up: Up, **settings: Any) -> str:
    """Start a run from the form, in which these settings were changed."""
    given = {"parameters": {"until": UNTIL, **({"settings": settings} if settings else {})}}
    return str(up.prefect.ask(f"/api/deployments/{up.deployment}/create_flow_run", given)["id"])


def state(up: Up, run: str) -> str:
    return next(str(one["state_type"]) for one in up.flow_runs() if one["id"] == run)


def everything(workspace: Workspace) -> dict[str, bytes]:
    files = [workspace.folder / "params.yaml", workspace.folder / "dvc.lock", *(workspace.folder / "data").rglob("*")]
    return {str(path): path.read_bytes() for path in files if path.is_file()}


def at_work_on_extract(up: Up, crawl: str) -> bool:
    hashes = up.workspace.hashes() if not (up.workspace.folder / "data/extract/_manifest.json").exists() else {}
    return "crawl" in hashes and hashes["crawl"] != crawl


def flow_process(workspace: Workspace) -> psutil.Process:
    """Return the process that runs this workspace's flow: the parent of the warm process that it has started."""
    for process in psutil.process_iter(["cmdline", "cwd"]):
        here = process.info["cwd"] == str(workspace.folder.resolve())  # others test beside this one
        if here and (process.info["cmdline"] or [])[1:3] == ["-m", "flows.workspace.warm"]:
            parent = process.parent()
            assert parent is not None
            if parent.cmdline() != process.info["cmdline"]:  # else this is a fork of it
                return parent
    raise AssertionError("no stage is at work")


def test_however_a_try_out_ends_the_schedule_goes_on_as_before(up: Up) -> None:
    workspace = up.workspace
    before, crawl = everything(workspace), workspace.hashes()["crawl"]

    failed = start(up, crawl={"max_pages": 60}, filter=NOTHING_KEPT)
    wait_until(lambda: state(up, failed) in ENDED)
    assert state(up, failed) == "FAILED"
    assert everything(workspace) == before

    cancelled = start(up, crawl={"max_pages": 61})
    wait_until(lambda: at_work_on_extract(up, crawl))
    up.prefect.ask(f"/api/flow_runs/{cancelled}/set_state", {"state": {"type": "CANCELLING"}})
    wait_until(lambda: state(up, cancelled) in ENDED)
    assert state(up, cancelled) == "CANCELLED"
    assert everything(workspace) == before

    killed = start(up, crawl={"max_pages": 62})
    wait_until(lambda: at_work_on_extract(up, crawl))
    flow_process(workspace).kill()
    wait_until(lambda: state(up, killed) in ENDED)
    assert everything(workspace) != before

    nightly = start(up)
    wait_until(lambda: state(up, nightly) in ENDED)
    assert state(up, nightly) == "COMPLETED"
    assert everything(workspace) == before
    assert not Path(workspace.folder, "data/.before").exists()

    changed = start(up, crawl={"max_pages": 63})
    wait_until(lambda: state(up, changed) in ENDED)
    assert "max_pages: 63" in (workspace.folder / "params.yaml").read_text()
    assert workspace.hashes()["crawl"] != crawl
