"""Fetches the pages of some hosts with Scrapy, in a process of its own (Twisted's reactor cannot start twice).

The process owns the hosts whose hash falls to it; links to other processes' hosts are journalled for them.
"""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urljoin

import scrapy
from scrapy import signals
from scrapy.crawler import CrawlerProcess
from scrapy.exceptions import IgnoreRequest
from scrapy.utils.defer import maybe_deferred_to_future
from twisted.internet.task import LoopingCall, deferLater
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from tasks.contracts.charset import decode
from tasks.contracts.durable_files import disk_full_is_clear
from tasks.contracts.http_responses import REFUSALS, may_pass, no_page
from tasks.contracts.media_types import is_html
from tasks.contracts.redaction import without_secrets, without_userinfo
from tasks.contracts.urls import canonical_url, host_of, named
from tasks.crawl.backoff import BROKEN_OFF, CERTIFICATE, RETRIES, SHORTEST_DELAY_SECONDS, HostBusy
from tasks.crawl.exchange import (
    REDIRECTS,
    answer_bytes,
    content_type,
    header_fields,
    header_pairs,
    request_bytes,
    status_line,
)
from tasks.crawl.frontier import Refusals
from tasks.crawl.hosts import Forbidden, HostRules, RobotsFailed, TooSlow, Unreachable, evidence_of
from tasks.crawl.jobs import Job, owner
from tasks.crawl.journal import DONE, FAR, NOTE, PAGE, PASSING, TAKEN, Journal
from tasks.crawl.limits import Counted
from tasks.crawl.page_links import Links, absolute_link, links_of, location_of, sitemap_links
from tasks.crawl.scrapy_settings import (
    ALLOW_HOSTS_SETTING,
    BUSY_TRIES_SETTING,
    CA_FILE_SETTING,
    INSECURE_HOSTS_SETTING,
    MAX_DELAY_SETTING,
    MAX_WAIT_SETTING,
    OWN_HOSTS_SETTING,
    PLACEHOLDERS_SETTING,
    PLACES_SETTING,
    POLICY_FILES_SETTING,
    ROBOTS_SECONDS_SETTING,
)
from tasks.crawl.warc_writer import Note, Page, Writer, warc_date
from tasks.rights.evidence import Certificate, Evidence
from tasks.rights.robot_words import forbids_following
from tasks.rights.robots import names_of

Result = TypeVar("Result")
MOST_REDIRECTS = 10
MOST_SITEMAPS = 1000
MOST_SITEMAPS_OF_HOST = 100
READERS = 2  # threads that read pages beside the reactor
# Answers that say why a page is withheld (402, 451): how many of a host are kept as evidence, how much of each body.
MOST_KEPT_REFUSALS = 100
MOST_REFUSAL_BYTES = 1 << 16
TELLING_HEADERS = ("crawler-price", "link", "www-authenticate")
MOST_TAKEN_AT_ONCE = 1000  # links, before the other hosts' answers get their turn
RULES = {
    "CannotResolveHostError": "dns",
    "DNSLookupError": "dns",
    "DownloadTimeoutError": "timeout",
    "TimeoutError": "timeout",
    "TCPTimedOutError": "timeout",
    "DownloadCancelledError": "too_large",
    "DownloadConnectionRefusedError": "connection",
    "ConnectionRefusedError": "connection",
    "DownloadFailedError": "connection",
    "ResponseDataLossError": "connection",
    "ResponseFailed": "connection",
    "ConnectionLost": "connection",
    "HeadersTooLongError": "too_large",
    "CertificateRefusedError": "certificate",
    "RefusedAddressError": "refused_address",
    "UnsupportedURLSchemeError": "bad_url",
}


class Pages(scrapy.Spider):
    """Follows links from the seeds, stores every page, journals every other outcome."""

    name = "pages"

    def __init__(self, job: Job, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.job = job
        folder = Path(job.folder)
        self.warc = (folder / f"{job.name}.warc.gz").open("ab")
        self.writer = Writer(self.warc)
        self.journal = Journal(folder / f"{job.name}.jsonl")
        self.tickets = os.open(folder / "tickets", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        self.known = set(job.known)
        self.noted = set(job.stored_notes)
        self.read_sitemaps: set[str] = set()
        self.sitemaps_of: Counter[str] = Counter()
        self.kept_refusals: Counter[str] = Counter()
        self.counted = Counted(job.crawl.limits, self.known.difference(job.refused))
        self.refusals = Refusals(job.refused.items(), job.allowed)
        self.full = False
        self.far: Counter[str] = Counter()
        self.readers = ThreadPool(0, READERS, "readers")
        self.stored = 0
        self.open = 0
        self.failure: BaseException | None = None
        self.parent = os.getppid()

    @classmethod
    def from_crawler(cls, crawler: Any, *args: Any, **kwargs: Any) -> Any:
        spider = super().from_crawler(crawler, *args, **kwargs)
        crawler.signals.connect(spider.failed_inside, signals.spider_error)
        return spider

    async def start(self) -> AsyncIterator[Any]:
        """Yield the first requests: sitemaps, then every URL still to fetch."""
        self.readers.start()
        self.pulse = LoopingCall(self.tell)
        self.pulse.start(2.0)
        for url in self.job.sitemaps:
            if request := self.sitemap_request(url):
                yield request
        for url, depth in self.job.todo.items():
            yield self.page_request(url, depth)

    def tell(self) -> None:
        """Write how far this process is, and bring what it wrote to the disk."""
        if os.getppid() != self.parent:
            os._exit(1)  # whoever started this process was killed; another run may already go on with this crawl
        progress = {"pages": self.stored, "open": self.open}
        path = Path(self.job.folder) / f"{self.job.name}.progress"
        path.with_suffix(".new").write_text(json.dumps(progress))
        path.with_suffix(".new").replace(path)
        self.journal.add_beyond(self.refusals.changed())
        self.journal.sync()
        os.fsync(self.warc.fileno())

    def page_request(self, url: str, depth: int, hops: int = 0) -> Any:
        """Return the request for a page."""
        self.known.add(url)
        self.open += 1
        meta = {"dont_redirect": True, "handle_httpstatus_all": True, "page_depth": depth, "hops": hops}
        return scrapy.Request(url, callback=self.parse_page, errback=self.lose, dont_filter=True, meta=meta)

    async def beside(self, function: Callable[..., Result], *given: Any) -> Result:
        """Return what a function gives, called in a thread, so that the reactor goes on with other hosts meanwhile."""
        from twisted.internet import reactor

        return await maybe_deferred_to_future(deferToThreadPool(reactor, self.readers, function, *given))

    async def take_all(self, links: Links, place: str, depth: int) -> AsyncIterator[Any]:
        """Yield the requests for the new ones of the links that stand in a page or sitemap."""
        from twisted.internet import reactor

        for rule, number in (("too_many_links", links.more), ("url_too_long", links.too_long)):
            if number:
                self.refusals.count(place, rule, number)
        for number, url in enumerate(links.urls, start=1):
            if (request := self.take(url, depth)) is not None:
                yield request
            if number % MOST_TAKEN_AT_ONCE == 0:
                await maybe_deferred_to_future(deferLater(reactor, 0.0))

    def take(self, url: str, depth: int, hops: int = 0) -> Any:
        """Return the request for a URL of this crawl that is new; journal or count it either way."""
        if url in self.known:
            return None
        host = host_of(url)
        if owner(host, self.job.workers) != self.job.number:
            self.leave_to_owner(url, host, depth)
            return None
        refusal = self.over_limit(url, depth)
        if refusal is None or self.refusals.has_row(url, refusal):
            self.known.add(url)
            self.journal.add(TAKEN, url, depth=depth)
            if refusal is None:
                return self.page_request(url, depth, hops)
            self.journal.add(DONE, url, rule=refusal, detail="")
        return None

    def leave_to_owner(self, url: str, host: str, depth: int) -> None:
        """Journal a URL for the process that owns its host, as many of them as that could fetch; count the others."""
        if self.far.total() >= self.job.crawl.max_pages:
            self.refusals.count(url, "max_pages", 1)
        elif self.far[host] >= self.job.crawl.limits.max_pages_per_host:
            self.refusals.count(url, "max_pages_per_host", 1)
        else:
            self.far[host] += 1
            self.known.add(url)
            self.journal.add(FAR, url, depth=depth)

    def over_limit(self, url: str, depth: int) -> str | None:
        """Return the limit that one more page would break, or count it."""
        refusal = self.counted.refusal(url, depth)
        if refusal is not None:
            return refusal
        if not self.full:
            # The shared ticket file counts over all processes: after an append its own end is this URL's number.
            os.write(self.tickets, b".")
            self.full = os.lseek(self.tickets, 0, os.SEEK_CUR) > self.job.crawl.max_pages
        if self.full:
            return "max_pages"
        self.counted.add(url)
        return None

    async def parse_page(self, response: Any) -> AsyncIterator[Any]:
        """Store a page and follow its links, or journal what came instead."""
        url, depth = response.request.url, response.meta["page_depth"]
        received = response.meta["received"]
        if response.status in REDIRECTS and response.headers.get("Location"):
            # A server may repeat in its answers what it was asked with.
            location = location_of(response.headers["Location"])
            target = absolute_link(url, location)
            target = None if target is None else self.job.crawl.placeholders.hidden(target)
            ours = None if target is None else canonical_url(target, self.job.crawl.drop_query)
            if ours is not None and named(host_of(ours), self.job.allowed) and response.meta["hops"] < MOST_REDIRECTS:
                request = self.take(ours, depth, response.meta["hops"] + 1)
                if request is not None:
                    yield request
            shown = without_secrets(without_userinfo(target or location))
            self.end(url, "redirect", f"{response.status} to {shown}"[:2000])
            return
        refusal = no_page(response.status, response.headers.get("Content-Range", b"").decode("latin-1"))
        if refusal is not None:
            detail = self.keep_refusal(url, received) if response.status in REFUSALS else ""
            self.end(url, refusal, detail, passing=may_pass(response.status))
            return
        rules: HostRules = response.meta["host_rules"]
        links, evidence = await self.beside(
            read_page, url, response, received, rules, response.meta.get(CERTIFICATE), self.job
        )
        async for request in self.take_all(links, url, depth + 1):
            yield request
        offset = self.warc.seek(0, os.SEEK_END)
        with disk_full_is_clear(Path(self.warc.name)):
            page = self.writer.write_page(
                Page(
                    url=url,
                    when=warc_date(datetime.now(UTC)),
                    address=str(response.ip_address) if response.ip_address else None,
                    request=request_bytes(response.request),
                    status=status_line(response.status),
                    headers=header_pairs(received.headers, len(received.body)),
                    body=received.body,
                    protocol=received.protocol or "HTTP/1.1",
                    broken_off=BROKEN_OFF in received.flags,
                ),
                evidence,
            )
        self.journal.add(PAGE, url, offset=offset, length=self.warc.tell() - offset, **page)
        self.stored += 1
        self.open -= 1

    def lose(self, failure: Any) -> None:
        """Journal a URL that gave no response."""
        url = failure.request.url
        error: Any = failure.value
        if isinstance(error, Unreachable):
            error = error.reason
        if isinstance(error, Forbidden):
            rule = "robots"
        elif isinstance(error, TooSlow):
            rule = "crawl_delay"
        elif isinstance(error, HostBusy):
            rule = "host_busy"
        elif isinstance(error, IgnoreRequest):
            rule = "too_large"
        else:
            rule = RULES.get(type(error).__name__, "not_fetched")
        said = without_secrets(f"{type(error).__name__}: {error}")[:300]
        self.end(url, rule, said, passing=rule in PASSING or isinstance(error, RobotsFailed))

    def end(self, url: str, rule: str, detail: str, *, passing: bool = False) -> None:
        """Journal why a URL that was asked for gives no page, and whether another try may give one."""
        self.journal.add(DONE, url, rule=rule, detail=detail, passing=passing)
        self.open -= 1

    def read_sitemaps_of(self, place: str, locations: Sequence[str]) -> None:
        """Ask for the sitemaps that a host's robots.txt names."""
        for location in locations[:MOST_SITEMAPS_OF_HOST]:
            if sitemap := self.sitemap_request(urljoin(place, location)):
                self.crawler.engine.crawl(sitemap)

    def sitemap_request(self, link: str) -> Any:
        """Return the request for a sitemap of this crawl's hosts, or None."""
        url = canonical_url(self.job.crawl.placeholders.hidden(link))
        if url is None or self.full or url in self.read_sitemaps or len(self.read_sitemaps) >= MOST_SITEMAPS:
            return None
        host = host_of(url)
        if not named(host, self.job.allowed) or self.sitemaps_of[host] >= MOST_SITEMAPS_OF_HOST:
            return None
        self.read_sitemaps.add(url)
        self.sitemaps_of[host] += 1
        meta = {"handle_httpstatus_all": True, "sitemap": True}
        return scrapy.Request(
            url, callback=self.parse_sitemap, errback=self.lose_sitemap, dont_filter=True, meta=meta, priority=10
        )

    async def parse_sitemap(self, response: Any) -> AsyncIterator[Any]:
        """Take up the pages of a sitemap, and the sitemaps of a sitemap index."""
        if response.status != 200:
            return
        self.note(response.request.url, response)
        crawl = self.job.crawl
        try:
            kind, links = await self.beside(
                sitemap_links,
                response.body,
                response.url,
                crawl.max_bytes,
                crawl.drop_query,
                self.job.allowed,
                crawl.hide,
            )
        except ValueError as error:
            self.logger.info("%s is no sitemap: %s", response.url, error)
            return
        if kind == "sitemapindex":
            for link in links.urls:
                if request := self.sitemap_request(link):
                    yield request
            return
        async for request in self.take_all(links, response.url, 0):
            yield request

    def lose_sitemap(self, failure: Any) -> None:
        """A sitemap only helps to find pages: say that one could not be read."""
        self.logger.info("%s could not be read: %s", failure.request.url, failure.value)

    def note(self, url: str, response: Any) -> str:
        """Store a policy file or a sitemap as evidence, the same content once, and return its record id."""
        kind = response.headers.get("Content-Type", b"").decode("latin-1")
        return self.store(
            Note(url=url, status=response.status, content_type=kind, body=response.body, fetched_from=response.url)
        )

    def keep_refusal(self, url: str, received: Any) -> str:
        """Store an answer that says why a page is withheld, as it came, and return what of it people want to know."""
        told = [
            f"{name}: {value}" for name, value in header_fields(received.headers) if name.lower() in TELLING_HEADERS
        ]
        detail = without_secrets("; ".join((status_line(received.status), *told)))[:2000]
        host = host_of(url)
        if self.kept_refusals[host] >= MOST_KEPT_REFUSALS:
            return detail
        self.kept_refusals[host] += 1
        body = answer_bytes(received, MOST_REFUSAL_BYTES)
        kind = "application/http; msgtype=response"
        record = self.store(Note(url=url, status=received.status, content_type=kind, body=body, fetched_from=url))
        return f"{detail}; kept as {record}"

    def store(self, note: Note) -> str:
        """Store what the crawl was told beside pages, the same content once, and return its record id."""
        url = note.url
        if note.record_id not in self.noted:
            self.noted.add(note.record_id)
            offset = self.warc.seek(0, os.SEEK_END)
            self.writer.write_note(note, when=warc_date(datetime.now(UTC)))
            self.journal.add(NOTE, url, offset=offset, length=self.warc.tell() - offset, record=note.record_id)
        return note.record_id

    def failed_inside(self, failure: Any) -> None:
        """Remember the first error in our own code or of the disk: the crawl stops, instead of losing pages."""
        if self.failure is None:
            self.failure = failure.value
            self.crawler.engine.close_spider(self, "failed")

    def closed(self, _reason: str) -> None:
        """Bring everything to the disk."""
        if self.pulse.running:
            self.pulse.stop()
        self.readers.stop()
        self.tell()
        self.warc.close()
        self.journal.stream.close()
        os.close(self.tickets)


def read_page(
    url: str, response: Any, received: Any, rules: HostRules, certificate: Certificate | None, job: Job
) -> tuple[Links, Evidence]:
    """Return a page's links and what it says about being used."""
    kind = content_type(received.headers)
    text, links = "", Links()
    if is_html(kind, response.body):
        text, _ = decode(response.body, kind)
        names = names_of(job.crawl.user_agent)
        if not any(
            forbids_following(value, names)
            for name, value in header_fields(received.headers)
            if name.lower() == "x-robots-tag"
        ):
            links = links_of(text, response.url, job.crawl.drop_query, job.allowed, job.crawl.hide, names)
    return links, evidence_of(url, received, text, rules, job.crawl.user_agent, certificate)


def crawl_part(job: Job) -> None:
    """Run one crawler process to its end.

    Raises:
        DiskFullError: no space left for the WARC file.
    """
    settings = {
        "USER_AGENT": job.crawl.user_agent,
        "ROBOTSTXT_OBEY": False,  # HostGate does
        "DOWNLOAD_DELAY": max(job.crawl.delay_seconds, SHORTEST_DELAY_SECONDS),
        "DOWNLOAD_DELAY_JITTER": 0.0,
        "CONCURRENT_REQUESTS": 64,
        "CONCURRENT_REQUESTS_PER_DOMAIN": job.crawl.concurrency_per_host,
        "DOWNLOAD_MAXSIZE": job.crawl.max_bytes,
        "DOWNLOAD_WARNSIZE": 0,
        "DOWNLOAD_TIMEOUT": job.crawl.timeout_seconds,
        "RETRY_TIMES": RETRIES,
        "RETRY_HTTP_CODES": [500, 502, 504, 522, 524, 408],  # Backoff takes 429 and 503
        "COOKIES_ENABLED": False,
        "REFERER_ENABLED": False,
        "TELNETCONSOLE_ENABLED": False,
        # A proxy would connect in our place, and the check of addresses would see the proxy's only.
        "HTTPPROXY_ENABLED": False,
        "TWISTED_DNS_RESOLVER": "tasks.crawl.addresses.GuardedResolver",
        ALLOW_HOSTS_SETTING: list(job.crawl.allow_hosts),
        CA_FILE_SETTING: job.crawl.ca_file,
        INSECURE_HOSTS_SETTING: list(job.crawl.insecure_hosts),
        ROBOTS_SECONDS_SETTING: job.crawl.robots_hours * 3600,
        MAX_DELAY_SETTING: job.crawl.max_delay_seconds,
        MAX_WAIT_SETTING: job.crawl.max_wait_seconds,
        BUSY_TRIES_SETTING: job.crawl.busy_tries,
        POLICY_FILES_SETTING: job.crawl.policy_files,
        PLACEHOLDERS_SETTING: job.crawl.placeholders,
        OWN_HOSTS_SETTING: list(job.allowed),
        PLACES_SETTING: {host: list(place) for host, place in job.crawl.places.items()},
        "DOWNLOADER_MIDDLEWARES": {
            "scrapy.downloadermiddlewares.robotstxt.RobotsTxtMiddleware": None,
            "tasks.crawl.hosts.HostGate": 100,
            "tasks.crawl.backoff.Backoff": 560,
            "tasks.crawl.exchange.Archive": 800,
        },
        # Nothing but the web, whatever a link or a redirect says.
        "DOWNLOAD_HANDLERS": {
            **dict.fromkeys(("http", "https"), "tasks.crawl.backoff.Handler"),
            **dict.fromkeys(("data", "file", "ftp", "s3")),
        },
        "LOG_LEVEL": "WARNING",
        "LOGSTATS_INTERVAL": 0,
        "LOG_INSTALL_ROOT_HANDLER": False,
    }
    process = CrawlerProcess(settings)
    # After CrawlerProcess, which sets the level to DEBUG.
    for name in ("scrapy", "twisted", "protego"):
        logging.getLogger(name).setLevel(logging.ERROR)
    crawler = process.create_crawler(Pages)
    process.crawl(crawler, job=job)
    process.start(install_signal_handlers=False)
    spider = crawler.spider
    if not isinstance(spider, Pages):
        raise RuntimeError("the crawler did not start; its messages are above")
    if spider.failure is not None:
        raise spider.failure
