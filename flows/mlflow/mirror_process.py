"""The process that talks to MLflow for one stage (`python -m flows.mlflow.mirror_process`, started by `mirror.py`).

It reads two JSON lines: what begins, and how it ended. A parent that dies closes the line instead: the run is then
closed as killed. With a listening socket's number as argument it is the server of a pipeline run, which loads MLflow
once and forks for each stage that connects.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import select
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException
from sqlalchemy.orm import configure_mappers

from flows.history.chain import link_of
from flows.history.run_records import RunRecord, read_records
from flows.mlflow.registry import publish_release
from flows.mlflow.stage_runs import StageRun, experiment_id, open_client
from flows.mlflow.training_tail import TrainingTail
from flows.services.databases import LOCKED
from flows.services.tracking import tracking_uri
from flows.workspace.secret_urls import hide_secrets
from tasks.contracts.errors import ManifestError
from tasks.contracts.workspace import state_folder

logger = logging.getLogger(__name__)


def serve(listener: socket.socket) -> None:
    """Mirror the stage at the other end of each connection, in a fork, until the standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _load()
    first = os.fork()  # MLflow's database connections must not be shared with the forks that follow
    if first == 0:
        try:
            close_abandoned()
            if tracking_uri().startswith("sqlite:"):
                experiment_id(open_client())  # a new workspace's tables take a second and a half to make
        finally:
            os._exit(0)  # what fails here fails again for a stage, which says so
    os.waitpid(first, 0)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:
            return
        line, _ = listener.accept()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.dup2(line.fileno(), 0)
            os.dup2(line.fileno(), 1)
            line.close()
            listener.close()
            try:
                mirror_one()
            finally:
                logging.shutdown()
                os._exit(0)
        line.close()


def _load() -> None:
    """Import what MLflow and DVC import at their first use, a second and a half that each fork would pay again."""
    if tracking_uri().startswith("sqlite:"):
        importlib.import_module("mlflow.store.tracking.sqlalchemy_store")
        configure_mappers()
    importlib.import_module("dvc.repo")


def close_abandoned() -> None:
    """Close the runs whose mirror was killed with its stage: no other run is under way when a server starts."""
    for path in sorted(_open_runs().glob("*")):
        try:
            for run_id in (path.name, path.read_text()):
                open_client().set_terminated(run_id, "KILLED")
        except MlflowException as error:
            logger.warning("the killed run %s cannot be closed in MLflow: %s", path.name, error)
        path.unlink()


def _open_runs() -> Path:
    """Return the folder with one file for each run that is open in MLflow: its id, with the parent's id inside."""
    folder = state_folder() / "mirroring"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def mirror_one() -> None:
    """Mirror one stage, told by two lines of the standard input, and answer with one JSON line."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What MLflow prints must not mix with the answer.
    with os.fdopen(os.dup(1), "w") as answer:
        os.dup2(2, 1)
        try:
            told = _mirrored()
        except Exception as error:
            logger.exception("MLflow does not show this stage")
            why = "its database stayed locked" if LOCKED in str(error) else f"{type(error).__name__}: {error}"
            told = {"failed": why.splitlines()[0]}
        answer.write(json.dumps(told) + "\n")


def _mirrored() -> dict[str, Any]:
    """Mirror one stage, and return what its run record is to say."""
    opening = json.loads(sys.stdin.readline())
    inputs = {name: link_of(Path(folder)) for name, folder in opening["inputs"].items()}
    client = open_client()
    stage_run = StageRun(
        client,
        run=opening["run"],
        stage=opening["stage"],
        params=opening["params"],
        inputs=inputs,
        data=Path(opening["output"]).parent,
        started_at=opening["started_at"],
        history=_history(),
        experiment=opening["experiment"],
    )
    mark = _open_runs() / stage_run.run_id
    mark.write_text(stage_run.parent_id)
    tail = None
    if opening["stage"] == "train":
        inode, offset = opening["progress_start"]
        tail = TrainingTail(stage_run.log_metrics, Path(opening["progress"]), (inode, offset))
        tail.start()
    ending = json.loads(sys.stdin.readline() or '{"done": false, "status": "KILLED", "error": "the stage was killed"}')
    if tail:
        tail.stop()
    _close(stage_run, opening, ending)
    mark.unlink(missing_ok=True)
    return {"ids": stage_run.ids().model_dump(), "digests": stage_run.digests}


def _close(stage_run: StageRun, opening: dict[str, str], ending: dict[str, str]) -> None:
    output = Path(opening["output"])
    if not ending["done"]:
        stage_run.fail(ending["error"], output=output, status=ending["status"])
        return
    made = link_of(output)
    stage_run.log_output(made, shard_hits=ending["shard_hits"])  # type: ignore[arg-type]
    if opening["stage"] == "release":
        publish_release(stage_run, made, model=opening["model"])
    stage_run.close()


def _history() -> list[RunRecord]:
    """Return the run records; a damaged one costs the names of earlier runs here, and no more."""
    try:
        return read_records()
    except ManifestError as error:
        logger.warning("which runs made the inputs is not shown: %s", error)
        return []


if __name__ == "__main__":
    hide_secrets()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if len(sys.argv) > 1:
        serve(socket.socket(fileno=int(sys.argv[1])))
        logging.shutdown()
        os._exit(0)  # all that MLflow loaded need not be taken apart, for a second and a half
    else:
        mirror_one()
