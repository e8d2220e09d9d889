"""The Prefect flow: reads dvc.yaml and runs one Prefect task a stage, each through DVC.

DVC decides what is stale, Prefect when it runs and what is retried. Prefect's own result cache is off: freshness has
one owner. Run it by `headwater run`, or from the Prefect UI after `headwater up`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Annotated, Any
from uuid import UUID

from httpx import HTTPError
from prefect import flow, get_run_logger, task
from prefect.artifacts import create_progress_artifact, create_table_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.exceptions import PrefectException
from prefect.runtime import deployment, flow_run, task_run
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from flows.history.run_records import FLOW_RUN_VARIABLE, RUN_VARIABLE, TASK_RUN_VARIABLE, new_run_name, read_records
from flows.mlflow.mirror import SERVER_VARIABLE, mirror_server
from flows.pipeline import small_corpus
from flows.pipeline.preflight import ready
from flows.pipeline.signature import sign_if_not
from flows.pipeline.stage_run import FORCED_VARIABLE, describe
from flows.pipeline.tryout import undo_killed_under_lock, undone_unless_it_ends_well
from flows.workspace.dvc import (
    DVC_CHATTER,
    DVC_MODULES,
    StageFailedError,
    dvc_command,
    keep_lock,
    stream,
    up_to_date,
    without_last_words,
)
from flows.workspace.form import SettingsSchema, changes_of_run, refresh_form
from flows.workspace.graph import Stage, load_graph, select, stages_until
from flows.workspace.locks import workspace_lock
from flows.workspace.named_files import changed
from flows.workspace.params import merge_values, ray_params, read_params, signing_key
from flows.workspace.secret_urls import hide_secrets
from flows.workspace.warm import warm_process
from tasks.contracts.base import SECRET_ADVICE, StageParams, secrets_in_settings
from tasks.contracts.errors import DiskFullError, ParamsError
from tasks.contracts.manifest import Manifest, manifest_hash, read_manifest
from tasks.contracts.redaction import without_secrets
from tasks.contracts.stages import module_name
from tasks.contracts.workspace import child_environment
from tasks.engine.host import ray_host

logger = logging.getLogger(__name__)


class StageSchema:
    """Annotates a stage's name, so that Prefect's form offers those of dvc.yaml; `select` refuses any other."""

    def __get_pydantic_json_schema__(self, _schema: CoreSchema, _handler: object) -> JsonSchemaValue:
        return {"type": "string", "enum": list(load_graph())}


StageName = Annotated[str, StageSchema()]

finished: list[str] = []
"""Stages that the last run in this process made or found up to date: what it may speak of at its end."""

STAGE_MODULES = ("flows.cli.main", "flows.pipeline.stage_run")
"""What the process of every stage loads, besides the stage's own module."""

RETRIES = 3
RETRY_SECONDS = (10.0, 60.0, 300.0)


@flow(name="headwater", log_prints=False, validate_parameters=True)
def pipeline(
    until: StageName | None = None,
    force: list[StageName] | None = None,
    settings: Annotated[dict[str, Any], SettingsSchema()] | None = None,
) -> dict[str, str]:
    """From raw web pages to a released checkpoint: every stage of dvc.yaml, those that are up to date skipped.

    Args:
        until: The last stage to run; all of them when empty.
        force: Stages to run again although nothing they depend on changed.
        settings: params.yaml, the only settings. What you change here is written to it; what you leave as it is
            follows params.yaml as it will be when the run starts.

    Returns:
        Stage name → SHA-256 of its manifest.
    """
    hide_secrets()
    graph = load_graph()
    stages = stages_until(graph, until)
    forced = {select(graph, name).name for name in force or ()}
    with workspace_lock("run"):
        if undo_killed_under_lock():
            get_run_logger().info("an earlier run was killed: params.yaml and data/ are as they were before it")
        keep_lock()
        run = os.environ.setdefault(RUN_VARIABLE, new_run_name())
        changes = _changes(settings or {})
        # On the command line, what a person typed has been written already, and stays.
        if deployment.id is None:
            _run(run, stages, forced, changes, until)
        else:
            try:
                with undone_unless_it_ends_well(run, changes, _say):
                    _run(run, stages, forced, changes, until)
            except BaseException:
                _show_params_again()
                raise
    return {stage.name: manifest_hash(stage.output) for stage in stages}


def _run(run: str, stages: list[Stage], forced: set[str], changes: Mapping[str, Any], until: str | None) -> None:
    """Bring the stages up to date, one after the other, with the settings as a form has changed them."""
    checked = _change_params(changes, until, forced)
    key = signing_key(read_params())
    refresh_form()
    for stage in stages:
        if files := changed(stage, checked[stage.name]):
            _say(f"{stage.name} runs again, as another content is in {', '.join(files)}")
            forced.add(stage.name)
    _say(f"run {run}: {len(stages)} stages")
    progress: list[Any] = []
    with _not_to_fail_for():
        progress.append(create_progress_artifact(0.0, key="headwater-progress", description=f"Run {run}"))
    finished.clear()
    with started_services(until):
        settled = _settled(stages, forced)
        for number, stage in enumerate(stages, start=1):
            restorable = not checked[stage.name].named_files()
            _task_of(stage)(stage.name, run, stage.name in settled, stage.name in forced, restorable)
            finished.append(stage.name)
            if stage.name == small_corpus.AFTER:
                for shortage in small_corpus.foresee(stage.output.parent, checked, {one.name for one in stages}):
                    _say(f"a small corpus: {shortage}")
            for artifact in progress:
                with _not_to_fail_for():
                    update_progress_artifact(artifact_id=artifact, progress=100.0 * number / len(stages))
    if key is not None and sign_if_not(stages[-1].output, key):
        _say("the release was there already and is signed now")
    if not any(record.run == run for record in read_records(run)):
        _say("everything is up to date: no stage had to run")


def _settled(stages: Sequence[Stage], forced: Collection[str]) -> set[str]:
    """Return the stages of which DVC need not be asked again: up to date, as is all that may run before them."""
    settled: set[str] = set()
    clean = up_to_date()
    names = {stage.name for stage in stages}
    for stage in stages:
        if stage.name in clean and stage.name not in forced and settled >= names.intersection(stage.inputs):
            settled.add(stage.name)
    return settled


def _changes(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was changed in the form that this run was started from."""
    if next(secrets_in_settings(settings), None):
        raise ParamsError(
            "a setting holds a secret; params.yaml is as it was, but Prefect's database keeps what a run was given",
            where=f"flow run {flow_run.id}",
            expected=SECRET_ADVICE,
            fix=f"`prefect flow-run delete {flow_run.id}`, and change the secret",
        )
    return changes_of_run(settings, UUID(str(flow_run.id))) if settings else {}


def _change_params(changes: Mapping[str, Any], until: str | None, force: Collection[str]) -> dict[str, StageParams]:
    """Write the changes to params.yaml, unless no run could begin with them; return all sections."""
    checked: dict[str, StageParams] = {}
    change = merge_values(changes, check=lambda wanted: checked.update(ready(wanted, load_graph(), until, force)))
    if change:
        _say(f"params.yaml changed:\n{change}")
    return checked


def _show_params_again() -> None:
    """Fill the form in with the settings that have been put back."""
    try:
        refresh_form()
    except Exception as error:  # noqa: BLE001 - how the run ended is what is to be told
        logger.warning("the form still shows the settings of this run: %s", without_secrets(str(error)))


@task(cache_policy=NO_CACHE, persist_result=False)
def run_through_dvc(name: str, run: str, settled: bool, force: bool, restorable: bool) -> None:
    """Bring one stage up to date by `dvc repro -s`, its output logged line by line.

    Args:
        settled: whether DVC has said already that it is.
        restorable: whether DVC sees all that the stage reads, and may so put an earlier run's output in place.
    """
    if settled:
        _say(f"Stage '{name}' didn't change, skipping")
        return
    environment = child_environment(  # the stages' command is `python`, which must be this one
        {
            "PYTHONUNBUFFERED": "1",
            RUN_VARIABLE: run,
            FLOW_RUN_VARIABLE: str(flow_run.id or ""),
            TASK_RUN_VARIABLE: str(task_run.id or ""),
            FORCED_VARIABLE: name if force else "",
        }
    )
    options = [*(["--force"] if force else []), *([] if restorable else ["--no-run-cache"])]
    command = [*dvc_command(), "--wait-for-lock", "repro", "--single-item", *options, name]
    ending: list[str] = []
    try:
        for line in without_last_words(stream(command, environment, load_graph()[name].output), ending):
            if not line.startswith(DVC_CHATTER):
                _say(line)
    except StageFailedError as failed:
        told = [record.error for record in read_records(run) if record.stage == name and record.error]
        if not told:
            _say("\n".join(ending))
            raise
        if told[-1].type == DiskFullError.__name__:
            raise DiskFullError(told[-1].message) from failed
        attempt = int(task_run.run_count or 1)
        if told[-1].transient and attempt <= RETRIES:
            problem = told[-1].message.splitlines()[0]
            _say(f"{name}: {problem}; trying again in {RETRY_SECONDS[attempt - 1]:.0f} s ({attempt} of {RETRIES})")
        raise StageFailedError(f"{name}: {told[-1].message}") from failed
    stage = load_graph()[name]
    manifest = read_manifest(stage.output)
    with _not_to_fail_for():
        _publish(stage, manifest)


@contextmanager
def _not_to_fail_for() -> Iterator[None]:
    """Let a run go on where only something to look at in the Prefect UI could not be stored."""
    try:
        yield
    except (HTTPError, PrefectException) as error:
        logger.warning("Prefect does not show the progress or counts (%s); the run goes on", type(error).__name__)


def _say(text: str) -> None:
    """Log for the Prefect UI, and for the terminal of whoever started the run."""
    text = without_secrets(text)
    get_run_logger().info("%s", text)
    logger.info("%s", text)


@contextmanager
def started_services(until: str | None) -> Iterator[None]:
    """Keep what the stages of one run share, unless whoever called does so already.

    That is MLflow's mirror, a process that has loaded what they load, and, where no cluster is given, a Ray session for
    those that ask for one.
    """
    if SERVER_VARIABLE in os.environ:
        yield
        return
    stages = [module_name(stage.name) for stage in stages_until(load_graph(), until)]
    with ExitStack() as stack:
        # tqdm asks when it is loaded, and a stage's bars are no lines of a log.
        environment = child_environment({"TQDM_DISABLE": "1"})
        stack.enter_context(warm_process([*DVC_MODULES, *STAGE_MODULES, *stages], environment))
        stack.enter_context(mirror_server())
        if "RAY_ADDRESS" not in os.environ:
            stack.enter_context(ray_host(ray_params(read_params()).model_dump_json()))
        yield


def _task_of(stage: Stage) -> Any:
    """Return the stage's task: retried where trying again may help (the network), and only then."""
    return run_through_dvc.with_options(
        name=stage.name,
        task_run_name=stage.name,
        retries=RETRIES,
        retry_delay_seconds=list(RETRY_SECONDS),
        retry_condition_fn=_may_pass,
    )


def _may_pass(_task: Any, run: Any, _state: Any) -> bool:
    records = [record for record in read_records(os.environ[RUN_VARIABLE]) if record.stage == run.name]
    return bool(records) and records[-1].error is not None and records[-1].error.transient


def _publish(stage: Stage, manifest: Manifest) -> None:
    """Show a stage's counts in the Prefect UI."""
    counts = manifest.counts
    rows: list[dict[str, Any]] = [
        {"what": "in", "count": counts.in_, "unit": manifest.unit},
        {"what": "kept", "count": counts.out, "unit": manifest.unit},
        *({"what": f"dropped: {rule}", "count": n, "unit": manifest.unit} for rule, n in counts.dropped.items()),
        *(
            {"what": shard.name, "count": shard.rows, "unit": f"rows, {shard.bytes:,} bytes"}
            for shard in manifest.shards[:50]
        ),
    ]
    create_table_artifact(key=f"headwater-{stage.name}", table=rows, description=f"{stage.name}: {describe(manifest)}")
