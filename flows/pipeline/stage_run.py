"""Run one stage: what `python -m flows STAGE` does, whoever called it (dvc, Prefect, a person).

Around the stage's own function it checks the settings, takes the workspace's lock, opens Ray, mirrors to MLflow and
writes the run record. Nothing here changes a byte of the stage's output.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path

import psutil

from flows.history.digest import dvc_digest
from flows.history.marks import restore_mark
from flows.history.releases import holds_release, remember_release
from flows.history.run_records import (
    FLOW_RUN_VARIABLE,
    RUN_VARIABLE,
    TASK_RUN_VARIABLE,
    PrefectIds,
    kept_manifest,
    now,
    records_on_disk,
    write_record,
)
from flows.mlflow.mirror import StageMirror
from flows.pipeline.snapshot import put_back, replaced_when_complete
from flows.workspace.graph import Stage, load_graph, select
from flows.workspace.locks import workspace_lock
from flows.workspace.named_files import contents, remember
from flows.workspace.params import ray_params, read_params, stage_params
from tasks.contracts.base import StageParams
from tasks.contracts.disk import size_of
from tasks.contracts.durable_files import disk_full_is_clear
from tasks.contracts.errors import CorpusTooSmallError, DiskFullError
from tasks.contracts.files import DROPPED_FOLDER
from tasks.contracts.manifest import Manifest, read_whole
from tasks.engine.session import RayParams, ray_on_demand
from tasks.engine.shards import reused

logger = logging.getLogger(__name__)

FORCED_VARIABLE = "HEADWATER_FORCED"
"""Set by a flow where a stage is to run again although nothing changed: its DVC need not be a process of that name."""


def run_stage(name: str) -> Manifest:
    """Run one stage in this workspace and return its manifest.

    Raises:
        HeadwaterError: whatever went wrong, after it was written to the run record.
    """
    stage = select(load_graph(), name)
    settings = read_params()
    params = stage_params(settings, stage)
    run = current_run()
    started_at = now()
    with workspace_lock("stage"):
        try:
            for fault in params.faults():  # before the old output is removed
                raise fault
            with disk_full_is_clear(stage.output):  # whatever a library was writing, not only our own files
                return _run(stage, params, ray_params(settings), run, started_at)
        except BaseException as caught:
            error = _with_need(caught, stage) if isinstance(caught, DiskFullError) else caught
            write_record(
                run=run,
                stage=name,
                started_at=started_at,
                error=error,
                params=params.model_dump(mode="json"),
                inputs=stage.inputs,
                prefect=_prefect_ids(),
            )
            if error is not caught:
                raise error from caught
            raise


def _with_need(error: DiskFullError, stage: Stage) -> DiskFullError:
    """Say beside a full disk how much the stage's output took the last time, where there was one."""
    for record in reversed(records_on_disk(stage.name)):
        if record.manifest_sha256:
            shards = kept_manifest(record.manifest_sha256).shards
            took = sum(shard.bytes for shard in shards)
            return DiskFullError(f"{error.problem}; the last output of {stage.name} took {size_of(took)}")
    return error


def _run(stage: Stage, params: StageParams, ray: RayParams, run: str, started_at: str) -> Manifest:
    for folder in stage.inputs.values():
        read_whole(folder)
    settings = params.model_dump(mode="json")
    held = contents(params)
    mirror = StageMirror(
        run=run,
        stage=stage.name,
        params=settings,
        inputs=stage.inputs,
        output=stage.output,
        started_at=started_at,
    )
    with mirror:
        manifest = _make(stage, params, ray)
        mirror.shard_hits = reused.get(stage.name)
        logger.info("%s: %s", stage.name, describe(manifest))
    if held:
        remember(stage, held)
    if holds_release(stage.output):
        remember_release(stage.output, stage.inputs["mix"], stage.inputs)
        restore_mark(stage.output)
    write_record(
        run=run,
        stage=stage.name,
        started_at=started_at,
        output=stage.output,
        params=settings,
        inputs=stage.inputs,
        # Without MLflow nobody has asked for it yet; by it the DVC cache is found when data/ has long changed.
        digests=mirror.digests or _digest(stage),
        shard_hits=mirror.shard_hits,
        mlflow=mirror.ids,
        prefect=_prefect_ids(),
    )
    return manifest


def _make(stage: Stage, params: StageParams, ray: RayParams) -> Manifest:
    """Make a stage's output; of one that is made from nothing here, a snapshot, only if it is not on this disk."""
    run = stage.module.run
    with ray_on_demand(ray) if stage.uses_ray else nullcontext():
        if stage.inputs:
            if stage.output.exists():
                shutil.rmtree(stage.output)
            made: Manifest = run(params=params, inputs=stage.inputs, output=stage.output)
            _refuse_nothing_kept(stage.output, made)
            return made
        kept = None if forced() else put_back(stage, params)
        if kept is None:
            with replaced_when_complete(stage, params) as output:
                kept = run(params=params, inputs={}, output=output)
    assert kept is not None, "it was put back or made"
    return kept


def _refuse_nothing_kept(output: Path, manifest: Manifest) -> None:
    """Stop a run at the stage that dropped everything: no later one could say why there is nothing.

    Raises:
        CorpusTooSmallError: nothing is left; says which rules dropped it.
    """
    counts, stage = manifest.counts, manifest.stage
    if counts.out:
        return
    rules = sorted(counts.dropped.items(), key=lambda item: (-item[1], item[0]))
    fix = f"change the section {stage} of params.yaml (`headwater params show {stage}` says what each setting means)"
    if stage == "filter":
        fix += "; `headwater filters try RULE` shows what a rule does to these pages"
    raise CorpusTooSmallError(
        f"{stage} kept none of {counts.in_:,} {manifest.unit}",
        where=f"{output / DROPPED_FOLDER}, a row for each" if rules else str(output),
        expected=f"at least one of its {manifest.unit} kept",
        found="dropped by " + ", ".join(f"{rule} {number:,}" for rule, number in rules) if rules else "nothing to keep",
        fix=fix + "; then run again",
    )


def _digest(stage: Stage) -> dict[str, str]:
    return {stage.name: dvc_digest(stage.output)}


def describe(manifest: Manifest) -> str:
    """Return a manifest's counts as one line for people."""
    counts = manifest.counts
    reasons = sorted(counts.dropped.items(), key=lambda item: -item[1])
    why = ", ".join(f"{rule} {number:,}" for rule, number in reasons[:6])
    dropped = f", {sum(counts.dropped.values()):,} dropped ({why})" if reasons else ""
    return f"{counts.in_:,} {manifest.unit} in, {counts.out:,} kept{dropped}"


def current_run() -> str:
    """Return the name of the run that this process is part of.

    A flow hands it down; the stages of one plain `dvc repro` share a name made from that dvc process's start.
    """
    handed_down = os.environ.get(RUN_VARIABLE)
    if handed_down:
        return handed_down
    for process in [psutil.Process(), *psutil.Process().parents()]:
        command = process.cmdline()
        if _is_dvc(command):
            return f"dvc-{_stamp(process)}-{process.pid}"
    return f"stage-{_stamp(psutil.Process())}-{os.getpid()}"


def forced() -> bool:
    """Return whether this process's stage is to run again whatever stands there: `dvc repro --force`, by whoever."""
    if os.environ.get(FORCED_VARIABLE):
        return True
    for process in psutil.Process().parents():
        command = process.cmdline()
        if "repro" in command and _is_dvc(command):
            return bool({"-f", "--force"} & set(command))
    return False


def _is_dvc(command: Sequence[str]) -> bool:
    return any(part.endswith("/dvc") or part == "dvc" for part in command[:3])


def _stamp(process: psutil.Process) -> str:
    return datetime.fromtimestamp(process.create_time(), UTC).strftime("%Y%m%d-%H%M%S")


def _prefect_ids() -> PrefectIds:
    return PrefectIds(flow_run_id=os.environ.get(FLOW_RUN_VARIABLE), task_run_id=os.environ.get(TASK_RUN_VARIABLE))
