"""What a takedown touches: the documents it covers, their duplicates, and every shard and release that holds them.

Read from the shards, ledgers and token indexes on disk. Shared by `headwater takedown plan` and `apply`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flows.graph import load_graph
from flows.lineage.records import read_records
from flows.lineage.releases import KnownRelease, holders
from flows.params import read_params
from tasks.contracts.ledger import read_ledger
from tasks.contracts.manifest import MANIFEST_NAME, read_manifest, text_shards
from tasks.contracts.takedowns import SHINGLE_WORDS, Fingerprint, Takedowns, text_sha256
from tasks.dedup.shingles import normal_bytes, shingle_sets
from tasks.dedup.taken import Lookup, text_key

TEXT_STAGES: Final = ("extract", "filter", "dedup", "perplexity", "holdout", "decontaminate", "mix")
MOST_SHINGLES: Final = 20_000
COLUMNS: Final = ["doc_id", "url", "host", "payload_digest", "text"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Covered:
    """A document that a tombstone covers.

    Attributes:
        by: address, payload, text, revisit (its payload was fetched from a covered URL too) or near.
        score: the Jaccard similarity, for near ones.
    """

    doc_id: str
    url: str
    host: str
    tombstone: str
    by: str
    score: float | None = None


@dataclass(slots=True)
class Affected:
    """All that a takedown touches.

    Attributes:
        duplicates: ledger rows of dedup that tie a covered document to another: dropped id, survivor id, rule, score.
        shards: stage → its parts that hold a covered document.
        of: stage → how many parts it has.
        checkpoint: whether training text holds one; reference: whether the perplexity reference may have.
        releases: manifest → the release and the covered documents in it.
        tombstone_of: doc_id → its tombstone, with those that were applied before.
    """

    covered: list[Covered] = field(default_factory=list)
    fingerprints: list[Fingerprint] = field(default_factory=list)
    duplicates: list[dict[str, Any]] = field(default_factory=list)
    shards: dict[str, list[str]] = field(default_factory=dict)
    of: dict[str, int] = field(default_factory=dict)
    token_shards: list[str] = field(default_factory=list)
    checkpoint: bool = False
    reference: bool = False
    releases: dict[str, tuple[KnownRelease, tuple[str, ...]]] = field(default_factory=dict)
    tombstone_of: dict[str, str] = field(default_factory=dict)


def fingerprint(tombstone: str, text: str, *, doc_id: str | None = None, payload: str | None = None) -> Fingerprint:
    """Return what a text is known by once it is gone; hashes only."""
    sets = shingle_sets([normal_bytes(text)], size=SHINGLE_WORDS)
    kept = sets.values[:MOST_SHINGLES].astype("<u4").tobytes()
    return Fingerprint(
        tombstone=tombstone,
        doc_id=doc_id,
        payload_digest=payload,
        text_sha256=text_sha256(text),
        shingles=base64.b64encode(kept).decode(),
        shingle_count=int(sets.sizes[0]),
    )


def find_affected(takedowns: Takedowns, data: Path = Path("data")) -> Affected:
    """Resolve the tombstones against the data on disk, and find all that holds what they cover."""
    found = Affected()
    if not takedowns:
        return found
    covered = _resolve(takedowns, data, found)
    whole = Takedowns(takedowns.tombstones, (*takedowns.fingerprints, *found.fingerprints))
    _near(whole, data, covered)
    found.covered = sorted(covered.values(), key=lambda one: (one.tombstone, one.url, one.doc_id))
    ids = set(covered)
    if (data / "dedup" / MANIFEST_NAME).is_file():
        for path in sorted((data / "dedup" / "dropped").glob("*.parquet")):
            for row in read_ledger(path):
                if row.survivor_id and (row.doc_id in ids or row.survivor_id in ids):
                    found.duplicates.append(
                        {"doc_id": row.doc_id, "url": row.url, "survivor_id": row.survivor_id, "rule": row.rule}
                        | {"score": row.score}
                    )
    _holding(found, data, ids)
    gone_before = {row.doc_id for row in takedowns.fingerprints if row.doc_id}
    by_release: dict[str, tuple[KnownRelease, set[str]]] = {}
    tombstone_of = {row.doc_id: row.tombstone for row in takedowns.fingerprints if row.doc_id}
    tombstone_of |= {one.doc_id: one.tombstone for one in found.covered}
    for doc_id, releases in holders(sorted(ids | gone_before)).items():
        for release in releases:
            by_release.setdefault(release.manifest_sha256, (release, set()))[1].add(doc_id)
    found.releases = {name: (release, tuple(sorted(docs))) for name, (release, docs) in sorted(by_release.items())}
    found.tombstone_of = tombstone_of
    return found


def _documents(folder: Path) -> Iterator[dict[str, Any]]:
    if not (folder / MANIFEST_NAME).is_file():
        return
    for shard in text_shards(folder):
        with pq.ParquetFile(folder / shard.name) as file:
            for batch in file.iter_batches(batch_size=1024, columns=COLUMNS):
                yield from batch.to_pylist()


def _resolve(takedowns: Takedowns, data: Path, found: Affected) -> dict[str, Covered]:
    """Find the documents that are covered by address, payload or text, and take their fingerprints."""
    covered: dict[str, Covered] = {}
    revisited = _revisited(takedowns, data)
    known = takedowns
    while True:
        before = len(covered)
        for row in _documents(data / "extract"):
            if row["doc_id"] in covered:
                continue
            facts = {name: row[name] for name in ("url", "host", "payload_digest", "text")}
            why = known.covers(**facts)
            if why is None and row["doc_id"] in revisited:
                why = revisited[row["doc_id"]], "revisit"
            if why is None:
                continue
            covered[row["doc_id"]] = Covered(
                doc_id=row["doc_id"], url=row["url"], host=row["host"], tombstone=why[0], by=why[1]
            )
            found.fingerprints.append(
                fingerprint(why[0], row["text"], doc_id=row["doc_id"], payload=row["payload_digest"])
            )
        if len(covered) == before:
            break
        # What was found by address may have copies elsewhere, by payload or text.
        known = Takedowns(takedowns.tombstones, (*takedowns.fingerprints, *found.fingerprints))
    # Filters may have edited the text (masked addresses): dedup compares that one.
    texts = {one.text_sha256 for one in found.fingerprints}
    for row in _documents(data / "filter"):
        one = covered.get(row["doc_id"])
        if one is not None and text_sha256(row["text"]) not in texts:
            found.fingerprints.append(fingerprint(one.tombstone, row["text"], doc_id=one.doc_id))
    return covered


def _revisited(takedowns: Takedowns, data: Path) -> dict[str, str]:
    """Return the documents whose payload was fetched from a covered URL too, and stored once: doc_id → tombstone."""
    found: dict[str, str] = {}
    for path in sorted((data / "crawl" / "dropped").glob("*.parquet")):
        for row in read_ledger(path):
            if row.rule == "revisit" and row.survivor_id and row.url:
                host = row.url.partition("://")[2].partition("/")[0].partition(":")[0]
                if tombstone := takedowns.covers_address(row.url, host):
                    found[row.survivor_id] = tombstone
    return found


def _near(takedowns: Takedowns, data: Path, covered: dict[str, Covered]) -> None:
    if not takedowns.fingerprints:
        return
    threshold = float(read_params().get("dedup", {}).get("threshold", 0.8))
    look = Lookup(takedowns.fingerprints, threshold)
    for row in _documents(data / "filter"):
        if row["doc_id"] in covered:
            continue
        normal = normal_bytes(row["text"])
        values = shingle_sets([normal], size=SHINGLE_WORDS).values
        near = look.nearest(values[:MOST_SHINGLES], len(values), text_key(normal))
        if near is not None:
            covered[row["doc_id"]] = Covered(
                doc_id=row["doc_id"],
                url=row["url"],
                host=row["host"],
                tombstone=f"{near[0]:016x}",
                by="near",
                score=near[1],
            )


def _holding(found: Affected, data: Path, ids: set[str]) -> None:
    wanted = pc.SetLookupOptions(value_set=pa.array(sorted(ids), pa.string()))

    def holds(path: Path) -> bool:
        column = pq.read_table(path, columns=["doc_id"])["doc_id"]
        return bool(pc.any(pc.is_in(column, options=wanted)).as_py())

    for stage in TEXT_STAGES:
        if not (data / stage / MANIFEST_NAME).is_file():
            continue
        names = [shard.name for shard in text_shards(data / stage)]
        found.of[stage] = len(names)
        found.shards[stage] = [name for name in names if holds(data / stage / name)]
    if (data / "tokenize" / MANIFEST_NAME).is_file():
        tokens = [s.name for s in read_manifest(data / "tokenize").shards if s.name.endswith(".parquet")]
        found.of["tokenize"] = len(tokens)
        found.token_shards = [name.replace(".parquet", ".bin") for name in tokens if holds(data / "tokenize" / name)]
    found.checkpoint = any(not name.startswith("validation") for name in found.token_shards)
    found.reference = bool(found.shards.get("dedup")) and _in_reference(found, data)


def _in_reference(found: Affected, data: Path) -> bool:
    """Return whether a covered document may have been in the text that the perplexity model was trained on."""
    path = data / "perplexity" / "model.json"
    if not path.is_file():
        return False
    reference: Mapping[str, Any] = json.loads(path.read_bytes()).get("reference") or {}
    hosts = set(reference.get("hosts", ()))
    return not hosts or any(one.host in hosts for one in found.covered)


def estimate(found: Affected) -> list[dict[str, Any]]:
    """Return what a rebuild costs, stage by stage: an estimate from the last run records, named as such."""
    seconds = {record.stage: record.seconds for record in read_records() if record.status == "done"}
    retrained = found.checkpoint or bool(found.shards.get("mix"))
    rows = []
    for stage in load_graph():
        if stage == "crawl":
            continue
        of = found.of.get(stage)
        again = len(found.shards[stage]) if stage in found.shards else None
        if stage == "perplexity" and found.reference:
            again = of
        if stage == "tokenize":
            again = of if retrained else len(found.token_shards)
        runs = bool(found.covered) or stage in ("extract", "dedup")
        last = seconds.get(stage)
        guess = None if last is None or not runs else last * (again / of if of and again is not None else 1.0)
        rows.append({"stage": stage, "runs": runs, "shards": again, "of": of} | {"estimated_seconds": guess})
    return rows
