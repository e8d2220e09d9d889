"""The Ray session of a run: nobody starts it who does not ask, and all who ask join the same one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tasks.contracts.errors import HeadwaterError
from tasks.engine import hosted, session
from tasks.engine.host import ray_host
from tasks.engine.session import RayParams, ray_on_demand, session_is_near

JOIN = """
import os
from tasks.engine.session import RayParams, ray_session
with ray_session(RayParams()):
    import ray
    token = os.environ["RAY_AUTH_TOKEN"]
    print(ray.get_runtime_context().gcs_address, int(ray.cluster_resources()["CPU"]), token)
"""


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        monkeypatch.delenv(name)


def tree() -> list[str]:
    return [process.name() for process in psutil.Process().children(recursive=True)]


def addresses(process: psutil.Process) -> list[str]:
    with suppress(psutil.NoSuchProcess):
        return [one.laddr.ip for one in process.net_connections("inet") if one.status == psutil.CONN_LISTEN]
    return []


def test_a_session_nobody_asks_for_is_not_started(workspace: Path) -> None:
    with ray_host(RayParams(num_cpus=1).model_dump_json()):
        time.sleep(1)
        assert not [name for name in tree() if name in ("raylet", "gcs_server")]


def test_all_stages_of_a_run_join_one_session_which_ends_with_it(workspace: Path) -> None:
    said = []
    with ray_host(RayParams(num_cpus=3).model_dump_json()):
        for _ in range(2):
            done = subprocess.run([sys.executable, "-c", JOIN], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr[-4000:]
            said.append(done.stdout.split())
        assert "raylet" in tree()
        listening = {place for process in psutil.Process().children(recursive=True) for place in addresses(process)}
    assert listening
    assert listening <= {"127.0.0.1", "::ffff:127.0.0.1"}
    assert said[0] == said[1]
    address, processors, token = said[0]
    assert (address.partition(":")[0], processors, len(token)) == ("127.0.0.1", "3", 64)
    assert "raylet" not in tree()


def test_a_host_that_ends_is_an_error_of_who_asked(workspace: Path) -> None:
    with ray_host("no JSON"), pytest.raises(HeadwaterError, match="is gone"):
        hosted.hosted()


def test_a_session_that_stands_is_known_at_the_first_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosted, "_lines", [])
    monkeypatch.setattr(hosted, "ANSWER_SECONDS", 30)
    monkeypatch.setenv(hosted.VARIABLE, str(tmp_path / "ray"))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "ray"))
        listener.listen()

        def answer() -> None:
            line, _ = listener.accept()
            with line:
                line.sendall(b"{}\n")

        with ThreadPoolExecutor(1) as pool:
            pool.submit(answer)
            assert hosted.call()
            assert hosted.call()
    hosted._lines.pop().close()


def test_a_stage_goes_on_while_the_session_starts(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    near = iter([False, False, True])
    monkeypatch.setattr(session, "call", lambda: next(near))
    with ray_on_demand(RayParams()):
        assert [session_is_near() for _ in range(3)] == [False, False, True]
    assert session_is_near(), "there is nothing to wait for where none is offered"
