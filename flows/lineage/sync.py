"""Makes MLflow again from the run records and manifests: what `headwater lineage sync` does."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows.lineage import records
from flows.lineage.tracking import QUIET
from tasks.contracts.errors import ManifestError
from tasks.contracts.manifest import manifest_hash

logger = logging.getLogger(__name__)


def sync(workspace: Path, *, experiment: str = "headwater", model: str = "headwater") -> dict[str, int]:
    """Mirror every run record that MLflow lacks.

    A record whose output is no longer in `data/` (a later run replaced it) gets a run with its facts and counts, but
    without datasets: its files are gone, and `dvc checkout` of its commit brings them back for a later sync.

    Returns:
        How many records were "added", were there "already", and had "no data" left.
    """
    os.environ.update({name: value for name, value in QUIET.items() if name not in os.environ})
    from flows.lineage.mlflow_runs import experiment_id, is_mirrored, open_client

    client = open_client()
    place = experiment_id(client, experiment)
    counted = {"added": 0, "already": 0, "no data": 0}
    for record in records.read_records():
        if is_mirrored(client, place, record):
            counted["already"] += 1
            continue
        counted["added"] += 1
        counted["no data"] += not _add(client, record, workspace, experiment, model)
    return counted


def _add(client: Any, record: records.RunRecord, workspace: Path, experiment: str, model: str) -> bool:
    from flows.lineage.mlflow_runs import StageRun
    from flows.lineage.registry import register_release

    params: Mapping[str, Any] = {}
    inputs: dict[str, Path] = {}
    output = workspace / "data" / record.stage
    here = False
    if record.manifest_sha256:
        manifest = records.kept_manifest(record.manifest_sha256)
        params = manifest.params
        here = _is(output, record.manifest_sha256)
        folders = {name: workspace / "data" / name for name in manifest.inputs}
        inputs = {name: folder for name, folder in folders.items() if _is(folder, manifest.inputs[name])}
    stage_run = StageRun(
        client,
        run=record.run,
        stage=record.stage,
        params=params,
        inputs=inputs,
        experiment=experiment,
        record=record,
    )
    if record.error:
        stage_run.fail(f"{record.error.type}: {record.error.message}", ended_at=record.ended_at)
    elif here:
        stage_run.finish(output, ended_at=record.ended_at, shard_hits=record.shard_hits)
        if record.stage == "release":
            register_release(client, output, release_run_id=stage_run.run_id, experiment=experiment, model=model)
    else:
        assert record.manifest_sha256, "a record that did not fail has a manifest"
        stage_run.finish_without_data(records.kept_manifest(record.manifest_sha256), ended_at=record.ended_at)
    return here or record.error is not None


def _is(folder: Path, sha256: str) -> bool:
    try:
        return manifest_hash(folder) == sha256
    except ManifestError:
        return False
