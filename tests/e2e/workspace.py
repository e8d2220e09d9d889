"""A workspace like a fresh clone, made small by the profile `tiny`, in which whole runs take a minute or two."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from flows.workspace.graph import load_graph
from tasks.contracts.manifest import Manifest, manifest_hash, read_manifest
from tests.conftest import ROOT

BIN = Path(sys.executable).parent
VENV = Path(sys.prefix)
STAGES = tuple(load_graph())
PATIENCE = 1700


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

    @classmethod
    def clone(cls, folder: Path) -> Workspace:
        """Copy what git tracks (and what it would track) into `folder`."""
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
                shutil.copy2(ROOT / name, folder / name)
        (folder / ".venv").symlink_to(VENV)
        made = cls(folder)
        for command in (
            ["init", "-q"],
            ["add", "-A"],
            ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "clone"],
        ):
            made.run("git", *command)
        return made

    def run(self, *command: str, code: int | None = 0) -> str:
        """Run a command here and return all that it printed; check its exit code unless `code` is None."""
        result = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert code is None or result.returncode == code, (
            f"{command} gave {result.returncode}:\n{result.stdout[-8000:]}"
        )
        return result.stdout

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
            deadline = time.monotonic() + PATIENCE
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
