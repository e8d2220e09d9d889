"""Takes WARC and ARC files in as a snapshot: the same records, re-sharded, what cannot be read in the ledger."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from pydantic import JsonValue

from tasks.contracts.errors import InputError
from tasks.contracts.ledger import LedgerRow, write_ledger
from tasks.contracts.manifest import Counts
from tasks.crawl.files import find_files, open_hashed
from tasks.crawl.parts import PartWriter
from tasks.crawl.records import Damage, read_records

logger = logging.getLogger(__name__)

COUNTED = {"response", "resource"}


def take_archives(paths: Sequence[str], *, megabytes: float, output: Path) -> tuple[Counts, list[JsonValue]]:
    """Copy the records of some WARC or ARC files into parts; return the counts and what the files were.

    Counted are response and resource records, and damaged places; request, metadata and other records are copied
    beside them.

    Raises:
        InputError: a file is missing or holds no record at all, or no file holds a response.
        NetworkError: a remote file cannot be read.
    """
    files = find_files(paths, "WARC files")
    rows: list[LedgerRow] = []
    sources: list[JsonValue] = []
    kept = 0
    kinds: dict[str, int] = {}
    with PartWriter(output, megabytes) as parts:
        for number, file in enumerate(files, start=1):
            records = 0
            with open_hashed(file) as (stream, hashed):
                for found in read_records(stream):
                    if isinstance(found, Damage):
                        detail = f"{file.name}, byte {found.offset}: {found.detail}"
                        row = LedgerRow(
                            stage="crawl", action="drop", rule="damaged_record", url=found.url, detail=detail
                        )
                        rows.append(row)
                        continue
                    records += 1
                    kinds[found.kind] = kinds.get(found.kind, 0) + 1
                    kept += found.kind in COUNTED
                    parts.add(found.member)
                    if records % 20_000 == 0:
                        logger.info("crawl: %s, %d records", file.name, records)
                sources.append({"name": file.name, "sha256": hashed.rest()})
            if not records:
                raise InputError(
                    "a file holds no WARC record",
                    where=file.url.removeprefix("file://"),
                    expected="a WARC or ARC file, plain or gzip",
                    found=rows[-1].detail
                    if rows and (rows[-1].detail or "").startswith(f"{file.name},")
                    else "an empty file",
                    fix="leave it out of crawl.paths, or fetch it again",
                )
            logger.info("crawl: %d/%d files, %d pages, %d damaged places", number, len(files), kept, len(rows))
    if not kept:
        raise InputError(
            "the WARC files hold no page",
            where=", ".join(file.name for file in files[:5]),
            expected="response (or resource) records",
            found=", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())),
        )
    write_ledger(output / "dropped" / "part-00000.parquet", rows)
    dropped = {"damaged_record": len(rows)} if rows else {}
    return Counts(in_=kept + len(rows), out=kept, dropped=dropped), sources
