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
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from tasks.contracts.errors import InputError, NetworkError
from tasks.contracts.ledger import LedgerRow, write_ledger
from tasks.contracts.manifest import Counts
from tasks.crawl.fetch import Crawl, Job, clean_url, crawl_part, owner
from tasks.crawl.journal import TAKEN, Journal, Progress, read_progress
from tasks.crawl.parts import PartWriter
from tasks.crawl.processes import run_in_processes
from tasks.crawl.warc_writer import SOFTWARE, Writer, warc_date

logger = logging.getLogger(__name__)

PASSING = {"dns", "timeout", "connection", "not_fetched"}


def crawl_sites(crawl: Crawl, *, state: Path, output: Path) -> Counts:
    """Crawl to the end, continuing what stands in `state`, and write the snapshot into `output`.

    Raises:
        InputError: no seed is a URL.
        NetworkError: not one page could be fetched.
        DiskFullError: no space left.
    """
    seeds = _clean(crawl.seeds, "crawl.seeds")
    sitemaps = _clean(crawl.sitemaps, "crawl.sitemaps")
    if not seeds and not sitemaps:
        raise InputError(
            "there is nothing to crawl",
            where="params.yaml, crawl",
            expected="at least one URL in crawl.seeds or crawl.sitemaps",
            found="none",
        )
    state.mkdir(parents=True, exist_ok=True)
    progress = read_progress(state)
    if progress.pages:
        again = [url for url, (rule, _) in progress.outcome.items() if rule in PASSING or rule.startswith("http_5")]
        for url in again:
            del progress.outcome[url]  # what failed when the crawl was killed may have failed because of that
        logger.info("crawl: going on after %d pages that are stored already", len(progress.pages))
    hosts = sorted({urlsplit(url).hostname or "" for url in [*seeds, *sitemaps]})
    allowed = [*hosts, *(domain if domain.startswith("*.") else f"*.{domain}" for domain in crawl.allowed_domains)]
    session = 1 + len(list(state.glob("*.jsonl")))
    first = True
    while True:
        todo = _adopt(state, session, progress, seeds if first else [], crawl)
        if not todo and not (first and sitemaps):
            break
        _round(crawl, state, session, progress, todo, sitemaps if first else [], allowed)
        progress = read_progress(state)
        session += 1
        first = False
    if not progress.pages:
        shutil.rmtree(state)  # so that the next try asks again, instead of reading these failures
        reasons = sorted({f"{rule}: {detail}".strip(": ") for rule, detail in progress.outcome.values()})
        raise NetworkError(
            "not one page could be fetched",
            where=", ".join(hosts[:5]),
            found="; ".join(reasons[:3]) or "no answer",
            fix="check the network, the seeds, robots.txt and (private addresses) crawl.allow_hosts; then run again",
        )
    counts = _snapshot(crawl, state, progress, output)
    shutil.rmtree(state)
    return counts


def _clean(urls: Sequence[str], where: str) -> list[str]:
    cleaned = []
    for url in urls:
        clean = clean_url(url)
        if clean is None:
            raise InputError(
                "this is not an address of the web",
                where=f"params.yaml, {where}",
                expected="http://… or https://…",
                found=url,
            )
        cleaned.append(clean)
    return sorted(set(cleaned))


def _adopt(state: Path, session: int, progress: Progress, seeds: Sequence[str], crawl: Crawl) -> dict[str, int]:
    """Take up seeds and links to other processes' hosts, within the limits; return every URL to fetch, sorted."""
    new = {url: 0 for url in seeds if url not in progress.depth}
    new |= {url: depth for url, depth in sorted(progress.far.items()) if url not in progress.depth}
    limits = {"max_depth", "max_pages", "max_pages_per_host"}
    taken = [url for url in progress.depth if progress.outcome.get(url, ("", ""))[0] not in limits]
    per_host: dict[str, int] = {}
    for url in taken:
        host = urlsplit(url).hostname or ""
        per_host[host] = per_host.get(host, 0) + 1
    total = len(taken)
    journal = Journal(state / f"{session:05d}-seeds.jsonl")
    for url, depth in new.items():
        host = urlsplit(url).hostname or ""
        rule = None
        if depth > crawl.max_depth:
            rule = "max_depth"
        elif per_host.get(host, 0) >= crawl.max_pages_per_host:
            rule = "max_pages_per_host"
        elif total >= crawl.max_pages:
            rule = "max_pages"
        journal.add(TAKEN, url, depth=depth)
        progress.depth[url] = depth
        if rule:
            journal.add("done", url, rule=rule, detail="")
            progress.outcome[url] = (rule, "")
        else:
            total += 1
            per_host[host] = per_host.get(host, 0) + 1
    journal.stream.close()
    (state / "tickets").write_bytes(b"." * total)
    return dict(sorted(progress.open_urls().items()))


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
    jobs = []
    for number in range(workers):
        own = {url: depth for url, depth in todo.items() if owner(urlsplit(url).hostname or "", workers) == number}
        own_sitemaps = [url for url in sitemaps if owner(urlsplit(url).hostname or "", workers) == number]
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
                    stored_notes=sorted(progress.notes),
                    sitemaps=own_sitemaps,
                    allowed=allowed,
                )
            )
    for job in jobs:
        (state / f"{job.name}.jsonl").touch()
        with (state / f"{job.name}.warc.gz").open("ab") as stream:
            os.fsync(stream.fileno())
    run_in_processes(crawl_part, jobs, watch=_progress_log(state, [job.name for job in jobs], len(progress.pages)))


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


def _snapshot(crawl: Crawl, state: Path, progress: Progress, output: Path) -> Counts:
    """Copy every stored record into parts, sorted by URL, and write the ledger of the rest."""
    made = warc_date(datetime.now(UTC))
    fields = [("software", SOFTWARE), ("format", "WARC File Format 1.1"), ("http-header-user-agent", crawl.user_agent),
              ("robots", "obey")]  # fmt: skip
    order = sorted([*progress.notes.items(), *progress.pages.items()], key=lambda item: _reading_order(item[0]))
    streams = {name: (state / name).open("rb") for name in sorted({place.file for _, place in order})}
    with PartWriter(output, crawl.shard_megabytes, lambda stream: Writer(stream).write_info(made, fields)) as parts:
        for _, place in order:
            stream = streams[place.file]
            stream.seek(place.offset)
            parts.add(stream.read(place.length))
    for stream in streams.values():
        stream.close()
    rows = [
        LedgerRow(stage="crawl", action="drop", rule=rule, url=url, detail=detail or None)
        for url, (rule, detail) in sorted(progress.outcome.items(), key=lambda item: _reading_order(item[0]))
        if url not in progress.pages
    ]
    write_ledger(output / "dropped" / "part-00000.parquet", rows)
    dropped: dict[str, int] = {}
    for row in rows:
        dropped[row.rule] = dropped.get(row.rule, 0) + 1
    return Counts(in_=len(progress.depth), out=len(progress.pages), dropped=dict(sorted(dropped.items())))


def _reading_order(url: str) -> tuple[str, str]:
    return (urlsplit(url).hostname or "", url)
