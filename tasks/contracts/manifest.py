"""The manifest: what a stage's folder holds and what it was made from. The only truth about a stage's output.

It holds identity only (no time, host, commit or version), so equal bytes in give an equal manifest out, and
`inputs` chains every manifest, by hash, to the raw records.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from tasks.contracts.conservation import Holding, check_folder
from tasks.contracts.durable_files import sha256_file, write_json
from tasks.contracts.errors import ConservationError, ManifestError
from tasks.contracts.files import is_part
from tasks.contracts.warc_index import count_pages

MANIFEST_NAME = "_manifest.json"
SCHEMA_VERSION = 1

Unit = Literal["urls", "records", "documents", "tokens", "items", "rules", "files"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Shard(_Frozen):
    """One file of a stage's output: its name inside the folder, SHA-256, rows and bytes.

    Rows are those of a Parquet table, the pages of a WARC part and the lines of a JSONL file; None of other files.
    """

    name: str
    sha256: str
    rows: int | None
    bytes: int


class Counts(_Frozen):
    """How many went in, came out, and were dropped by which rule; in == out + sum(dropped)."""

    in_: int = Field(alias="in", ge=0)
    out: int = Field(ge=0)
    dropped: dict[str, int] = {}

    def __add__(self, other: Counts) -> Counts:
        rules = sorted({*self.dropped, *other.dropped})
        dropped = {rule: self.dropped.get(rule, 0) + other.dropped.get(rule, 0) for rule in rules}
        return Counts(in_=self.in_ + other.in_, out=self.out + other.out, dropped=dropped)

    def check(self, where: str) -> None:
        """Raise ConservationError unless every row that went in came out or has a drop reason."""
        if self.in_ != self.out + sum(self.dropped.values()):
            raise ConservationError(
                "rows were lost or invented",
                where=where,
                expected=f"in == out + dropped, in = {self.in_}",
                found=f"out = {self.out}, dropped = {self.dropped}",
                fix="this is a bug in the stage: please report it with this message",
            )


NO_COUNTS = Counts(in_=0, out=0, dropped={})


class Manifest(_Frozen):
    """A stage's output, described by what it is made of and made from.

    Attributes:
        unit: what `counts` counts.
        params: the identity-bearing settings.
        inputs: input name → SHA-256 of that folder's manifest.
        shards: every file of the folder but the manifest itself, sorted by name.
    """

    stage: str
    schema_version: Literal[1] = 1
    unit: Unit
    params: dict[str, JsonValue]
    inputs: dict[str, str]
    shards: tuple[Shard, ...]
    counts: Counts

    @property
    def holds_documents(self) -> bool:
        """Whether it puts out documents, or the pages that documents are made from, and not what is made of them."""
        of_text = self.unit in ("urls", "records", "documents")
        return of_text and not any(shard.name == "tokens.json" or shard.name.endswith(".bin") for shard in self.shards)

    def shard(self, name: str) -> Shard:
        """Return the entry of one file.

        Raises:
            ManifestError: the manifest has no such file.
        """
        for shard in self.shards:
            if shard.name == name:
                return shard
        raise ManifestError("the manifest lists no such file", where=self.stage, expected=name)


def describe_file(folder: Path, name: str) -> Shard:
    """Hash and measure one file of a folder."""
    path = folder / name
    return Shard(name=name, sha256=sha256_file(path), rows=count_rows(path), bytes=path.stat().st_size)


def count_rows(path: Path) -> int | None:
    """Return how many rows, pages or items a file holds, None where it holds none of these."""
    if path.suffix == ".parquet":
        return pq.read_metadata(path).num_rows
    if is_part(path.name, ".warc.gz"):
        return count_pages(path)
    if path.suffix == ".jsonl":
        with path.open("rb") as stream:
            return sum(1 for line in stream if line.strip())
    return None


def commit_manifest(
    output: Path,
    *,
    stage: str,
    unit: Unit,
    params: Mapping[str, JsonValue],
    inputs: Mapping[str, Path],
    counts: Counts,
    known: Iterable[Shard] = (),
) -> Manifest:
    """Write the manifest of a finished folder, as its last file, and return it.

    Args:
        inputs: input name → stage folder, whose manifest's hash is recorded.
        known: files that were hashed already (by the shard cache); the others are hashed here.

    Raises:
        ConservationError: counts do not add up, within the stage or with its inputs, or two documents have one id.
        ManifestError: an input folder has no manifest.
    """
    counts.check(str(output))
    manifest = describe_folder(output, stage=stage, unit=unit, params=params, inputs=inputs, counts=counts, known=known)
    given = [holding(folder) for folder in inputs.values()]
    check_folder(held(output, manifest), unit, counts.in_, counts.dropped, given, params)
    write_json(output / MANIFEST_NAME, manifest.model_dump(mode="json", by_alias=True))
    return manifest


def describe_folder(
    output: Path,
    *,
    stage: str,
    unit: Unit,
    params: Mapping[str, JsonValue],
    inputs: Mapping[str, Path],
    counts: Counts,
    known: Iterable[Shard] = (),
) -> Manifest:
    """Return the manifest of a folder, unchecked and not written: `commit_manifest` is what a stage calls.

    Raises:
        ManifestError: an input folder has no manifest.
    """
    hashed = {shard.name: shard for shard in known}
    names = sorted(p.relative_to(output).as_posix() for p in output.rglob("*") if p.is_file())
    shards = [hashed.get(name) or describe_file(output, name) for name in names if name != MANIFEST_NAME]
    return Manifest(
        stage=stage,
        unit=unit,
        params=dict(params),
        inputs={name: manifest_hash(folder) for name, folder in sorted(inputs.items())},
        shards=tuple(shards),
        counts=counts,
    )


def holding(folder: Path) -> Holding:
    """Describe a folder, with all that it was made from as far as the folders beside it say."""
    manifest = read_manifest(folder)
    waiting, made_from = dict(manifest.inputs), set[str]()
    while waiting:
        name, recorded = waiting.popitem()
        beside = folder.parent / name
        if name not in made_from:
            made_from.add(name)
            if (beside / MANIFEST_NAME).is_file() and manifest_hash(beside) == recorded:
                waiting |= read_manifest(beside).inputs
    return held(folder, manifest, made_from=frozenset(made_from))


def held(
    folder: Path,
    manifest: Manifest,
    rows: Mapping[str, int | None] | None = None,
    made_from: frozenset[str] = frozenset(),
) -> Holding:
    """Describe a folder by its manifest, or by `rows` as they were counted now (file name → rows)."""
    told = {shard.name: shard.rows for shard in manifest.shards}
    return Holding(name=manifest.stage, folder=folder, out=manifest.counts.out, rows=rows or told, made_from=made_from)


def read_manifest(folder: Path) -> Manifest:
    """Read a stage folder's manifest.

    Raises:
        ManifestError: it is missing or not a manifest.
    """
    path = folder / MANIFEST_NAME
    try:
        return Manifest.model_validate(json.loads(path.read_bytes()))
    except FileNotFoundError as error:
        raise ManifestError(
            "a stage's output is missing or unfinished",
            where=str(folder),
            expected=MANIFEST_NAME,
            fix="run the stage before it, or `dvc checkout` if it was made already",
        ) from error
    except (ValueError, ValidationError) as error:
        raise ManifestError(
            "a manifest cannot be read", where=str(path), found=str(error).splitlines()[0], fix="run the stage again"
        ) from error


def manifest_hash(folder: Path) -> str:
    """Return the SHA-256 of a folder's manifest, by which later stages name that folder's whole content."""
    if not (folder / MANIFEST_NAME).is_file():
        read_manifest(folder)
    return sha256_file(folder / MANIFEST_NAME)


def read_whole(folder: Path) -> Manifest:
    """Read a stage folder's manifest, and check that every file that it lists is there in its size.

    A reader that lists a folder by a pattern would take a lost file for one that never was.

    Raises:
        ManifestError: the manifest or a file is missing, or a file has another size.
    """
    manifest = read_manifest(folder)
    lost = [shard for shard in manifest.shards if not _is_there(folder / shard.name, shard)]
    if lost:
        raise ManifestError(
            "a stage's output is not whole",
            where=str(folder),
            expected=f"{len(manifest.shards)} files, as its manifest lists",
            found=f"{len(lost)} of them missing or of another size: {', '.join(shard.name for shard in lost[:3])}",
            fix=f"`dvc checkout --force {folder}` brings them back, or `headwater run --force {folder.name}`",
        )
    return manifest


def _is_there(path: Path, shard: Shard) -> bool:
    return path.is_file() and path.stat().st_size == shard.bytes


def absent(data: Path) -> list[str]:
    """Say what is missing among the stage folders of a workspace, a sentence each; none where all is there.

    A stage that has not run yet is not missing. One that another was made from is, and so is a file that a manifest
    lists.
    """
    sentences = []
    named: dict[str, str] = {}
    for path in sorted(data.glob(f"*/{MANIFEST_NAME}")):
        try:
            manifest = read_whole(path.parent)
        except ManifestError as error:
            sentences.append(f"{error.where}: {error.found or error.problem}")
            continue
        named |= dict.fromkeys(manifest.inputs, manifest.stage)
    for stage, by in named.items():
        if not (data / stage / MANIFEST_NAME).is_file():
            sentences.append(f"{data / stage}, from which {by} was made, is not there or unfinished")
    return sentences


def chain_order(made_from: Mapping[str, Iterable[str]]) -> list[str]:
    """Return stages so that each stands after all that it was made from, those of one depth by name.

    Args:
        made_from: stage → its inputs; those that are no keys of it do not count.

    >>> chain_order({"mix": ["filter"], "extract": ["crawl"], "filter": ["extract"]})
    ['extract', 'filter', 'mix']
    """
    depths: dict[str, int] = {}

    def depth(stage: str) -> int:
        if stage not in depths:
            depths[stage] = 0  # what is made from itself, in manifests that lie, has an end
            depths[stage] = 1 + max((depth(name) for name in made_from[stage] if name in made_from), default=-1)
        return depths[stage]

    return sorted(made_from, key=lambda stage: (depth(stage), stage))


def text_shards(folder: Path) -> tuple[Shard, ...]:
    """Return the entries of a text stage's `part-*.parquet` files, in order."""
    return tuple(s for s in read_manifest(folder).shards if is_part(s.name, ".parquet"))
