"""A document: the row that every text stage reads and writes, and its Parquet form.

The writer's settings are fixed here, so that equal rows give equal bytes on every machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.contracts.durable_files import atomic_path
from tasks.contracts.errors import InputError

DOCUMENT_SCHEMA = pa.schema(
    [
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("url", pa.string(), nullable=False),
        pa.field("host", pa.string(), nullable=False),
        pa.field("captured_at", pa.string()),
        pa.field("record_id", pa.string(), nullable=False),
        pa.field("warc_path", pa.string()),
        pa.field("warc_offset", pa.int64()),
        pa.field("payload_digest", pa.string()),
        pa.field("source", pa.string(), nullable=False),
        pa.field("title", pa.string()),
        pa.field("author", pa.string()),
        pa.field("published", pa.string()),
        pa.field("text", pa.string(), nullable=False),
        pa.field("language", pa.string()),
        pa.field("language_score", pa.float64()),
        pa.field("license", pa.string()),
        pa.field("opt_out", pa.list_(pa.string()), nullable=False),
        pa.field("scores", pa.map_(pa.string(), pa.float64()), nullable=False),
    ]
)

ROWS_PER_GROUP = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One page's text with where it came from.

    Attributes:
        doc_id: 32 hex digits, stable for a source and record id (see `make_doc_id`).
        captured_at: when the page was fetched, RFC 3339 in UTC.
        record_id: the WARC record's id, or the source's own id of the row.
        warc_path: the WARC file's name inside the crawl snapshot, None for text sources.
        warc_offset: the record's first byte in that file.
        payload_digest: digest of the HTTP payload, labelled as in WARC ("sha1:…").
        author: as the page's metadata name them, several divided by "; ".
        published: the day of publication that the page's metadata name, "2026-01-31".
        language: ISO 639-1 code.
        language_score: probability of `language`, 0 to 1.
        opt_out: signals seen at fetch time, such as "meta:noai".
        scores: what stages measured, by "stage.name".
    """

    doc_id: str
    url: str
    host: str
    record_id: str
    source: str
    text: str
    captured_at: str | None = None
    warc_path: str | None = None
    warc_offset: int | None = None
    payload_digest: str | None = None
    title: str | None = None
    author: str | None = None
    published: str | None = None
    language: str | None = None
    language_score: float | None = None
    license: str | None = None
    opt_out: tuple[str, ...] = ()
    scores: Mapping[str, float] = field(default_factory=dict)

    def with_text(self, text: str) -> Document:
        """Return this document with another text."""
        return replace(self, text=text)

    def with_scores(self, scores: Mapping[str, float]) -> Document:
        """Return this document with more scores; equal names are replaced."""
        return replace(self, scores={**self.scores, **scores})


_NAMES = tuple(f.name for f in fields(Document))
assert set(_NAMES) == set(DOCUMENT_SCHEMA.names), "the class and the Parquet schema name the same columns"


def make_doc_id(source: str, record_id: str) -> str:
    """Return the stable id of a document: 128 bits of SHA-256 over source and record id, as hex.

    >>> make_doc_id("sample", "<urn:uuid:1>") == make_doc_id("sample", "<urn:uuid:1>")
    True
    """
    return hashlib.sha256(f"{source}\n{record_id}".encode()).hexdigest()[:32]


def write_documents(path: Path, documents: Iterable[Document]) -> int:
    """Write documents to one Parquet file, in order, and return how many there were."""
    rows = (_to_row(document) for document in documents)
    return write_rows(path, rows, DOCUMENT_SCHEMA)


def read_documents(path: Path) -> Iterator[Document]:
    """Yield the documents of one Parquet file, in order, a row group in memory at a time.

    Raises:
        InputError: the file is missing, not Parquet, or of another schema.
    """
    for row in read_rows(path, DOCUMENT_SCHEMA):
        row["opt_out"] = tuple(row["opt_out"])
        row["scores"] = dict(row["scores"])
        yield Document(**row)


def _to_row(document: Document) -> dict[str, Any]:
    row = {name: getattr(document, name) for name in _NAMES}
    row["scores"] = sorted(document.scores.items())
    return row


@contextmanager
def parquet_writer(path: Path, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    """Give a writer with the settings that make equal rows equal bytes; on success `path` appears in one step."""
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        yield writer


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> int:
    """Write rows as Parquet in groups of ROWS_PER_GROUP; return their number."""
    iterator = iter(rows)
    count = 0
    with parquet_writer(path, schema) as writer:
        while group := list(islice(iterator, ROWS_PER_GROUP)):
            writer.write_table(pa.Table.from_pylist([dict(row) for row in group], schema=schema))
            count += len(group)
    return count


def open_shard(path: Path, schema: pa.Schema = DOCUMENT_SCHEMA) -> pq.ParquetFile:
    """Open a Parquet file that was written with `schema`.

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
    if shard.schema_arrow.names != schema.names:
        shard.close()
        raise InputError(
            "a shard has other columns than expected",
            where=str(path),
            expected=", ".join(schema.names),
            found=", ".join(shard.schema_arrow.names),
        )
    return shard


def read_rows(path: Path, schema: pa.Schema) -> Iterator[dict[str, Any]]:
    """Yield the rows of a Parquet file that was written with `schema`.

    Raises:
        InputError: the file is missing, not Parquet, or of another schema.
    """
    with open_shard(path, schema) as parquet:
        for batch in parquet.iter_batches(batch_size=ROWS_PER_GROUP):
            yield from batch.to_pylist()
