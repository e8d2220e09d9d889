"""What a crawl of web sites is, and what one crawler process does of it: plain values that travel between processes.

Whoever makes them needs no Scrapy, which takes a second to import: it stands in `fetch`, for crawler processes only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tasks.crawl.credentials import Placeholders
from tasks.crawl.limits import Limits


@dataclass(frozen=True, slots=True, kw_only=True)
class Crawl:
    """What to crawl and how politely; see stage.Params for the fields of the same name.

    Attributes:
        places: host pattern → (address, port), instead of asking DNS.
        placeholders: what is filled into URLs when they are asked for.
    """

    seeds: Sequence[str]
    sitemaps: Sequence[str]
    allowed_domains: Sequence[str]
    allow_hosts: Sequence[str]
    ca_file: str = ""
    insecure_hosts: Sequence[str] = ()
    places: Mapping[str, tuple[str, int]]
    user_agent: str
    delay_seconds: float
    concurrency_per_host: int
    max_delay_seconds: float
    max_wait_seconds: float
    busy_tries: int
    robots_hours: float
    policy_files: bool
    drop_query: Sequence[str]
    max_pages: int
    limits: Limits
    max_bytes: int
    timeout_seconds: float
    processes: int
    shard_megabytes: float
    placeholders: Placeholders = field(default_factory=Placeholders)

    @property
    def hide(self) -> Callable[[str], str] | None:
        """What takes out of an absolute link what a server was asked with; None where it was asked with nothing."""
        return self.placeholders.hidden if self.placeholders.names else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What one crawler process does; plain values, so that it travels to another process.

    Attributes:
        name: the stem of its journal and WARC file in `folder`.
        todo: URL → depth, of its own hosts.
        known: URLs that were taken up before, by any process.
        refused: those of them that a limit kept out → which one.
        stored_notes: record ids of the robots.txt files and sitemaps that are stored already.
        sitemaps: those of its own hosts.
        allowed: names of the hosts that belong to the crawl.
    """

    crawl: Crawl
    number: int
    workers: int
    name: str
    folder: str
    todo: Mapping[str, int]
    known: Sequence[str]
    refused: Mapping[str, str]
    stored_notes: Sequence[str]
    sitemaps: Sequence[str]
    allowed: Sequence[str]


def owner(host: str, workers: int) -> int:
    """Return the number of the process that fetches a host's pages."""
    return int.from_bytes(hashlib.sha256(host.encode()).digest()[:4], "big") % workers
