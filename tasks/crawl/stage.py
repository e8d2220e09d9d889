"""The crawl stage: web pages in, from the embedded sample, web sites, Common Crawl, WARC files or text documents.

Its output is an immutable snapshot: WARC parts (or Document parts for `text`) and the ledger of what was not fetched.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Literal

from pydantic import Field, JsonValue

from tasks.contracts.base import StageParams, not_identity
from tasks.contracts.durable_files import sha256_json, write_json
from tasks.contracts.errors import HeadwaterError
from tasks.contracts.files import SOURCES_NAME
from tasks.contracts.manifest import Counts, Manifest, Unit, commit_manifest
from tasks.contracts.urls import TRACKING
from tasks.contracts.workspace import state_folder
from tasks.crawl.archives import take_archives
from tasks.crawl.common_crawl import Selection, take_common_crawl
from tasks.crawl.faults import contact, faults_of, placeholders, roots, selection
from tasks.crawl.jobs import Crawl
from tasks.crawl.limits import Limits
from tasks.crawl.processes import available
from tasks.crawl.remote import Remote
from tasks.crawl.sites import crawl_sites
from tasks.crawl.texts import Columns, take_texts
from tasks.rights.takedowns import read_takedowns

logger = logging.getLogger(__name__)

MEBIBYTE = 1024 * 1024


class Params(StageParams):
    """The `crawl` section of params.yaml."""

    source: Literal["sample", "sites", "common_crawl", "warc", "text"] = "sample"
    """Where pages come from: the embedded sample site, web sites, Common Crawl, WARC files, or text documents
    (JSONL, Parquet)."""
    shard_megabytes: float = Field(1.0, gt=0)
    """Size at which a part of the snapshot is closed, in MiB: of compressed WARC, or of text."""

    seeds: tuple[str, ...] = ()
    """sites: URLs to start from. Only their hosts are crawled, and those of allowed_domains. In every URL of
    this section, `${NAME}` is filled in from the environment when it is asked for; passwords come from netrc."""
    sitemaps: tuple[str, ...] = ()
    """sites: sitemaps to read besides those that robots.txt names."""
    allowed_domains: tuple[str, ...] = ()
    """sites: further domains, with all their hosts, to which links are followed."""
    user_agent: str = Field("Headwater/0.1", min_length=1)
    """sites: how the crawler names itself; robots.txt rules for this name are obeyed."""
    contact: str = ""
    """sites: an e-mail address or URL by which a site's owner reaches you; sent with every request. Required."""
    delay_seconds: float = Field(1.0, ge=0)
    """sites: pause between two requests to one host, in seconds; a longer Crawl-delay in robots.txt wins."""
    concurrency_per_host: int = Field(1, ge=1, le=64)
    """sites: requests open at one host at the same time."""
    max_delay_seconds: float = not_identity(60.0, ge=0)
    """sites: longest Crawl-delay obeyed, in seconds; a host that asks for more is left alone (crawl_delay)."""
    max_wait_seconds: float = not_identity(300.0, ge=0)
    """sites: longest pause for a host that answers 429 or 503, in seconds; one that asks for more is given up."""
    busy_tries: int = not_identity(5, ge=1)
    """sites: busy answers in a row after which a host, or one of its URLs, is given up (host_busy)."""
    robots_hours: float = not_identity(20.0, gt=0, le=24)
    """sites: age at which robots.txt is read again, in hours (RFC 9309: at most 24); a request may have waited in its
    host's queue since."""
    policy_files: bool = True
    """sites: ask each host for /ai.txt and /.well-known/tdmrep.json too."""
    drop_query: tuple[str, ...] = TRACKING
    """sites: query parameters left out of every URL, since they only track who followed a link."""
    max_url_length: int = Field(2000, ge=20)
    """sites: characters of a URL, at most (url_too_long)."""
    max_path_segments: int = Field(20, ge=1)
    """sites: segments of a URL's path, at most (path_too_deep)."""
    max_repeated_segments: int = Field(3, ge=1)
    """sites: how often one segment may stand in a path (path_repeats): more is a link that leads back into itself."""
    max_query_parameters: int = Field(10, ge=0)
    """sites: parameters of a URL's query, at most (query_parameters)."""
    max_queries_per_path: int = Field(1000, ge=0)
    """sites: URLs that differ in nothing but their query, at most (query_variants): a calendar has no end."""
    max_pages: int = Field(100_000, ge=1)
    """sites: URLs fetched in all, at most."""
    max_pages_per_host: int = Field(20_000, ge=1)
    """sites: URLs fetched from one host, at most."""
    max_depth: int = Field(20, ge=0)
    """sites: links between a seed and a page, at most."""
    max_bytes: int = Field(8 * MEBIBYTE, ge=1024)
    """sites: size of one page, compressed or not, in bytes, at most."""
    timeout_seconds: float = not_identity(30.0, gt=0)
    """sites: how long one page may take, in seconds."""
    allow_hosts: tuple[str, ...] = ()
    """sites: hosts ("wiki.intranet.example", "*.intranet.example") that may be at private addresses."""
    ca_file: str = not_identity("")
    """sites, common_crawl: PEM file of root certificates that are trusted besides the system's, for hosts with an own
    authority."""
    insecure_hosts: tuple[str, ...] = not_identity(())
    """sites: hosts ("old.intranet.example", "*.intranet.example") whose certificate is not checked: whoever stands
    between could give other pages. Each page's evidence names its certificate and what was wrong with it."""
    processes: int = not_identity(2, ge=1)
    """sites, sample: crawler processes, at most as many as there are processors."""

    snapshot: str = Field("", pattern=r"^[\w.-]*$")
    """common_crawl: which crawl, such as "CC-MAIN-2024-22"."""
    warc_files: int = Field(0, ge=0)
    """common_crawl: how many of its WARC files to take, each about 1 GB; or name domains."""
    domains: tuple[str, ...] = ()
    """common_crawl: domains whose HTML pages to take, of all their hosts, by the URL index; max_pages at most."""
    seed: int = 0
    """common_crawl: which of the files, or of more than max_pages pages, are taken; the same ones for the same seed."""
    data_url: str = not_identity("https://data.commoncrawl.org")
    """common_crawl: where the files are; a mirror must have the same layout."""
    index_url: str = not_identity("https://index.commoncrawl.org")
    """common_crawl: where the URL index is asked."""
    connections: int = not_identity(2, ge=1, le=8)
    """common_crawl: requests open at the same time."""

    paths: tuple[str, ...] = not_identity(())
    """warc, text: files, as local paths, globs or fsspec URLs (https://…, s3://…)."""

    text_column: str = "text"
    """text: the column that holds the text (Dolma and FineWeb: "text")."""
    url_column: str = "url"
    """text: the column of the URL; a dot reaches into an object. Dolma's metadata.url is found by itself."""
    id_column: str = "id"
    """text: the column of the document's id; without one, the row's own content stands in."""

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
    return manifest


def _units_folder(params: Params) -> Path:
    """Return where an ingest keeps its finished units until the snapshot is whole."""
    return state_folder() / "crawl" / f"units-{sha256_json(params.identity())[:32]}"


Made = tuple[Unit, Counts, list[JsonValue]]


def _sample(params: Params, output: Path) -> Made:
    from tasks.crawl.sample.server import Site, serve
    from tasks.crawl.sample.site import build_pages

    pages = build_pages(available())
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
