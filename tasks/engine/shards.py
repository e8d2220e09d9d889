"""Map a function over shards: in parallel by Ray Data, resumable, each finished shard kept under its key.

A shard's key is the SHA-256 of everything that decides its bytes. A key that is already in the shard cache is
a hit: its files are hard-linked into the output instead of made again. That one rule gives resume after a crash,
cheap increments, and free returns to earlier params.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import logging
import os
import pickle
import shutil
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import xxhash
from pydantic import BaseModel, ConfigDict, JsonValue

from tasks.contracts.code_hash import code_hash
from tasks.contracts.conservation import REPORT
from tasks.contracts.document import Document, read_documents, write_documents
from tasks.contracts.durable_files import atomic_folder, disk_full_is_clear, sha256_file, sha256_json, write_json
from tasks.contracts.errors import ConservationError, HeadwaterError, ManifestError
from tasks.contracts.files import DROPPED_FOLDER
from tasks.contracts.ledger import LedgerRow, drops_by_rule, write_ledger
from tasks.contracts.manifest import NO_COUNTS, Counts, Shard, count_rows, describe_file, manifest_hash, text_shards
from tasks.contracts.workspace import state_folder
from tasks.engine.session import brief_seconds, open_session, ray_data, session_is_near, session_is_open

logger = logging.getLogger(__name__)

SMALL_BYTES = 1024 * 1024
"""A shard of no more input is small: it takes a few seconds at most, whatever the stage."""

reused: dict[str, int] = {}
"""Map's name → how many shards its last call in this process took from the shard cache: for the run record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardWork:
    """One shard to make.

    Attributes:
        name: "part-00000": the stem of every file that this shard adds to the output.
        inputs: the files it is made from.
        input_hashes: their SHA-256, in the same order.
    """

    name: str
    inputs: tuple[Path, ...]
    input_hashes: tuple[str, ...]

    def plus(self, path: Path, sha256: str | None = None) -> ShardWork:
        """Return this work with one more file to read, whose SHA-256 is taken where it is not known."""
        return replace(
            self, inputs=(*self.inputs, path), input_hashes=(*self.input_hashes, sha256 or sha256_file(path))
        )


ShardFunction = Callable[[ShardWork, Path], Counts]
"""Makes one shard: reads `work.inputs`, writes files named after `work.name` into the folder, returns its counts."""


class _Record(BaseModel):
    """What a shard cache entry holds.

    `checksums` are those of `files`, in the same order, by which a damaged entry is found: every hit is checked, and
    XXH3 (128 bits) takes a fifth of the time of SHA-256. Files are named by their SHA-256 all the same, in manifests.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    counts: Counts
    files: tuple[Shard, ...]
    checksums: tuple[str, ...]


@dataclass(slots=True)
class MapResult:
    """What `map_shards` made: the summed counts and every file, hashed, ready for `commit_manifest`.

    `folders` says where in the shard cache each shard's files stand, `made` which shards were not there yet.
    """

    counts: Counts = NO_COUNTS
    files: list[Shard] = field(default_factory=list)
    folders: dict[str, Path] = field(default_factory=dict)
    made: tuple[str, ...] = ()
    hits: int = 0

    def table(self, item: ShardWork) -> Path:
        """Return the Parquet file that was made for a piece of work, in the shard cache."""
        return self.folders[item.name] / f"{item.name}.parquet"

    def paired(self, work: Sequence[ShardWork]) -> list[ShardWork]:
        """Return the work of the next step: each piece reads the Parquet file that was made for it, too."""
        hashes = {shard.name: shard.sha256 for shard in self.files}
        return [item.plus(self.table(item), hashes[f"{item.name}.parquet"]) for item in work]


def work_for(*folders: Path) -> list[ShardWork]:
    """Pair part k of each text-stage folder into one piece of work named part k.

    Raises:
        ManifestError: the folders do not hold the same parts.
    """
    listed = [text_shards(folder) for folder in folders]
    names = [shard.name for shard in listed[0]]
    for folder, shards in zip(folders, listed, strict=True):
        if [shard.name for shard in shards] != names:
            raise ManifestError(
                "two inputs do not hold the same shards",
                where=str(folder),
                expected=", ".join(names[:8]),
                found=", ".join(shard.name for shard in shards[:8]),
                fix="run the stages that made them again",
            )
    return [
        ShardWork(
            name=name.removesuffix(".parquet"),
            inputs=tuple(folder / name for folder in folders),
            input_hashes=tuple(shards[index].sha256 for shards in listed),
        )
        for index, name in enumerate(names)
    ]


def entry_folders(
    work: Sequence[ShardWork],
    *,
    stage: str,
    params: Mapping[str, JsonValue],
    code: Sequence[str],
    libraries: Sequence[str] = (),
    shared: Mapping[str, Path] | None = None,
) -> dict[str, Path]:
    """Return, for each piece of work, its folder in the shard cache: under its key, of what `map_shards` takes."""
    cache = state_folder() / "shards"
    cache.mkdir(parents=True, exist_ok=True)
    base: dict[str, JsonValue] = {
        "stage": stage,
        "params": dict(params),
        "code": code_hash("tasks.contracts", "tasks.engine", *code),
        "libraries": {name: importlib.metadata.version(name) for name in libraries},
        "shared": {name: _content_hash(path) for name, path in (shared or {}).items()},
    }
    common = sha256_json(base)
    return {
        item.name: cache / sha256_json({"common": common, "name": item.name, "inputs": list(item.input_hashes)})
        for item in work
    }


def map_shards(
    function: ShardFunction,
    work: Sequence[ShardWork],
    *,
    stage: str,
    output: Path | None,
    params: Mapping[str, JsonValue],
    code: Sequence[str],
    libraries: Sequence[str] = (),
    shared: Mapping[str, Path] | None = None,
    num_cpus: float = 1,
) -> MapResult:
    """Make every shard of `work` into `output`, those already in the shard cache by a hard link.

    Several shards are spread by Ray Data where a session is offered and there is more to do than a few small ones; else
    they are made here, one by one, by the same function, which is how unit tests call a stage.

    Args:
        function: picklable (a module-level function, or functools.partial of one).
        output: where all shards are put together; None leaves them in the shard cache (`MapResult.folders`), which is
            enough for a stage's own passes and saves a link for each file.
        params: the settings that decide the bytes; part of the key.
        code: the stage's own packages or modules ("tasks.extract"), whose sources are part of the key.
        libraries: distributions whose installed versions are part of the key ("trafilatura").
        shared: other files that every shard reads (a model, an index); their content is part of the key.
        num_cpus: processors that one shard occupies.
    """
    folders = entry_folders(work, stage=stage, params=params, code=code, libraries=libraries, shared=shared)
    known = {name: cached(folder) for name, folder in folders.items()}
    todo = [item for item in work if known[item.name] is None]
    result = MapResult(folders=folders, made=tuple(item.name for item in todo), hits=len(work) - len(todo))
    offered = {item.name: count_rows(item.inputs[0]) for item in work if item.inputs[0].suffix == ".parquet"}
    reused[stage] = result.hits
    if result.hits:
        logger.info("%s: %d of %d shards reused", stage, result.hits, len(work))
    make = _Maker(function=function, folders=folders)
    counts = NO_COUNTS
    for done, made in enumerate(_spread(make, todo, num_cpus), start=1):
        counts += made
        logger.info("%s: %d/%d shards, %d in, %d kept", stage, result.hits + done, len(work), counts.in_, counts.out)
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
    for name, folder in folders.items():
        record = known[name] or cached(folder)
        if record is None:
            raise ManifestError("a finished shard vanished from the shard cache", where=str(folder))
        if record.counts.in_ != offered.get(name, record.counts.in_):
            raise ConservationError(
                f"what the stage before put out is not what {stage} took in: {name}",
                where=str(next(item.inputs[0] for item in work if item.name == name)),
                expected=f"{offered[name]} rows (of the file)",
                found=f"{record.counts.in_} (counts: in)",
                fix=REPORT,
            )
        if output is not None:
            for shard in record.files:
                _link(folder / shard.name, output / shard.name)
        result.files.extend(record.files)
        result.counts += record.counts
    return result


def keep_or_drop(
    work: ShardWork,
    folder: Path,
    decide: Callable[[Iterator[Document]], Iterator[Document | LedgerRow]],
) -> Counts:
    """Make one text shard: what `decide` yields as a Document is kept, as a LedgerRow goes into the ledger.

    Both are streamed through a row group at a time; a "drop" row counts as dropped, an "edit" or "note" row does not.
    """
    rows: list[LedgerRow] = []
    seen = 0

    def documents() -> Iterator[Document]:
        nonlocal seen
        for document in read_documents(work.inputs[0]):
            seen += 1
            yield document

    def kept() -> Iterator[Document]:
        for decision in decide(documents()):
            if isinstance(decision, LedgerRow):
                rows.append(decision)
            else:
                yield decision

    out = write_documents(folder / f"{work.name}.parquet", kept())
    write_ledger(folder / DROPPED_FOLDER / f"{work.name}.parquet", rows)
    counts = Counts(in_=seen, out=out, dropped=drops_by_rule(rows))
    counts.check(f"{work.name}: {work.inputs[0]}")
    return counts


@dataclass(frozen=True, slots=True)
class _Maker:
    """Makes one shard in whichever process it is called, and commits it to the shard cache."""

    function: ShardFunction
    folders: Mapping[str, Path]

    def __call__(self, item: ShardWork) -> Counts:
        with new_entry(self.folders[item.name]) as entry:
            entry.counts = self.function(item, entry.folder)
        return entry.counts


@dataclass(slots=True)
class NewEntry:
    """An entry of the shard cache that is being made: write the files into `folder`, and set the counts."""

    folder: Path
    counts: Counts = NO_COUNTS


@contextmanager
def new_entry(place: Path) -> Iterator[NewEntry]:
    """Give a new entry of the shard cache; on success it stands at `place`, in the place of one that stood there."""
    with atomic_folder(place) as folder:
        entry = NewEntry(folder)
        yield entry
        names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
        files = tuple(describe_file(folder, name) for name in names)
        checksums = tuple(_checksum(folder / name) for name in names)
        record = _Record(counts=entry.counts, files=files, checksums=checksums)
        write_json(folder / "_shard.json", record.model_dump(mode="json", by_alias=True))


def _spread(make: _Maker, todo: Sequence[ShardWork], num_cpus: float) -> Iterator[Counts]:
    """Yield each shard's counts as it is finished, in whatever order; a little is made here, sooner than by Ray."""
    begun, here = time.monotonic(), 0
    while here < len(todo) and (
        _is_brief(todo[here:], here, time.monotonic() - begun) or not session_is_near()
    ):  # while Ray starts, this process has nothing better to do
        yield make(todo[here])
        here += 1
    todo = todo[here:]
    if not todo or not open_session():
        yield from map(make, todo)
        return

    def run_one(row: dict[str, Any]) -> dict[str, Any]:
        try:
            return {"counts": make(todo[row["index"]]).model_dump_json(by_alias=True), "error": b""}
        except Exception as error:  # noqa: BLE001 - carried to the driver and raised there, without Ray's wrappers
            return {"counts": "", "error": _portable(error, todo[row["index"]])}

    items = [{"index": index} for index in range(len(todo))]
    dataset = ray_data().from_items(items, override_num_blocks=len(items)).map(run_one, num_cpus=num_cpus)
    for row in dataset.iter_rows():
        if row["error"]:
            raise pickle.loads(row["error"])
        yield Counts.model_validate_json(row["counts"])


def _is_brief(todo: Sequence[ShardWork], made: int, spent: float) -> bool:
    """Return whether the next shard is made here, where Ray is not there yet and joining it would take longer.

    That is so of the last one, of a small one soon, and where all that is left will take no longer than those made here
    say.
    """
    if len(todo) == 1:
        return True
    if made and spent / made * len(todo) < brief_seconds():
        return not session_is_open()
    small = sum(path.stat().st_size for path in todo[0].inputs) <= SMALL_BYTES
    return small and spent < brief_seconds() and not session_is_open()


def _portable(error: Exception, item: ShardWork) -> bytes:
    """Pickle an error, or say what it was where it cannot be pickled."""
    error.add_note(f"while making {item.name}\n{traceback.format_exc()}")
    try:
        return pickle.dumps(error) if pickle.loads(pickle.dumps(error)) else b""
    except Exception:  # noqa: BLE001 - any class may fail to pickle in its own way
        return pickle.dumps(HeadwaterError(f"{type(error).__name__}: {error}", where=item.name))


def cached(folder: Path) -> _Record | None:
    """Return what the shard cache holds in `folder`, after checking every byte; a damaged entry is removed."""
    try:
        record = _Record.model_validate_json((folder / "_shard.json").read_bytes())
        if record.checksums == tuple(_checksum(folder / shard.name) for shard in record.files):
            os.utime(folder)
            return record
    except (OSError, ValueError):
        pass
    if folder.exists():
        logger.warning("shard cache: %s does not match its checksums and is made again", folder.name[:12])
        shutil.rmtree(folder)
    return None


def _checksum(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, xxhash.xxh3_128).hexdigest()  # type: ignore[arg-type]


def _content_hash(path: Path) -> str:
    return manifest_hash(path) if path.is_dir() else sha256_file(path)


def _link(source: Path, target: Path) -> None:
    """Hard-link a finished file, or copy it where the file system cannot."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        with disk_full_is_clear(target):
            shutil.copyfile(source, target)
