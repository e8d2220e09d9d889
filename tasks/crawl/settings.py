"""The settings of the crawl stage: what its sources ask for, which know nothing of the stage that starts them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tasks.contracts.base import StageParams, not_identity
from tasks.contracts.urls import TRACKING

MEBIBYTE = 1024 * 1024


class CrawlSettings(StageParams):
    """The fields of the `crawl` section of params.yaml."""

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
