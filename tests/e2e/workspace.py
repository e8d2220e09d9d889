"""A workspace like a fresh clone, made small by the profile `tiny`, in which whole runs take a minute."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from flows.workspace.graph import load_graph
from tasks.contracts.manifest import Manifest, manifest_hash, read_manifest
from tests.conftest import ROOT
from tests.e2e.ports import Port, opened_by

BIN = Path(sys.executable).parent
VENV = Path(sys.prefix)
STAGES = tuple(load_graph())
COMMAND_TIMEOUT_SECONDS = 1700

# Runs of the flow by one process, as `headwater run` starts it, with one Prefect server, one mirror and one Ray session
# for all of them. Each line of the input is a run's arguments; each is answered by what it said and a last line.
RUNS = """
import json, logging, os, sys
logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"
from flows.services.embedded import prefect_server
wait = prefect_server()
from flows.pipeline.flow import pipeline, started_services
from flows.pipeline.stage_run import RUN_VARIABLE
until = sys.argv[1]
with started_services(until):
    wait()
    for line in sys.stdin:
        os.environ.pop(RUN_VARIABLE, None)
        state = pipeline(until=until, return_state=True, **json.loads(line))
        print("ended: " + state.type.value, flush=True)
"""


@dataclass(frozen=True, slots=True)
class FirstRun:
    """The one `make run` of a test session, in a workspace that nobody changes: tests take copies of it.

    Attributes:
        code: its exit code.
        printed: all that it printed.
        opened: the ports that were open at some time of it.
    """

    folder: Path
    code: int
    printed: str
    opened: tuple[Port, ...]

    @classmethod
    def make(cls, folder: Path) -> FirstRun:
        """Run the pipeline in a new workspace."""
        workspace = Workspace.clone(folder)
        workspace.run("headwater", "params", "apply", "tiny")
        log = folder.with_suffix(".log")
        with (
            log.open("w") as stream,
            subprocess.Popen(
                ["make", "run"],
                cwd=folder,
                env=workspace.environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                text=True,
            ) as process,
        ):
            opened = opened_by(process)
        return cls(folder, process.returncode, log.read_text(), opened)

    @classmethod
    def read(cls, path: Path) -> FirstRun:
        """Return what another process has written."""
        told = json.loads(path.read_text())
        return cls(Path(told["folder"]), told["code"], told["printed"], tuple(Port(**port) for port in told["opened"]))

    def write(self, path: Path) -> None:
        """Write it for other processes."""
        path.write_text(json.dumps(asdict(self), default=str))

    def copy(self, folder: Path) -> Workspace:
        """Return a copy of the finished workspace, for a test to change as it likes."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return Workspace(folder)


class Workspace:
    """A folder with the project's files, its own git history, and this environment as `.venv`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        inside = {name: value for name, value in os.environ.items() if not name.startswith(("HEADWATER_", "PREFECT_"))}
        self.environment = inside | {
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(folder),
            "HF_HUB_OFFLINE": "1",
        }

    @property
    def mark(self) -> Path:
        """What make asks whether the environment is set up."""
        return self.folder / ".venv" / ".setup-done"

    @classmethod
    def clone(cls, folder: Path) -> Workspace:
        """Copy what git tracks (and what it would track) into `folder`, with a mark of its own that all is set up."""
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
            cwd=ROOT,
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for name in filter(None, listed.split("\0")):
            if (ROOT / name).is_file() and name != "dvc.lock":
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, folder / name)
        made = cls(folder)
        made.mark.parent.mkdir()
        for part in VENV.iterdir():
            if part.name != made.mark.name:
                (made.mark.parent / part.name).symlink_to(part)
        made.mark.touch()
        for command in (
            ["init", "-q"],
            ["add", "-A"],
            ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "clone"],
        ):
            made.run("git", *command)
        return made

    def run(self, *command: str, code: int | None = 0) -> str:
        """Run a command here and return all that it printed; check its exit code unless `code` is None."""
        # No file is newer than this: make would set up the environment again from here, and lead it to this copy.
        if self.mark.exists():
            self.mark.touch()
        result = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=COMMAND_TIMEOUT_SECONDS,
            check=False,
        )
        assert code is None or result.returncode == code, (
            f"{command} gave {result.returncode}:\n{result.stdout[-8000:]}"
        )
        return result.stdout

    @contextmanager
    def runs(self, until: str) -> Iterator[Callable[..., str]]:
        """Give a function that runs until a stage, by one process for all calls, and returns what the run said.

        Its arguments are the flow's own.
        """
        with subprocess.Popen(
            [sys.executable, "-c", RUNS, until],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            lines, ask = process.stdout, process.stdin

            def run(**arguments: object) -> str:
                ask.write(json.dumps(arguments) + "\n")
                ask.flush()
                said: list[str] = []
                for line in lines:
                    if line.startswith("ended: "):
                        assert line == "ended: COMPLETED\n", "".join(said)
                        return "".join(said)
                    said.append(line)
                raise AssertionError("".join(said))

            try:
                yield run
            finally:
                ask.close()
                process.wait(COMMAND_TIMEOUT_SECONDS)

    def kill_when(self, command: list[str], ready: Callable[[], bool]) -> None:
        """Start a command in a process group of its own and kill -9 the whole group once `ready` says so."""
        with subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as process:
            deadline = time.monotonic() + COMMAND_TIMEOUT_SECONDS
            while not ready():
                assert process.poll() is None, "the command ended before the moment to kill it came"
                assert time.monotonic() < deadline, "the moment to kill it never came"
                time.sleep(0.02)
            os.killpg(process.pid, signal.SIGKILL)

    def manifest(self, stage: str) -> Manifest:
        """Return a stage's manifest."""
        return read_manifest(self.folder / "data" / stage)

    def hashes(self) -> dict[str, str]:
        """Return the manifest hash of every stage that has run."""
        folders = {stage: self.folder / "data" / stage for stage in STAGES}
        return {stage: manifest_hash(folder) for stage, folder in folders.items() if folder.is_dir()}

    def lock(self) -> bytes:
        """Return dvc.lock."""
        return (self.folder / "dvc.lock").read_bytes()

    def read_json(self, name: str) -> object:
        """Return a JSON file of the workspace."""
        return json.loads((self.folder / name).read_text())
