"""Takes WARC and ARC files in as a snapshot: the same records, re-sharded, what cannot be read in the ledger."""

from __future__ import annotations

import base64
import hashlib
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from pydantic import JsonValue

from tasks.contracts.errors import InputError
from tasks.contracts.files import sha256_file
from tasks.contracts.ledger import LedgerRow, write_ledger
from tasks.contracts.manifest import Counts
from tasks.contracts.redaction import without_userinfo
from tasks.crawl.files import SourceFile, find_files, open_hashed
from tasks.crawl.parts import PartWriter
from tasks.crawl.processes import spread
from tasks.crawl.records import (
    Damage,
    Record,
    header_fields,
    inflated,
    read_records,
    starts_with_members,
    without_userinfo_member,
)
from tasks.crawl.units import Unit, join_parts, local_path, make_units

logger = logging.getLogger(__name__)

COUNTED = ("response", "resource")
REVISIT = "revisit"
FOLLOWED = ("request", "metadata")
MOST_BEFORE_BYTES = 64 << 20


@dataclass(slots=True)
class _Taken:
    """What one unit gave.

    Attributes:
        kinds: record type → how many, damaged places and dropped records apart.
        records: file URL → records found in it.
        hashes: file URL → SHA-256, of files that one unit holds whole.
    """

    rows: list[LedgerRow] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    records: dict[str, int] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)


def take_archives(
    paths: Sequence[str], *, megabytes: float, output: Path, verify: bool = False
) -> tuple[Counts, list[JsonValue]]:
    """Copy the records of some WARC or ARC files into parts; return the counts and what the files were.

    Counted are response, resource and revisit records, and damaged places; request, metadata and other records are
    copied beside them. A revisit has no page in it: it is copied too, and is a ledger row that names the original.

    Args:
        verify: hold each response against the digest in its header; one that differs is dropped (wrong_digest).

    Raises:
        InputError: a file is missing or holds no record at all, or no file holds a response.
        NetworkError: a remote file cannot be read.
    """
    files = find_files(paths, "WARC files")
    output.mkdir(parents=True, exist_ok=True)
    units = make_units(files, output, megabytes, starts_with_members)
    sliced = [path for file in dict.fromkeys(u.files[0] for u in units if not u.whole) if (path := local_path(file))]
    logger.info("crawl: %d files in %d units", len(files), len(units))
    jobs: list[Unit | Path] = [*units, *sliced]
    results = spread(partial(_job, megabytes=megabytes, verify=verify), jobs)
    taken = [one for one in results if isinstance(one, _Taken)]
    digests = [one for one in results if isinstance(one, str)]
    hashes = {f"file://{path}": digest for path, digest in zip(sliced, digests, strict=True)}
    records: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    for one in taken:
        hashes |= one.hashes
        records.update(one.records)
        kinds.update(one.kinds)
    rows = [row for one in taken for row in one.rows]
    for file in files:
        if not records[file.url]:
            _refuse_empty(file, rows)
    kept = sum(kinds[kind] for kind in COUNTED)
    if not kept:
        raise InputError(
            "the WARC files hold no page",
            where=", ".join(file.name for file in files[:5]),
            expected="response (or resource) records",
            found=", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())),
        )
    join_parts(units, output)
    write_ledger(output / "dropped" / "part-00000.parquet", rows)
    dropped = Counter(row.rule for row in rows)
    counts = Counts(in_=kept + len(rows), out=kept, dropped=dict(sorted(dropped.items())))
    return counts, [{"name": file.name, "sha256": hashes[file.url]} for file in files]


def _refuse_empty(file: SourceFile, rows: Sequence[LedgerRow]) -> None:
    own = [row.detail for row in rows if (row.detail or "").startswith(f"{file.name},")]
    raise InputError(
        "a file holds no WARC record",
        where=file.url.removeprefix("file://"),
        expected="a WARC or ARC file, plain or gzip",
        found=own[-1] if own else "an empty file",
        fix="leave it out of crawl.paths, or fetch it again",
    )


def _job(job: Unit | Path, *, megabytes: float, verify: bool) -> _Taken | str:
    return sha256_file(job) if isinstance(job, Path) else _take(job, megabytes, verify)


def _take(unit: Unit, megabytes: float, verify: bool) -> _Taken:
    """Copy one unit's records into parts of its own."""
    taken = _Taken()
    # What stands before a response belongs to it (its request, our evidence): they share a part.
    before = bytearray()
    with PartWriter(unit.folder, megabytes) as parts:
        for file in unit.files:
            records = 0
            with open_hashed(file, unit.start) as (stream, hashed):
                for found in read_records(stream, unit.start, unit.stop):
                    records += isinstance(found, Record)
                    row = _row(found, file, verify)
                    if row is not None:
                        taken.rows.append(row)
                    if isinstance(found, Record) and (row is None or row.rule == REVISIT):
                        taken.kinds[found.kind] += 1
                        before += without_userinfo_member(found.member)
                        if found.kind not in FOLLOWED or len(before) > MOST_BEFORE_BYTES:
                            parts.add(bytes(before))
                            before.clear()
                if unit.whole:
                    taken.hashes[file.url] = hashed.rest()
            if before:
                parts.add(bytes(before))
                before.clear()
            taken.records[file.url] = records
            logger.info("crawl: %s, %d records", file.name, records)
    return taken


def _row(found: Record | Damage, file: SourceFile, verify: bool) -> LedgerRow | None:
    """Return the ledger row of what is no page, None for what goes on."""
    if isinstance(found, Damage):
        detail = f"{file.name}, byte {found.offset}: {found.detail}"
        return LedgerRow(
            stage="crawl",
            action="drop",
            rule="damaged_record",
            url=without_userinfo(found.url) if found.url else None,
            detail=detail,
        )
    if found.kind != REVISIT and not (verify and found.kind == "response"):
        return None
    head, _, block = inflated(found.member).partition(b"\r\n\r\n")
    fields = header_fields(head)
    url = without_userinfo(fields.get("warc-target-uri", "").strip("<> ")) or None
    identity = without_userinfo(fields.get("warc-record-id", "")) or None
    if found.kind == REVISIT:
        names = ("warc-refers-to-target-uri", "warc-refers-to", "warc-payload-digest")
        original = next((fields[name] for name in names if fields.get(name)), "an unnamed record")
        detail = f"{file.name}: the same payload as {without_userinfo(original)}"
        return LedgerRow(stage="crawl", action="drop", rule=REVISIT, url=url, record_id=identity, detail=detail)
    stated = fields.get("warc-block-digest", "")
    digest = base64.b32encode(hashlib.sha1(block[: int(fields["content-length"])], usedforsecurity=False).digest())
    if stated.startswith("sha1:") and stated != f"sha1:{digest.decode()}":
        detail = f"{file.name}: the block is sha1:{digest.decode()}, its header says {stated}"
        return LedgerRow(stage="crawl", action="drop", rule="wrong_digest", url=url, record_id=identity, detail=detail)
    return None
