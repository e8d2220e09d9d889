"""Taken-down pages leave the shards of extract: a cheap second look after the map, whose keys stay as they are.

A shard's key says nothing of the takedown list. What the map made is scanned for what the list covers, and only the
shards in which something matches are written again, under a key that holds just those matches. So a tombstone for
one page costs one shard, and one that matches nothing costs the scan.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from pydantic import JsonValue

from tasks.contracts.base import Drop
from tasks.contracts.document import ROWS_PER_GROUP, Document, open_shard, read_documents, write_documents
from tasks.contracts.durable_files import canonical_json, sha256_json
from tasks.contracts.files import DROPPED_FOLDER, is_part
from tasks.contracts.ledger import ledger_row, read_ledger, write_ledger
from tasks.contracts.manifest import Counts
from tasks.engine.shards import MapResult, ShardWork, reused
from tasks.engine.stage import Stage
from tasks.rights.takedowns import RULE, Takedowns

STAGE: Final = "extract"
COLUMNS: Final = ["doc_id", "url", "host", "payload_digest", "text"]
_CODE: Final = ["tasks.extract.taken_down_pages"]


def take_down(stage: Stage, takedowns: Takedowns, result: MapResult) -> MapResult:
    """Drop what the list covers from the finished shards in the stage's output.

    Args:
        result: what the map returned; its shards that hold nothing covered stay as they are.
    """
    if not takedowns:
        return result
    parts = [file for file in result.files if is_part(file.name, ".parquet")]
    ledgers = {file.name.removeprefix("dropped/"): file for file in result.files if file.name.startswith("dropped/")}
    output = stage.output
    scan = [ShardWork(name=_stem(p.name), inputs=(output / p.name,), input_hashes=(p.sha256,)) for p in parts]
    listed: list[JsonValue] = [row.model_dump(mode="json") for row in (*takedowns.tombstones, *takedowns.fingerprints)]
    find = partial(find_covered, takedowns)
    scanned = stage.map(find, scan, step="takedown_scan", params={"list": sha256_json(listed)}, code=_CODE)
    again = []
    for part, item in zip(parts, scan, strict=True):
        found = scanned.folders[item.name] / f"{item.name}.json"
        if json.loads(found.read_bytes()):
            ledger = ledgers[part.name]
            again.append(item.plus(output / ledger.name, ledger.sha256).plus(found))
    if not again:
        return result
    rewritten = stage.map(drop_covered, again, step="takedown", output=output, params={}, code=_CODE)
    new = {file.name: file for file in rewritten.files}
    reused[STAGE] = result.hits - len(again) + rewritten.hits
    gone = rewritten.counts.dropped[RULE]
    counts = result.counts
    dropped = {**counts.dropped, RULE: gone}
    return replace(
        result,
        counts=Counts(in_=counts.in_, out=counts.out - gone, dropped=dict(sorted(dropped.items()))),
        files=[new.get(file.name, file) for file in result.files],
        hits=reused[STAGE],
    )


def _stem(name: str) -> str:
    return name.removesuffix(".parquet")


def find_covered(takedowns: Takedowns, work: ShardWork, folder: Path) -> Counts:
    """Write which documents of a shard the list covers: doc_id → [tombstone, by what]."""
    found: dict[str, tuple[str, str]] = {}
    seen = 0
    with open_shard(work.inputs[0]) as shard:
        for batch in shard.iter_batches(batch_size=ROWS_PER_GROUP, columns=COLUMNS):
            for row in batch.to_pylist():
                seen += 1
                doc_id = row.pop("doc_id")
                if covered := takedowns.covers(**row):
                    found[doc_id] = covered
    (folder / f"{work.name}.json").write_bytes(canonical_json({doc_id: list(why) for doc_id, why in found.items()}))
    return Counts(in_=seen, out=seen)


def drop_covered(work: ShardWork, folder: Path) -> Counts:
    """Write a shard and its ledger again without the documents that the scan found."""
    documents, ledger, found = work.inputs
    covered: dict[str, tuple[str, str]] = json.loads(found.read_bytes())
    rows = list(read_ledger(ledger))
    seen = 0

    def kept() -> Iterator[Document]:
        nonlocal seen
        for document in read_documents(documents):
            seen += 1
            if why := covered.get(document.doc_id):
                rows.append(ledger_row(STAGE, document, Drop(rule=RULE, detail=f"tombstone {why[0]}, by its {why[1]}")))
            else:
                yield document

    out = write_documents(folder / f"{work.name}.parquet", kept())
    write_ledger(folder / DROPPED_FOLDER / f"{work.name}.parquet", rows)
    return Counts(in_=seen, out=out, dropped={RULE: seen - out})
