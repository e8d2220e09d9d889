"""What a stage looks like in MLflow: a child run of its pipeline run, with datasets, counts and files.

Everything here is made from manifests and run records, so it can be thrown away and made again
(`headwater lineage sync`). Run by `mirror.py` in a process of its own: MLflow takes 3 s to import.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_LOGGED_ARTIFACTS, MLFLOW_PARENT_RUN_ID

from flows.history import run_records, run_stages
from flows.history.chain import Link, Making, makings, walk
from flows.history.digest import cache_path, dvc_digest
from flows.report import drops
from flows.services.databases import be_patient, wait_until_free
from flows.services.tracking import artifact_folder, database_path, database_uri, tracking_uri
from tasks.contracts.files import (
    GROUPS_NAME,
    LOSS_NAME,
    METRICS_NAME,
    MIXTURE_NAME,
    REPORT_NAME,
    REPORT_TEXT_NAME,
    RESULTS_NAME,
    SOURCES_NAME,
    is_part,
    part_name,
)
from tasks.contracts.manifest import MANIFEST_NAME, Manifest

logger = logging.getLogger(__name__)

EXPERIMENT = "headwater"
FILES = (
    METRICS_NAME,
    GROUPS_NAME,
    LOSS_NAME,
    REPORT_TEXT_NAME,
    REPORT_NAME,
    MIXTURE_NAME,
    RESULTS_NAME,
    SOURCES_NAME,
)
"""Small files of a stage's folder that are worth reading in MLflow, besides the manifest."""

STARTED = "headwater.started_at"
NOTE = "mlflow.note.content"

_BATCH = 100
_MAX_PARAM = 6000
_MAX_TAG = 8000
_COLUMN_TYPES = {"string": "string", "int64": "long", "double": "double", "int32": "integer", "bool": "boolean"}


def open_client() -> MlflowClient:
    """Return a client of this workspace's tracking server or database, which is made when it is missing.

    Raises:
        LockedError: another program keeps the database. MLflow would try ten times, each with all our patience.
    """
    be_patient()
    uri = tracking_uri()
    if uri == database_uri():
        wait_until_free(database_path(), "MLflow")
    return MlflowClient(tracking_uri=uri)


def experiment_id(client: MlflowClient, name: str = EXPERIMENT) -> str:
    """Return the id of the experiment, made when it is missing."""
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    location = artifact_folder().as_uri() if tracking_uri().startswith("sqlite:") else None
    return str(client.create_experiment(name, artifact_location=location))


class StageRun:
    """One stage's child run: opened before the stage, finished or failed after it.

    Args:
        run: the pipeline run's name; its parent run is found by it, or made.
        inputs: input name → finished stage folder, or what is kept of it.
        data: the workspace's folder of stage folders.
        started_at: as the stage's run record says it, or will say it.
        history: the run records before this stage's own, oldest first.
        record: what happened, where the run is over and MLflow is made again from its record.
    """

    def __init__(
        self,
        client: MlflowClient,
        *,
        run: str,
        stage: str,
        params: Mapping[str, Any],
        inputs: Mapping[str, Link],
        data: Path,
        started_at: str,
        history: Sequence[run_records.RunRecord],
        experiment: str = EXPERIMENT,
        record: run_records.RunRecord | None = None,
    ) -> None:
        self.client = client
        self.run = run
        self.stage = stage
        self.data = data
        self.history = history
        self.experiment = experiment
        self.experiment_id = experiment_id(client, experiment)
        self.code = record.code if record else run_records.code_state()
        self.started_at = started_at
        self.parent_id = self._parent(run)
        tags = {MLFLOW_PARENT_RUN_ID: self.parent_id, "headwater.run": run, "headwater.stage": stage}
        created = client.create_run(
            self.experiment_id,
            start_time=_milliseconds(started_at),
            tags=tags,
            run_name=stage,
        )
        self.run_id = str(created.info.run_id)
        self.digests = dict(record.digests) if record else {}
        self._inputs = {name: link.sha256 for name, link in inputs.items()}
        self._log(params=_flat(params), tags=_facts(record))
        self._log_inputs(inputs)

    @property
    def making(self) -> Making:
        """By which run, when and on which code this stage's output is made."""
        return Making(run=self.run, started_at=self.started_at, code=self.code)

    def log_output(self, output: Link, *, shard_hits: int | None = None) -> None:
        """Log what the stage made, from its manifest, and what the whole run then is: stages that ran, and reused ones.

        Of an output whose files a later run has replaced, what stands in its manifest is logged.
        """
        manifest = output.manifest
        dataset = self._dataset(self.stage, output, self.run_id)
        if dataset:
            self.client.log_inputs(self.run_id, [_with_context(dataset, "output")])
        metrics: dict[str, float] = {"shards.reused": float(shard_hits)} if shard_hits is not None else {}
        metrics |= _figures(output.folder) | _counts(manifest)
        self._log(metrics=metrics, tags={"headwater.manifest": output.sha256, "headwater.unit": manifest.unit})
        if output.folder:
            self._log_files(output.folder)
        else:
            kept = run_records.kept_manifest_path(output.sha256).read_text(encoding="utf-8")
            self.client.log_text(self.run_id, kept, MANIFEST_NAME)
        if drops.ordered(manifest):
            self._log_table(self.run_id, drops.drop_table(manifest), drops.TABLE)
            self.client.log_text(self.run_id, drops.drop_plot(manifest), drops.PLOT)
        self._log_stages({self.stage: output.sha256})

    def close(self, status: str = "FINISHED", *, ended_at: str | None = None) -> None:
        """Close the run, and the parent like it: nobody can say which stage will be the last."""
        # Last, since it says that this record is in MLflow as a whole.
        self._log(tags={STARTED: self.started_at})
        self.client.set_terminated(self.run_id, status, _milliseconds(ended_at))
        self.client.set_terminated(self.parent_id, status, _milliseconds(ended_at))

    def fail(
        self, message: str, *, output: Path | None = None, status: str = "FAILED", ended_at: str | None = None
    ) -> None:
        """Close the run as failed (or "KILLED"), with the error's text and what a failed gate reported."""
        if output is not None:
            self._log_files(output)
        self._log(tags={"headwater.error": message, "mlflow.note.content": f"```\n{message}\n```"})
        self._log_stages(self._inputs, failed=True)
        self.close(status, ended_at=ended_at)

    def log_metrics(self, metrics: Iterable[Metric]) -> None:
        """Log measured values with their step and time."""
        listed = list(metrics)
        for start in range(0, len(listed), 500):
            self.client.log_batch(self.run_id, metrics=listed[start : start + 500])

    def ids(self) -> run_records.MlflowIds:
        """Return where this run is found in MLflow."""
        return run_records.MlflowIds(run_id=self.run_id, parent_run_id=self.parent_id, experiment=self.experiment)

    def _parent(self, run: str) -> str:
        query = f"tags.`headwater.run` = '{run}' and tags.`headwater.kind` = 'pipeline'"
        found = self.client.search_runs([self.experiment_id], query, max_results=1)
        if found:
            self.client.set_terminated(found[0].info.run_id, "RUNNING")
            return str(found[0].info.run_id)
        tags = {"headwater.run": run, "headwater.kind": "pipeline"}
        created = self.client.create_run(
            self.experiment_id, start_time=_milliseconds(self.started_at), tags=tags, run_name=run
        )
        return str(created.info.run_id)

    def _log_files(self, output: Path) -> None:
        for name in (MANIFEST_NAME, *FILES):
            if (output / name).is_file():
                self.client.log_artifact(self.run_id, str(output / name))

    def _log_table(self, run_id: str, table: str, name: str) -> None:
        """Log a table as MLflow's `log_table` does, without pandas and without adding to an older one."""
        self.client.log_text(run_id, table, name)
        self.client.set_tag(run_id, MLFLOW_LOGGED_ARTIFACTS, json.dumps([{"path": name, "type": "table"}]))

    def _log_stages(self, ends: Mapping[str, str], *, failed: bool = False) -> None:
        """Say in the pipeline run what became of each stage, those that DVC skipped included."""
        mine = {r.stage: r.manifest_sha256 for r in self.history if r.run == self.run and r.manifest_sha256}
        links = walk(self.data, {**mine, **ends})
        makers = makings(links.values(), self.history)
        if not failed:
            makers[self.stage] = self.making
        rows = run_stages.rows(self.run, links, makers)
        if failed:
            rows = [*(row for row in rows if row.stage != self.stage), run_stages.failed_row(self.run, self.stage)]
        places = {row.stage: self._place_of(row) for row in rows}
        self._log_table(self.parent_id, run_stages.table(rows), run_stages.TABLE)
        tags = {f"headwater.stage.{row.stage}": row.what for row in rows}
        note = run_stages.note(rows, {stage: place for stage, place in places.items() if place})
        self.client.log_batch(
            self.parent_id, tags=[RunTag(name, value) for name, value in {**tags, NOTE: note[:_MAX_TAG]}.items()]
        )

    def _place_of(self, row: run_stages.StageRow) -> str | None:
        """Return where MLflow shows the run that made a stage's output."""
        run_id: str | None = self.run_id
        if row.stage != self.stage:
            run_id = producer_of(self.client, self.experiment_id, row.stage, row.manifest, run=row.run)
        return f"#/experiments/{self.experiment_id}/runs/{run_id}" if run_id else None

    def _log_inputs(self, inputs: Mapping[str, Link]) -> None:
        """Log the input folders; training logs every folder back to the crawl, each under its stage's name."""
        listed = dict(inputs)
        if self.stage == "train":
            listed = walk(self.data, self._inputs)
        logged = []
        for name, link in listed.items():
            producer = producer_of(self.client, self.experiment_id, link.manifest.stage, link.sha256)
            if dataset := self._dataset(name, link, producer):
                logged.append(_with_context(dataset, name if self.stage == "train" else "input"))
        if logged:
            self.client.log_inputs(self.run_id, logged)

    def _recorded_digest(self, link: Link) -> str | None:
        """Return DVC's digest of an output that is gone, as the run that made it recorded it."""
        made = [r for r in self.history if r.stage == link.name and r.manifest_sha256 == link.sha256]
        return next((r.digests[link.name] for r in made if link.name in r.digests), None)

    def _dataset(self, name: str, link: Link, producer: str | None) -> Dataset | None:
        """Return a stage's output as MLflow's dataset; None when DVC's name of it is neither recorded nor to be had."""
        digest = self.digests.get(name) or (dvc_digest(link.folder) if link.folder else self._recorded_digest(link))
        if digest is None:
            return None
        self.digests[name] = digest
        manifest = link.manifest
        source = {
            "uri": f"data/{name}",
            "manifest_sha256": link.sha256,
            "dvc": {"path": f"data/{name}", "md5": digest, "cache": cache_path(digest)},
            "git": self.code.commit,
        }
        if producer:
            # A link without a host is one that holds on whichever address and port the server is looked at.
            source["url"] = f"#/experiments/{self.experiment_id}/runs/{producer}"
        size = sum(shard.bytes for shard in manifest.shards)
        profile = {manifest.unit: manifest.counts.out, "files": len(manifest.shards), "bytes": size}
        return Dataset(
            name=name,
            digest=digest[:36],
            source_type="external",
            source=json.dumps(source, sort_keys=True),
            schema=_schema(link.folder),
            profile=json.dumps(profile),
        )

    def _log(
        self,
        *,
        params: Mapping[str, str] | None = None,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        stamp = int(time.time() * 1000)
        entries: list[Any] = [Param(_key(name), value[:_MAX_PARAM]) for name, value in (params or {}).items()]
        entries += [Metric(_key(name), value, stamp, 0) for name, value in (metrics or {}).items()]
        entries += [RunTag(_key(name), value[:_MAX_TAG]) for name, value in (tags or {}).items()]
        for start in range(0, len(entries), _BATCH):
            batch = entries[start : start + _BATCH]
            self.client.log_batch(
                self.run_id,
                params=[e for e in batch if isinstance(e, Param)],
                metrics=[e for e in batch if isinstance(e, Metric)],
                tags=[e for e in batch if isinstance(e, RunTag)],
            )


def producer_of(
    client: MlflowClient, experiment: str, stage: str, manifest_sha256: str, *, run: str | None = None
) -> str | None:
    """Return the id of the newest run that made this output of a stage, None when MLflow has none.

    Args:
        experiment: the experiment's id.
        run: the pipeline run's name; any when left out.
    """
    query = f"tags.`headwater.stage` = '{stage}' and tags.`headwater.manifest` = '{manifest_sha256}'"
    if run:
        query += f" and tags.`headwater.run` = '{run}'"
    runs = client.search_runs([experiment], query, max_results=1)
    return str(runs[0].info.run_id) if runs else None


def is_mirrored(client: MlflowClient, experiment: str, record: run_records.RunRecord) -> bool:
    """Whether MLflow has a run for this record: the one it names, or one made from it later.

    Args:
        experiment: the experiment's id.
    """
    if record.mlflow:
        try:
            client.get_run(record.mlflow.run_id)
        except MlflowException:
            pass
        else:
            return True
    query = f"tags.`headwater.run` = '{record.run}' and tags.`headwater.stage` = '{record.stage}'"
    query += f" and tags.`{STARTED}` = '{record.started_at}'"
    return bool(client.search_runs([experiment], query, max_results=1))


def _facts(record: run_records.RunRecord | None) -> dict[str, str]:
    """Return what the run record says, or will say, of code, libraries and machine, as tags."""
    code = record.code if record else run_records.code_state()
    machine = record.machine if record else run_records.machine()
    found = record.versions if record else run_records.versions()
    flow_run = record.prefect.flow_run_id if record else os.environ.get(run_records.FLOW_RUN_VARIABLE)
    tags = {f"version.{name}": version for name, version in found.items()}
    tags |= {"machine.cpus": str(machine.cpus), "machine.memory": str(machine.memory)}
    tags |= {"machine.platform": machine.platform, "git.dirty": str(code.dirty).lower()}
    if flow_run:
        tags["prefect.flow_run_id"] = flow_run
    # MLflow's own tag makes the commit a column of its run table.
    return {**tags, "mlflow.source.git.commit": code.commit} if code.commit else tags


def _counts(manifest: Manifest) -> dict[str, float]:
    """Return the counts under the same names at every stage, so that the run table has one column for each."""
    counts = manifest.counts
    metrics = {"in": counts.in_, "out": counts.out}
    metrics |= {"dropped": sum(counts.dropped.values())}
    metrics |= {f"dropped.{rule}": number for rule, number in counts.dropped.items()}
    metrics |= {
        "shards.files": len(manifest.shards),
        "shards.bytes": sum(shard.bytes for shard in manifest.shards),
    }
    rows = [shard.rows for shard in manifest.shards if shard.rows is not None and is_part(shard.name)]
    if rows:  # 0 would be said of files that have none
        metrics["shards.rows"] = sum(rows)
    return {name: float(value) for name, value in metrics.items()}


def _figures(output: Path | None) -> dict[str, float]:
    """Return the numbers of the stage's metrics.json (training's and evaluation's results), flattened."""
    path = output / METRICS_NAME if output else None
    if path is None or not path.is_file():
        return {}
    flat = _flat(json.loads(path.read_bytes()), text=False)
    return {name: float(value) for name, value in flat.items() if isinstance(value, int | float)}


def _schema(folder: Path | None) -> str | None:
    first = folder / part_name(0, ".parquet") if folder else None
    if first is None or not first.is_file():
        return None
    columns = [
        {"name": field.name, "type": _COLUMN_TYPES.get(str(field.type), "string"), "required": not field.nullable}
        for field in pq.read_schema(first)
    ]
    return json.dumps({"mlflow_colspec": columns})


def _with_context(dataset: Dataset, context: str) -> DatasetInput:
    return DatasetInput(dataset, tags=[InputTag("mlflow.data.context", context)])


def _flat(value: Any, prefix: str = "", *, text: bool = True) -> dict[str, Any]:
    """Flatten nested settings: {"a": {"b": 1}} → {"a.b": "1"}; lists of plain values stay together."""
    if isinstance(value, Mapping) and value:
        return {k: v for name, part in value.items() for k, v in _flat(part, f"{prefix}{name}.", text=text).items()}
    if isinstance(value, list | tuple) and any(isinstance(part, Mapping) for part in value):
        numbered = {str(index): part for index, part in enumerate(value)}
        return _flat(numbered, prefix, text=text)
    if not prefix:
        return {}
    shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return {prefix[:-1]: shown if text else value}


def _key(name: str) -> str:
    """Return a name that MLflow accepts."""
    return re.sub(r"[^\w\-. /:]", "_", name)[:250]


def _milliseconds(stamp: str | None) -> int | None:
    from datetime import datetime

    return int(datetime.fromisoformat(stamp).timestamp() * 1000) if stamp else None
