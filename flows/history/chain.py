"""The chain of manifests behind a stage's folder, and which run made each of them: from the files alone.

What a run skipped, because DVC found it up to date, is found here too: as part of the chain that another run made.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flows.history import run_records
from tasks.contracts.durable_files import sha256_file
from tasks.contracts.errors import ManifestError
from tasks.contracts.manifest import Manifest, chain_order, manifest_hash, read_manifest
from tasks.contracts.release import BASE_FOLDER
from tasks.contracts.workspace import state_folder

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One stage's output in the chain.

    Attributes:
        name: the input name by which others know it, which is its stage's name.
        folder: where its files are, None when a later run has replaced them; the manifest is kept all the same.
    """

    name: str
    sha256: str
    manifest: Manifest
    folder: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Making:
    """By which run, when and on which code a stage's output was made: what is known before its record is written."""

    run: str
    started_at: str
    code: run_records.Code


def link_of(folder: Path) -> Link:
    """Return a finished stage folder as the end of its chain.

    Raises:
        ManifestError: the folder is missing or unfinished.
    """
    return Link(name=folder.name, sha256=manifest_hash(folder), manifest=read_manifest(folder), folder=folder)


def find(data: Path, name: str, sha256: str) -> Link | None:
    """Return a stage's output by its manifest's hash: from `data`, else what is kept of it, None if nothing is.

    Of a release everything is kept, of other stages the manifest.
    """
    kept = [state_folder() / "releases" / sha256] if name in ("release", BASE_FOLDER) else []
    for folder in (data / name, *kept):
        try:
            if manifest_hash(folder) == sha256:
                return Link(name=name, sha256=sha256, manifest=read_manifest(folder), folder=folder)
        except ManifestError:
            continue
    try:
        return Link(name=name, sha256=sha256, manifest=run_records.kept_manifest(sha256), folder=None)
    except ManifestError:
        pass
    # Each kept release has the manifests of all stages that it was made from.
    for path in sorted((state_folder() / "releases").glob(f"*/manifests/{name}.json")):
        if sha256_file(path) == sha256:
            return Link(name=name, sha256=sha256, manifest=Manifest.model_validate_json(path.read_bytes()), folder=None)
    return None


def walk(data: Path, ends: Mapping[str, str]) -> dict[str, Link]:
    """Return these outputs and all they were made from, by stage name, in the order of the stages.

    Args:
        data: the workspace's folder of stage folders.
        ends: stage name → SHA-256 of its manifest. Where two of the chains name different outputs of one stage, the
            one that is nearer to the ends counts.
    """
    found: dict[str, Link] = {}
    todo = list(ends.items())
    while todo:
        name, sha256 = todo.pop(0)
        if name in found:
            continue
        link = find(data, name, sha256)
        if link is None:
            logger.warning("nothing is kept of data/%s with manifest %s; it is not linked", name, sha256)
            continue
        found[name] = link
        todo += link.manifest.inputs.items()
    return {name: found[name] for name in chain_order({name: link.manifest.inputs for name, link in found.items()})}


def making(record: run_records.RunRecord) -> Making:
    """Return what a run record says of how an output came to be."""
    return Making(run=record.run, started_at=record.started_at, code=record.code)


def makings(links: Iterable[Link], history: Sequence[run_records.RunRecord]) -> dict[str, Making]:
    """Return who made each output: its newest record in `history`. One that came by `dvc pull` has none.

    Args:
        history: run records, oldest first; those up to the moment that is looked at.
    """
    newest = {(r.stage, r.manifest_sha256): r for r in history if r.status == "done"}
    found = {link.name: newest.get((link.manifest.stage, link.sha256)) for link in links}
    return {name: making(record) for name, record in found.items() if record}
