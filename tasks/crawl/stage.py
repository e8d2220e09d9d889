"""The crawl stage: web pages in, from the embedded sample, web sites, Common Crawl, WARC files or text documents.

Its output is an immutable snapshot: WARC parts (or Document parts for `text`) and the ledger of what was not fetched.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path

from pydantic import JsonValue

from tasks.contracts.durable_files import sha256_json, write_json
from tasks.contracts.errors import HeadwaterError
from tasks.contracts.files import SOURCES_NAME
from tasks.contracts.manifest import Counts, Manifest, Unit, commit_manifest
from tasks.contracts.workspace import state_folder
from tasks.crawl.archives import take_archives
from tasks.crawl.common_crawl import Selection, take_common_crawl
from tasks.crawl.faults import contact, faults_of, placeholders, roots, selection
from tasks.crawl.jobs import Crawl
from tasks.crawl.limits import Limits
from tasks.crawl.processes import available
from tasks.crawl.remote import Remote
from tasks.crawl.settings import CrawlSettings
from tasks.crawl.sites import crawl_sites
from tasks.crawl.texts import Columns, take_texts
from tasks.engine.session import session_is_near
from tasks.rights.takedowns import read_takedowns

logger = logging.getLogger(__name__)

MUCH_BYTES = 16 * 2**20
"""A larger snapshot keeps `extract` at work for a minute on two cores: Ray starts while this stage ends."""

DOES = "fetches pages, or takes given files, into a snapshot that never changes"


class Params(CrawlSettings):
    """The `crawl` section of params.yaml, and what is wrong with it before the first page."""

    def faults(self) -> Iterator[HeadwaterError]:
        """Yield what keeps this crawl from its first page."""
        yield from faults_of(self)


def run(*, params: Params, inputs: Mapping[str, Path], output: Path) -> Manifest:
    """Make the snapshot.

    Raises:
        InputError: a file is missing or not what it should be, or there is nothing to crawl.
        NetworkError: nothing could be fetched.
    """
    output.mkdir(parents=True)
    unit, counts, sources = _SOURCES[params.source](params, output)
    write_json(output / SOURCES_NAME, {"source": params.source, "sources": sources})
    logger.info("crawl: %d %s in, %d kept", counts.in_, unit, counts.out)
    manifest = commit_manifest(output, stage="crawl", unit=unit, params=params.identity(), inputs=inputs, counts=counts)
    shutil.rmtree(_units_folder(params), ignore_errors=True)
    if sum(shard.bytes for shard in manifest.shards) > MUCH_BYTES:
        session_is_near()
    return manifest


def _units_folder(params: Params) -> Path:
    """Return where an ingest keeps its finished units until the snapshot is whole."""
    return state_folder() / "crawl" / f"units-{sha256_json(params.identity())[:32]}"


Made = tuple[Unit, Counts, list[JsonValue]]


def _sample(params: Params, output: Path) -> Made:
    from tasks.crawl.sample.server import Site, serve
    from tasks.crawl.sample.site import kept_pages

    pages = kept_pages(available())
    site = Site(pages)
    key = sha256_json({"params": params.identity(), "site": site.digest()})
    logger.info("crawl: the sample site has %d pages of %d hosts", len(site.pages), len(site.hosts))
    # The sample's own loopback server needs no politeness; every other rule holds as for any site.
    polite = params.model_copy(
        update={"delay_seconds": 0.0, "concurrency_per_host": 8, "contact": "headwater@sample.example"}
    )
    with serve(site) as port:
        places = {"*.sample.example": ("127.0.0.1", port)}
        crawl = _crawl(polite, seeds=site.seeds, allow_hosts=(*params.allow_hosts, "*.sample.example"), places=places)
        counts = crawl_sites(crawl, source="sample", state=state_folder() / "crawl" / key[:32], output=output)
    return "urls", counts, [{"name": "sample.example", "sha256": site.digest()}]


def _sites(params: Params, output: Path) -> Made:
    contact(params)
    key = sha256_json(params.identity())
    counts = crawl_sites(_crawl(params, seeds=params.seeds, allow_hosts=params.allow_hosts, places={}),
                         source="sites", state=state_folder() / "crawl" / key[:32], output=output)  # fmt: skip
    return "urls", counts, [{"name": url} for url in sorted([*params.seeds, *params.sitemaps])]


def _crawl(
    params: Params, *, seeds: Sequence[str], allow_hosts: Sequence[str], places: Mapping[str, tuple[str, int]]
) -> Crawl:
    return Crawl(
        seeds=seeds,
        sitemaps=params.sitemaps,
        allowed_domains=params.allowed_domains,
        allow_hosts=allow_hosts,
        ca_file=roots(params.ca_file),
        insecure_hosts=params.insecure_hosts,
        places=places,
        user_agent=f"{params.user_agent} (+{params.contact})",
        delay_seconds=params.delay_seconds,
        concurrency_per_host=params.concurrency_per_host,
        max_delay_seconds=params.max_delay_seconds,
        max_wait_seconds=params.max_wait_seconds,
        busy_tries=params.busy_tries,
        robots_hours=params.robots_hours,
        policy_files=params.policy_files,
        drop_query=params.drop_query,
        max_pages=params.max_pages,
        limits=Limits(
            **{name: getattr(params, name) for field in fields(Limits) if (name := field.name) != "takedowns"},
            takedowns=read_takedowns(),
        ),
        max_bytes=params.max_bytes,
        timeout_seconds=params.timeout_seconds,
        processes=min(params.processes, available()),
        shard_megabytes=params.shard_megabytes,
    )


def _common_crawl(params: Params, output: Path) -> Made:
    selection(params)
    chosen = Selection(
        snapshot=params.snapshot,
        data_url=params.data_url.rstrip("/"),
        index_url=params.index_url.rstrip("/"),
        warc_files=params.warc_files,
        domains=params.domains,
        max_pages=params.max_pages,
        seed=params.seed,
        connections=params.connections,
        megabytes=params.shard_megabytes,
    )
    asking = f" (+{params.contact})" if params.contact.strip() else ""
    remote = Remote(
        user_agent=f"{params.user_agent}{asking}",
        timeout=params.timeout_seconds,
        tries=params.busy_tries,
        longest_wait=params.max_wait_seconds,
        ca_file=roots(params.ca_file),
        placeholders=placeholders(params),
    )
    state = state_folder() / "crawl" / f"common_crawl-{params.snapshot}"
    counts, sources = take_common_crawl(chosen, remote, state=state, units=_units_folder(params), output=output)
    return "records", counts, sources


def _warc(params: Params, output: Path) -> Made:
    counts, sources = take_archives(
        params.paths, megabytes=params.shard_megabytes, output=output, state=_units_folder(params)
    )
    return "records", counts, sources


def _text(params: Params, output: Path) -> Made:
    columns = Columns(text=params.text_column, url=params.url_column, id=params.id_column)
    counts, sources = take_texts(
        params.paths, columns=columns, megabytes=params.shard_megabytes, output=output, state=_units_folder(params)
    )
    return "documents", counts, sources


_SOURCES: dict[str, Callable[[Params, Path], Made]] = {
    "sample": _sample,
    "sites": _sites,
    "common_crawl": _common_crawl,
    "warc": _warc,
    "text": _text,
}
