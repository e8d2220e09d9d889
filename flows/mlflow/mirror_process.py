"""The process that talks to MLflow for one stage (`python -m flows.mlflow.mirror_process`, started by `mirror.py`).

It reads two JSON lines: what begins, and how it ended. A parent that dies closes the line instead: the run is then
closed as killed. In a pipeline run it is a fork of `mirror_server.py`, which loads MLflow once.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException
from sqlalchemy.orm import configure_mappers

from flows.history.chain import link_of
from flows.history.run_records import RunRecord, read_records
from flows.mlflow.open_runs import open_runs
from flows.mlflow.registry import publish_release
from flows.mlflow.stage_runs import StageRun, experiment_id, open_client
from flows.mlflow.training_tail import TrainingTail
from flows.services.databases import LOCKED
from flows.services.tracking import tracking_uri
from flows.workspace.secret_urls import hide_secrets
from tasks.contracts.errors import LockedError, ManifestError

logger = logging.getLogger(__name__)

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def prepare() -> None:
    """Load what a mirror loads, close what was abandoned, and have the tables made: once for all forks that follow.

    What MLflow and DVC import at their first use takes a second and a half that each fork would pay again.
    """
    if tracking_uri().startswith("sqlite:"):
        importlib.import_module("mlflow.store.tracking.sqlalchemy_store")
        configure_mappers()
    importlib.import_module("dvc.repo")
    first = os.fork()  # MLflow's database connections must not be shared with the forks that follow
    if first == 0:
        try:
            close_abandoned()
            if tracking_uri().startswith("sqlite:"):
                experiment_id(open_client())  # a new workspace's tables take a second and a half to make
        finally:
            os._exit(0)  # what fails here fails again for a stage, which says so
    os.waitpid(first, 0)


def close_abandoned() -> None:
    """Close the runs whose mirror was killed with its stage: no other run is under way when a server starts."""
    for path in sorted(open_runs().glob("*")):
        try:
            for run_id in (path.name, path.read_text()):
                open_client().set_terminated(run_id, "KILLED")
        except MlflowException as error:
            logger.warning("the killed run %s cannot be closed in MLflow: %s", path.name, error)
        path.unlink()


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
            is_locked = isinstance(error, LockedError) or LOCKED in str(error)
            why = "its database stayed locked" if is_locked else f"{type(error).__name__}: {error}"
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
    mark = open_runs() / stage_run.run_id
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
    logging.basicConfig(level=logging.WARNING, format=LOG_FORMAT)
    mirror_one()
