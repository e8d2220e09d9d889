"""What a release was trained on: its sources by host, language and licence, with their shares of the tokens."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flows.history.releases import KnownRelease, known_releases
from tasks.contracts.errors import InputError, UsageError, did_you_mean
from tasks.contracts.manifest import Manifest, manifest_hash, read_manifest, text_shards
from tasks.contracts.release import BASE_FOLDER, DATA_CARD_NAME, LINEAGE_NAME, MANIFESTS_FOLDER
from tasks.contracts.tokens import index_name, read_tokens_info

GROUPS = ("host", "language", "license")
SHORTEST_HASH = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The documents of one host, language or licence; `share` is of the training tokens, 0 to 1."""

    name: str | None
    documents: int
    tokens: int
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseSources:
    """A release and what it was trained on.

    Attributes:
        tokens: in the training shards, repeated copies included; `seen` is how many training's steps took.
        examples: how many it was adapted on besides.
        groups: "host", "language" and "license" → groups, the largest first.
    """

    name: str
    manifest_sha256: str
    weights_sha256: str
    takedown: bool
    documents: int
    tokens: int
    seen: int
    examples: int
    groups: dict[str, tuple[Group, ...]]


def find_release(name: str, data: Path) -> KnownRelease:
    """Return a release by its name or by the beginning of its manifest's SHA-256.

    Of several with one name it is the one that stands in `data`, else the newest.

    Raises:
        UsageError: there is none, or a hash's beginning fits several.
    """
    known = known_releases()
    named = [release for release in known if release.name == name]
    hashed = [r for r in known if len(name) >= SHORTEST_HASH and r.manifest_sha256.startswith(name.lower())]
    if not named and len({release.manifest_sha256 for release in hashed}) != 1:
        listed = ", ".join(f"{release.name} ({release.manifest_sha256[:12]})" for release in known)
        raise UsageError(
            "there is no such release",
            expected=listed or "a release made in this workspace; there is none yet",
            found=name,
            fix=did_you_mean(name, [one for release in known for one in (release.name, release.manifest_sha256[:12])]),
        )
    found = named or hashed
    standing = manifest_hash(data / "release") if (data / "release").is_dir() else None
    return next((release for release in found if release.manifest_sha256 == standing), found[-1])


def release_sources(release: KnownRelease, data: Path) -> ReleaseSources:
    """Return what a release was trained on, from the shards it was trained on.

    Raises:
        InputError: the shards in `data` are of another run.
    """
    folder = release.folder
    while BASE_FOLDER in (stages := json.loads((folder / LINEAGE_NAME).read_bytes())["stages"]):
        folder /= BASE_FOLDER  # an adapted release has the text that its base has read
    for stage in ("mix", "tokenize"):
        expected, found = stages[stage]["manifest_sha256"], manifest_hash(data / stage)
        if expected != found:
            raise InputError(
                f"the release {release.name} was trained on other data than stands here",
                where=str(data / stage),
                expected=f"the manifest {expected}",
                found=found,
                fix="bring its data back (`git checkout` its dvc.lock, then `dvc checkout`); "
                f"{release.folder / DATA_CARD_NAME} lists its sources as they were",
            )
    table = _tokens_by_document(data)
    tokens = int(pc.sum(table["tokens"]).as_py() or 0)
    return ReleaseSources(
        name=release.name,
        manifest_sha256=release.manifest_sha256,
        weights_sha256=release.weights_sha256,
        takedown=bool(release.takedown),
        documents=table.num_rows,
        tokens=tokens,
        seen=read_manifest(data / "train").counts.out,
        examples=_examples(release.folder),
        groups={name: _groups(table, name, tokens) for name in GROUPS},
    )


def _examples(release: Path) -> int:
    """Return how many examples a release was adapted on, 0 where it was not."""
    path = release / MANIFESTS_FOLDER / "adapt.json"
    return Manifest.model_validate_json(path.read_bytes()).counts.out if path.is_file() else 0


def _tokens_by_document(data: Path) -> pa.Table:
    """Return the documents of the mixture with their hosts, languages, licences and tokens, all copies counted.

    The first pass of a token shard holds the documents of its part of the mixture in their order, so the rows fit each
    other without a search; later passes are added by doc_id.
    """
    parts: list[pa.Table] = []
    names = {index_name(shard.name) for shard in read_tokens_info(data / "tokenize").shards}
    for shard in text_shards(data / "mix"):
        documents = pq.read_table(data / "mix" / shard.name, columns=["doc_id", *GROUPS])
        assert shard.name in names, f"{shard.name} has tokens"
        index = pq.read_table(data / "tokenize" / shard.name, columns=["doc_id", "epoch", "length"])
        first = index.filter(pc.equal(index["epoch"], 1))
        if not first["doc_id"].equals(documents["doc_id"]):
            raise InputError(
                "a token shard holds other documents than its part of the mixture",
                where=str(data / "tokenize" / shard.name),
                fix="`headwater verify` says which file is not what it was",
            )
        lengths = first["length"]
        if first.num_rows < index.num_rows:
            summed = index.group_by("doc_id").aggregate([("length", "sum")])
            places = pc.index_in(documents["doc_id"], value_set=summed["doc_id"].combine_chunks())
            lengths = summed["length_sum"].take(places)
        parts.append(documents.append_column("tokens", lengths))
    return pa.concat_tables(parts)


def _groups(table: pa.Table, by: str, tokens: int) -> tuple[Group, ...]:
    summed = table.group_by(by).aggregate([("tokens", "sum"), ([], "count_all")])
    rows: Sequence[dict[str, Any]] = summed.to_pylist()
    groups = [
        Group(
            name=row[by],
            documents=row["count_all"],
            tokens=row["tokens_sum"],
            share=row["tokens_sum"] / max(1, tokens),
        )
        for row in rows
    ]
    return tuple(sorted(groups, key=lambda group: (-group.tokens, group.name or "")))
