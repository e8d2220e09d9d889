"""Fetches the pages of some hosts with Scrapy, in a process of its own (Twisted's reactor cannot start twice).

The process owns the hosts whose hash falls to it; links to other processes' hosts are journalled for them.
"""

from __future__ import annotations

import json
import logging
import os
import zlib
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import scrapy
from scrapy import signals
from scrapy.crawler import CrawlerProcess
from scrapy.exceptions import IgnoreRequest
from scrapy.http import TextResponse
from scrapy.utils.sitemap import Sitemap
from twisted.internet.task import LoopingCall

from tasks.contracts.files import disk_full_is_clear
from tasks.crawl.addresses import GuardedResolver, named
from tasks.crawl.backoff import CERTIFICATE, SHORTEST_DELAY_SECONDS, HostBusy
from tasks.crawl.exchange import REDIRECTS, header_pairs, request_bytes, status_line
from tasks.crawl.hosts import Forbidden, HostRules, TooSlow, Unreachable, evidence_of
from tasks.crawl.jobs import Job, owner
from tasks.crawl.journal import DONE, FAR, NOTE, PAGE, TAKEN, Journal
from tasks.crawl.urls import Counted, canonical_url, host_of
from tasks.crawl.warc_writer import Note, Page, Writer, warc_date

MOST_REDIRECTS = 10
MOST_SITEMAPS = 1000
SKIPPED_ENDINGS = (
    ".png", ".jpg", ".jpeg", ".gif", ".svg", ".ico", ".webp", ".css", ".js", ".zip", ".gz", ".bz2", ".xz",
    ".tar", ".whl", ".exe", ".dmg", ".iso", ".mp3", ".mp4", ".avi", ".mov", ".webm", ".woff", ".woff2", ".ttf",
)  # fmt: skip
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
    "CertificateRefusedError": "certificate",
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
        self.counted = Counted(job.crawl.limits, self.known.difference(job.refused))
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
        self.journal.sync()
        os.fsync(self.warc.fileno())

    def page_request(self, url: str, depth: int, hops: int = 0) -> Any:
        """Return the request for a page."""
        self.known.add(url)
        self.open += 1
        meta = {"dont_redirect": True, "handle_httpstatus_all": True, "page_depth": depth, "hops": hops}
        return scrapy.Request(url, callback=self.parse_page, errback=self.lose, dont_filter=True, meta=meta)

    def take(self, link: str, depth: int, hops: int = 0) -> Iterator[Any]:
        """Yield the request for a link that belongs to this crawl and is new; journal it either way."""
        url = canonical_url(link, self.job.crawl.drop_query)
        if url is None or url in self.known:
            return
        host = host_of(url)
        if not named(host, self.job.allowed):
            return
        self.known.add(url)
        if owner(host, self.job.workers) != self.job.number:
            self.journal.add(FAR, url, depth=depth)
            return
        self.journal.add(TAKEN, url, depth=depth)
        refusal = self.over_limit(url, depth)
        if refusal:
            self.journal.add(DONE, url, rule=refusal, detail="")
            return
        yield self.page_request(url, depth, hops)

    def over_limit(self, url: str, depth: int) -> str | None:
        """Return the limit that one more page would break, or count it."""
        refusal = self.counted.refusal(url, depth)
        if refusal is not None:
            return refusal
        # The shared ticket file counts over all processes: after an append its own end is this URL's number.
        os.write(self.tickets, b".")
        if os.lseek(self.tickets, 0, os.SEEK_CUR) > self.job.crawl.max_pages:
            return "max_pages"
        self.counted.add(url)
        return None

    def parse_page(self, response: Any) -> Iterator[Any]:
        """Store a page and follow its links, or journal what came instead."""
        url, depth = response.request.url, response.meta["page_depth"]
        received = response.meta["received"]
        if response.status in REDIRECTS and response.headers.get("Location"):
            target = urljoin(url, response.headers["Location"].decode("latin-1"))
            if response.meta["hops"] < MOST_REDIRECTS:
                yield from self.take(target, depth, response.meta["hops"] + 1)
            self.end(url, "redirect", f"{response.status} to {target}"[:2000])
            return
        if not 200 <= response.status < 300:
            self.end(url, f"http_{response.status}", "")
            return
        for link in self.links(response):
            yield from self.take(link, depth + 1)
        rules: HostRules = response.meta["host_rules"]
        evidence = evidence_of(
            url, received, _markup(response), rules, self.job.crawl.user_agent, response.meta.get(CERTIFICATE)
        )
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
                ),
                evidence,
            )
        self.journal.add(PAGE, url, offset=offset, length=self.warc.tell() - offset, **page)
        self.stored += 1
        self.open -= 1

    def links(self, response: Any) -> list[str]:
        """Return a page's links, absolute, in order; none where its meta robots says nofollow."""
        if not isinstance(response, TextResponse) or "html" not in response.headers.get("Content-Type", b"html").decode(
            "latin-1"
        ):
            return []
        try:
            robots = " ".join(response.xpath("//meta[@name='robots']/@content").getall()).lower()
            if "nofollow" in robots:
                return []
            base = urljoin(response.url, response.xpath("//base/@href").get() or "")
            found = response.xpath("//a[not(contains(@rel, 'nofollow'))]/@href").getall()
            links = [urljoin(base, link.strip()) for link in found]
        except (ValueError, LookupError) as error:
            self.logger.info("no links read from %s: %s", response.url, error)
            return []
        return [link for link in links if not _path(link).endswith(SKIPPED_ENDINGS)]

    def lose(self, failure: Any) -> None:
        """Journal a URL that gave no response."""
        url = failure.request.url
        error: Any = failure.value
        asked = url
        if isinstance(error, Unreachable):
            asked = error.url
            error = error.reason
        if isinstance(error, Forbidden):
            rule = "robots"
        elif isinstance(error, TooSlow):
            rule = "crawl_delay"
        elif isinstance(error, HostBusy):
            rule = "host_busy"
        elif host_of(asked) in GuardedResolver.refused:
            rule = "refused_address"
        elif isinstance(error, IgnoreRequest):
            rule = "too_large"
        else:
            rule = RULES.get(type(error).__name__, "not_fetched")
        self.end(url, rule, f"{type(error).__name__}: {error}"[:300])

    def end(self, url: str, rule: str, detail: str) -> None:
        """Journal why a URL that was asked for gives no page."""
        self.journal.add(DONE, url, rule=rule, detail=detail)
        self.open -= 1

    def read_sitemaps_of(self, place: str, locations: Sequence[str]) -> None:
        """Ask for the sitemaps that a host's robots.txt names."""
        for location in locations:
            if sitemap := self.sitemap_request(urljoin(place, location)):
                self.crawler.engine.crawl(sitemap)

    def sitemap_request(self, link: str) -> Any:
        """Return the request for a sitemap of this crawl's hosts, or None."""
        url = canonical_url(link)
        if url is None or url in self.read_sitemaps or len(self.read_sitemaps) >= MOST_SITEMAPS:
            return None
        if not named(host_of(url), self.job.allowed):
            return None
        self.read_sitemaps.add(url)
        meta = {"handle_httpstatus_all": True, "sitemap": True}
        return scrapy.Request(
            url, callback=self.parse_sitemap, errback=self.lose_sitemap, dont_filter=True, meta=meta, priority=10
        )

    def parse_sitemap(self, response: Any) -> Iterator[Any]:
        """Take up the pages of a sitemap, and the sitemaps of a sitemap index."""
        if response.status != 200:
            return
        self.note(response.request.url, response)
        body = response.body
        if body[:2] == b"\x1f\x8b":
            body = zlib.decompressobj(47).decompress(body, 10 * self.job.crawl.max_bytes)
        try:
            sitemap = Sitemap(body)
            locations = [(sitemap.type, entry["loc"]) for entry in sitemap if entry.get("loc")]
        except (ValueError, StopIteration, SyntaxError) as error:
            self.logger.info("%s is no sitemap: %s", response.url, error)
            return
        for kind, location in locations:
            if kind == "sitemapindex":
                if request := self.sitemap_request(location):
                    yield request
            else:
                yield from self.take(urljoin(response.url, location), 0)

    def lose_sitemap(self, failure: Any) -> None:
        """A sitemap only helps to find pages: say that one could not be read."""
        self.logger.info("%s could not be read: %s", failure.request.url, failure.value)

    def note(self, url: str, response: Any) -> str:
        """Store a policy file or a sitemap as evidence, the same content once, and return its record id."""
        kind = response.headers.get("Content-Type", b"").decode("latin-1")
        note = Note(url=url, status=response.status, content_type=kind, body=response.body, fetched_from=response.url)
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
        self.tell()
        self.warc.close()
        self.journal.stream.close()
        os.close(self.tickets)


def _path(link: str) -> str:
    """Return a link's path in lower case, or "" for what is no URL."""
    try:
        return urlsplit(link).path.lower()
    except ValueError:
        return ""


def _markup(response: Any) -> str:
    """Return a page's text for finding tags in it: ASCII is all that matters there."""
    body: bytes = response.body
    if body.startswith((b"\xff\xfe", b"\xfe\xff")):
        return body.decode("utf-16", "replace")
    return body.decode("utf-8", "replace")


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
        "RETRY_TIMES": 2,
        "RETRY_HTTP_CODES": [500, 502, 504, 522, 524, 408],  # Backoff takes 429 and 503
        "COOKIES_ENABLED": False,
        "REFERER_ENABLED": False,
        "TELNETCONSOLE_ENABLED": False,
        # A proxy would connect in our place, and the check of addresses would see the proxy's only.
        "HTTPPROXY_ENABLED": False,
        "TWISTED_DNS_RESOLVER": "tasks.crawl.addresses.GuardedResolver",
        "HEADWATER_ALLOW_HOSTS": list(job.crawl.allow_hosts),
        "HEADWATER_CA_FILE": job.crawl.ca_file,
        "HEADWATER_INSECURE_HOSTS": list(job.crawl.insecure_hosts),
        "HEADWATER_ROBOTS_SECONDS": job.crawl.robots_hours * 3600,
        "HEADWATER_MAX_DELAY": job.crawl.max_delay_seconds,
        "HEADWATER_MAX_WAIT": job.crawl.max_wait_seconds,
        "HEADWATER_BUSY_TRIES": job.crawl.busy_tries,
        "HEADWATER_POLICY_FILES": job.crawl.policy_files,
        "HEADWATER_PLACES": {host: list(place) for host, place in job.crawl.places.items()},
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
    if spider is None:
        raise RuntimeError("the crawler did not start; its messages are above")
    if spider.failure is not None:
        raise spider.failure
