"""Every document of every stage, compared with the stage before: what `headwater verify --deep` reads throughout.

Part k is made from part k. Each of its documents goes on, unchanged but for scores and for what an edit row of the
ledger says, or stands in the ledger as dropped: once, by its id. What follows from the crawl's records is compared with
their own headers. Which stage is before which, the manifests say.

An edit only takes words away (a line, a paragraph, a leaked item); where a text says something new, such as a mask in
the place of an address, the stage's own rules are asked again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow.parquet as pq

from flows.workspace.graph import GRAPH_FILE, load_graph
from flows.workspace.params import read_params, stage_params
from tasks.contracts.conservation import Holding, source_of
from tasks.contracts.document import DOCUMENT_SCHEMA, Document, make_doc_id
from tasks.contracts.files import DROPPED_FOLDER, HELD_OUT_FOLDER
from tasks.contracts.manifest import holding, read_manifest
from tasks.contracts.warc import utc
from tasks.contracts.warc_index import WarcEntry, entry_at, read_entries
from tasks.contracts.words import words
from training.release.verify import Break

CHANGING = ("text", "scores")
FOUND_LATER = ("language", "language_score")
"""What extract adds to a document that the crawl took in as text."""

Row = dict[str, Any]
Again = Callable[[Document], Document | None]


def documents(data: Path, names: Sequence[str]) -> Iterator[Break]:
    """Follow every document through the stages' folders."""
    for name in names:
        own = holding(data / name)
        sources = source_of([holding(data / before) for before in read_manifest(data / name).inputs])
        if len(sources) != 1 or not own.parts or own.parts.keys() != sources[0].parts.keys():
            continue
        again = _rules(name)
        yield from _survivors(sources[0], own)
        for part in own.parts:
            if sources[0].rows.get(f"{part}.parquet") is None:
                yield from _captured(sources[0], own, part)
            else:
                yield from _followed(sources[0], own, part, again)


def _survivors(source: Holding, own: Holding) -> Iterator[Break]:
    """Check that what a document was dropped for is one that the stage was given, in whatever part."""
    ledgers = {part: own.folder / DROPPED_FOLDER / f"{part}.parquet" for part in own.parts}
    named = {part: pq.read_table(path, columns=["doc_id", "survivor_id"]).to_pylist() for part, path in ledgers.items()}
    if not any(row["survivor_id"] for rows in named.values() for row in rows):
        return
    paths = [source.folder / f"{part}.parquet" for part in source.parts]
    given = {one for path in paths for one in pq.read_table(path, columns=["doc_id"])["doc_id"].to_pylist()}
    for part, rows in named.items():
        for row in rows:
            if row["survivor_id"] and row["survivor_id"] not in given:
                where = f"{ledgers[part]}, document {row['doc_id']}, survivor_id"
                yield Break(where, f"a document of {source.name}", row["survivor_id"])


def _followed(source: Holding, own: Holding, part: str, again: Again | None) -> Iterator[Break]:
    """Compare one part with the one that it was made from."""
    before = {row["doc_id"]: row for row in _rows(source.folder / f"{part}.parquet")}
    after = _rows(own.folder / f"{part}.parquet")
    ledger = _rows(own.folder / DROPPED_FOLDER / f"{part}.parquet")
    yield from _once(own, part, list(before), [row["doc_id"] for row in after], ledger)
    for row in ledger:
        was = before.get(row["doc_id"])
        where = f"{own.folder}/{DROPPED_FOLDER}/{part}.parquet, document {row['doc_id']}"
        if row["stage"] != own.name:
            yield Break(f"{where}, stage", own.name, row["stage"])
        for column in ("url", "record_id") if was is not None else ():
            if was is not None and row[column] != was[column]:
                yield Break(f"{where}, {column}", was[column], row[column])
    edits = {row["doc_id"] for row in ledger if row["action"] == "edit"}
    for row in after:
        if (was := before.get(row["doc_id"])) is not None:
            yield from _unchanged(was, row, f"{own.folder}/{part}.parquet, document {row['doc_id']}", edits, again)
    aside = own.folder / HELD_OUT_FOLDER / f"{part}.parquet"
    gone = {row["doc_id"] for row in ledger if row["action"] == "drop"}
    for row in _rows(aside) if aside.is_file() else []:
        where = f"{aside}, document {row['doc_id']}"
        if row["doc_id"] not in gone:
            yield Break(where, "a document that the ledger says was held out", "none")
        elif (was := before.get(row["doc_id"])) is not None:
            yield from _unchanged(was, row, where, set(), None)


def _once(
    own: Holding, part: str, before: Sequence[str], after: Sequence[str], ledger: Sequence[Row]
) -> Iterator[Break]:
    """Check that each document is kept once or dropped once, in the order in which it came."""
    fates = Counter(after)
    fates.update(row["doc_id"] for row in ledger if row["action"] == "drop" and row["doc_id"] is not None)
    for doc_id in before:
        if (times := fates.pop(doc_id, 0)) != 1:
            where = f"{own.folder}, {part}, document {doc_id}"
            yield Break(where, "kept or dropped, once", "neither" if not times else f"{times} times")
    for doc_id in fates:
        yield Break(f"{own.folder}, {part}, document {doc_id}", f"a document of {part} before it", "not there")
    kept = set(after)
    if [doc_id for doc_id in before if doc_id in kept] != [doc_id for doc_id in after if doc_id in set(before)]:
        yield Break(f"{own.folder}/{part}.parquet", "the order of the stage before", "another")


def _same(one: object, other: object) -> bool:
    return one == other or (one != one and other != other)  # NaN is itself


def _unchanged(was: Row, row: Row, where: str, edits: set[str], again: Again | None) -> Iterator[Break]:
    """Compare two states of one document."""
    for column in DOCUMENT_SCHEMA.names:
        if column in CHANGING or _same(row[column], was[column]) or (column in FOUND_LATER and was[column] is None):
            continue
        yield Break(f"{where}, {column}", str(was[column]), str(row[column]))
    scores = dict(row["scores"])
    for name, score in was["scores"]:
        if scores.get(name) != score:
            yield Break(f"{where}, score {name}", str(score), str(scores.get(name)))
    if row["text"] == was["text"]:
        return
    if row["doc_id"] not in edits:
        yield Break(f"{where}, text", "the text of the stage before: no ledger row edits it", "another text")
    elif (extra := _added(was["text"], row["text"])) is not None:
        made = again(_document(was)) if again is not None else None
        if made is None or made.text != row["text"]:
            yield Break(f"{where}, text", "the text of the stage before without what was edited", f"... {extra} ...")


def _added(before: str, after: str) -> str | None:
    """Return the first word of a text that the text before does not have there; None where words only went."""
    lines = iter(before.split("\n"))
    if all(line in lines for line in after.split("\n")):
        return None
    left = iter(words(before))
    return next((word for word in words(after) if word not in left), None)


def _captured(crawl: Holding, own: Holding, part: str) -> Iterator[Break]:
    """Compare the documents and drops of one part with the headers of the records that they come from."""
    pages = [entry for entry in read_entries(crawl.folder / f"{part}.warc.gz") if entry.is_page]
    by_id = {entry.fields["warc-record-id"]: entry for entry in pages if "warc-record-id" in entry.fields}
    ledger = [row for row in _rows(own.folder / DROPPED_FOLDER / f"{part}.parquet") if row["action"] == "drop"]
    kept = _rows(own.folder / f"{part}.parquet")
    fates = Counter(row["record_id"] for row in [*kept, *ledger])
    for record_id in by_id:
        if (times := fates[record_id]) != 1:
            where = f"{crawl.folder}/{part}.warc.gz, record {record_id}"
            yield Break(where, f"in {own.name} once, kept or dropped", f"{times} times")
    for row in kept:
        entry = by_id.get(row["record_id"])
        where = f"{own.folder}/{part}.parquet, document {row['doc_id']}"
        if entry is None and len(by_id) == len(pages):
            yield Break(where, f"a record of {part}.warc.gz", row["record_id"])
        elif entry is not None:
            yield from _from_record(row, entry, f"{part}.warc.gz", where)
            there = (
                None if row["warc_offset"] is None else entry_at(crawl.folder / f"{part}.warc.gz", row["warc_offset"])
            )
            if there is None or there.fields.get("warc-record-id") != row["record_id"]:
                yield Break(f"{where}, warc_offset", f"where record {row['record_id']} begins", str(row["warc_offset"]))
    for row in ledger:
        entry = by_id.get(row["record_id"])
        if entry is not None and row["url"] != entry.url:
            where = f"{own.folder}/{DROPPED_FOLDER}/{part}.parquet, document {row['doc_id']}, url"
            yield Break(where, entry.url, str(row["url"]))


def _from_record(row: Row, entry: WarcEntry, warc: str, where: str) -> Iterator[Break]:
    told: dict[str, object] = {
        "doc_id": make_doc_id(row["source"], row["record_id"]),
        "url": entry.url,
        "host": urlsplit(row["url"]).hostname or "",
        "warc_path": warc,
        "captured_at": utc(entry.fields.get("warc-date")),
        "payload_digest": entry.fields.get("warc-payload-digest", row["payload_digest"]),
    }
    for column, expected in told.items():
        if row[column] != expected:
            yield Break(f"{where}, {column}", str(expected), str(row[column]))


def _rules(stage: str) -> Again | None:
    """Return what makes a stage's edits again, document by document; None where it cannot be done so."""
    if not GRAPH_FILE.is_file() or stage not in (graph := load_graph()):
        return None
    again: Callable[[Any], Again] | None = getattr(graph[stage].module, "edit_again", None)
    return None if again is None else again(stage_params(read_params(), graph[stage]))


def _document(row: Mapping[str, Any]) -> Document:
    return Document(**{**row, "opt_out": tuple(row["opt_out"]), "scores": dict(row["scores"])})


def _rows(path: Path) -> list[Row]:
    rows: list[Row] = pq.read_table(path).to_pylist()
    return rows
