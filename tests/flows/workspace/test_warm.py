"""A command of a run is the same in a fork of the warm process as on its own: streams, exit codes, signals, code."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import psutil
import pytest

from flows.workspace.dvc import StageFailedError, dvc_command, stream
from flows.workspace.warm import Call, start, warm_process
from tasks.contracts.workspace import IMPORT_PATH, child_environment

CALLED = """
import os, signal, sys, time
def answer(words):
    print(*words, os.environ.get("OF_THIS_CALL"), os.getcwd(), os.getpid(), sys.stdin.read())
    sys.stderr.write("beside\\n")
def fail(words):
    return 3
def leave(words):
    sys.exit("a reason")
def break_off(words):
    raise ValueError("a bug")
def die(words):
    os.kill(os.getpid(), signal.SIGKILL)
def stay(words):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    print("there", flush=True)
    time.sleep(60)
"""
THROUGH = "from flows.workspace.warm import call_and_exit; call_and_exit('called:{}', []); print('as usual'); exit(9)"


@pytest.fixture
def warm(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (workspace / "called.py").write_text(CALLED)
    monkeypatch.setenv(IMPORT_PATH, os.pathsep.join([str(workspace), *filter(None, [os.environ.get(IMPORT_PATH)])]))
    with warm_process(["called", "no_such_module"], child_environment()):
        yield


def call(name: str, path: Path, given: bytes = b"") -> Call:
    """Have a function of `called` called, its output and error written to a file."""
    (path.parent / "given").write_bytes(given)
    with path.open("wb") as said, (path.parent / "given").open("rb") as stdin:
        environment = child_environment({"OF_THIS_CALL": "yes"})
        streams = (stdin.fileno(), said.fileno(), said.fileno())
        made = start(f"called:{name}", ["a", "b"], environment=environment, streams=streams)
    assert made is not None
    return made


def through(name: str) -> subprocess.Popen[str]:
    """Start a process that has a function called for it."""
    return subprocess.Popen(
        [sys.executable, "-c", THROUGH.format(name)], env=child_environment(), stdin=-3, stdout=-1, stderr=-2, text=True
    )


def test_streams_environment_and_folder_are_of_whoever_asks(warm: None, workspace: Path) -> None:
    said = workspace / "said"
    made = call("answer", said, b"given")
    assert made.wait() == 0
    assert said.read_text().split() == ["a", "b", "yes", str(workspace), str(made.pid), "given", "beside"]


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [("fail", 3, ""), ("leave", 1, ""), ("break_off", 1, "ValueError: a bug"), ("die", -9, "")],
)
def test_a_call_ends_as_a_process_does(warm: None, workspace: Path, name: str, code: int, said: str) -> None:
    assert call(name, workspace / "said").wait() == code
    assert said in (workspace / "said").read_text()
    process = through(name)
    assert said in process.communicate(timeout=60)[0]
    assert process.returncode == code


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_the_call_and_ends_whoever_waits_for_it(warm: None, number: signal.Signals) -> None:
    process = through("stay")
    assert process.stdout is not None
    assert process.stdout.readline() == "there\n"
    (fork,) = [one for child in psutil.Process().children() for one in child.children()]
    # Ctrl-C comes to all of a terminal's group; SIGTERM is passed on.
    (os.kill if number == signal.SIGINT else lambda _, sent: process.send_signal(sent))(fork.pid, number)
    process.communicate(timeout=60)
    assert process.returncode == (1 if number == signal.SIGINT else -number)
    assert not psutil.pid_exists(fork.pid)


def test_what_is_at_work_outlives_the_block_and_the_warm_process_does_not_outlive_it(workspace: Path) -> None:
    (workspace / "called.py").write_text(CALLED)
    with warm_process([], child_environment({IMPORT_PATH: f"{workspace}{os.pathsep}{Path(__file__).parents[3]}"})):
        made = call("stay", workspace / "said")
        server = psutil.Process(made.pid).parent()
        assert server is not None
    assert psutil.pid_exists(made.pid)
    made.send_signal(signal.SIGTERM)
    assert made.wait() == -signal.SIGTERM
    psutil.wait_procs([server], timeout=30)
    assert not server.is_running() or server.status() == psutil.STATUS_ZOMBIE


def test_a_signal_that_comes_as_soon_as_the_process_is_known_is_not_lost(workspace: Path) -> None:
    (workspace / "called.py").write_text(CALLED)
    with warm_process([], child_environment({IMPORT_PATH: f"{workspace}{os.pathsep}{Path(__file__).parents[3]}"})):
        for _ in range(20):
            environment = {**os.environ, IMPORT_PATH: str(workspace)}
            with (workspace / "said").open("w") as said:
                made = start("called:stay", [], environment=environment, streams=(0, said.fileno(), said.fileno()))
            assert made is not None
            made.send_signal(signal.SIGTERM)
            assert made.wait() == -signal.SIGTERM


def test_without_a_warm_process_or_with_other_code_a_command_is_started_as_usual(workspace: Path) -> None:
    process = through("answer")
    assert process.communicate(timeout=60)[0] == "as usual\n"
    assert process.returncode == 9
    for name in ("flows", "tasks"):
        shutil.copytree(Path(__file__).parents[3] / name, workspace / name, ignore=shutil.ignore_patterns("*.pyc"))
    script = """
import os, pathlib, sys
from flows.workspace.warm import ROOT, start, warm_process
assert ROOT == pathlib.Path.cwd()
with warm_process([], os.environ):
    print(start("builtins:len", [], environment=os.environ).wait())
    pathlib.Path("tasks/contracts/urls.py").touch()
    print(start("builtins:len", [], environment=os.environ))
"""
    environment = {**os.environ, IMPORT_PATH: str(workspace)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["0", "None"], done.stderr


def test_dvc_says_the_same_in_a_fork(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    subprocess.run([*dvc_command(), "init", "-q", "--no-scm"], check=True)
    Path("dvc.yaml").write_text("stages:\n  a: {cmd: echo made; mkdir out, outs: [out]}\n  b: {cmd: exit 4}\n")

    def repro(name: str) -> list[str]:
        said = []
        with pytest.raises(StageFailedError) if name == "b" else nullcontext():
            said += list(stream([*dvc_command(), "repro", "--single-item", "--force", name], child_environment()))
        return said

    usual = [repro("a"), repro("b")]
    with warm_process(["dvc.cli.parser"], child_environment()):
        forked = [repro("a"), repro("b")]
    assert [[line for line in said if "lock" not in line] for said in forked] == [
        [line for line in said if "lock" not in line] for said in usual
    ]
    assert "made" in forked[0]
