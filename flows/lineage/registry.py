"""Puts a release into MLflow's model registry, tied to the training run it came from."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from flows.lineage.mlflow_runs import EXPERIMENT, producer_of
from tasks.contracts.manifest import manifest_hash, read_manifest

logger = logging.getLogger(__name__)

MODEL = "headwater"
CHAMPION = "champion"
FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n+", re.DOTALL)


def register_release(
    client: MlflowClient,
    release: Path,
    *,
    release_run_id: str,
    experiment: str = EXPERIMENT,
    model: str = MODEL,
) -> str:
    """Register a release folder as a model version and move the alias `champion` to it.

    The files are kept with the training run: a version's source must lie in the run that the registry links it to.
    A release that is registered already (the same manifest) keeps its version, and only the alias moves.

    Args:
        release_run_id: the run of the stage `release`, named in the version's tags.

    Returns:
        The version's number.
    """
    sha256 = manifest_hash(release)
    version = _registered(client, model, sha256) or _register(client, release, release_run_id, model)
    client.set_registered_model_alias(model, CHAMPION, version)
    client.set_tag(release_run_id, "headwater.model_version", f"{model} {version}")
    link = f"#/models/{model}/versions/{version}"
    note = f"Registered as [{model}, version {version}]({link}) in experiment {experiment}, alias `{CHAMPION}`."
    client.set_tag(release_run_id, "mlflow.note.content", note)
    return version


def _registered(client: MlflowClient, model: str, sha256: str) -> str | None:
    try:
        client.get_registered_model(model)
    except MlflowException:
        client.create_registered_model(model, description="Checkpoints that passed the gate.")
        return None
    found = client.search_model_versions(f"name = '{model}' and tags.`headwater.manifest` = '{sha256}'")
    return str(max(int(version.version) for version in found)) if found else None


def _register(client: MlflowClient, release: Path, release_run_id: str, model: str) -> str:
    manifest = read_manifest(release)
    train_manifest = manifest.inputs.get("train", "")
    place = client.get_run(release_run_id).info.experiment_id
    training = producer_of(client, place, "train", train_manifest)
    if training is None:
        training = release_run_id
        logger.warning("MLflow has no run of this release's training: `headwater lineage sync` adds what it lacks")
    folder = f"release/{manifest_hash(release)[:12]}"
    client.log_artifacts(training, str(release), folder)
    source = f"{client.get_run(training).info.artifact_uri}/{folder}"
    tags = {
        "headwater.manifest": manifest_hash(release),
        "headwater.train_manifest": train_manifest,
        "headwater.release_run": release_run_id,
        "gate.verdict": _verdict(release),
        **{f"sha256.{s.name.replace('/', '.')}": s.sha256 for s in manifest.shards if s.name.endswith(".safetensors")},
    }
    card = release / "README.md"
    # Without the front matter, which is for Hugging Face's hub and would be shown as a heading.
    description = FRONT_MATTER.sub("", card.read_text(encoding="utf-8")) if card.is_file() else None
    created: ModelVersion = client.create_model_version(
        model, source, run_id=training, tags={k: v for k, v in tags.items() if v}, description=description
    )
    return str(created.version)


def _verdict(release: Path) -> str:
    path = release / "gate.json"
    try:
        report = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return ""
    return str(report.get("verdict", "")) if isinstance(report, dict) else ""
