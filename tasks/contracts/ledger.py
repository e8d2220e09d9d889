"""The ledger: one row for each document (or record) that a stage drops or edits. Nothing is deleted silently."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa

from tasks.contracts.base import Drop, Edit
from tasks.contracts.document import Document, read_rows, write_rows

LEDGER_SCHEMA = pa.schema(
    [
        pa.field("doc_id", pa.string()),
        pa.field("url", pa.string()),
        pa.field("record_id", pa.string()),
        pa.field("stage", pa.string(), nullable=False),
        pa.field("action", pa.string(), nullable=False),
        pa.field("rule", pa.string(), nullable=False),
        pa.field("score", pa.float64()),
        pa.field("threshold", pa.float64()),
        pa.field("survivor_id", pa.string()),
        pa.field("detail", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerRow:
    """What one stage did to one document, and why.

    Attributes:
        action: "drop" counts in the manifest's `dropped`; "edit" and "note" leave the document in.
        survivor_id: for a duplicate, the doc_id that was kept in its place.
        detail: a short text for people: the matched n-gram, the exception, the benchmark item.
    """

    stage: str
    action: Literal["drop", "edit", "note"]
    rule: str
    doc_id: str | None = None
    url: str | None = None
    record_id: str | None = None
    score: float | None = None
    threshold: float | None = None
    survivor_id: str | None = None
    detail: str | None = None


def ledger_row(stage: str, document: Document, reason: Drop | Edit) -> LedgerRow:
    """Return the row that says what `stage` did to `document`."""
    drop = isinstance(reason, Drop)
    return LedgerRow(
        stage=stage,
        action="drop" if drop else "edit",
        rule=reason.rule,
        doc_id=document.doc_id,
        url=document.url,
        record_id=document.record_id,
        score=reason.score,
        threshold=reason.threshold if isinstance(reason, Drop) else None,
        survivor_id=reason.survivor_id if isinstance(reason, Drop) else None,
        detail=reason.detail,
    )


def drops_by_rule(rows: Iterable[LedgerRow]) -> dict[str, int]:
    """Return how many documents each rule dropped, as a manifest counts them: by the rules' names, in order."""
    return dict(sorted(Counter(row.rule for row in rows if row.action == "drop").items()))


def write_ledger(path: Path, rows: Iterable[LedgerRow]) -> int:
    """Write ledger rows to one Parquet file, in order, and return how many there were."""
    return write_rows(path, ({name: getattr(row, name) for name in LEDGER_SCHEMA.names} for row in rows), LEDGER_SCHEMA)


def read_ledger(path: Path) -> Iterator[LedgerRow]:
    """Yield the rows of one ledger file, in order."""
    return (LedgerRow(**row) for row in read_rows(path, LEDGER_SCHEMA))
