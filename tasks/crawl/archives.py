"""Takes WARC and ARC files in as a snapshot: the same records, re-sharded, what cannot be read in the ledger."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import JsonValue

from tasks.contracts.digests import other_digest
from tasks.contracts.errors import InputError
from tasks.contracts.files import DROPPED_FOLDER, part_name
from tasks.contracts.ledger import LedgerRow, drops_by_rule, write_ledger
from tasks.contracts.manifest import Counts
from tasks.crawl.canonical import PAGES
from tasks.crawl.input_files import Identity, SourceFile, check_unchanged, find_files, open_hashed
from tasks.crawl.processes import spread
from tasks.crawl.streams import Damage
from tasks.crawl.warc_parts import PartWriter
from tasks.crawl.warc_reader import Record, header_fields, inflated, read_records, starts_with_members
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

REVISIT, DAMAGED, ODD_HEADER, WRONG_DIGEST = "revisit", "damaged_record", "odd_header", "wrong_digest"
SEGMENTED, DUPLICATE = "segmented_record", "duplicate_record"
PIECE = "a piece of a longer record, which is not put together"
FOLLOWED = ("request", "metadata")
MOST_BEFORE_BYTES = 64 << 20
MOST_DETAIL = 500


def take_archives(
    paths: Sequence[str], *, megabytes: float, output: Path, state: Path | None = None, verify: bool = False
) -> tuple[Counts, list[JsonValue]]:
    """Copy the records of some WARC or ARC files into parts; return the counts and what the files were.

    Counted are response, resource and revisit records, and damaged places; request, metadata and other records are
    copied beside them. A revisit has no page in it: it is copied too, and is a ledger row that names the original.

    Args:
        state: where finished units stay until the stage is done, so that the next run goes on after them.
        verify: hold each response against the digest in its header; one that differs is dropped (wrong_digest).

    Raises:
        InputError: a file is missing or changes, or no file holds a response.
        NetworkError: a remote file cannot be read.
    """
    files = find_files(paths, "WARC files")
    output.mkdir(parents=True, exist_ok=True)
    with working_folder(state, output) as place:
        return _take_units(files, megabytes=megabytes, output=output, state=place, verify=verify)


def _take_units(
    files: Sequence[SourceFile], *, megabytes: float, output: Path, state: Path, verify: bool
) -> tuple[Counts, list[JsonValue]]:
    units = make_units(files, megabytes, starts_with_members)
    logger.info("crawl: %d files in %d units", len(files), len(units))
    identities = identities_of(units)
    take = partial(_take, state=state, megabytes=megabytes, verify=verify)
    jobs = [(unit, [identities[file] for file in unit.files], NO_IDS) for unit in units]
    made = spread(take, jobs)
    again = repeated(made)
    for index, one in zip(again, spread(take, [(*jobs[n][:2], ids) for n, ids in again.items()]), strict=True):
        made[index] = one
    kinds: Counter[str] = Counter()
    records: Counter[str] = Counter()
    hashes: dict[str, str] = {}
    for unit, one in zip(units, made, strict=True):
        facts = one.facts
        kinds.update(facts["kinds"])
        for file, number, digest in zip(unit.files, facts["records"], facts["hashes"], strict=True):
            records[file.url] += number
            hashes[file.url] = digest
    rows = [row for one in made for row in one.rows]
    rows += [_empty(file, rows) for file in files if not records[file.url]] + repeated_files(files)
    kept = sum(kinds[kind] for kind in PAGES)
    if not kept:
        raise InputError(
            "the WARC files hold no page",
            where=", ".join(file.name for file in files[:5]),
            expected="response (or resource) records",
            found=", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
            or "; ".join(dict.fromkeys(row.detail or "" for row in rows[-3:])),
        )
    join_parts(made, output)
    write_ledger(output / DROPPED_FOLDER / part_name(0, ".parquet"), rows)
    dropped = drops_by_rule(rows)
    counts = Counts(in_=kept + sum(dropped.values()), out=kept, dropped=dropped)
    return counts, [{"name": file.name, "sha256": hashes[file.url]} for file in files]


def _empty(file: SourceFile, rows: Sequence[LedgerRow]) -> LedgerRow:
    own = next((row.detail for row in reversed(rows) if (row.detail or "").startswith(f"{file.name}, byte")), None)
    found = f"it begins with {own.partition(': ')[2]}" if own else "it is an empty file"
    logger.warning("crawl: %s holds no WARC record: %s", file.name, found)
    detail = f"{file.name}: no WARC record in the whole file; {found}"
    return LedgerRow(stage="crawl", action="note", rule=DAMAGED, detail=detail)


Job = tuple[Unit, list[Identity], Ids]


def _take(job: Job, *, state: Path, megabytes: float, verify: bool) -> Made:
    """Take one unit in, or find it finished."""
    unit, identities, taken = job
    settings: dict[str, JsonValue] = {"source": "warc", "megabytes": megabytes, "verify": verify}
    folder = unit.key(state, settings, identities, taken)
    return make(folder, lambda place: _Unit(unit, identities, taken, verify).write(place, megabytes))


class _Unit:
    """One unit's records on their way into its parts."""

    def __init__(self, unit: Unit, identities: Sequence[Identity], taken: Ids, verify: bool) -> None:
        self.unit = unit
        self.identities = identities
        self.verify = verify
        self.ids: set[int] = set(taken.tolist())
        self.own: list[int] = []
        self.rows: list[LedgerRow] = []
        self.kinds: Counter[str] = Counter()

    def write(self, folder: Path, megabytes: float) -> tuple[dict[str, JsonValue], list[LedgerRow], Ids]:
        """Copy the records into parts; return how many of each type, ledger rows, and the ids of pages."""
        records: list[JsonValue] = []
        hashes: list[JsonValue] = []
        # What stands before a response belongs to it (its request, our evidence): they share a part.
        before = bytearray()
        with PartWriter(folder, megabytes) as parts:
            for file, identity in zip(self.unit.files, self.identities, strict=True):
                number = 0
                with open_hashed(file, self.unit.start, hashing=identity.sha256 is None) as (stream, hashed):
                    for one in read_records(stream, self.unit.start, self.unit.stop):
                        number += isinstance(one, Record)
                        if isinstance(one, Damage):
                            detail = f"{file.name}, byte {one.offset}: {one.detail}"
                            self._note("note" if one.kept else "drop", DAMAGED, detail, url=one.url)
                            continue
                        if not self._keeps(one, file):
                            continue
                        self.kinds[one.kind] += 1
                        before += one.member
                        if one.kind not in FOLLOWED or len(before) > MOST_BEFORE_BYTES:
                            parts.add(bytes(before))
                            before.clear()
                    hashes.append(identity.sha256 or hashed.rest())
                check_unchanged(file, identity)
                if before:
                    parts.add(bytes(before))
                    before.clear()
                records.append(number)
                logger.info("crawl: %s, %d records", file.name, number)
        facts: dict[str, JsonValue] = {"kinds": dict(self.kinds), "records": records, "hashes": hashes}
        return facts, self.rows, np.array(self.own, dtype=np.uint64)

    def _keeps(self, record: Record, file: SourceFile) -> bool:
        """Tell whether a record is copied, and write what the ledger must say of it."""
        for note in record.notes:
            self._note("note", ODD_HEADER, f"{file.name}, byte {record.offset}: {note}", record)
        if record.kind == REVISIT:
            fields = header_fields(inflated(record.member).partition(b"\r\n\r\n")[0])
            names = ("warc-refers-to-target-uri", "warc-refers-to", "warc-payload-digest")
            original = next((fields[name] for name in names if fields.get(name)), "an unnamed record")
            self._note("drop", REVISIT, f"{file.name}: the same payload as {original}", record)
            return True
        if record.segmented or record.kind == "continuation":
            self._note("drop", SEGMENTED, f"{file.name}, byte {record.offset}: {PIECE}", record)
            return False
        if record.kind not in PAGES:
            return True
        identity = id_number(record.record_id)
        if identity in self.ids:
            self._note("drop", DUPLICATE, f"{file.name}, byte {record.offset}: an earlier record has this id", record)
            return False
        if self.verify and (differs := _wrong_digest(record.member)):
            self._note("drop", WRONG_DIGEST, f"{file.name}: {differs}", record)
            return False
        self.ids.add(identity)
        self.own.append(identity)
        return True

    def _note(
        self,
        action: Literal["drop", "note"],
        rule: str,
        detail: str,
        record: Record | None = None,
        url: str | None = None,
    ) -> None:
        identity, url = (record.record_id, record.url) if record else (None, url)
        row = LedgerRow(
            stage="crawl", action=action, rule=rule, url=url, record_id=identity, detail=detail[:MOST_DETAIL]
        )
        self.rows.append(row)


def _wrong_digest(member: bytes) -> str | None:
    """Return how a record's block differs from the digest in its header, None where it does not."""
    head, _, block = inflated(member).partition(b"\r\n\r\n")
    fields = header_fields(head)
    stated = fields.get("warc-block-digest", "")
    content = block[: int(fields["content-length"])]
    found = other_digest(stated, content)
    return f"the block is {found}, its header says {stated}" if found else None
