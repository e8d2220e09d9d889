"""Crawls web sites: spreads hosts over Scrapy processes, goes on after a crash, and makes the snapshot.

Half-done state stands under `.headwater/crawl/<key>/` (see journal.py). A link to a host of another process waits
for the next round; rounds end when nothing is left to fetch.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

from tasks.contracts.digests import sha1_digest
from tasks.contracts.document import make_doc_id
from tasks.contracts.errors import NetworkError, RefusedError
from tasks.contracts.files import DROPPED_FOLDER, part_name
from tasks.contracts.ledger import LedgerRow, drops_by_rule, write_ledger
from tasks.contracts.manifest import Counts
from tasks.contracts.urls import host_of
from tasks.crawl.credentials import Placeholders
from tasks.crawl.faults import clean, starts
from tasks.crawl.frontier import Refusals
from tasks.crawl.jobs import Crawl, Job, owner
from tasks.crawl.journal import COUNTED, TAKEN, Journal, Place, Progress, read_progress
from tasks.crawl.journal import PASSING as PASSING
from tasks.crawl.limits import LIMIT_RULES, Counted
from tasks.crawl.processes import run_in_processes
from tasks.crawl.warc_parts import PartWriter
from tasks.crawl.warc_writer import SOFTWARE, Writer, warc_date

logger = logging.getLogger(__name__)

MOST_LEDGER_URL = 4000
ADVICE = {
    "refused_address": "name the host in crawl.allow_hosts, if this crawl may go to private addresses",
    "certificate": "name the host's own authority in crawl.ca_file, or the host in crawl.insecure_hosts",
    "robots": "choose other seeds, or ask the owner of the site",
    "crawl_delay": "raise crawl.max_delay_seconds, if you have that much time",
    "redirect": "name in crawl.seeds where it leads, or its domain in crawl.allowed_domains",
    "takedown": "choose other seeds: these are on the list of takedowns",
}
"""What to do where nothing but our own rules kept a crawl from every page, by the ledger's rule."""


def crawl_sites(crawl: Crawl, *, source: str, state: Path, output: Path) -> Counts:
    """Crawl to the end, continuing what stands in `state`, and write the snapshot into `output`.

    Args:
        source: what the documents of this crawl are called; part of their ids.

    Raises:
        InputError: no seed is a URL.
        RefusedError: not one page may be fetched, by our own rules.
        NetworkError: not one page could be fetched, and another try may fetch one.
        DiskFullError: no space left.
    """
    seeds = clean(crawl.seeds, "crawl.seeds", crawl.drop_query)
    sitemaps = clean(crawl.sitemaps, "crawl.sitemaps", crawl.drop_query)
    crawl = replace(
        crawl,
        placeholders=Placeholders.of(seeds, "crawl.seeds") | Placeholders.of(sitemaps, "crawl.sitemaps"),
    )
    starts(crawl)
    state.mkdir(parents=True, exist_ok=True)
    progress = read_progress(state)
    if progress.pages:
        for url in progress.passing & progress.outcome.keys():
            del progress.outcome[url]  # what failed when the crawl was killed may have failed because of that
        logger.info("crawl: going on after %d pages that are stored already", len(progress.pages))
    hosts = sorted({host_of(url) for url in [*seeds, *sitemaps]})
    allowed = [*hosts, *(domain if domain.startswith("*.") else f"*.{domain}" for domain in crawl.allowed_domains)]
    session = 1 + len(list(state.glob("*.jsonl")))
    first = True
    while True:
        todo = _adopt(state, session, progress, seeds if first else [], crawl, allowed)
        if not todo and not (first and sitemaps):
            break
        _round(crawl, state, session, progress, todo, sitemaps if first else [], allowed)
        progress = read_progress(state)
        session += 1
        first = False
    if not progress.pages:
        shutil.rmtree(state)  # so that the next try asks again, instead of reading these failures
        raise _no_page(hosts, progress)
    counts = _snapshot(crawl, source, state, progress, output)
    shutil.rmtree(state)
    return counts


def _no_page(hosts: Sequence[str], progress: Progress) -> NetworkError:
    """Return the error of a crawl that has no page: one that may pass, unless our own rules refused every URL."""
    where = ", ".join(hosts[:5])
    reasons = sorted({f"{rule}: {detail}".strip(": ") for rule, detail in progress.outcome.values()})
    found = "; ".join(reasons[:3]) or "no answer"
    if progress.passing or not reasons:
        fix = "check the network and the seeds; then run again"
        return NetworkError("not one page could be fetched", where=where, found=found, fix=fix)
    rules = sorted({rule for rule, _ in progress.outcome.values()})
    fix = "; ".join(ADVICE[rule] for rule in rules if rule in ADVICE) or "check the seeds"
    return RefusedError("not one page may be fetched", where=where, found=found, fix=fix)


def _adopt(
    state: Path, session: int, progress: Progress, seeds: Sequence[str], crawl: Crawl, allowed: Sequence[str]
) -> dict[str, int]:
    """Take up seeds and links to other processes' hosts, within the limits; return every URL to fetch, sorted."""
    new = {url: 0 for url in seeds if url not in progress.depth}
    new |= {url: depth for url, depth in sorted(progress.far.items()) if url not in progress.depth}
    taken = [url for url in progress.depth if progress.outcome.get(url, ("", ""))[0] not in LIMIT_RULES]
    counted = Counted(crawl.limits, taken)
    refusals = Refusals(_refused(progress).items(), allowed)
    total = len(taken)
    journal = Journal(state / f"{session:05d}-seeds.jsonl")
    for url, depth in new.items():
        rule = counted.refusal(url, depth) or ("max_pages" if total >= crawl.max_pages else None)
        if rule and not refusals.has_row(url, rule):
            journal.add(COUNTED, url)
            progress.far.pop(url, None)
            continue
        journal.add(TAKEN, url, depth=depth)
        progress.depth[url] = depth
        if rule:
            journal.add("done", url, rule=rule, detail="")
            progress.outcome[url] = (rule, "")
        else:
            total += 1
            counted.add(url)
    journal.add_beyond(refusals.beyond)
    journal.stream.close()
    (state / "tickets").write_bytes(b"." * total)
    return dict(sorted(progress.open_urls().items()))


def _refused(progress: Progress) -> dict[str, str]:
    """Return the URLs that a limit kept out, and which one."""
    return {url: rule for url, (rule, _) in sorted(progress.outcome.items()) if rule in LIMIT_RULES}


def _round(
    crawl: Crawl,
    state: Path,
    session: int,
    progress: Progress,
    todo: Mapping[str, int],
    sitemaps: Sequence[str],
    allowed: Sequence[str],
) -> None:
    """Run the crawler processes once, each with the URLs of its own hosts."""
    workers = max(1, crawl.processes)
    known = sorted(progress.depth)
    refused = _refused(progress)
    jobs = []
    for number in range(workers):
        own = {url: depth for url, depth in todo.items() if owner(host_of(url), workers) == number}
        own_sitemaps = [url for url in sitemaps if owner(host_of(url), workers) == number]
        if own or own_sitemaps:
            jobs.append(
                Job(
                    crawl=crawl,
                    number=number,
                    workers=workers,
                    name=f"{session:05d}-{number:03d}",
                    folder=str(state),
                    todo=own,
                    known=known,
                    refused=refused,
                    stored_notes=sorted(progress.notes),
                    sitemaps=own_sitemaps,
                    allowed=allowed,
                )
            )
    for job in jobs:
        (state / f"{job.name}.jsonl").touch()
        with (state / f"{job.name}.warc.gz").open("ab") as stream:
            os.fsync(stream.fileno())
    run_in_processes(_crawl_part, jobs, watch=_progress_log(state, [job.name for job in jobs], len(progress.pages)))


def _crawl_part(job: Job) -> None:
    # Only a crawler process needs Scrapy.
    from tasks.crawl.fetch import crawl_part

    crawl_part(job)


def _progress_log(state: Path, names: Sequence[str], before: int) -> Callable[[], None]:
    """Return a function that logs how far the crawler processes are."""
    started = time.monotonic()
    last = [before, started]

    def log() -> None:
        told = [json.loads(path.read_bytes()) for name in names if (path := state / f"{name}.progress").exists()]
        if not told:
            return
        pages = before + sum(each["pages"] for each in told)
        waiting = sum(each["open"] for each in told)
        now = time.monotonic()
        speed = (pages - last[0]) / max(0.1, now - last[1])
        last[:] = [pages, now]
        logger.info("crawl: %d pages, %.0f pages/s, %d queued", pages, speed, waiting)

    return log


def _snapshot(crawl: Crawl, source: str, state: Path, progress: Progress, output: Path) -> Counts:
    """Copy every stored record into parts, sorted by URL, and write the ledger of the rest.

    A payload that was fetched from several URLs is kept for the first in that order; the others become revisit
    records and ledger rows that name it. Decided here and not while fetching, the choice is the same whatever the
    number of processes, and after a kill.
    """
    made = warc_date(datetime.now(UTC))
    fields = [("software", SOFTWARE), ("format", "WARC File Format 1.1"), ("http-header-user-agent", crawl.user_agent),
              ("robots", "obey")]  # fmt: skip
    notes = [(url, place, False) for url, place in progress.notes.values()]
    pages = [(url, place, True) for url, place in progress.pages.items()]
    order = sorted([*notes, *pages], key=lambda item: (_reading_order(item[0]), item[1].record))
    rows = [
        LedgerRow(stage="crawl", action="drop", rule=rule, url=url[:MOST_LEDGER_URL], detail=detail or None)
        for url, (rule, detail) in progress.outcome.items()
        if url not in progress.pages
    ]
    rows += _rows_beyond(progress)
    originals: dict[tuple[str, str], tuple[str, Place]] = {}
    streams = {name: (state / name).open("rb") for name in sorted({place.file for _, place, _ in order})}
    with PartWriter(output, crawl.shard_megabytes, lambda stream: Writer(stream).write_info(made, fields)) as parts:
        for url, place, is_page in order:
            stream = streams[place.file]
            stream.seek(place.offset)
            members = stream.read(place.length)
            first_url, first = originals.setdefault((place.digest, place.kind), (url, place))
            # An empty payload says nothing about the page, so it repeats nothing.
            if is_page and first is not place and place.digest != sha1_digest(b""):
                members = members[: place.response] + _revisit(members[place.response :], first_url, first)
                rows.append(
                    LedgerRow(
                        stage="crawl",
                        action="drop",
                        rule="revisit",
                        url=url,
                        record_id=place.record,
                        survivor_id=make_doc_id(source, first.record),
                        detail=f"the same payload as {first_url[:MOST_LEDGER_URL]}",
                    )
                )
            parts.add(members)
    for stream in streams.values():
        stream.close()
    in_order = sorted(rows, key=lambda row: _reading_order(row.url or ""))
    write_ledger(output / DROPPED_FOLDER / part_name(0, ".parquet"), in_order)
    dropped = drops_by_rule(rows)
    out = len(progress.pages) - dropped.get("revisit", 0)
    return Counts(in_=len(progress.depth) + len(progress.beyond), out=out, dropped=dropped)


def _rows_beyond(progress: Progress) -> list[LedgerRow]:
    """Return a row for each host and rule whose links were counted only: one of `in`, whatever their number.

    `score` is that number. The row's URL is the first of them, unless that has a record or a row of its own.
    """
    return [
        LedgerRow(
            stage="crawl",
            action="drop",
            rule=rule,
            url=None if counted.url in progress.depth else counted.url[:MOST_LEDGER_URL],
            score=float(counted.links),
            detail=f"{counted.links} more links of {place}, counted as often as they stand on pages",
        )
        for (place, rule), counted in sorted(progress.beyond.items())
    ]


def _revisit(response: bytes, url: str, first: Place) -> bytes:
    stream = BytesIO()
    Writer(stream).write_revisit(response, original=first.record, url=url, when=first.when)
    return stream.getvalue()


def _reading_order(url: str) -> tuple[str, str]:
    return (host_of(url), url)
