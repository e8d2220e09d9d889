"""Takes text documents in: JSONL (plain, gzip, zstd) or Parquet, in the layout of Dolma, FineWeb or alike."""

from __future__ import annotations

import codecs
import io
import logging
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import JsonValue

from tasks.contracts.document import Document, make_doc_id, write_documents
from tasks.contracts.durable_files import sha256_json
from tasks.contracts.errors import InputError
from tasks.contracts.files import DROPPED_FOLDER, part_name
from tasks.contracts.languages import UNSTATED, language_code
from tasks.contracts.ledger import LedgerRow, drops_by_rule, write_ledger
from tasks.contracts.manifest import Counts
from tasks.contracts.redaction import without_userinfo
from tasks.contracts.text_files import in_utf8
from tasks.contracts.urls import host_of
from tasks.crawl.input_files import Identity, SourceFile, check_unchanged, find_files, open_hashed, opened
from tasks.crawl.processes import spread
from tasks.crawl.streams import Unpacked
from tasks.crawl.work_units import (
    NO_IDS,
    Ids,
    Made,
    Unit,
    id_number,
    identities_of,
    join_parts,
    make,
    make_units,
    repeated,
    repeated_files,
    working_folder,
)

logger = logging.getLogger(__name__)

MEBIBYTE = 1024 * 1024
DATE_COLUMNS = ("date", "created", "added")
SOURCE_COLUMNS = ("source", "dump")
MADE_UP, AGAIN = "content:", "again:"
MOST_ROWS_WITHOUT_A_DOCUMENT = 1000  # rows of a file without a document, after which it is the wrong file
MOST_LINE_BYTES = 64 * MEBIBYTE
_MARKS = re.compile(b"(?:%b)+" % codecs.BOM_UTF8)  # one of each file, where files were put behind each other
BLANK = b"\0 \t\r\n\v\f"  # a tape's last block is filled up with zeros


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Where a document's parts stand; a dot reaches into an object."""

    text: str = "text"
    url: str = "url"
    id: str = "id"


def take_texts(
    paths: Sequence[str], *, columns: Columns, megabytes: float, output: Path, state: Path | None = None
) -> tuple[Counts, list[JsonValue]]:
    """Copy text documents into Document parts of about `megabytes` MiB of text; return the counts and the files.

    Args:
        state: where finished units stay until the stage is done, so that the next run goes on after them.

    Raises:
        InputError: a file is missing or changes, is of no known format, or without the text column.
        NetworkError: a remote file cannot be read.
    """
    files = find_files(paths, "JSONL or Parquet files")
    output.mkdir(parents=True, exist_ok=True)
    with working_folder(state, output) as place:
        return _take_units(files, columns=columns, megabytes=megabytes, output=output, state=place)


def _take_units(
    files: Sequence[SourceFile], *, columns: Columns, megabytes: float, output: Path, state: Path
) -> tuple[Counts, list[JsonValue]]:
    units = make_units(files, megabytes, lambda _: False)
    identities = identities_of(units)
    take = partial(_take, columns=columns, megabytes=megabytes, state=state)
    jobs = [(unit, [identities[file] for file in unit.files], NO_IDS) for unit in units]
    made = spread(take, jobs)
    again = repeated(made)
    for index, one in zip(again, spread(take, [(*jobs[n][:2], ids) for n, ids in again.items()]), strict=True):
        made[index] = one
    facts = [one.facts for one in made]
    rows = [row for one in made for row in one.rows] + repeated_files(files)
    kept = sum(one["kept"] for one in facts)
    if not kept:
        raise InputError(
            "the files hold no text",
            where=", ".join(file.name for file in files[:5]),
            expected=f"documents with a column {columns.text!r}",
            found=rows[0].detail if rows else "no rows",
        )
    join_parts(made, output)
    write_ledger(output / DROPPED_FOLDER / part_name(0, ".parquet"), rows)
    counts = Counts(in_=sum(one["seen"] for one in facts), out=kept, dropped=drops_by_rule(rows))
    hashes = [digest for one in facts for digest in one["hashes"]]
    return counts, [{"name": file.name, "sha256": digest} for file, digest in zip(files, hashes, strict=True)]


Job = tuple[Unit, list[Identity], Ids]


def _take(job: Job, *, columns: Columns, megabytes: float, state: Path) -> Made:
    """Copy one unit's documents into parts of its own, or find it finished."""
    unit, identities, taken = job
    asked: dict[str, JsonValue] = {"source": "text", "megabytes": megabytes, "columns": list(astuple(columns))}

    def fill(folder: Path) -> tuple[dict[str, JsonValue], list[LedgerRow], Ids]:
        reader = _Reader(columns, unit.files, identities, taken)
        documents = reader.documents()
        part = 0
        while (first := next(documents, None)) is not None:
            write_documents(folder / part_name(part, ".parquet"), _until_full(first, documents, megabytes))
            part += 1
        facts: dict[str, JsonValue] = {"seen": reader.seen, "kept": reader.kept, "hashes": list(reader.hashes)}
        return facts, reader.rows, np.array(reader.own, dtype=np.uint64)

    return make(unit.key(state, asked, identities, taken), fill)


def _until_full(first: Document, documents: Iterator[Document], megabytes: float) -> Iterator[Document]:
    size = 0
    document: Document | None = first
    while document is not None:
        yield document
        size += len(document.text.encode("utf-8", "replace"))
        document = next(documents, None) if size < megabytes * MEBIBYTE else None


class _Reader:
    """Reads a unit's files; each row becomes a document or a ledger row.

    Args:
        taken: the ids that earlier units hold, once for each document that asked for it.
    """

    def __init__(
        self, columns: Columns, files: Sequence[SourceFile], identities: Sequence[Identity], taken: Ids
    ) -> None:
        self.columns = columns
        self.files = files
        self.identities = identities
        self.rows: list[LedgerRow] = []
        self.hashes: list[str] = []
        self.seen = 0
        self.kept = 0
        self.taken: Counter[int] = Counter(taken.tolist())
        self.own: list[int] = []

    def documents(self) -> Iterator[Document]:
        """Yield the documents."""
        for file, identity in zip(self.files, self.identities, strict=True):
            kept = self.kept
            looked_at = _Looked(file, self.columns)
            with open_hashed(file, hashing=identity.sha256 is None) as (stream, hashed):
                for number, row in enumerate(_rows(stream, file, self.columns.text)):
                    self.seen += 1
                    made = row if isinstance(row, str) else self._document(row)
                    if isinstance(made, Document):
                        self.kept += 1
                        yield made
                    else:
                        detail = f"{file.name}, row {number}: {made}"
                        self.rows.append(LedgerRow(stage="crawl", action="drop", rule="bad_row", detail=detail[:500]))
                    if number < MOST_ROWS_WITHOUT_A_DOCUMENT and self.kept == kept:
                        if not isinstance(row, _Damaged):
                            looked_at.add(row)
                    elif self.kept == kept:
                        looked_at.check()
                digest = identity.sha256 or (hashed.rest() if not stream.closed else hashed.digest.hexdigest())
                self.hashes.append(digest)
            check_unchanged(file, identity)
            if self.kept == kept:
                looked_at.check()
            logger.info("crawl: %s, %d documents kept, %d rows dropped", file.name, self.kept, len(self.rows))

    def _document(self, row: Mapping[str, Any]) -> Document | str:
        """Return the row as a document, or what is wrong with it."""
        text = _reach(row, self.columns.text)
        if not isinstance(text, str):
            return f"{self.columns.text} is {type(text).__name__}, not text"
        try:
            text.encode()
        except UnicodeEncodeError:
            return f"{self.columns.text} is not Unicode text (a lone surrogate)"
        url = without_userinfo(_text(_reach(row, self.columns.url)) or _text(_reach(row, "metadata.url")) or "")
        source = without_userinfo(next((value for name in SOURCE_COLUMNS if (value := _text(row.get(name)))), "text"))
        source = " ".join(source.split())
        stated = language_code(_text(row.get("language")) or _text(row.get("lang")))
        language = None if stated in UNSTATED else stated
        document = Document(
            doc_id="",
            record_id="",
            url=url,
            host=host_of(url),
            source=source,
            text=text,
            captured_at=next((value for name in DATE_COLUMNS if (value := _text(row.get(name)))), None),
            title=_text(row.get("title")) or None,
            language=language,
            language_score=None if language is None else _number(row.get("language_score")),
            license=_text(row.get("license")) or _text(_reach(row, "metadata.license")) or None,
        )
        record_id = self._record_id(without_userinfo(_text(_reach(row, self.columns.id))), document)
        return replace(document, doc_id=make_doc_id(source, record_id), record_id=record_id)

    def _record_id(self, stated: str, document: Document) -> str:
        """Return an id that no other row has: the stated one, or one that holds the row's content.

        Of rows that state one id, or that state none and are equal, all but the first get one that counts them. A
        stated id never looks like one of these.
        """
        base = stated or f"{MADE_UP}{_content(document)}"
        number = id_number(f"{document.source}\n{base}")
        before = self.taken[number]
        self.taken[number] += 1
        self.own.append(number)
        if not before and not stated.startswith((MADE_UP, AGAIN)):
            return base
        return f"{AGAIN}{before}:{_content(document)}:{base}"


def _content(document: Document) -> str:
    """Return 128 bits, as hex, of what a row holds."""
    facts = (document.source, document.url, document.captured_at, document.title, document.text)
    return sha256_json([fact or "" for fact in facts])[:32]


class _Looked:
    """The first rows of a file that gave no document yet: none of them does, and it is the wrong file."""

    def __init__(self, file: SourceFile, columns: Columns) -> None:
        self.file = file
        self.column = columns.text
        self.rows: list[Mapping[str, Any] | str] = []

    def add(self, row: Mapping[str, Any] | str) -> None:
        """Note a row."""
        self.rows.append(row)

    def check(self) -> None:
        """Raise where no row could have been a document.

        Raises:
            InputError: they are no objects, or have no text column.
        """
        objects = [row for row in self.rows if isinstance(row, Mapping)]
        if not self.rows or any(self.column.split(".")[0] in row or self.column in row for row in objects):
            return
        if objects:
            raise InputError(
                "a file has no text column",
                where=self.file.name,
                expected=f"a column {self.column!r} (crawl.text_column)",
                found="columns " + ", ".join(map(str, objects[0]))[:500],
                fix="set crawl.text_column to the one that holds the text",
            )
        raise InputError(
            "a file is neither JSONL nor Parquet",
            where=self.file.name,
            expected="one JSON object a line (plain, .gz or .zst), or Parquet",
            found=f"a file whose first row is {self.rows[0]}",
        )


def _number(value: Any) -> float | None:
    """Return a number; one that is none that a score can be is NaN, which reaches no threshold."""
    try:
        return None if not isinstance(value, int | float) else float(value) if math.isfinite(value) else math.nan
    except OverflowError:
        return math.nan


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


def _rows(stream: BinaryIO, file: SourceFile, text: str) -> Iterator[Mapping[str, Any] | str]:
    """Yield a file's rows; a string says why one cannot be read."""
    start = stream.peek(8)[:8] if isinstance(stream, io.BufferedReader) else b""
    if file.name.lower().endswith(".parquet") or start[:4] == b"PAR1":
        return _parquet_rows(file, text)
    if not Unpacked.begins(start):
        return _lines(stream)
    unpacked = Unpacked(stream)
    return _lines(io.BufferedReader(unpacked, 1 << 20), unpacked)


class _Damaged(str):
    """Where a file of whatever kind cannot be read further, and why."""

    __slots__ = ()


def _lines(stream: BinaryIO, unpacked: Unpacked | None = None) -> Iterator[Mapping[str, Any] | str]:
    stream = in_utf8(stream)
    while line := stream.readline(MOST_LINE_BYTES):
        if len(line) == MOST_LINE_BYTES and not line.endswith(b"\n"):
            while (rest := stream.readline(MOST_LINE_BYTES)) and not rest.endswith(b"\n"):
                pass
            yield f"a line of more than {MOST_LINE_BYTES} bytes"
            continue
        if line.startswith(codecs.BOM_UTF8):
            line = _MARKS.sub(b"", line, count=1)
        if not line.strip(BLANK):
            continue
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            # What is left of a line at a damaged place: the row of that speaks for it.
            if line.endswith(b"\n") or unpacked is None or unpacked.damage is None:
                yield f"not JSON: {error}"
            continue
        yield row if isinstance(row, dict) else f"a JSON {type(row).__name__}, not an object"
    if unpacked is not None and unpacked.damage is not None:
        yield _Damaged(f"the compressed file cannot be read further: {unpacked.damage}")


def _parquet_rows(file: SourceFile, text: str) -> Iterator[Mapping[str, Any] | str]:
    """Yield a Parquet file's rows; it is opened anew, since it is read from its end."""
    with opened(file) as seekable:
        try:
            parquet = pq.ParquetFile(seekable)
        except (pa.ArrowException, OSError) as error:
            raise InputError("a file is not Parquet", where=file.name, found=str(error).splitlines()[0]) from error
        groups = parquet.num_row_groups
        for group in range(groups):
            try:
                for batch in parquet.iter_batches(batch_size=1024, row_groups=[group]):
                    yield from _batch_rows(batch, text)
            except (pa.ArrowException, OSError, ValueError) as error:
                yield f"row group {group} of {groups} cannot be read further: {str(error).splitlines()[0]}"


def _batch_rows(batch: pa.RecordBatch, text: str) -> list[Mapping[str, Any] | str]:
    try:
        return [*batch.to_pylist()]
    except Exception:  # noqa: BLE001 - a date out of Python's calendar, bytes that are no text: each fails in its own way
        return [_odd_row(batch, number, text) for number in range(batch.num_rows)]


def _odd_row(batch: pa.RecordBatch, number: int, text: str) -> Mapping[str, Any] | str:
    """Return a row with None for each value that cannot be read; without its text it is no row."""
    row: dict[str, Any] = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            row[name] = column[number].as_py()
        except Exception as error:  # noqa: BLE001 - see above
            if name in (text, text.split(".")[0]):
                return f"{name} cannot be read: {error}"
            row[name] = None
    return row
