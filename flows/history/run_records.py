"""Run records: what happened when a stage ran, on which code, libraries and machine.

A manifest says what a folder is; a run record says how it came to be. Records are files beside the data,
`.headwater/runs/<run>/<stage>.json`, never changed once written, and chained by hash in `.headwater/runs/chain.jsonl`,
so that a record that was edited, removed or slipped in later is found. They are the truth that MLflow mirrors.
"""

from __future__ import annotations

import fcntl
import importlib.metadata
import json
import logging
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Literal

import psutil
from pydantic import Field, JsonValue, ValidationError

from tasks.contracts.base import FrozenModel
from tasks.contracts.code_hash import code_hash
from tasks.contracts.durable_files import (
    canonical_json,
    disk_full_is_clear,
    sha256_file,
    sha256_json,
    sync_file,
    write_bytes,
    write_json,
)
from tasks.contracts.errors import HeadwaterError, ManifestError, UsageError
from tasks.contracts.manifest import MANIFEST_NAME, Manifest
from tasks.contracts.redaction import without_secrets
from tasks.contracts.release import MANIFESTS_FOLDER
from tasks.contracts.workspace import ROOT, state_folder

logger = logging.getLogger(__name__)

RUN_VARIABLE = "HEADWATER_RUN"
FLOW_RUN_VARIABLE = "HEADWATER_FLOW_RUN_ID"
TASK_RUN_VARIABLE = "HEADWATER_TASK_RUN_ID"
"""In a stage's environment: which run it is part of, and Prefect's ids for that."""

LIBRARIES = (
    "datatrove",
    "deepspeed",
    "dvc",
    "lm-eval",
    "mlflow",
    "prefect",
    "pyarrow",
    "ray",
    "tokenizers",
    "torch",
    "trafilatura",
    "transformers",
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class Code(FrozenModel):
    """The state of the code: the git commit (None outside git), whether files differed from it, and a hash of its own.

    `sha256` is over the sources of tasks/ and training/ and the pinned versions: what decides the bytes of a release.
    Records of before it was kept have None.
    """

    commit: str | None = None
    dirty: bool | None = None
    sha256: str | None = None


class Machine(FrozenModel):
    """What the stage ran on, without naming it: processors, memory in bytes, platform."""

    cpus: int
    memory: int
    platform: str


class MlflowIds(FrozenModel):
    """Where MLflow shows this record."""

    run_id: str
    parent_run_id: str
    experiment: str


class PrefectIds(FrozenModel):
    """Where Prefect shows this record; None for what ran outside a flow."""

    flow_run_id: str | None = None
    task_run_id: str | None = None


class Failure(FrozenModel):
    """Why a stage failed: the error's class and text, and whether trying again may help."""

    type: str
    message: str
    transient: bool = False


class RunRecord(FrozenModel):
    """What happened when one stage ran.

    Attributes:
        started_at: RFC 3339, UTC; `ended_at` likewise.
        versions: "python" and the main libraries → installed version.
        manifest_sha256: the output's manifest; None when the stage failed.
        params: every setting, those that do not bear identity too; `inputs` as in a manifest. A stage that failed has
            no manifest to say either.
        digests: folder name → DVC's digest of it ("<md5>.dir"): the stage's inputs and its output.
        shard_hits: shards taken from the shard cache, None where the stage does not say.
        previous: SHA-256 of the record before it in the chain, None for the first.
    """

    run: str
    stage: str
    status: Literal["done", "failed"]
    started_at: str
    ended_at: str
    code: Code
    versions: dict[str, str]
    machine: Machine
    manifest_sha256: str | None = None
    params: dict[str, JsonValue] = Field(default_factory=dict)
    inputs: dict[str, str] = Field(default_factory=dict)
    digests: dict[str, str] = Field(default_factory=dict)
    shard_hits: int | None = None
    mlflow: MlflowIds | None = None
    prefect: PrefectIds = PrefectIds()
    error: Failure | None = None
    previous: str | None = None

    @property
    def seconds(self) -> float:
        """How long the stage took."""
        return (datetime.fromisoformat(self.ended_at) - datetime.fromisoformat(self.started_at)).total_seconds()


class ChainLine(FrozenModel):
    """One line of the chain: a record's path under `.headwater/runs`, its SHA-256, and that of the one before."""

    record: str
    sha256: str
    previous: str | None


def runs_folder() -> Path:
    """Return the folder of run records."""
    return state_folder() / "runs"


def now() -> str:
    """Return the time as records hold it: RFC 3339 in UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def new_run_name() -> str:
    """Return a name for a run that sorts by its start, such as "20260102-030405-1a2b"."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{os.urandom(2).hex()}"


def failure(error: BaseException) -> Failure:
    """Describe an error for a record."""
    transient = isinstance(error, HeadwaterError) and error.transient
    return Failure(type=type(error).__name__, message=without_secrets(str(error) or repr(error)), transient=transient)


def write_record(
    *,
    run: str,
    stage: str,
    started_at: str,
    output: Path | None = None,
    error: BaseException | None = None,
    params: Mapping[str, JsonValue] | None = None,
    inputs: Mapping[str, Path] | None = None,
    digests: dict[str, str] | None = None,
    shard_hits: int | None = None,
    mlflow: MlflowIds | None = None,
    prefect: PrefectIds | None = None,
) -> RunRecord:
    """Append the record of a stage that has just ended, and return it.

    Args:
        run: the pipeline run's name; the stages of one run share it.
        started_at: from `now()`, before the stage began.
        output: the finished folder of a stage that succeeded; its manifest is kept beside the records, by hash.
        error: why the stage failed; one of `output` and `error` is given.
        inputs: input name → stage folder; those that are unfinished are left out.

    Raises:
        UsageError: the run's or stage's name cannot be a file's name.
    """
    assert (output is None) != (error is None), "a stage either has an output or failed"
    for name in (run, stage):
        if not _NAME.fullmatch(name):
            raise UsageError(
                "a run's name cannot be used", found=repr(name), expected="letters, digits, dot, dash, underscore"
            )
    with _locked():
        chain = read_chain()
        record = RunRecord(
            run=run,
            stage=stage,
            status="done" if error is None else "failed",
            started_at=started_at,
            ended_at=now(),
            code=code_state(),
            versions=versions(),
            machine=machine(),
            manifest_sha256=_keep_manifest(output) if output else None,
            params=dict(params or {}),
            inputs=_hashes(inputs or {}),
            digests=digests or {},
            shard_hits=shard_hits,
            mlflow=mlflow,
            prefect=prefect or PrefectIds(),
            error=failure(error) if error else None,
            previous=chain[-1].sha256 if chain else None,
        )
        path = _free_path(run, stage)
        write_json(path, record.model_dump(mode="json"))
        line = ChainLine(
            record=path.relative_to(runs_folder()).as_posix(), sha256=sha256_file(path), previous=record.previous
        )
        with disk_full_is_clear(_chain_path()), _chain_path().open("ab") as stream:
            stream.write(canonical_json(line.model_dump(mode="json")) + b"\n")
        sync_file(_chain_path())
    return record


def read_records(run: str | None = None) -> list[RunRecord]:
    """Return the records of one run, or of all, oldest first.

    Raises:
        ManifestError: a record is missing or cannot be read.
    """
    lines = [line for line in read_chain() if run is None or line.record.startswith(f"{run}/")]
    return [_read(runs_folder() / line.record) for line in lines]


def records_on_disk(stage: str = "*") -> list[RunRecord]:
    """Return every record that can be read, whether or not the chain lists it: for finding things, never for proof."""
    found = []
    for path in sorted(path for path in _record_paths() if fnmatch(path.name.split(".")[0], stage)):
        with suppress(ManifestError):
            found.append(_read(path))
    return sorted(found, key=lambda record: record.ended_at)


def missing_records() -> list[str]:
    """Return the records that the chain lists and that are gone, by their names under `.headwater/runs`."""
    return [line.record for line in read_chain() if not (runs_folder() / line.record).is_file()]


def latest_record(stage: str, manifest_sha256: str | None = None) -> RunRecord | None:
    """Return the newest successful record of a stage (whose output had this manifest), None if there is none."""
    for line in reversed(read_chain()):
        if Path(line.record).name.split(".")[0] == stage:
            record = _read(runs_folder() / line.record)
            if record.status == "done" and manifest_sha256 in (None, record.manifest_sha256):
                return record
    return None


def kept_manifest(manifest_sha256: str) -> Manifest:
    """Return a manifest of any earlier run by its hash.

    Raises:
        ManifestError: no such manifest was kept, or it does not match its hash.
    """
    path = kept_manifest_path(manifest_sha256)
    if not path.is_file() or sha256_file(path) != manifest_sha256:
        raise ManifestError("no such manifest is kept", where=str(path), expected=manifest_sha256)
    return Manifest.model_validate_json(path.read_bytes())


def read_chain() -> list[ChainLine]:
    """Return the chain, oldest first; a last line that a crash cut short is left out.

    Raises:
        ManifestError: another line cannot be read.
    """
    if not _chain_path().exists():
        return []
    lines = _chain_path().read_bytes().split(b"\n")[:-1]
    try:
        return [ChainLine.model_validate_json(line) for line in lines]
    except ValidationError as error:
        raise ManifestError(
            "the chain of run records cannot be read",
            where=str(_chain_path()),
            found=str(error).splitlines()[0],
            fix="restore it from a backup; `headwater verify` says which records are affected",
        ) from error


def verify_chain() -> list[str]:
    """Check every record against the chain; return one sentence for each thing that is wrong, none if all is well."""
    problems: list[str] = []
    chain = read_chain()
    previous: str | None = None
    for line in chain:
        path = runs_folder() / line.record
        if line.previous != previous:
            problems.append(f"{line.record}: the chain names another record before it")
        if not path.is_file():
            problems.append(f"{line.record}: the record is missing")
        elif sha256_file(path) != line.sha256:
            problems.append(f"{line.record}: the record was changed after it was written")
        else:
            record = _read(path)
            if record.previous != line.previous:
                problems.append(f"{line.record}: the record names another one before it than the chain does")
            if record.manifest_sha256 is not None:
                problems += _kept_problems(line.record, record.manifest_sha256)
        previous = line.sha256
    listed = {line.record for line in chain}
    found = {p.relative_to(runs_folder()).as_posix() for p in _record_paths()}
    problems += [f"{name}: the record is not in the chain" for name in sorted(found - listed)]
    return problems


def _kept_problems(record: str, sha256: str) -> list[str]:
    path = kept_manifest_path(sha256)
    if not path.is_file() or path.is_symlink():
        return [f"{record}: the manifest that it names is not kept any more ({path.name})"]
    return [] if sha256_file(path) == sha256 else [f"{record}: the kept manifest was changed ({path.name})"]


@cache
def code_state() -> Code:
    """Return the git commit of the project, whether its files differ from it, and the hash of its sources.

    Asked once: a process goes on with the code that it has loaded.
    """
    pins = ROOT / "constraints.txt"
    sha256 = sha256_json([code_hash("tasks", "training"), sha256_file(pins) if pins.is_file() else None])
    commit = _git("rev-parse", "HEAD")
    if commit is None:
        return Code(sha256=sha256)
    changes = _git("status", "--porcelain", "--untracked-files=no")
    return Code(commit=commit, dirty=bool(changes) if changes is not None else None, sha256=sha256)


@cache
def _installed() -> tuple[tuple[str, str], ...]:
    found = []
    for name in LIBRARIES:
        try:
            found.append((name, importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            continue
    return tuple(found)


def versions() -> dict[str, str]:
    """Return the versions of Python and of the main libraries that are installed."""
    return {"python": platform.python_version(), **dict(_installed())}


def machine() -> Machine:
    """Return this machine's size and platform."""
    return Machine(
        cpus=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory=psutil.virtual_memory().total,
        platform=f"{platform.system()}-{platform.machine()}",
    )


def _git(*arguments: str) -> str | None:
    git = shutil.which("git")
    if git is None:
        return None
    result = subprocess.run([git, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return result.stdout.strip() if result.returncode == 0 else None


def _chain_path() -> Path:
    return runs_folder() / "chain.jsonl"


def kept_manifest_path(sha256: str) -> Path:
    """Return where the manifest with this hash is kept, if any run of this workspace made it."""
    return runs_folder() / MANIFESTS_FOLDER / f"{sha256}.json"


def _record_paths() -> Iterable[Path]:
    return (p for p in runs_folder().glob("*/*.json") if p.parent.name != "manifests")


def _hashes(inputs: Mapping[str, Path]) -> dict[str, str]:
    finished = {name: folder / MANIFEST_NAME for name, folder in sorted(inputs.items())}
    return {name: sha256_file(path) for name, path in finished.items() if path.is_file()}


def _keep_manifest(output: Path) -> str:
    sha256 = sha256_file(output / MANIFEST_NAME)
    if not kept_manifest_path(sha256).exists():
        write_bytes(kept_manifest_path(sha256), (output / MANIFEST_NAME).read_bytes())
    return sha256


def _free_path(run: str, stage: str) -> Path:
    """Return where the record goes; a stage that ran before in this run (a retry) gets a number."""
    path, attempt = runs_folder() / run / f"{stage}.json", 1
    while path.exists():
        attempt += 1
        path = runs_folder() / run / f"{stage}.{attempt}.json"
    return path


def _read(path: Path) -> RunRecord:
    try:
        return RunRecord.model_validate_json(path.read_bytes())
    except (OSError, ValidationError, json.JSONDecodeError) as error:
        raise ManifestError(
            "a run record cannot be read",
            where=str(path),
            found=str(error).splitlines()[0],
            fix="`headwater verify` lists what is wrong with the chain",
        ) from error


@contextmanager
def _locked() -> Iterator[None]:
    """Let one process at a time append to the chain, and cut off a line that a crash left half-written."""
    runs_folder().mkdir(parents=True, exist_ok=True)
    with (runs_folder() / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _chain_path().exists():
            content = _chain_path().read_bytes()
            whole = content.rfind(b"\n") + 1
            if whole != len(content):
                logger.warning("the chain of run records ended in half a line, which is cut off")
                with _chain_path().open("r+b") as stream:
                    stream.truncate(whole)
        yield
