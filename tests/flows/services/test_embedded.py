from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from flows.services import embedded as services
from flows.services.access import HOST, Services, running_services
from flows.services.embedded import ServiceError, embedded_services, free_port
from tasks.contracts.errors import LockedError
from tests.conftest import ROOT

START = """
import sys, time
from flows.services.embedded import embedded_services
with embedded_services(prefect_port=int(sys.argv[1]), mlflow_port=int(sys.argv[1]), worker=False) as running:
    print("up", flush=True)
    running.wait()
"""

# A service that does not end when it is asked to, with a child in a session of its own.
STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
open(sys.argv[1], "w").close()
time.sleep(600)
"""
OWNER = """
import os, sys, time
from flows.services import embedded as services
services.STOP_SECONDS = 1.0
with services._warden() as start:
    start("stubborn", [sys.executable, "-c", sys.argv[1], sys.argv[2]], os.environ)
    time.sleep(600)
"""


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    """Another program that listens on a port of the loopback."""
    with socket.create_server((HOST, 0)) as server:
        yield server


def write_services(workspace: Path, pid: int, started: float) -> Services:
    made = Services(prefect="http://127.0.0.1:1", mlflow="http://127.0.0.1:2", pid=pid, pid_started=started)
    path = workspace / ".headwater" / "services.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(made.model_dump()))
    return made


def test_a_port_that_another_program_holds_is_passed_over(listening: socket.socket) -> None:
    port = listening.getsockname()[1]
    assert port < free_port(port) < port + 100
    free = free_port(port)
    assert free_port(port, taken={free}) > free


def test_no_free_port_is_said_with_the_range(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_socket: object, _address: object) -> None:
        raise OSError("in use")

    monkeypatch.setattr("flows.services.embedded.socket.socket.bind", refuse)
    with pytest.raises(ServiceError, match="4200 to 4299"):
        free_port(4200)


def test_services_of_a_living_process_are_found_and_not_started_twice(workspace: Path) -> None:
    written = write_services(workspace, os.getpid(), psutil.Process().create_time())
    assert running_services() == written
    with pytest.raises(LockedError, match="the services run already"), embedded_services():
        pass


def test_a_file_that_a_dead_process_left_is_no_running_service(workspace: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    write_services(workspace, ended.pid, time.time())
    assert running_services() is None


def test_a_process_id_that_is_used_again_is_no_running_service(workspace: Path) -> None:
    write_services(workspace, os.getpid(), psutil.Process().create_time() - 3600)
    assert running_services() is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"prefect": "x"}'])
def test_a_damaged_file_is_no_running_service(workspace: Path, content: str) -> None:
    (workspace / ".headwater").mkdir()
    (workspace / ".headwater" / "services.json").write_text(content)
    assert running_services() is None


def test_a_service_that_ends_at_once_is_said_with_the_end_of_its_log(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services, "_mlflow", lambda _port: [sys.executable, "-c", "raise SystemExit('no database')"])
    with (
        pytest.raises(ServiceError, match=r"(?s)mlflow ended on its own.*no database"),
        embedded_services(worker=False),
    ):
        pass
    assert running_services() is None
    assert processes_of(workspace) == []


def test_all_that_was_started_ends_when_its_owner_is_killed(workspace: Path) -> None:
    ready = workspace / "ready"
    command = [sys.executable, "-c", OWNER, STUBBORN, str(ready)]
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}) as owner:
        wait_until(ready.exists)
        assert len(processes_of(workspace)) == 4  # owner, warden, service and its child
        owner.kill()
    wait_until(lambda: not processes_of(workspace))


def test_a_new_workspace_gets_the_tables_that_set_up_made_and_an_old_one_keeps_its_history(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = workspace / ".headwater/prefect/prefect.db"
    monkeypatch.setattr(sys, "prefix", str(workspace / "venv"))
    services._copy_tables()
    assert not own.exists(), "an environment that was not made by infra/setup.sh has none: Prefect makes its own"
    made = workspace / "venv/share/headwater/prefect.db"
    made.parent.mkdir(parents=True)
    made.write_bytes(b"tables")
    services._copy_tables()
    assert own.read_bytes() == b"tables"
    own.write_bytes(b"history")
    services._copy_tables()
    assert own.read_bytes() == b"history"


@pytest.mark.e2e
def test_the_services_answer_and_leave_no_process_behind(workspace: Path, listening: socket.socket) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    # As a shell starts what ends with "&": SIGINT is ignored there until someone takes care of it.
    command = ["sh", "-c", 'trap "" INT; exec "$0" "$@"', sys.executable, "-c", START, str(listening.getsockname()[1])]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "up\n"
        running = running_services()
        assert running is not None
        assert running.pid == owner.pid
        for address in (f"{running.prefect_api}/health", f"{running.mlflow}/health"):
            with urllib.request.urlopen(address, timeout=10) as answer:
                assert answer.status == 200
        assert len(processes_of(workspace)) >= 3
        owner.send_signal(signal.SIGINT)
        assert owner.wait(timeout=30) == 0
    assert processes_of(workspace) == []
    assert running_services() is None


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def processes_of(workspace: Path) -> list[str]:
    """The command lines of all processes that have this workspace's state folder in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get("HEADWATER_STATE") == str(workspace / ".headwater"):
                found.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return found
