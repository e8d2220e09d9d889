"""Nothing is lost and nothing is doubled: what every stage's folder must hold before it gets its manifest.

Within a stage: the files hold as many rows as the counts say, the ledger has a row for each drop, and a doc_id is one
document, kept once or dropped once. Between stages: what a stage takes in is what the one before it put out. Which one
that is, the files and the manifests' own chain say, so that a new stage is held to it too: part k is made from part k,
and of several inputs with parts it is the one that no other input was made from.

Doc_ids are compared by a hash table of Arrow's: 0.4 s for a million, and about 200 bytes each while it is done.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.contracts.errors import ConservationError
from tasks.contracts.files import DROPPED_FOLDER, PARQUET_PARTS, SAMPLES_FOLDER, TASKS_FOLDER, TOKENS_NAME, is_part

RUN_AGAIN = "run the stages from the first one named here again (`headwater run --force STAGE`); if it comes back, "
REPORT = "this is a bug in the stage: please report it with this message"
_LEDGER_COLUMNS = ("doc_id", "action", "rule", "survivor_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """One folder, as its manifest describes it.

    Attributes:
        rows: file name → its rows: of a table, records of a page, items; None where that is not known.
        out: what its counts say was put out.
        made_from: the names of all folders that it was made from, as far as they are known.
    """

    name: str
    folder: Path
    out: int
    rows: Mapping[str, int | None]
    made_from: frozenset[str] = field(default=frozenset())

    @property
    def parts(self) -> dict[str, int | None]:
        """Part's name ("part-00000") → its documents or pages; a token shard's index is no part of that kind."""
        tokens = {_stem(name) for name in self.token_shards}
        return {
            _stem(name): rows
            for name, rows in sorted(self.rows.items())
            if is_part(name, ".parquet", ".warc.gz") and _stem(name) not in tokens
        }

    @property
    def token_shards(self) -> list[str]:
        """The files of token ids, the validation's left out."""
        return [name for name in sorted(self.rows) if is_part(name, ".bin")]


def check_folder(
    own: Holding,
    unit: str,
    taken: int,
    dropped: Mapping[str, int],
    inputs: Sequence[Holding],
    params: Mapping[str, Any],
) -> None:
    """Check a finished folder against its own files and its inputs.

    Args:
        taken: what its counts say went in; `dropped` likewise.
        params: its settings: how many passes over tokens, how many items.

    Raises:
        ConservationError: something was lost, invented or doubled.
    """
    known = [rows for rows in own.parts.values() if rows is not None]
    if known and len(known) == len(own.parts) and sum(known) != own.out:
        raise ConservationError(
            "a stage's files hold another number of rows than its counts say",
            where=f"{own.name}: {own.folder}",
            expected=f"{own.out} (counts: out)",
            found=f"{sum(known)} rows in {len(known)} files",
            fix=REPORT,
        )
    ledger = _read_ledger(own.folder)
    _check_ledger(own, dropped, ledger)
    if unit in ("documents", "records"):
        _check_documents_in(own, taken, ledger, inputs)
    elif unit == "tokens":
        _check_tokens_in(own, taken, inputs, params)
    elif unit == "items":
        _check_items_in(own, inputs, params)
    _check_ids(own, ledger)


def source_of(inputs: Sequence[Holding]) -> list[Holding]:
    """Return the inputs whose documents a stage takes in: those with parts that no other such input was made from."""
    holding = [one for one in inputs if one.parts]
    return [one for one in holding if not any(one.name in other.made_from for other in holding if other is not one)]


def _check_documents_in(own: Holding, taken: int, ledger: Mapping[str, pa.Table], inputs: Sequence[Holding]) -> None:
    sources = source_of(inputs)
    if not sources:
        return
    offered = sum(_documents(one) for one in sources)
    if taken != offered:
        raise _lost(sources, own, "documents", offered, taken)
    if len(sources) > 1 or own.parts.keys() != sources[0].parts.keys():
        if own.parts and len(sources) == 1:
            raise _lost(sources, own, "shards", ", ".join(sources[0].parts), ", ".join(own.parts))
        return
    for part, offered_rows in sources[0].parts.items():
        gone = ledger.get(part)
        if offered_rows is None or gone is None:
            continue
        drops = pc.sum(pc.equal(gone["action"], "drop")).as_py() or 0
        kept = own.parts[part] or 0
        if kept + drops != offered_rows:
            raise _lost(sources, own, f"documents of {part}", offered_rows, f"{kept} kept and {drops} dropped")


def _documents(one: Holding) -> int:
    rows = [rows for rows in one.parts.values() if rows is not None]
    return sum(rows) if len(rows) == len(one.parts) else one.out


def _check_tokens_in(own: Holding, taken: int, inputs: Sequence[Holding], params: Mapping[str, Any]) -> None:
    for one in inputs:
        if not one.token_shards:
            continue
        kind = str(json.loads((one.folder / TOKENS_NAME).read_bytes())["dtype"])
        width = int(kind.removeprefix("uint")) // 8
        offered = sum((one.folder / name).stat().st_size for name in one.token_shards) // width
        passes = int(params.get("epochs") or 1)
        if taken != offered * passes:
            raise _lost([one], own, f"tokens in {passes} passes", offered * passes, taken)


def _check_items_in(own: Holding, inputs: Sequence[Holding], params: Mapping[str, Any]) -> None:
    """Compare items by task: samples/NAME.jsonl is made from tasks/NAME.jsonl (other tasks' items are not ours)."""
    scored = {PurePosixPath(name).stem: rows for name, rows in own.rows.items() if _is_items(name, SAMPLES_FOLDER)}
    if scored and None not in scored.values() and (total := sum(rows or 0 for rows in scored.values())) != own.out:
        raise ConservationError(
            "a stage's files hold another number of items than its counts say",
            where=f"{own.name}: {own.folder}",
            expected=f"{own.out} (counts: out)",
            found=f"{total} items in {len(scored)} files",
            fix=REPORT,
        )
    limit = params.get("limit")
    for one in inputs:
        for name, rows in one.rows.items():
            task = PurePosixPath(name).stem
            if not _is_items(name, TASKS_FOLDER) or task not in (params.get("tasks") or ()) or rows is None:
                continue
            offered = min(rows, int(limit)) if limit else rows
            if scored.get(task) != offered:
                raise _lost([one], own, f"items of {task}", offered, scored.get(task, 0))


def _is_items(name: str, folder: str) -> bool:
    path = PurePosixPath(name)
    return path.parent.name == folder and path.suffix == ".jsonl"


def _lost(sources: Sequence[Holding], own: Holding, what: str, expected: object, found: object) -> ConservationError:
    before = " and ".join(one.name for one in sources)
    return ConservationError(
        f"what {before} put out is not what {own.name} took in: {what}",
        where=f"{', '.join(str(one.folder) for one in sources)} → {own.folder}",
        expected=f"{expected} (out of {before})",
        found=f"{found} (into {own.name})",
        fix=f"{RUN_AGAIN}{REPORT}",
    )


def _read_ledger(folder: Path) -> dict[str, pa.Table]:
    """Return the columns of each ledger file that counting takes, by the part's name."""
    tables = {}
    for path in sorted((folder / DROPPED_FOLDER).glob(PARQUET_PARTS)):
        if set(_LEDGER_COLUMNS) <= set(pq.read_schema(path).names):
            tables[path.stem] = pq.read_table(path, columns=list(_LEDGER_COLUMNS))
    return tables


def _check_ledger(own: Holding, dropped: Mapping[str, int], ledger: Mapping[str, pa.Table]) -> None:
    """Compare the ledger's drops with the counts, and make sure that no document is its own survivor."""
    for part, table in ledger.items():
        same = pc.fill_null(pc.equal(table["doc_id"], table["survivor_id"]), False)
        if pc.any(same).as_py():
            row = pc.index(same, True).as_py()
            raise ConservationError(
                "a document is named as its own survivor",
                where=f"{own.folder}/{DROPPED_FOLDER}/{part}.parquet, row {row}",
                expected="the doc_id of another document, which was kept in its place",
                found=table["doc_id"][row].as_py(),
                fix=REPORT,
            )
    if not ledger:
        return
    for rule, expected, found in ledger_differences(dropped, ledger.values()):
        raise ConservationError(
            "the ledger has another number of drops than the counts",
            where=f"{own.name}: {own.folder}/{DROPPED_FOLDER}, rule {rule}",
            expected=f"{expected} (counts: dropped)",
            found=f"{found} rows",
            fix=REPORT,
        )


def ledger_differences(dropped: Mapping[str, int], tables: Iterable[pa.Table]) -> Iterator[tuple[str, int, int]]:
    """Yield each rule of which a ledger's "drop" rows are not as many as counted: rule, counted, rows."""
    rows: Counter[str] = Counter()
    for table in tables:
        counted = pc.value_counts(table.filter(pc.equal(table["action"], "drop"))["rule"])
        rows.update({one["values"]: one["counts"] for one in counted.to_pylist()})
    for rule in sorted({*dropped, *rows}):
        if dropped.get(rule, 0) != rows[rule]:
            yield rule, dropped.get(rule, 0), rows[rule]


def document_files(folder: Path) -> list[str]:
    """Return a folder's files of documents, by name: its parts, and those that it puts aside."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.parquet") if path.is_file())
    return [name for name in names if {"doc_id", "text"} <= set(pq.read_schema(folder / name).names)]


def _check_ids(own: Holding, ledger: Mapping[str, pa.Table]) -> None:
    """Make sure that each doc_id stands once among the documents, and once among those kept or dropped."""
    kept = {name: pq.read_table(own.folder / name, columns=["doc_id"])["doc_id"] for name in document_files(own.folder)}
    if not kept:
        return
    gone = {
        f"{DROPPED_FOLDER}/{part}.parquet": pc.if_else(pc.equal(table["action"], "drop"), table["doc_id"], None)
        for part, table in ledger.items()
    }
    aside = {name for name in kept if "/" in name}
    _refuse_repeated(own, kept)
    _refuse_repeated(own, {name: ids for name, ids in (kept | gone).items() if name not in aside})


def _refuse_repeated(own: Holding, columns: Mapping[str, pa.Array | pa.ChunkedArray]) -> None:
    chunks = [
        chunk for ids in columns.values() for chunk in (ids.chunks if isinstance(ids, pa.ChunkedArray) else [ids])
    ]
    everything = pa.chunked_array(chunks, pa.string()).drop_null()
    if pc.count_distinct(everything).as_py() == len(everything):
        return
    counted = pc.value_counts(everything)
    repeated = counted.filter(pc.greater(counted.field("counts"), 1)).field("values")
    first = repeated[0].as_py()
    places = [
        f"{name}, row {row}"
        for name, ids in columns.items()
        for row, value in enumerate(pc.equal(ids, first).to_pylist())
        if value
    ]
    raise ConservationError(
        f"two documents have one id ({len(repeated)} ids in all)",
        where=f"{own.name}: {own.folder}",
        expected="each doc_id once: it stands for one document, kept or dropped",
        found=f"{first} in {' and in '.join(places[:4])}",
        fix="a source that is named twice, or rows of one source and record id, are taken once: see crawl.paths (and "
        "crawl.id_column) in params.yaml, then crawl again with `headwater run --force crawl`",
    )


def _stem(name: str) -> str:
    return PurePosixPath(name).name.partition(".")[0]
