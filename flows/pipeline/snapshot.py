"""The crawl's snapshot is fetched once: what is whole on this disk is put back, not fetched again.

A web that was crawled cannot be crawled again as it was, and a site's owner should not be asked twice. DVC calls the
stage whenever data/crawl is not what dvc.lock and its cache say: its cache was emptied, dvc.lock was lost, a file is
missing. So the stage looks here first. A run record says which settings gave which snapshot; its files are taken from
data/crawl, .headwater/snapshots or the DVC cache, each by its SHA-256 (docs/decisions/0014).
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from flows.history import run_records
from flows.history.chain import Link, find
from flows.history.kept_files import KeptFiles, snapshots_folder
from flows.workspace.graph import Stage
from tasks.contracts.base import StageParams
from tasks.contracts.durable_files import atomic_folder, sha256_file, sync_folder, write_json
from tasks.contracts.errors import ManifestError
from tasks.contracts.manifest import MANIFEST_NAME, Manifest, manifest_hash, read_manifest

logger = logging.getLogger(__name__)

PATHS = "paths"
"""A setting that bears no identity, as equal files give equal bytes wherever they lie; but other files are others."""
IN_DVC = "the DVC cache"
MOST_NAMES_SHOWN = 3


@dataclass(frozen=True, slots=True)
class _Kept:
    """A snapshot that was made with the settings in force: where each of its files is, and which are nowhere."""

    link: Link
    when: str
    files: Mapping[str, Path]
    lost: tuple[str, ...]


def put_back(stage: Stage, params: StageParams) -> Manifest | None:
    """Bring the snapshot of these settings in place, if all of it is on this disk; None where it must be fetched."""
    incomplete: _Kept | None = None
    for link, when in _made_with(stage, params):
        kept = _look_for(stage, link, when)
        if not kept.lost:
            _place(stage, kept)
            shutil.rmtree(_fresh(stage), ignore_errors=True)  # what a kill left half-fetched
            logger.info(
                "%s: the snapshot of %s matches the settings and is whole on this disk: nothing is fetched "
                "(`headwater run --force %s` fetches again)", stage.name, when, stage.name,
            )  # fmt: skip
            return read_manifest(stage.output)
        incomplete = incomplete or kept
    if incomplete:
        logger.warning(
            "%s: of the snapshot of %s, %d of %d files are nowhere on this disk (%s), so it is fetched again",
            stage.name, incomplete.when, len(incomplete.lost), len(incomplete.link.manifest.shards),
            ", ".join(incomplete.lost[:MOST_NAMES_SHOWN]),
        )  # fmt: skip
    return None


def is_whole(stage: Stage, params: StageParams) -> bool:
    """Return whether `put_back` would bring a snapshot in place, so that nothing need be fetched."""
    return any(not _look_for(stage, link, when).lost for link, when in _made_with(stage, params))


@contextmanager
def replaced_when_complete(stage: Stage, params: StageParams) -> Iterator[Path]:
    """Give a folder to fetch into; the old snapshot stays in its place until the new one is complete, and is kept."""
    fresh = _fresh(stage)
    shutil.rmtree(fresh, ignore_errors=True)
    old = _standing(stage.output)
    if old:
        changed = _changed(stage, old, params)
        logger.info(
            "%s: %s; the snapshot of before stays in %s",
            stage.name,
            f"settings changed: {', '.join(changed)}" if changed else "fetching again",
            _place_to_stay(stage, old, stage.output),
        )
    yield fresh
    _swap(stage, fresh)


def take_back(stage: Stage, before: Path | None) -> None:
    """Put the folder of before, or none, in the output's place again; what has been fetched since then is kept too."""
    for folder in (_fresh(stage), stage.output):
        if folder.exists():
            _set_aside(stage, folder, _standing(before) if before else None)
    if before:
        before.rename(stage.output)
        sync_folder(stage.output.parent)


def _fresh(stage: Stage) -> Path:
    return stage.output.with_name(f".{stage.output.name}.new")


def _swap(stage: Stage, fresh: Path) -> None:
    """Put a complete folder in the output's place; what stood there is kept, unless the DVC cache has it."""
    if stage.output.exists():
        _set_aside(stage, stage.output, manifest_hash(fresh))
    fresh.rename(stage.output)
    sync_folder(stage.output.parent)


def _set_aside(stage: Stage, folder: Path, same: str | None = None) -> None:
    """Take a folder away; a snapshot in it is kept, unless the DVC cache has it or it is the `same` as another one."""
    own = _standing(folder)
    stay = _place_to_stay(stage, own, folder) if own and own != same else IN_DVC
    if stay == IN_DVC or Path(stay).exists():
        shutil.rmtree(folder)
    else:
        Path(stay).parent.mkdir(parents=True, exist_ok=True)
        shutil.move(folder, stay)


def _place_to_stay(stage: Stage, sha256: str, folder: Path) -> str:
    """Return where the snapshot in a folder is kept when that folder is taken away."""
    manifest, files = read_manifest(folder), KeptFiles(stage.output.parent)
    link = Link(name=stage.name, sha256=sha256, manifest=manifest, folder=folder)
    whole = all(files.in_dvc(link, shard) for shard in manifest.shards)
    return IN_DVC if whole else str(snapshots_folder() / sha256)


def _standing(folder: Path) -> str | None:
    try:
        return manifest_hash(folder)
    except ManifestError:
        return None


def _settings(settings: Mapping[str, JsonValue], params: StageParams) -> dict[str, JsonValue]:
    """Return of a stage's settings those that decide what is fetched."""
    names = {*params.identity(), PATHS}
    return {name: value for name, value in settings.items() if name in names}


def _made_with(stage: Stage, params: StageParams) -> Iterator[tuple[Link, str]]:
    """Yield the outputs that were made with the settings in force, the newest first."""
    wanted = _settings(params.model_dump(mode="json"), params)
    listed = [record for record in reversed(run_records.records_on_disk(stage.name)) if record.manifest_sha256]
    told = {record.manifest_sha256 for record in listed}
    # No record tells of what a kill left just before it was written, or of what came by `dvc pull`. Its manifest has
    # all settings but the paths of files.
    for folder in (_fresh(stage), stage.output, *sorted(snapshots_folder().glob("*"))):
        own = _standing(folder)
        if own and own not in told and not wanted.get(PATHS) and read_manifest(folder).params == params.identity():
            yield Link(name=stage.name, sha256=own, manifest=read_manifest(folder), folder=folder), "earlier"
    for sha256 in dict.fromkeys(r.manifest_sha256 for r in listed if _settings(r.params, params) == wanted):
        link = find(stage.output.parent, stage.name, sha256) if sha256 else None
        if link:
            yield link, next(r.started_at[:19] for r in listed if r.manifest_sha256 == sha256)


def _look_for(stage: Stage, link: Link, when: str) -> _Kept:
    files, lost = {}, []
    kept = KeptFiles(stage.output.parent)
    for shard in link.manifest.shards:
        near = [folder / shard.name for folder in (stage.output, _fresh(stage), snapshots_folder() / link.sha256)]
        found = next((path for path in near if kept.is_file(path, shard)), None) or kept.in_dvc(link, shard)
        if found:
            files[shard.name] = found
        else:
            lost.append(shard.name)
    return _Kept(link, when, files, tuple(lost))


def _place(stage: Stage, kept: _Kept) -> None:
    """Make the output folder hold the snapshot and nothing else."""
    here = {path.relative_to(stage.output).as_posix() for path in stage.output.rglob("*") if path.is_file()}
    inside = all(path.is_relative_to(stage.output) for path in kept.files.values())
    if inside and here == {MANIFEST_NAME, *kept.files} and _standing(stage.output) == kept.link.sha256:
        return
    with atomic_folder(_fresh(stage)) as folder:
        for name, path in kept.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / name)
        write_json(folder / MANIFEST_NAME, kept.link.manifest.model_dump(mode="json", by_alias=True))
        assert sha256_file(folder / MANIFEST_NAME) == kept.link.sha256, "a manifest is written the same every time"
    _swap(stage, _fresh(stage))


def _changed(stage: Stage, old: str, params: StageParams) -> list[str]:
    """Return the settings that differ from those that the standing snapshot was made with."""
    before = next(
        (
            record.params
            for record in reversed(run_records.records_on_disk(stage.name))
            if record.manifest_sha256 == old
        ),
        read_manifest(stage.output).params,
    )
    wanted = _settings(params.model_dump(mode="json"), params)
    return sorted(name for name, value in wanted.items() if name in before and before[name] != value)
