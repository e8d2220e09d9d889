"""A run from a form is a try-out until it ends well: else params.yaml and data/ are again as they were before it.

A schedule uses what stands in params.yaml and data/. If a try-out that failed, was cancelled or was killed left its
settings there, the next night would go on with them, over what it had already taken away (DVC removes a stage's output
before the stage runs).

So params.yaml, dvc.lock (in `.headwater/tryout/`) and every stage's folder (in `data/.before/`, by hard links, which
take no space) are kept while such a run is at work. A run that dies without a word is undone by whoever starts next. On
the command line, what a person typed stays.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from flows.history.run_records import RUN_VARIABLE
from flows.pipeline import snapshot
from flows.workspace.dvc import LOCK_FILE
from flows.workspace.graph import Stage, load_graph
from flows.workspace.locks import workspace_lock
from flows.workspace.params import PARAMS_FILE, read_params
from flows.workspace.params_text import with_changes
from tasks.contracts.durable_files import write_bytes, write_json
from tasks.contracts.errors import LockedError
from tasks.contracts.workspace import state_folder
from training.champions import link_or_copy

logger = logging.getLogger(__name__)

MARK = "_tryout.json"
"""Written last and removed first: without it nothing was begun."""
STOP_SECONDS = 10.0
"""How long what a run started may take to end by itself. Prefect gives a cancelled run 30 s in all."""


@contextmanager
def undone_unless_it_ends_well(run: str, changes: Mapping[str, Any], say: Callable[[str], object]) -> Iterator[None]:
    """Keep what stands here while the block runs, and put it back when the block ends in any way but well.

    Args:
        run: the run's name, by which all that it started is known.
        changes: what it is about to change in params.yaml.
        say: tells the person who looks at this run.
    """
    _keep(run, changes)
    try:
        yield
    except BaseException:
        try:
            _undo()
        except Exception as error:
            logger.exception("params.yaml and data/ cannot be put back")
            say(f"params.yaml and data/ cannot be put back now ({error}); the next start here tries again")
        else:
            say("params.yaml and data/ are again as they were before this run")
        raise
    _forget()


def undo_killed() -> bool:
    """Put back what a killed run changed, where there was one; return whether there was.

    For whoever starts something in this workspace, before it reads params.yaml or data/. A run that is at work, and
    what it started, are left alone.
    """
    if not _mark().exists() or os.environ.get(RUN_VARIABLE) == _told()["run"]:
        return False
    try:
        with workspace_lock("run"):
            return undo_killed_under_lock()
    except LockedError:
        return False


def undo_killed_under_lock() -> bool:
    """Do as `undo_killed` does, for who holds the run's lock."""
    if not _mark().exists():
        return False
    run = _told()["run"]
    _undo()
    logger.info("the run %s, started from a form, was killed: params.yaml and data/ are as they were before it", run)
    return True


def _folder() -> Path:
    return state_folder() / "tryout"


def _kept(stage: Stage) -> Path:
    """Return where a stage's folder is kept: beside it, so that it comes back in one step on any file system."""
    return stage.output.parent / ".before" / stage.output.name


def _mark() -> Path:
    return _folder() / MARK


def _told() -> dict[str, Any]:
    told: dict[str, Any] = json.loads(_mark().read_bytes())
    return told


def _keep(run: str, changes: Mapping[str, Any]) -> None:
    _forget()
    read_params()  # says clearly what is wrong with the file
    before = PARAMS_FILE.read_bytes()
    write_bytes(_folder() / "before.yaml", before)
    write_bytes(_folder() / "after.yaml", with_changes(before.decode(), changes).encode())
    if LOCK_FILE.exists():
        write_bytes(_folder() / LOCK_FILE, LOCK_FILE.read_bytes())
    stood = [stage for stage in load_graph().values() if stage.output.is_dir()]
    for stage in stood:
        shutil.copytree(stage.output, _kept(stage), symlinks=True, copy_function=link_or_copy)
    write_json(_mark(), {"run": run, "stages": [stage.name for stage in stood], "locked": LOCK_FILE.exists()})


def _undo() -> None:
    """Put everything back; may be killed and begun again at any moment."""
    told = _told()
    _end_all_of(told["run"])
    for stage in load_graph().values():
        stood = stage.name in told["stages"]
        if stood and not _kept(stage).exists():
            continue  # an undo that was killed had put it back
        if not stage.inputs:
            snapshot.take_back(stage, _kept(stage) if stood else None)
            continue
        if stage.output.exists():
            shutil.rmtree(stage.output)
        if stood:
            _kept(stage).rename(stage.output)
    if told["locked"]:
        write_bytes(LOCK_FILE, (_folder() / LOCK_FILE).read_bytes())
    else:
        LOCK_FILE.unlink(missing_ok=True)
    _undo_settings(_folder() / "before.yaml", _folder() / "after.yaml")
    _forget()


def _undo_settings(before: Path, after: Path) -> None:
    """Take back what the run changed in params.yaml, and leave what a person has changed there since."""
    now = PARAMS_FILE.read_bytes() if PARAMS_FILE.exists() else after.read_bytes()
    if now == before.read_bytes():
        return
    if now == after.read_bytes():
        write_bytes(PARAMS_FILE, before.read_bytes())
        return
    # The person's lines count where both changed the same ones.
    merge = ["git", "merge-file", "--ours", "--stdout", str(PARAMS_FILE), str(after), str(before)]
    merged = subprocess.run(merge, capture_output=True, check=False)
    if merged.returncode or not _is_yaml(merged.stdout):
        logger.warning(
            "params.yaml was edited after the run had changed it, and is left as it is; before the run it was: %s",
            shutil.copyfile(before, PARAMS_FILE.with_suffix(".before.yaml")),
        )
        return
    write_bytes(PARAMS_FILE, merged.stdout)
    logger.info("params.yaml was edited after the run had changed it: the edit stays")


def _is_yaml(text: bytes) -> bool:
    try:
        return isinstance(YAML(typ="safe", pure=True).load(text), dict)
    except YAMLError:
        return False


def _end_all_of(run: str) -> None:
    """End what a run started and what may have outlived it: it would go on writing into data/."""
    own = psutil.Process()
    spared = {own.pid, *(process.pid for process in own.parents())}
    left = [process for process in psutil.process_iter() if process.pid not in spared and _belongs(process, run)]
    for process in left:
        _signal(process.terminate)
    for process in psutil.wait_procs(left, timeout=STOP_SECONDS)[1]:
        _signal(process.kill)
    psutil.wait_procs(left, timeout=STOP_SECONDS)


def _belongs(process: psutil.Process, run: str) -> bool:
    try:
        return process.environ().get(RUN_VARIABLE) == run
    except (psutil.Error, OSError):
        return False


def _signal(send: Callable[[], object]) -> None:
    try:
        send()
    except psutil.Error:
        logger.debug("it has ended", exc_info=True)


def _forget() -> None:
    _mark().unlink(missing_ok=True)
    shutil.rmtree(_folder(), ignore_errors=True)
    for folder in {_kept(stage).parent for stage in load_graph().values()}:
        shutil.rmtree(folder, ignore_errors=True)
