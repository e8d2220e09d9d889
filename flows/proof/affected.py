"""What a takedown touches: the documents it covers, their duplicates, and every shard and release that holds them.

Read from the shards, ledgers and token indexes in data/, in the shard cache and in the DVC cache (`reach`): those of
the present corpus and of every kept release; and from what is noted of releases whose data is gone. Shared by
`headwater takedown plan` and `apply`.
"""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from flows.history.chain import Link
from flows.history.marks import is_release
from flows.history.output_filter import COMMON_DOCUMENTS
from flows.history.reach import IN_DATA, Reach, describe_gap, look_around, read_stages, text_stages, wanted
from flows.history.releases import (
    OWN,
    KnownRelease,
    held_out_file,
    holders,
    missing_held_out,
    missing_lists,
    read_names,
    remember_documents,
    remember_held_out,
)
from flows.history.run_records import read_records
from flows.workspace.graph import load_graph
from flows.workspace.params import read_params
from tasks.contracts.files import MODELS_NAME, TASKS_FOLDER
from tasks.contracts.ledger import read_ledger
from tasks.contracts.manifest import Shard
from tasks.contracts.normal_form import normal_bytes
from tasks.dedup.shingles import shingle_sets
from tasks.dedup.taken_down_copies import Lookup, text_key
from tasks.rights.takedowns import SHINGLE_WORDS, Fingerprint, Takedowns, text_sha256

MOST_SHINGLES: Final = 20_000
COLUMNS: Final = ["doc_id", "url", "host", "payload_digest", "text"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Covered:
    """A document that a tombstone covers.

    Attributes:
        by: address, payload, text, revisit (its payload was fetched from a covered URL too), near, or duplicate (it
            was kept in a covered page's stead).
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
        releases: manifest → the release and the covered documents in it, those of its held-out items too.
        held_out: manifest → those of them that it was not trained on, but holds in `tasks/` to be scored on.
        tombstone_of: doc_id → its tombstone, with those that were applied before.
        elsewhere: stages that were read from the shard cache or the DVC cache, as they are not in data/.
        common: hashes of shingles of what is covered that many documents have that are not, sorted.
        unreachable: what could not be looked at, a sentence each; none means that the answer is complete.
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
    held_out: dict[str, tuple[str, ...]] = field(default_factory=dict)
    tombstone_of: dict[str, str] = field(default_factory=dict)
    elsewhere: list[str] = field(default_factory=list)
    common: NDArray[np.uint32] = field(default_factory=lambda: np.zeros(0, np.uint32))
    unreachable: list[str] = field(default_factory=list)


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
    """Resolve the tombstones against all that is kept here, and find all that holds what they cover.

    What cannot be looked at is in `unreachable`: what was found then is not all that there is.
    """
    found = Affected()
    if not takedowns:
        return found
    reach = look_around(data)
    covered = _resolve(takedowns, reach, found)
    whole = Takedowns(takedowns.tombstones, (*takedowns.fingerprints, *found.fingerprints))
    found.common = _near(whole, reach, covered)
    by_list = _from_lists(whole, reach, found, covered)
    found.covered = sorted(covered.values(), key=lambda one: (one.tombstone, one.url, one.doc_id))
    ids = set(covered)
    for link in reach.links("dedup"):
        for _, path in reach.readable(link):
            for row in read_ledger(path):
                if row.survivor_id and (row.doc_id in ids or row.survivor_id in ids):
                    tie = {"doc_id": row.doc_id, "url": row.url, "survivor_id": row.survivor_id, "rule": row.rule}
                    if (told := tie | {"score": row.score}) not in found.duplicates:
                        found.duplicates.append(told)
    _holding(found, reach, ids)
    found.tombstone_of = {row.doc_id: row.tombstone for row in takedowns.fingerprints if row.doc_id}
    found.tombstone_of |= {one.doc_id: one.tombstone for one in found.covered}
    _releases(found, reach)
    found.elsewhere = sorted(reach.files.elsewhere)
    found.unreachable += reach.unknown + _gaps(whole, reach, by_list)
    return found


def _releases(found: Affected, reach: Reach) -> None:
    """Find the releases that hold a covered document, from the lists of their documents or from what they were made
    from: those that were trained on it, and those that hold it among their held-out items.
    """
    for release in missing_lists():
        (mix,) = reach.links("mix", release.manifest_sha256)[:1] or (None,)
        paths = [path for _, path in reach.readable(mix)] if mix else []
        if mix is None or len(paths) < len(wanted(mix)):
            found.unreachable.append(
                f"the release {release.name} {release.manifest_sha256[:12]}: which documents it holds was not noted, "
                "and the mixture that it was trained on is not here"
            )
        else:
            remember_documents(release.manifest_sha256, paths)
    for release in missing_held_out():
        (own,) = reach.links("release", release.manifest_sha256)[:1] or (None,)
        if own and not any(shard.name.startswith(f"{TASKS_FOLDER}/") for shard in own.manifest.shards):
            continue  # made before releases held any
        try:
            if not is_release(release.folder, release.manifest_sha256):
                raise FileNotFoundError(release.folder)
            remember_held_out(release.manifest_sha256, release.folder)
        except (OSError, ValueError, KeyError) as error:
            found.unreachable.append(
                f"the release {release.name} {release.manifest_sha256[:12]}: which held-out texts it holds was not "
                f"noted, and cannot be read in its kept copy {release.folder} ({type(error).__name__})"
            )
    by_release: dict[str, tuple[KnownRelease, set[str]]] = {}
    trained: dict[str, set[str]] = {}
    asked = sorted(found.tombstone_of)
    for doc_id, releases in holders(asked).items():
        for release in releases:
            trained.setdefault(release.manifest_sha256, set()).add(doc_id)
            by_release.setdefault(release.manifest_sha256, (release, set()))[1].add(doc_id)
    for doc_id, releases in holders(asked, held_out_file).items():
        for release in releases:
            by_release.setdefault(release.manifest_sha256, (release, set()))[1].add(doc_id)
    found.held_out = {name: tuple(sorted(docs - trained.get(name, set()))) for name, (_, docs) in by_release.items()}
    found.releases = {name: (release, tuple(sorted(docs))) for name, (release, docs) in sorted(by_release.items())}


def _from_lists(takedowns: Takedowns, reach: Reach, found: Affected, covered: dict[str, Covered]) -> set[str]:
    """Look in the lists of names that releases have here, where not all of their data can be read; return which."""
    asked = {owner for key in reach.gaps() for owner in reach.owners[key] if owner != IN_DATA}
    listed = {name: rows for name in sorted(asked) if (rows := read_names(name)) is not None}
    while True:
        known = Takedowns(takedowns.tombstones, (*takedowns.fingerprints, *found.fingerprints))
        new: list[Fingerprint] = []
        for row in itertools.chain.from_iterable(listed.values()):
            why = known.covers_known(**{key: row[key] for key in ("url", "host", "payload_digest", "text_sha256")})
            if why and row["doc_id"] not in covered:
                by = why[1] if row["by"] == OWN else row["by"]
                covered[row["doc_id"]] = Covered(
                    doc_id=row["doc_id"], url=row["url"], host=row["host"], tombstone=why[0], by=by
                )
            if row["by"] == OWN and row["doc_id"] in covered:
                new.append(
                    Fingerprint(
                        tombstone=covered[row["doc_id"]].tombstone,
                        doc_id=row["doc_id"],
                        payload_digest=row["payload_digest"],
                        text_sha256=row["text_sha256"],
                    )
                )
        noted = {one.text_sha256 for one in found.fingerprints}
        new = [one for one in dict.fromkeys(new) if one.text_sha256 not in noted]
        if not new:
            return set(listed)
        found.fingerprints += new  # and look again: others may have the same text or payload


def _gaps(takedowns: Takedowns, reach: Reach, by_list: set[str]) -> list[str]:
    """Say what could not be looked at, and is not answered by a release's list of names."""
    sentences = []
    # A text that is near to a document is found by the document's text only; a list has none.
    asks_for_texts = any(row.kind == "document" for row in takedowns.tombstones) or any(
        not one.doc_id for one in takedowns.fingerprints
    )
    for key, names in reach.gaps().items():
        if not asks_for_texts and reach.owners[key] <= by_list:
            continue
        sentences.append(describe_gap(key, names, len(wanted(reach.outputs[key]))))
    return sentences


def _documents(reach: Reach, *stages: str) -> Iterator[dict[str, Any]]:
    """Yield the documents of all outputs of these stages that can be read; those of equal files once."""
    seen: set[str] = set()
    for stage in stages:
        for link in reach.links(stage):
            for shard, path in reach.readable(link):
                if shard.sha256 in seen:
                    continue
                seen.add(shard.sha256)
                with pq.ParquetFile(path) as file:
                    for batch in file.iter_batches(batch_size=1024, columns=COLUMNS):
                        yield from batch.to_pylist()


def _resolve(takedowns: Takedowns, reach: Reach, found: Affected) -> dict[str, Covered]:
    """Find the documents that are covered by address, payload or text, and take their fingerprints."""
    covered: dict[str, Covered] = {}
    revisited = _revisited(takedowns, reach)
    known = takedowns
    gaps = {stage for stage, _ in reach.gaps()}
    # What later stages hold was extracted once: they are asked only where extract's own files are not all here.
    stages = text_stages() if "extract" in gaps or not reach.links("extract") else ("extract",)
    taken: set[tuple[str, str | None]] = set()
    while True:
        before = len(taken)
        for row in _documents(reach, *stages):
            facts = {name: row[name] for name in ("url", "host", "payload_digest", "text")}
            why = known.covers(**facts)
            if why is None and row["doc_id"] in revisited:
                why = revisited[row["doc_id"]], "revisit"
            if why is None and row["doc_id"] in covered:
                why = covered[row["doc_id"]].tombstone, covered[row["doc_id"]].by
            if why is None:
                continue
            # One page may have given other texts in other runs, so that each of its texts is noted.
            text = (row["doc_id"], text_sha256(row["text"]))
            if text in taken:
                continue
            taken.add(text)
            covered.setdefault(
                row["doc_id"],
                Covered(doc_id=row["doc_id"], url=row["url"], host=row["host"], tombstone=why[0], by=why[1]),
            )
            found.fingerprints.append(
                fingerprint(why[0], row["text"], doc_id=row["doc_id"], payload=row["payload_digest"])
            )
        if len(taken) == before:
            break
        # What was found by address may have copies elsewhere, by payload or text.
        known = Takedowns(takedowns.tombstones, (*takedowns.fingerprints, *found.fingerprints))
    compared = load_graph()["dedup"].inputs
    # Filters may have edited the text (masked addresses): dedup compares that one.
    texts = {one.text_sha256 for one in found.fingerprints}
    for row in _documents(reach, *compared):
        one = covered.get(row["doc_id"])
        if one is not None and (digest := text_sha256(row["text"])) not in texts:
            texts.add(digest)
            found.fingerprints.append(fingerprint(one.tombstone, row["text"], doc_id=one.doc_id))
    return covered


def _revisited(takedowns: Takedowns, reach: Reach) -> dict[str, str]:
    """Return the documents whose payload was fetched from a covered URL too, and stored once: doc_id → tombstone."""
    found: dict[str, str] = {}
    for link in reach.links("crawl"):
        for _, path in reach.readable(link):
            for row in read_ledger(path):
                if row.rule == "revisit" and row.survivor_id and row.url:
                    host = row.url.partition("://")[2].partition("/")[0].partition(":")[0]
                    if tombstone := takedowns.covers_address(row.url, host):
                        found[row.survivor_id] = tombstone
    return found


def _near(takedowns: Takedowns, reach: Reach, covered: dict[str, Covered]) -> NDArray[np.uint32]:
    """Find the documents that are near to what is covered; return what shingles many of the others have too."""
    if not takedowns.fingerprints:
        return np.zeros(0, np.uint32)
    threshold = float(read_params().get("dedup", {}).get("threshold", 0.8))
    look = Lookup(takedowns.fingerprints, threshold)
    compared = tuple(load_graph()["dedup"].inputs)
    filtered = {sha256 for stage in compared for link in reach.links(stage) for sha256 in link.manifest.inputs.values()}
    unfiltered = [link for link in reach.links("extract") if link.sha256 not in filtered]
    lost = {stage for stage, _ in reach.gaps()} & set(compared)
    stages = text_stages() if unfiltered or lost else compared
    shared, asked = np.unique(look.values), set[str]()
    holding = np.zeros(len(shared), np.int64)
    for row in _documents(reach, *stages):
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
        elif row["doc_id"] not in asked:
            asked.add(row["doc_id"])
            holding += np.isin(shared, values, assume_unique=True)
    return shared[holding > COMMON_DOCUMENTS]


def _holding(found: Affected, reach: Reach, ids: set[str]) -> None:
    """Say which shards of what stands in data/ (or stood there before a run was stopped) hold a covered document."""
    wanted_ids = pc.SetLookupOptions(value_set=pa.array(sorted(ids), pa.string()))

    def holds(link: Link, shard: Shard) -> bool:
        path = reach.files.path(link, shard)
        assert path is not None, "stages of which a shard is lost are left out"
        column = pq.read_table(path, columns=["doc_id"])["doc_id"]
        return bool(pc.any(pc.is_in(column, options=wanted_ids)).as_py())

    for stage in load_graph():
        links = [link for link in reach.links(stage, IN_DATA) if stage == "tokenize" or link.manifest.holds_documents]
        shards = [
            (link, shard)
            for link in links[:1]
            for shard in link.manifest.shards
            if shard.name.endswith(".parquet") and "/" not in shard.name
        ]
        if not shards:
            continue
        lost = [shard.name for link, shard in shards if reach.files.path(link, shard) is None]
        if lost:  # how many of its shards hold one is not known, so nothing is said of it
            if stage not in read_stages():
                found.unreachable.append(describe_gap((stage, links[0].sha256), lost, len(shards)))
            continue
        found.of[stage] = len(shards)
        names = [shard.name for link, shard in shards if holds(link, shard)]
        if stage == "tokenize":
            found.token_shards = [name.replace(".parquet", ".bin") for name in names]
        else:
            found.shards[stage] = names
    found.checkpoint = any(not name.startswith("validation") for name in found.token_shards)
    found.reference = bool(found.shards.get("dedup")) and _in_reference(found, reach)


def _in_reference(found: Affected, reach: Reach) -> bool:
    """Return whether a covered document may have been in the text that the perplexity model was trained on."""
    for link in reach.links("perplexity", IN_DATA)[:1]:
        for shard in link.manifest.shards:
            if shard.name != MODELS_NAME:
                continue
            path = reach.files.path(link, shard)
            if path is None:
                found.unreachable.append(describe_gap(("perplexity", link.sha256), [shard.name], 1))
                return True
            reference: Mapping[str, Any] = json.loads(path.read_bytes()).get("reference") or {}
            hosts = set(reference.get("hosts", ()))
            return not hosts or any(one.host in hosts for one in found.covered)
    return False


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
