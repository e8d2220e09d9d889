"""All that starts DVC: its command, what it says, and what it holds to be stale."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from flows.workspace.warm import Call, start
from tasks.contracts.disk import disk_full_in, says_full
from tasks.contracts.durable_files import write_bytes
from tasks.contracts.errors import HeadwaterError
from tasks.contracts.workspace import child_environment, state_folder

logger = logging.getLogger(__name__)

DVC_MODULES = (
    "dvc.cli.parser", "dvc.repo", "dvc.cachemgr", "dvc.data_cloud", "dvc.dirs", "dvc.lock", "dvc.repo.open_repo",
    "dvc.repo.stage", "dvc.utils.strictyaml", "dvc_data.hashfile.db.local", "dvc_data.hashfile.status",
    "dulwich.client", "dulwich.porcelain", "scmrepo.git", "flufl.lock", "zc.lockfile",
)  # fmt: skip
"""What a command of DVC loads."""
DVC_CHATTER = (
    "> python",
    "Data and pipelines",
    "Updating lock file",
    "Generating lock file",
    "To enable auto staging",
    "To track the changes",
    "Use `dvc push`",
    "\t",
)
"""Lines of DVC that tell a person nothing here."""
ERROR_BEGINS = "error: "
ERROR_GOES_ON = ("  ", "ERROR: failed to reproduce")
"""How a stage's last words begin and go on, and what DVC says behind them."""
DVC_FAILED = "ERROR: failed to "
LOCK_FILE = Path("dvc.lock")
CONFLICT = b"<<<<<<<"
WRITING_SECONDS = 0.5
NOT_IN_CACHE = "not in cache"


class StageFailedError(HeadwaterError):
    """A stage ended with an error; its own message came before."""


def dvc_command() -> list[str]:
    """Return the command that starts this environment's DVC."""
    return [sys.executable, "-m", "dvc"]


def stream(command: Sequence[str], environment: Mapping[str, str], output: Path | None = None) -> Iterator[str]:
    """Run a command and yield its output by lines, standard error included.

    Args:
        output: the folder that DVC puts into its cache when the command has made it.

    Raises:
        StageFailedError: it ended with another exit code than 0.
        DiskFullError: it did, and said that there is no space left, in whatever words.
    """
    keep_lock()
    first = not LOCK_FILE.exists()
    said: list[str] = []
    process, output_of_it = _started(command, environment)
    with output_of_it:
        try:
            for line in output_of_it:
                if line.strip():
                    said = [*said[-LINES_KEPT:], line]
                    yield line.rstrip()
            code = process.wait()
        except BaseException:
            process.send_signal(signal.SIGTERM)
            raise
    if first and LOCK_FILE.is_file() and not _is_whole(LOCK_FILE.read_bytes()):
        LOCK_FILE.unlink()
    with suppress(OSError, HeadwaterError):  # the next run tries again; what is told now is why it failed
        keep_lock()
    if code != 0:
        if full := disk_full_in("".join(said), needed=_bytes_in(output) if output else None):
            raise full
        raise StageFailedError(f"{' '.join(command[2:])} ended with exit code {code}")


def _started(
    command: Sequence[str], environment: Mapping[str, str], *, errors_too: bool = True
) -> tuple[Call | subprocess.Popen[bytes], TextIO]:
    """Start a command, DVC by the warm process where there is one; return it, and what it says."""
    reading, writing = os.pipe()
    said = os.fdopen(reading, encoding="utf-8", errors="replace")
    own = len(dvc_command())
    with Path(os.devnull).open("r+b") as nothing, os.fdopen(writing, "wb") as saying:
        errors = saying if errors_too else nothing
        if [*command[:own]] == dvc_command():
            streams = (nothing.fileno(), saying.fileno(), errors.fileno())
            call = start("dvc.cli:main", command[own:], environment=environment, streams=streams)
            if call is not None:
                return call, said
        return subprocess.Popen(command, env=dict(environment), stdin=nothing, stdout=saying, stderr=errors), said


def keep_lock() -> None:
    """Keep a copy of dvc.lock; put it back where the file is broken off.

    DVC writes it in place, so a full disk or a kill in that moment leaves an empty one, with which no command of DVC
    works again. A lock that is gone was taken away by somebody, and stays so; one with the marks of a merge is theirs.

    Raises:
        StageFailedError: it is broken and no copy is kept.
        DiskFullError: there is no room for the copy.
    """
    kept = state_folder() / LOCK_FILE.name
    try:
        content = LOCK_FILE.read_bytes()
    except FileNotFoundError:
        return
    if _is_whole(content):
        if not kept.is_file() or kept.read_bytes() != content:
            write_bytes(kept, content)
        return
    time.sleep(WRITING_SECONDS)  # perhaps a `dvc repro` by hand is writing it just now
    if CONFLICT in content or not LOCK_FILE.is_file() or LOCK_FILE.read_bytes() != content:
        return
    if not kept.is_file():
        raise StageFailedError(
            "dvc.lock is broken off, by a full disk or a kill while DVC wrote it, and no copy of it is kept",
            where=str(LOCK_FILE),
            fix="`git checkout dvc.lock` where it was committed, else remove it: what is whole in data/ is found again",
        )
    write_bytes(LOCK_FILE, kept.read_bytes())
    logger.warning("dvc.lock was broken off, by a full disk or a kill: put back as it was before")


def _is_whole(lock: bytes) -> bool:
    try:
        loaded = YAML(typ="safe").load(lock)
        stages = loaded["stages"].values() if "stages" in loaded else ()
        files = [file for stage in stages for kind in ("deps", "outs") for file in stage.get(kind, ())]
        return "schema" in loaded and all("cmd" in stage for stage in stages) and all("md5" in file for file in files)
    except (YAMLError, UnicodeDecodeError, TypeError, AttributeError, LookupError):
        return False


def without_last_words(lines: Iterable[str], ending: list[str]) -> Iterator[str]:
    """Yield what a stage says but for the error that it ends with, which whoever catches it tells once.

    Args:
        ending: holds that error's lines when all have been read.

    >>> ending = []
    >>> said = ["a", "error: no", "  but: yes", "b", "error: x", "  do: y", "ERROR: failed to reproduce"]
    >>> list(without_last_words(said, ending))
    ['a', 'error: no', '  but: yes', 'b']
    >>> ending
    ['error: x', '  do: y', 'ERROR: failed to reproduce']

    Where the disk is full, DVC says so of each file that does not fit into its cache; `stream` raises that once.

    >>> list(without_last_words(["ERROR: failed to transfer 'a' - [Errno 28] No space left on device"], []))
    []
    """
    for line in lines:
        if line.startswith(DVC_FAILED) and says_full(line):
            continue
        if line.startswith(ERROR_BEGINS) or (ending and line.startswith(ERROR_GOES_ON)):
            ending.append(line)
            continue
        yield from ending
        ending.clear()
        yield line


LINES_KEPT = 50


def _bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def dvc_status() -> dict[str, list[Any]] | None:
    """Return what DVC says of each stage that is not up to date, None where it cannot say."""
    process, output = _started([*dvc_command(), "status", "--json"], child_environment(), errors_too=False)
    with output:
        said = output.read()
    process.wait()
    try:
        told: dict[str, list[Any]] = json.loads(said)
    except json.JSONDecodeError:
        logger.debug("dvc status: %s", said)
        return None
    return told


def up_to_date() -> set[str]:
    """Return the stages that need not run, as DVC says.

    Outputs that are whole, and only missing from DVC's cache, are put back into it first: else their stages would run
    again. Where nothing has run yet, DVC, which takes a second to load, is not asked.
    """
    if not LOCK_FILE.exists():
        return set()
    status = dvc_status()
    if status is None:
        return set()
    back = {name for name, changes in status.items() if put_back_into_cache(name, changes)}
    if back:
        logger.info("DVC's cache lacked %s, which is whole in data/: put back", ", ".join(sorted(back)))
    locked = YAML(typ="safe").load(LOCK_FILE).get("stages") or {}
    return {name for name in locked if name not in status or name in back}


def put_back_into_cache(stage: str, changes: Sequence[Any]) -> bool:
    """Give DVC's cache the output of a stage that lacks nothing else; return whether that was done.

    `dvc commit` compares the output with dvc.lock and, not forced, refuses where anything else is not as it says.
    """
    states = [state for change in changes for state in change.get("changed outs", {"": ""}).values()]
    if not states or any(state != NOT_IN_CACHE for state in states):
        return False
    done = subprocess.run(
        [*dvc_command(), "commit", stage], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode:
        if full := disk_full_in(done.stderr):
            raise full
        logger.debug("dvc commit %s: %s", stage, done.stderr)
    return done.returncode == 0
