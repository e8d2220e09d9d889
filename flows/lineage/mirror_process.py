"""The process that talks to MLflow for one stage (`python -m flows.lineage.mirror_process`, started by `mirror.py`).

It reads two JSON lines: what begins, and how it ended. A parent that dies closes the pipe instead: the run is then
closed as killed.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from pathlib import Path

from mlflow.tracking import MlflowClient

from flows.lineage.mlflow_runs import StageRun, open_client
from flows.lineage.registry import register_release
from flows.lineage.training_tail import TrainingTail

logger = logging.getLogger(__name__)


def main() -> int:
    """Mirror one stage and answer with one JSON line; the exit status is 0 when MLflow has it all."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # What MLflow prints must not mix with the answer.
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    opening = json.loads(sys.stdin.readline())
    inputs = {name: Path(folder) for name, folder in opening["inputs"].items()}
    client = open_client()
    stage_run = StageRun(
        client,
        run=opening["run"],
        stage=opening["stage"],
        params=opening["params"],
        inputs=inputs,
        experiment=opening["experiment"],
    )
    tail = None
    if opening["stage"] == "train":
        inode, offset = opening["progress_start"]
        tail = TrainingTail(stage_run.log_metrics, Path(opening["progress"]), (inode, offset))
        tail.start()
    ending = json.loads(sys.stdin.readline() or '{"done": false, "status": "KILLED", "error": "the stage was killed"}')
    if tail:
        tail.stop()
    _close(client, stage_run, opening, ending)
    answer.write(json.dumps({"ids": stage_run.ids().model_dump(), "digests": stage_run.digests}) + "\n")
    answer.close()
    return 0


def _close(client: MlflowClient, stage_run: StageRun, opening: dict[str, str], ending: dict[str, str]) -> None:
    output = Path(opening["output"])
    if not ending["done"]:
        stage_run.fail(ending["error"], output=output, status=ending["status"])
        return
    stage_run.finish(output, shard_hits=ending["shard_hits"])  # type: ignore[arg-type]
    if opening["stage"] == "release":
        register_release(
            client, output, release_run_id=stage_run.run_id, experiment=opening["experiment"], model=opening["model"]
        )


if __name__ == "__main__":
    sys.exit(main())
