"""Makes MLflow again from the run records and manifests: what `headwater lineage sync` does."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flows.history import run_records
from flows.history.chain import Link, find
from flows.history.releases import known_releases
from flows.mlflow.mirror import kept_progress_path
from flows.services.databases import locked_is_clear
from flows.services.tracking import be_quiet, database_path
from tasks.contracts.workspace import state_folder

logger = logging.getLogger(__name__)


def sync(workspace: Path, *, experiment: str = "headwater", model: str = "headwater") -> dict[str, int]:
    """Mirror every run record that MLflow lacks, to the same content that it was given when the stage ran.

    Of an output that is no longer in `data/` (a later run replaced it) there are the manifest and DVC's digest, and of
    a release all files; a stage's small result files are gone until `dvc checkout` of its commit brings them back.

    Returns:
        How many records were "added", were there "already", and had "no data" left.
    """
    be_quiet()
    from flows.mlflow.stage_runs import open_client

    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # it logs what it then raises
    with locked_is_clear(database_path(), "MLflow"):
        return _sync(open_client(), workspace, experiment, model)


def _sync(client: Any, workspace: Path, experiment: str, model: str) -> dict[str, int]:
    from flows.mlflow.registry import mark_taken_down
    from flows.mlflow.stage_runs import experiment_id, is_mirrored

    place = experiment_id(client, experiment)
    counted = {"added": 0, "already": 0, "no data": 0}
    listed = run_records.read_records()
    for number, record in enumerate(listed):
        if is_mirrored(client, place, record):
            counted["already"] += 1
            continue
        counted["added"] += 1
        counted["no data"] += not _add(client, record, listed[:number], workspace / "data", experiment, model)
    for release in known_releases():
        if release.takedown:
            mark_taken_down(client, release, model=model)
    return counted


def _add(
    client: Any,
    record: run_records.RunRecord,
    history: Sequence[run_records.RunRecord],
    data: Path,
    experiment: str,
    model: str,
) -> bool:
    from flows.mlflow.registry import publish_release
    from flows.mlflow.stage_runs import StageRun
    from flows.mlflow.training_tail import read_metrics

    output: Link | None = None
    if record.manifest_sha256:
        output = find(data, record.stage, record.manifest_sha256)
        if output is None:
            run_records.kept_manifest(record.manifest_sha256)  # says what is missing
    listed = output.manifest.inputs if output else record.inputs
    found = {name: find(data, name, sha256) for name, sha256 in listed.items()}
    stage_run = StageRun(
        client,
        run=record.run,
        stage=record.stage,
        # A record of an earlier Headwater has no params: the manifest has those that bear identity.
        params=record.params or (output.manifest.params if output else {}),
        inputs={name: link for name, link in found.items() if link},
        data=data,
        started_at=record.started_at,
        history=history,
        experiment=experiment,
        record=record,
    )
    if record.stage == "train":
        stage_run.log_metrics(read_metrics(kept_progress_path(record.run, record.started_at), record.started_at))
    if record.error:
        status = "KILLED" if record.error.type == "KeyboardInterrupt" else "FAILED"
        message = f"{record.error.type}: {record.error.message}"
        stage_run.fail(message, output=_attempt(record.error.message), status=status, ended_at=record.ended_at)
        return True
    assert output, "a record that did not fail has a manifest, which is kept"
    stage_run.log_output(output, shard_hits=record.shard_hits)
    if record.stage == "release" and output.folder:
        publish_release(stage_run, output, model=model)
    stage_run.close(ended_at=record.ended_at)
    return output.folder is not None


def _attempt(message: str) -> Path | None:
    """Return the folder of a failed gate's attempt, which its error names."""
    named = re.search(r"attempts/([0-9a-f]{16})/", message)
    return state_folder() / "attempts" / named[1] if named else None
