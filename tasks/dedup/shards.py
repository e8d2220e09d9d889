"""Text shards read and written a table at a time: dedup looks at few columns and changes few rows.

The bytes written are those of `tasks.contracts.document.write_documents` for the same rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.contracts.document import DOCUMENT_SCHEMA, ROWS_PER_GROUP
from tasks.contracts.errors import InputError
from tasks.contracts.files import atomic_path


def open_shard(path: Path) -> pq.ParquetFile:
    """Open a shard of documents.

    Raises:
        InputError: the file is missing, not Parquet, or of another schema.
    """
    try:
        shard = pq.ParquetFile(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(
            "a shard cannot be read",
            where=str(path),
            expected="a Parquet file",
            found=str(error).splitlines()[0],
            fix="`dvc checkout` restores it, or run the stage before again with `headwater run --force STAGE`",
        ) from error
    if shard.schema_arrow.names != DOCUMENT_SCHEMA.names:
        shard.close()
        raise InputError(
            "a shard has other columns than expected",
            where=str(path),
            expected=", ".join(DOCUMENT_SCHEMA.names),
            found=", ".join(shard.schema_arrow.names),
        )
    return shard


def write_batches(path: Path, batches: Iterable[pa.RecordBatch]) -> int:
    """Write batches of documents as one shard, in row groups of the contract's size; return the number of rows."""
    waiting: list[pa.RecordBatch] = []
    rows = written = 0
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, DOCUMENT_SCHEMA, compression="zstd") as writer:

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
