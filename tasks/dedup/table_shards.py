"""Text shards written a table at a time: dedup changes few rows.

The bytes written are those of `tasks.contracts.document.write_documents` for the same rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa

from tasks.contracts.document import DOCUMENT_SCHEMA, ROWS_PER_GROUP, parquet_writer


def write_batches(path: Path, batches: Iterable[pa.RecordBatch]) -> int:
    """Write batches of documents as one shard, in row groups of the contract's size; return the number of rows."""
    waiting: list[pa.RecordBatch] = []
    rows = written = 0
    with parquet_writer(path, DOCUMENT_SCHEMA) as writer:

        def flush(whole: bool) -> None:
            nonlocal waiting, rows, written
            table = pa.Table.from_batches(waiting, DOCUMENT_SCHEMA)
            while rows >= ROWS_PER_GROUP or (whole and rows):
                writer.write_table(table.slice(0, ROWS_PER_GROUP).combine_chunks())
                written += min(rows, ROWS_PER_GROUP)
                table = table.slice(ROWS_PER_GROUP)
                rows = len(table)
            waiting = table.to_batches()

        for batch in batches:
            waiting.append(batch)
            rows += len(batch)
            if rows >= ROWS_PER_GROUP:
                flush(whole=False)
        flush(whole=True)
    return written
