"""Puts a release into MLflow: its picture and papers with its run, its files in the model registry.

From the registered version, an auditor who has only MLflow finds the gate's verdict and approver, the picture of the
chain, the papers, and through the training run's datasets every stage back to the crawl.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path

from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from flows.history.chain import Link
from flows.history.marks import takedown_note
from flows.history.releases import KnownRelease
from flows.mlflow.stage_runs import NOTE, StageRun, producer_of
from flows.report.picture import PICTURE, lineage_page
from flows.report.verdict import Verdict, read_verdict
from tasks.contracts.files import MODEL_FOLDER
from tasks.contracts.manifest import MANIFEST_NAME, Manifest
from tasks.contracts.release import (
    GATE_NAME,
    MANIFESTS_FOLDER,
    MODEL_CARD_NAME,
    SIGNATURE_NAME,
    TAKEDOWN_MARK_NAME,
    TAKEDOWN_NOTICE_NAME,
)
from tasks.contracts.stages import model_stage
from training.champions import kept_copy
from training.release.signing import signer_of

logger = logging.getLogger(__name__)

MODEL = "headwater"
CHAMPION = "champion"
TAKEDOWN = "headwater.takedown"
"""Tag of a version that was trained on text which has been taken down since."""
TAKEN = "**Taken down.**"
SIGNATURE_TAG = "headwater.signature"
FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n+", re.DOTALL)
PAPERS = "papers"
PAPER_KINDS = (".md", ".json", ".jsonld", ".html", ".txt", ".yaml")
PAPER_BYTES = 4_000_000
"""Larger files are data, not papers; they stand with the release's files."""

_MAX_DESCRIPTION = 5000
"""Characters of a version's description that MLflow's database takes (`SqlModelVersion.description`)."""


def publish_release(stage_run: StageRun, release: Link, *, model: str = MODEL) -> str:
    """Log a release's picture and papers with its run, register it, and move the alias `champion` to it.

    The version's files are kept with the training run: a version's source must lie in the run that the registry links
    it to. A release that is registered already (the same manifest) keeps its version, and only the alias moves.

    Args:
        release: the release's folder, which is there.

    Returns:
        The version's number.
    """
    assert release.folder, "of a release all files are kept"
    client, run_id = stage_run.client, stage_run.run_id
    page = lineage_page(release, data=stage_run.data, making=stage_run.making, history=stage_run.history)
    client.log_text(run_id, page, PICTURE)
    for paper in papers(release):
        client.log_artifact(run_id, str(release.folder / paper), (Path(PAPERS) / paper).parent.as_posix())
    version = _registered(client, model, release.sha256) or _register(stage_run, release, page, model)
    publish_signature(client, release.sha256, model=model)
    client.set_registered_model_alias(model, CHAMPION, version)
    client.set_tag(run_id, "headwater.model_version", f"{model} {version}")
    note = f"Registered as [{model}, version {version}](#/models/{model}/versions/{version}), alias `{CHAMPION}`."
    where = f"#/experiments/{stage_run.experiment_id}/runs/{run_id}/artifacts"
    client.set_tag(run_id, NOTE, f"{note}\n\n[The chain as a picture]({where}/{PICTURE}) · [papers]({where}/{PAPERS})")
    return version


def mark_taken_down(client: MlflowClient, release: KnownRelease, *, model: str = MODEL) -> None:
    """Say of a marked release's version that text in it was taken down.

    In a tag, in the first line that one reads of it, and by the mark's two files beside those that it kept.
    """
    note = takedown_note(release.takedown or {})
    kept = f"name = '{model}' and tags.`headwater.manifest` = '{release.manifest_sha256}'"
    for version in client.search_model_versions(kept):
        for name in (TAKEDOWN_MARK_NAME, TAKEDOWN_NOTICE_NAME):
            client.log_artifact(version.run_id, str(release.folder / name), _files_of(release.manifest_sha256))
        client.set_model_version_tag(model, version.version, TAKEDOWN, note)
        described = version.description or ""
        if described.startswith(TAKEN):
            described = described.partition("\n\n")[2]
        client.update_model_version(model, version.version, _cut(f"{TAKEN} {note}\n\n{described}"))


def _files_of(manifest_sha256: str) -> str:
    """Return where the files of a version are kept among the artifacts of its training run."""
    return f"release/{manifest_sha256[:12]}"


def publish_signature(client: MlflowClient, release: str, *, model: str = MODEL) -> bool:
    """Put a release's signature beside its version's files, and say by a tag whose it is; False where there is none.

    Args:
        release: SHA-256 of the release's manifest.
    """
    kept = kept_copy(release)
    if kept is None or not (kept / SIGNATURE_NAME).is_file():
        return False
    version = _registered(client, model, release)
    if version is None:
        return False
    run_id = client.get_model_version(model, version).run_id
    client.log_artifact(run_id, str(kept / SIGNATURE_NAME), _files_of(release))
    client.set_model_version_tag(model, version, SIGNATURE_TAG, f"OpenSSF, key {signer_of(kept / SIGNATURE_NAME)}")
    return True


def papers(release: Link) -> Iterator[str]:
    """Yield the names of a release's files that people read: all texts but those of the model itself.

    What belongs to the model is what its training wrote, by the manifest of it in the release.
    """
    assert release.folder, "of a release all files are kept"
    made_by = model_stage(release.manifest.inputs)
    trained = _names_of_model(release.folder / MANIFESTS_FOLDER / f"{made_by}.json")
    for shard in release.manifest.shards:
        if shard.name.endswith(PAPER_KINDS) and shard.bytes <= PAPER_BYTES and shard.name not in trained:
            yield shard.name


def _names_of_model(manifest: Path) -> set[str]:
    if not manifest.is_file():
        return set()
    shards = Manifest.model_validate_json(manifest.read_bytes()).shards
    inside = f"{MODEL_FOLDER}/"
    return {shard.name.removeprefix(inside) for shard in shards if shard.name.startswith(inside)}


def _registered(client: MlflowClient, model: str, sha256: str) -> str | None:
    try:
        client.get_registered_model(model)
    except MlflowException:
        client.create_registered_model(model, description="Checkpoints that passed the gate.")
        return None
    found = client.search_model_versions(f"name = '{model}' and tags.`headwater.manifest` = '{sha256}'")
    return str(max(int(version.version) for version in found)) if found else None


def _register(stage_run: StageRun, release: Link, page: str, model: str) -> str:
    assert release.folder, "of a release all files are kept"
    client = stage_run.client
    made_by = model_stage(release.manifest.inputs)
    train_manifest = release.manifest.inputs[made_by]
    training = producer_of(client, stage_run.experiment_id, made_by, train_manifest)
    if training is None:
        training = stage_run.run_id
        logger.warning("MLflow has no run of this release's training: `headwater lineage sync` adds what it lacks")
    client.log_artifacts(training, str(release.folder), _files_of(release.sha256))
    # Beside the version's files, which are the release's and no others: `verify` says so of a download, too.
    client.log_text(training, page, f"lineage/{release.sha256[:12]}/{PICTURE}")
    verdict = read_verdict(release.folder / GATE_NAME)
    tags = {
        "headwater.manifest": release.sha256,
        "headwater.train_manifest": train_manifest,
        "headwater.release_run": stage_run.run_id,
        "gate.verdict": verdict.verdict if verdict else "",
        "gate.approver": verdict.approver if verdict else "",
        **{
            f"sha256.{shard.name.replace('/', '.')}": shard.sha256
            for shard in release.manifest.shards
            if shard.name.endswith(".safetensors")
        },
    }
    created: ModelVersion = client.create_model_version(
        model,
        f"{client.get_run(training).info.artifact_uri}/{_files_of(release.sha256)}",
        run_id=training,
        tags={k: v for k, v in tags.items() if v},
        description=_description(stage_run, release, verdict, training),
    )
    return str(created.version)


def _description(stage_run: StageRun, release: Link, verdict: Verdict | None, training: str) -> str:
    """Return what the version's page says: the verdict, where the evidence is, then the model card."""
    assert release.folder, "of a release all files are kept"
    runs = f"#/experiments/{stage_run.experiment_id}/runs"
    lines = []
    if verdict:
        lines += [f"**Gate: {verdict.verdict}.** Approval: {verdict.approver}.", ""]
    lines += [
        f"- [The chain from the crawl to this release, as a picture]({runs}/{stage_run.run_id}/artifacts/{PICTURE})",
        f"- [The papers]({runs}/{stage_run.run_id}/artifacts/{PAPERS})",
        f"- [The training run, with its datasets back to the crawl]({runs}/{training})",
        f"- [The pipeline run: what each stage kept and dropped, what was reused]({runs}/{stage_run.parent_id})",
        f"- SHA-256 of the release's `{MANIFEST_NAME}`: `{release.sha256}`",
        "",
    ]
    card = release.folder / MODEL_CARD_NAME
    if card.is_file():
        # Without the front matter, which is for Hugging Face's hub and would be shown as a heading.
        lines.append(FRONT_MATTER.sub("", card.read_text(encoding="utf-8")))
    return _cut("\n".join(lines))


def _cut(text: str) -> str:
    """Return a description that MLflow's database takes."""
    rest = f"\n\n… The rest stands in {PAPERS}/README.md."
    if len(text) <= _MAX_DESCRIPTION:
        return text
    # Cut between two lines, so that no table row is halved.
    return text[: _MAX_DESCRIPTION - len(rest)].rpartition("\n")[0] + rest
