"""The workspace's files as they stand: nothing added, replaced or linked, records whole, settings those in force.

What stands here reads every byte once and makes nothing again; `verify_documents` and `verify_again` do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from flows.history.digest import dvc_digest
from flows.history.run_records import code_state, latest_record, read_chain, runs_folder, verify_chain
from flows.workspace.adaptation import FOLDER
from flows.workspace.graph import GRAPH_FILE, load_graph
from flows.workspace.params import PARAMS_FILE, read_params, stage_params
from tasks.contracts.base import StageParams
from tasks.contracts.conservation import check_folder
from tasks.contracts.errors import HeadwaterError, ManifestError
from tasks.contracts.manifest import MANIFEST_NAME, Manifest, count_rows, held, holding, read_manifest
from tasks.contracts.release import BASE_FOLDER, MANIFESTS_FOLDER
from training.champions import champions, kept_copy
from training.release.verify import BESIDE, Break, NotCheckableError, Release, conserved, handed_over, sha256_file

DVC_LOCK = Path("dvc.lock")
OWN_OF_DVC = frozenset({".gitignore"})


def folders(data: Path, names: Sequence[str]) -> Iterator[Break]:
    """Hash every file of every stage's folder, and name what else stands there.

    A hard link is the file itself under another name, as the shard cache makes them; it cannot be told from one.
    """
    known = {*names, "release", FOLDER.name, *(load_graph() if GRAPH_FILE.is_file() else ())}
    for name, kind in sorted(Release(data).kinds.items()):
        stage, _, inside = name.partition("/")
        if kind not in ("file", "folder"):
            yield Break(f"{data}/{name}", "a file" if inside else "a folder", f"a {kind}")
        elif not inside and name not in known and name not in OWN_OF_DVC:
            yield Break(f"{data}/{name}", "a folder of a stage, and no other", "added")
    for stage in names:
        folder = data / stage
        if not (folder / MANIFEST_NAME).is_file():
            yield Break(f"{folder}/{MANIFEST_NAME}", "a manifest", "no such file")
        elif not folder.is_symlink():
            yield from _files(folder, read_manifest(folder))


def _files(folder: Path, manifest: Manifest) -> Iterator[Break]:
    listed = {shard.name: shard for shard in manifest.shards}
    kinds = Release(folder).kinds
    present = {name for name, kind in kinds.items() if kind != "folder"}
    for name in sorted(present - set(listed) - {MANIFEST_NAME}):
        yield Break(f"{folder}/{name}", "no such file", "added")
    for name, shard in listed.items():
        path = folder / name
        if kinds.get(name) != "file":
            yield Break(str(path), "a file", kinds.get(name, "missing"))
        elif path.stat().st_size != shard.bytes:
            yield Break(f"{path}, bytes", str(shard.bytes), str(path.stat().st_size))
        elif (digest := sha256_file(path)) != shard.sha256:
            yield Break(f"{path}, SHA-256", shard.sha256, digest)
        elif shard.rows is not None and (rows := count_rows(path)) != shard.rows:
            yield Break(f"{path}, rows", str(shard.rows), str(rows))
    yield from conserved(manifest.stage, manifest.model_dump(mode="json", by_alias=True))


def counted(data: Path, names: Sequence[str]) -> Iterator[Break]:
    """Count every stage's files again, its ledger by rule, and what it took in against what the one before put out."""
    manifests = {name: read_manifest(data / name) for name in names}
    told: dict[str, Any] = {name: one.model_dump(mode="json", by_alias=True) for name, one in manifests.items()}
    for name, manifest in manifests.items():
        for before, recorded in manifest.inputs.items():
            found = sha256_file(_place(data, before, recorded) / MANIFEST_NAME)
            if found != recorded:
                yield Break(f"{data / name / MANIFEST_NAME}, made from {before}", recorded, found)
        yield from handed_over(name, told)
        fresh = {shard.name: count_rows(data / name / shard.name) for shard in manifest.shards}
        own = held(data / name, manifest, fresh)
        counts = manifest.counts
        inputs = [holding(_place(data, before, recorded)) for before, recorded in manifest.inputs.items()]
        try:
            check_folder(own, manifest.unit, counts.in_, counts.dropped, inputs, manifest.params)
        except HeadwaterError as error:
            yield Break(f"{error.problem}: {error.where}", str(error.expected), str(error.found))


def _place(data: Path, name: str, sha256: str) -> Path:
    """Return where what a stage was made from stands: beside it or, of an adaptation, where its base's data is."""
    there = data / name
    if data != FOLDER or (there / MANIFEST_NAME).is_file():
        return there
    return (kept_copy(sha256) or there) if name == BASE_FOLDER else data.parent / name


def stages(release: Path, data: Path, names: Sequence[str]) -> Iterator[Break]:
    """Compare the stages' manifests with the release's copies."""
    for stage in names:
        told, found = (
            sha256_file(p) for p in (release / MANIFESTS_FOLDER / f"{stage}.json", data / stage / MANIFEST_NAME)
        )
        if told != found:
            yield Break(f"{data / stage / MANIFEST_NAME}, SHA-256", told, found)


def records() -> Iterator[Break]:
    """Check the chain of run records, and that the manifest of each is kept."""
    if not read_chain():
        if any(runs_folder().glob("*/*.json")) or champions():
            yield Break(str(runs_folder()), "the records of the runs that were made here", "no chain of records")
            return
        raise NotCheckableError("this workspace has no run records")
    for problem in verify_chain():
        yield Break("run records", "an unbroken chain", problem)


def recorded(data: Path) -> Iterator[Break]:
    """Look for the run that made each folder."""
    if not read_chain():
        raise NotCheckableError("this workspace has no run records")
    for folder in sorted(path.parent for path in data.glob(f"*/{MANIFEST_NAME}")):
        record = latest_record(folder.name, sha256_file(folder / MANIFEST_NAME))
        where = f"{folder}/{MANIFEST_NAME}"
        if record is None:
            yield Break(where, "a manifest that a run record names", "one made elsewhere, or changed")
        elif (inputs := read_manifest(folder).inputs) != record.inputs and set(inputs) <= set(record.inputs):
            yield Break(f"{where}, inputs", str(record.inputs), str(inputs))


def other_code(data: Path) -> str:
    """Say which folders another version of Headwater made, empty where none did: it may make them otherwise."""
    here = code_state().commit
    made: dict[str, list[str]] = {}
    for folder in sorted(path.parent for path in data.glob(f"*/{MANIFEST_NAME}")):
        record = latest_record(folder.name, sha256_file(folder / MANIFEST_NAME))
        if record is not None and record.code.commit and record.code.commit != here:
            made.setdefault(record.code.commit, []).append(folder.name)
    if not here or not made:
        return ""
    told = "; ".join(f"{', '.join(names)}: commit {commit[:12]}" for commit, names in made.items())
    return (
        f"Other code than stands here (commit {here[:12]}) made {told}. Where what is made again differs, that may be "
        "all there is to it: a clone with that commit and this data/ and .headwater/ tells."
    )


def settings(data: Path, names: Sequence[str]) -> Iterator[Break]:
    """Compare params.yaml, dvc.lock, the run records and the manifests with each other, and dvc.lock with the disk."""
    if not GRAPH_FILE.is_file() or not PARAMS_FILE.is_file():
        raise NotCheckableError("dvc.yaml and params.yaml of the workspace are not here")
    if not DVC_LOCK.is_file():
        yield Break(str(DVC_LOCK), "DVC's record of the stages", "no such file")
        return
    try:
        locked: Mapping[str, Any] = YAML(typ="safe").load(DVC_LOCK)["stages"]
    except (YAMLError, KeyError, TypeError) as error:
        raise ManifestError("dvc.lock cannot be read", where=str(DVC_LOCK), found=str(error)) from error
    graph, current = load_graph(), read_params()
    outs = {out["path"]: out.get("md5") for entry in locked.values() for out in entry.get("outs", [])}
    for name in [*names, "release"]:
        where = f"{DVC_LOCK}, {name}"
        if name not in locked or name not in graph:
            yield Break(where, "an entry", "none")
            continue
        entry, stage = locked[name], graph[name]
        # A takedown's mark is added to a release; its other files are held against its manifest.
        marked = any((data / name / mark).exists() for mark in BESIDE)
        if not marked and (digest := dvc_digest(data / name)) != outs.get(str(stage.output)):
            yield Break(f"{where}, outs, {stage.output}", digest, str(outs.get(str(stage.output))))
        for dep in entry.get("deps", []):
            if dep["path"] in outs and dep.get("md5") != outs[dep["path"]]:
                yield Break(f"{where}, deps, {dep['path']}", str(outs[dep["path"]]), str(dep.get("md5")))
        manifest = read_manifest(data / name)
        params = stage_params(current, stage)
        for key, was, now in _changed(entry.get("params", {}).get(str(PARAMS_FILE), {}), current, params):
            yield Break(f"{PARAMS_FILE}, {key}", f"{was}, as in {DVC_LOCK}", str(now))
        for key, setting in params.in_manifest().items():
            if manifest.params.get(key) != setting:
                yield Break(
                    f"{data / name / MANIFEST_NAME}, params, {key}", str(setting), str(manifest.params.get(key))
                )
        record = latest_record(name, sha256_file(data / name / MANIFEST_NAME))
        for key, setting in params.identity().items() if record is not None and record.params else ():
            if record is not None and record.params.get(key) != setting:
                yield Break(f"run record of {name}, params, {key}", str(setting), str(record.params.get(key)))


def _changed(
    locked: Mapping[str, Any], current: Mapping[str, Any], params: StageParams
) -> Iterator[tuple[str, object, object]]:
    """Yield the settings that decide a stage's bytes and are not what DVC ran the stage with."""
    for key, was in locked.items():
        now: Any = current
        for part in key.split("."):
            now = now.get(part) if isinstance(now, Mapping) else None
        if isinstance(was, Mapping) and isinstance(now, Mapping):
            for name in params.identity():
                if was.get(name) != now.get(name):
                    yield f"{key}.{name}", was.get(name), now.get(name)
        elif was != now:
            yield key, was, now
