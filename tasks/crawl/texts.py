"""Takes text documents in: JSONL (plain, gzip, zstd) or Parquet, in the layout of Dolma, FineWeb or alike."""

from __future__ import annotations

import gzip
import io
import logging
import shutil
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from pydantic import JsonValue

from tasks.contracts.document import Document, make_doc_id, write_documents
from tasks.contracts.errors import InputError
from tasks.contracts.ledger import LedgerRow, write_ledger
from tasks.contracts.manifest import Counts
from tasks.contracts.redaction import without_userinfo
from tasks.crawl.files import SourceFile, find_files, open_hashed, opened
from tasks.crawl.processes import spread
from tasks.crawl.units import Unit, join_parts, make_units

logger = logging.getLogger(__name__)

MEBIBYTE = 1024 * 1024
DATE_COLUMNS = ("date", "created", "added")
SOURCE_COLUMNS = ("source", "dump")
Ids = np.ndarray[Any, np.dtype[np.uint64]]
_NO_IDS: Ids = np.empty(0, dtype=np.uint64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Where a document's parts stand; a dot reaches into an object."""

    text: str = "text"
    url: str = "url"
    id: str = "id"


def take_texts(
    paths: Sequence[str], *, columns: Columns, megabytes: float, output: Path
) -> tuple[Counts, list[JsonValue]]:
    """Copy text documents into Document parts of about `megabytes` MiB of text; return the counts and the files.

    Raises:
        InputError: a file is missing, of no known format, or without the text column.
        NetworkError: a remote file cannot be read.
    """
    files = find_files(paths, "JSONL or Parquet files")
    output.mkdir(parents=True, exist_ok=True)
    units = make_units(files, output, megabytes, lambda _: False)
    take = partial(_take, columns=columns, megabytes=megabytes)
    taken = spread(take, [(unit, _NO_IDS) for unit in units])
    again = _repeated(taken)
    for index, one in zip(again, spread(take, [(units[index], ids) for index, ids in again.items()]), strict=True):
        taken[index] = one
    rows = [row for one in taken for row in one.rows]
    kept = sum(one.kept for one in taken)
    if not kept:
        raise InputError(
            "the files hold no text",
            where=", ".join(file.name for file in files[:5]),
            expected=f"documents with a column {columns.text!r}",
            found=rows[0].detail if rows else "no rows",
        )
    join_parts(units, output)
    write_ledger(output / "dropped" / "part-00000.parquet", rows)
    dropped = Counter(row.rule for row in rows)
    counts = Counts(in_=sum(one.seen for one in taken), out=kept, dropped=dict(sorted(dropped.items())))
    return counts, [source for one in taken for source in one.sources]


@dataclass(slots=True)
class _Taken:
    """What one unit gave; `ids` are the first 64 bits of its documents' ids."""

    rows: list[LedgerRow]
    sources: list[JsonValue]
    seen: int
    kept: int
    ids: Ids


def _take(job: tuple[Unit, Ids], *, columns: Columns, megabytes: float) -> _Taken:
    """Copy one unit's documents into parts of its own; ids that earlier units hold already count as taken."""
    unit, taken = job
    shutil.rmtree(unit.folder, ignore_errors=True)
    reader = _Reader(columns, unit.files, taken)
    documents: Iterator[Document] = iter(reader.documents())
    part = 0
    while (first := next(documents, None)) is not None:
        write_documents(unit.folder / f"part-{part:05d}.parquet", _until_full(first, documents, megabytes))
        part += 1
    ids = np.fromiter(reader.ids, dtype=np.uint64, count=len(reader.ids))
    return _Taken(reader.rows, reader.sources, reader.seen, reader.kept, ids)


def _repeated(taken: Sequence[_Taken]) -> dict[int, Ids]:
    """Return the units that hold ids of earlier ones, each with those ids: they are taken once more."""
    again: dict[int, Ids] = {}
    seen = _NO_IDS
    for index, one in enumerate(taken):
        both = np.intersect1d(seen, one.ids)
        if both.size:
            again[index] = both
        seen = np.union1d(seen, one.ids)
    return again


def _until_full(first: Document, documents: Iterator[Document], megabytes: float) -> Iterator[Document]:
    size = 0
    document: Document | None = first
    while document is not None:
        yield document
        size += len(document.text.encode("utf-8", "replace"))
        document = next(documents, None) if size < megabytes * MEBIBYTE else None


class _Reader:
    def __init__(self, columns: Columns, files: Sequence[SourceFile], taken: Ids) -> None:
        self.columns = columns
        self.files = files
        self.rows: list[LedgerRow] = []
        self.sources: list[JsonValue] = []
        self.seen = 0
        self.kept = 0
        self.ids: set[int] = set(taken.tolist())

    def documents(self) -> Iterator[Document]:
        for file in self.files:
            with open_hashed(file) as (stream, hashed):
                for number, row in enumerate(_rows(stream, file)):
                    self.seen += 1
                    made = row if isinstance(row, str) else self._document(row, file, number)
                    if isinstance(made, Document):
                        self.kept += 1
                        yield made
                    else:
                        detail = f"{file.name}, row {number}: {made}"
                        self.rows.append(LedgerRow(stage="crawl", action="drop", rule="bad_row", detail=detail[:500]))
                    if number == 0 and isinstance(row, Mapping) and _reach(row, self.columns.text) is None:
                        self._check_columns(row, file)
                self.sources.append(
                    {"name": file.name, "sha256": hashed.rest() if not stream.closed else hashed.digest.hexdigest()}
                )
            logger.info("crawl: %s, %d documents kept, %d rows dropped", file.name, self.kept, len(self.rows))

    def _check_columns(self, row: Mapping[str, Any], file: SourceFile) -> None:
        if self.columns.text.split(".")[0] not in row:
            raise InputError(
                "a file has no text column",
                where=file.name,
                expected=f"a column {self.columns.text!r} (crawl.text_column)",
                found="columns " + ", ".join(map(str, row)),
                fix="set crawl.text_column to the one that holds the text",
            )

    def _document(self, row: Mapping[str, Any], file: SourceFile, number: int) -> Document | str:
        """Return the row as a document, or what is wrong with it."""
        text = _reach(row, self.columns.text)
        if not isinstance(text, str):
            return f"{self.columns.text} is {type(text).__name__}, not text"
        try:
            text.encode()
        except UnicodeEncodeError:
            return f"{self.columns.text} is not Unicode text (a lone surrogate)"
        url = without_userinfo(_text(_reach(row, self.columns.url)) or _text(_reach(row, "metadata.url")) or "")
        record_id = without_userinfo(_text(_reach(row, self.columns.id))) or f"{file.name}#{number}"
        source = without_userinfo(next((value for name in SOURCE_COLUMNS if (value := _text(row.get(name)))), "text"))
        doc_id = make_doc_id(source, record_id)
        if int(doc_id[:16], 16) in self.ids:
            # Two rows of one id stay two documents, each with an id of its own.
            record_id = f"{record_id}#{file.name}#{number}"
            doc_id = make_doc_id(source, record_id)
        self.ids.add(int(doc_id[:16], 16))
        score = row.get("language_score")
        return Document(
            doc_id=doc_id,
            url=url,
            host=_host(url),
            record_id=record_id,
            source=source,
            text=text,
            captured_at=next((value for name in DATE_COLUMNS if (value := _text(row.get(name)))), None),
            title=_text(row.get("title")) or None,
            language=_text(row.get("language")) or _text(row.get("lang")) or None,
            language_score=float(score) if isinstance(score, int | float) else None,
            license=_text(row.get("license")) or _text(_reach(row, "metadata.license")) or None,
        )


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _text(value: Any) -> str:
    return "" if value is None or isinstance(value, dict | list) else str(value)


def _reach(row: Mapping[str, Any], name: str) -> Any:
    """Return a column's value; a dotted name reaches into objects where there is no column of that very name."""
    if name in row:
        return row[name]
    value: Any = row
    for key in name.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _rows(stream: BinaryIO, file: SourceFile) -> Iterable[Mapping[str, Any] | str]:
    """Yield a file's rows; a string says why one cannot be read."""
    name = file.name.lower()
    start = stream.peek(8)[:8] if isinstance(stream, io.BufferedReader) else b""
    if name.endswith(".parquet") or start[:4] == b"PAR1":
        return _parquet_rows(file)
    if start[:2] == b"\x1f\x8b":
        return _lines(gzip.GzipFile(fileobj=stream))
    if start[:4] == b"\x28\xb5\x2f\xfd":
        return _lines(zstandard.ZstdDecompressor().stream_reader(stream, read_across_frames=True))
    if start.lstrip()[:1] not in (b"{", b""):
        raise InputError(
            "a file is neither JSONL nor Parquet",
            where=file.name,
            expected="one JSON object a line (plain, .gz or .zst), or Parquet",
            found=f"a file that begins with {start!r}",
        )
    return _lines(stream)


def _lines(stream: Any) -> Iterator[Mapping[str, Any] | str]:
    buffered = io.BufferedReader(stream, 1 << 20) if not isinstance(stream, io.BufferedReader) else stream
    try:
        for line in buffered:
            if not line.strip():
                continue
            try:
                row = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                yield f"not JSON: {error}"
                continue
            yield row if isinstance(row, dict) else f"a JSON {type(row).__name__}, not an object"
    except (EOFError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError) as error:
        yield f"the compressed file cannot be read further: {error}"


def _parquet_rows(file: SourceFile) -> Iterator[Mapping[str, Any] | str]:
    """Yield a Parquet file's rows; it is opened anew, since it is read from its end."""
    with opened(file) as seekable:
        try:
            parquet = pq.ParquetFile(seekable)
        except pa.ArrowInvalid as error:
            raise InputError("a file is not Parquet", where=file.name, found=str(error).splitlines()[0]) from error
        for batch in parquet.iter_batches(batch_size=1024):
            yield from batch.to_pylist()
