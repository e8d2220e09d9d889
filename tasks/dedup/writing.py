"""The last pass, part by part: survivors, what is cut from them, and a ledger row for all that went or changed.

A part is written from its own decisions, so that one whose decisions did not change is a hit in the shard cache.
They name only documents that go: how many a survivor stands for is counted in the ledger, as a number beside its text
would have every shard written again that a new one repeats something of.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tasks.contracts.document import DOCUMENT_SCHEMA, ROWS_PER_GROUP, open_shard
from tasks.contracts.files import DROPPED_FOLDER
from tasks.contracts.ledger import LedgerRow, drops_by_rule, write_ledger
from tasks.contracts.manifest import Counts
from tasks.dedup.passages import cut_blocks
from tasks.dedup.survivors import NEAR, RULES
from tasks.dedup.table_shards import write_batches
from tasks.dedup.taken_down_copies import TAKEN_RULE, TOMBSTONE_DIGITS
from tasks.engine.shards import ShardWork
from tasks.rights.takedowns import NEAR_RULE

STAGE: Final = "dedup"
TOO_SHORT: Final = "too_short_after_cut"

FATE: Final = np.dtype([("row", "<u4"), ("rule", "i1"), ("survivor", "<u8", 2), ("similarity", "<f8")])
PART_CUT: Final = np.dtype([("row", "<u4"), ("key", "<u8")])


@dataclass(frozen=True, slots=True, kw_only=True)
class Writing:
    """What the last pass must know besides its decisions.

    Attributes:
        threshold: Jaccard similarity of near duplicates, for the ledger.
        block_characters: shorter lines and paragraphs were not counted.
        rest_characters: a document that is cut to fewer is dropped.
    """

    threshold: float
    block_characters: int
    rest_characters: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """Where one part's decisions stand in the files of all fates and of all cuts: which is the first, and how many."""

    first_fate: int
    fates: int
    first_cut: int
    cuts: int


def write_part(writing: Writing, decided: Mapping[str, Decided], work: ShardWork, folder: Path) -> Counts:
    """Write one part: `work.inputs` are its documents, all fates and all cuts; `decided` says which are its own."""
    source, fates_path, cuts_path = work.inputs
    own = decided[work.name]
    fates = np.fromfile(fates_path, FATE, own.fates, offset=own.first_fate * FATE.itemsize)
    cuts = np.fromfile(cuts_path, PART_CUT, own.cuts, offset=own.first_cut * PART_CUT.itemsize)
    ledger: list[LedgerRow] = []
    seen = 0

    def batches() -> Iterator[pa.RecordBatch]:
        nonlocal seen
        with open_shard(source) as shard:
            for batch in shard.iter_batches(batch_size=ROWS_PER_GROUP):
                rows = slice(seen, seen + len(batch))
                yield _decide(batch, seen, _within(fates, rows), _within(cuts, rows), writing, ledger)
                seen += len(batch)

    out = write_batches(folder / f"{work.name}.parquet", batches())
    write_ledger(folder / DROPPED_FOLDER / f"{work.name}.parquet", ledger)
    counts = Counts(in_=seen, out=out, dropped=drops_by_rule(ledger))
    counts.check(f"{work.name}: {source}")
    return counts


def _within(decisions: NDArray[Any], rows: slice) -> NDArray[Any]:
    return decisions[np.searchsorted(decisions["row"], rows.start) : np.searchsorted(decisions["row"], rows.stop)]


def _decide(
    batch: pa.RecordBatch,
    first: int,
    fates: NDArray[Any],
    cuts: NDArray[Any],
    writing: Writing,
    ledger: list[LedgerRow],
) -> pa.RecordBatch:
    """Return what stays of a batch whose first row is `first`, and add to the ledger what goes or changes."""
    rows: dict[int, LedgerRow] = {}
    texts: dict[int, str] = {}
    names = batch.select(["doc_id", "url", "record_id"])
    for fate in fates:
        at = int(fate["row"]) - first
        if fate["rule"] == TAKEN_RULE:
            rows[at] = LedgerRow(
                stage=STAGE,
                action="drop",
                rule=NEAR_RULE,
                score=float(fate["similarity"]),
                threshold=writing.threshold,
                detail=f"tombstone {int(fate['survivor'][0]):0{TOMBSTONE_DIGITS}x}",
                **_identity(names, at),
            )
            continue
        rows[at] = LedgerRow(
            stage=STAGE,
            action="drop",
            rule=RULES[fate["rule"]],
            score=float(fate["similarity"]),
            threshold=writing.threshold if fate["rule"] == NEAR else None,
            survivor_id=fate["survivor"].astype(">u8").tobytes().hex(),
            **_identity(names, at),
        )
    for row in np.unique(cuts["row"]).tolist():
        at = row - first
        keys = frozenset(cuts["key"][cuts["row"] == row].tolist())
        text, done = cut_blocks(batch["text"][at].as_py(), keys, writing.block_characters)
        if not done:
            continue
        detail = ", ".join(f"{cut} of {of} {kind}s cut" for kind, (cut, of) in done.items())
        short = len(text.strip()) < writing.rest_characters
        rows[at] = LedgerRow(
            stage=STAGE,
            action="drop" if short else "edit",
            rule=TOO_SHORT if short else f"common_{'_and_'.join(f'{kind}s' for kind in done)}",
            score=float(len(text.strip()) if short else sum(cut for cut, _ in done.values())),
            threshold=float(writing.rest_characters) if short else None,
            detail=detail,
            **_identity(names, at),
        )
        if not short:
            texts[at] = text
    ledger.extend(rows[at] for at in sorted(rows))
    if texts:
        batch = _with_texts(batch, texts)
    gone = [at for at, row in rows.items() if row.action == "drop"]
    if not gone:
        return batch
    stays = np.ones(len(batch), dtype=np.bool_)
    stays[gone] = False
    return batch.filter(pa.array(stays))


def _identity(names: pa.RecordBatch, at: int) -> dict[str, str]:
    return {name: names[name][at].as_py() for name in names.schema.names}


def _with_texts(batch: pa.RecordBatch, texts: dict[int, str]) -> pa.RecordBatch:
    """Return the batch with some texts replaced."""
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    values = batch["text"].to_pylist()
    for at, text in texts.items():
        values[at] = text
    columns["text"] = pa.array(values, DOCUMENT_SCHEMA.field("text").type)
    return pa.RecordBatch.from_arrays(list(columns.values()), schema=DOCUMENT_SCHEMA)
