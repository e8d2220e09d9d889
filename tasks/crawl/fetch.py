"""Fetches the pages of some hosts with Scrapy, in a process of its own (Twisted's reactor cannot start twice).

The process owns the hosts whose hash falls to it; links to other processes' hosts are journalled for them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import zlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit, urlunsplit

import scrapy
from scrapy import signals
from scrapy.crawler import CrawlerProcess
from scrapy.downloadermiddlewares.robotstxt import RobotsTxtMiddleware
from scrapy.exceptions import IgnoreRequest
from scrapy.http import Headers, TextResponse
from scrapy.utils.sitemap import Sitemap
from twisted.internet.task import LoopingCall

from tasks.contracts.files import disk_full_is_clear
from tasks.crawl.addresses import GuardedResolver, named
from tasks.crawl.journal import DONE, FAR, NOTE, PAGE, TAKEN, Journal
from tasks.crawl.warc_writer import Writer, warc_date

REDIRECTS = {301, 302, 303, 307, 308}
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
    "UnsupportedURLSchemeError": "bad_url",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Crawl:
    """What to crawl and how politely; see stage.Params for the fields of the same name.

    Attributes:
        places: host pattern → (address, port), instead of asking DNS.
    """

    seeds: Sequence[str]
    sitemaps: Sequence[str]
    allowed_domains: Sequence[str]
    allow_hosts: Sequence[str]
    places: Mapping[str, tuple[str, int]]
    user_agent: str
    delay_seconds: float
    concurrency_per_host: int
    max_pages: int
    max_pages_per_host: int
    max_depth: int
    max_bytes: int
    timeout_seconds: float
    processes: int
    shard_megabytes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What one crawler process does; plain values, so that it travels to another process.

    Attributes:
        name: the stem of its journal and WARC file in `folder`.
        todo: URL → depth, of its own hosts.
        known: URLs that were taken up before, by any process.
        stored_notes: robots.txt files and sitemaps that are stored already.
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
    stored_notes: Sequence[str]
    sitemaps: Sequence[str]
    allowed: Sequence[str]


class Forbidden(IgnoreRequest):
    """robots.txt says no, or could not be read (RFC 9309, section 2.3.1.4: then everything is forbidden)."""


def owner(host: str, workers: int) -> int:
    """Return the number of the process that fetches a host's pages."""
    return int.from_bytes(hashlib.sha256(host.encode()).digest()[:4], "big") % workers


def clean_url(url: str) -> str | None:
    """Return a URL without fragment and with a lower-case host, or None when it is not one of the web.

    >>> clean_url("HTTP://Docs.Example#top"), clean_url("mailto:a@b.example")
    ('http://docs.example/', None)
    """
    try:
        parts = urlsplit(url.strip())
        if parts.scheme.lower() not in ("http", "https") or not parts.hostname:
            return None
        netloc = parts.netloc.rsplit("@", 1)[-1].lower()
        return scrapy.Request(urlunsplit((parts.scheme.lower(), netloc, parts.path or "/", parts.query, ""))).url
    except ValueError:
        return None


class Robots(RobotsTxtMiddleware):
    """Scrapy's robots.txt check, strict where Scrapy is lenient: an unreachable robots.txt forbids the host."""

    def __init__(self, crawler: Any) -> None:
        super().__init__(crawler)
        self.why: dict[str, Exception] = {}

    async def _parse_robots(self, response: Any, netloc: str, request: Any) -> None:
        self.crawler.spider.note(response.url, response)
        if response.status >= 500:
            raise Forbidden(f"robots.txt answered {response.status}")
        if response.status >= 400:
            response = response.replace(body=b"")  # RFC 9309, section 2.3.1.3: no robots.txt, all is allowed
        await super()._parse_robots(response, netloc, request)

    def _robots_error(self, exc: Exception, netloc: str) -> None:
        self.why[netloc] = exc
        super()._robots_error(exc, netloc)

    def process_request_2(self, rp: Any, request: Any) -> None:
        netloc = urlsplit(request.url).netloc
        if rp is None and netloc in self.why:
            raise self.why[netloc]
        if rp is not None and not rp.allowed(request.url, self._default_useragent):
            raise Forbidden("robots.txt forbids it")


class Archive:
    """Keeps each response as received, before Scrapy undoes its content coding."""

    def process_response(self, request: Any, response: Any) -> Any:
        # A copy: Scrapy takes Content-Encoding out of the very headers when it decompresses.
        request.meta["received"] = response.replace(headers=response.headers.copy())
        return response


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
        self.per_host: dict[str, int] = {}
        for url in self.known:
            host = urlsplit(url).hostname or ""
            self.per_host[host] = self.per_host.get(host, 0) + 1
        self.stored = 0
        self.open = 0
        self.failure: BaseException | None = None
        self.parent = os.getppid()

    @classmethod
    def from_crawler(cls, crawler: Any, *args: Any, **kwargs: Any) -> Any:
        spider = super().from_crawler(crawler, *args, **kwargs)
        crawler.signals.connect(spider.robots_read, signals.robots_parsed)
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
        url = clean_url(link)
        if url is None or url in self.known:
            return
        host = urlsplit(url).hostname or ""
        if not named(host, self.job.allowed):
            return
        self.known.add(url)
        if owner(host, self.job.workers) != self.job.number:
            self.journal.add(FAR, url, depth=depth)
            return
        self.journal.add(TAKEN, url, depth=depth)
        refusal = self.over_limit(host, depth)
        if refusal:
            self.journal.add(DONE, url, rule=refusal, detail="")
            return
        yield self.page_request(url, depth, hops)

    def over_limit(self, host: str, depth: int) -> str | None:
        """Return the limit that one more page would break, or count it."""
        if depth > self.job.crawl.max_depth:
            return "max_depth"
        if self.per_host.get(host, 0) >= self.job.crawl.max_pages_per_host:
            return "max_pages_per_host"
        # The shared ticket file counts over all processes: after an append its own end is this URL's number.
        os.write(self.tickets, b".")
        if os.lseek(self.tickets, 0, os.SEEK_CUR) > self.job.crawl.max_pages:
            return "max_pages"
        self.per_host[host] = self.per_host.get(host, 0) + 1
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
        offset = self.warc.seek(0, os.SEEK_END)
        with disk_full_is_clear(Path(self.warc.name)):
            self.writer.write_page(
                url=url,
                when=warc_date(datetime.now(UTC)),
                address=str(response.ip_address) if response.ip_address else None,
                request=_request_bytes(response.request),
                status=_status_line(response.status),
                headers=_header_pairs(received.headers, len(received.body)),
                body=received.body,
                protocol=received.protocol or "HTTP/1.1",
            )
        self.journal.add(PAGE, url, offset=offset, length=self.warc.tell() - offset)
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
        error = failure.value
        host = urlsplit(url).hostname or ""
        if isinstance(error, Forbidden):
            rule = "robots"
        elif host in GuardedResolver.refused:
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

    def robots_read(self, robotparser: Any, request: Any) -> None:
        """Honour robots.txt's crawl delay and read the sitemaps it names."""
        delay = robotparser.crawl_delay(self.job.crawl.user_agent)
        downloader = self.crawler.engine.downloader
        key = downloader.get_slot_key(request)
        if delay and delay > self.job.crawl.delay_seconds:
            downloader.per_slot_settings[key] = {"delay": float(delay), "concurrency": 1}
            if key in downloader.slots:
                downloader.slots[key].delay = float(delay)
        for url in robotparser.rp.sitemaps:
            if sitemap := self.sitemap_request(urljoin(request.url, url)):
                self.crawler.engine.crawl(sitemap)

    def sitemap_request(self, link: str) -> Any:
        """Return the request for a sitemap of this crawl's hosts, or None."""
        url = clean_url(link)
        if url is None or url in self.read_sitemaps or len(self.read_sitemaps) >= MOST_SITEMAPS:
            return None
        if not named(urlsplit(url).hostname or "", self.job.allowed):
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

    def note(self, url: str, response: Any) -> None:
        """Store a robots.txt or sitemap as evidence, once."""
        if url in self.noted:
            return
        self.noted.add(url)
        offset = self.warc.seek(0, os.SEEK_END)
        kind = response.headers.get("Content-Type", b"").decode("latin-1")
        self.writer.write_note(
            url=url, when=warc_date(datetime.now(UTC)), status=response.status, content_type=kind, body=response.body
        )
        self.journal.add(NOTE, url, offset=offset, length=self.warc.tell() - offset)

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


def _request_bytes(request: Any) -> bytes:
    """Return the request as it was sent: Scrapy gives its headers, not the bytes."""
    parts = urlsplit(request.url)
    target = urlunsplit(("", "", parts.path or "/", parts.query, ""))
    lines = [f"{request.method} {target} HTTP/1.1", f"Host: {parts.netloc}"]
    lines += [f"{name}: {value}" for name, value in _decoded(request.headers)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")


def _header_pairs(headers: Headers, length: int) -> list[tuple[str, str]]:
    """Return response headers with the length of the body as stored; chunking is undone already."""
    skipped = {"transfer-encoding", "content-length"}
    pairs = [(name, value) for name, value in _decoded(headers) if name.lower() not in skipped]
    return [*pairs, ("Content-Length", str(length))]


def _decoded(headers: Headers) -> Iterator[tuple[str, str]]:
    for name, values in headers.items():
        for value in values:
            yield name.decode("latin-1"), value.decode("latin-1").replace("\r", " ").replace("\n", " ")


def _status_line(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"{status} Unknown"


def crawl_part(job: Job) -> None:
    """Run one crawler process to its end.

    Raises:
        DiskFullError: no space left for the WARC file.
    """
    settings = {
        "USER_AGENT": job.crawl.user_agent,
        "ROBOTSTXT_OBEY": True,
        "DOWNLOAD_DELAY": job.crawl.delay_seconds,
        "CONCURRENT_REQUESTS": 64,
        "CONCURRENT_REQUESTS_PER_DOMAIN": job.crawl.concurrency_per_host,
        "DOWNLOAD_MAXSIZE": job.crawl.max_bytes,
        "DOWNLOAD_WARNSIZE": 0,
        "DOWNLOAD_TIMEOUT": job.crawl.timeout_seconds,
        "RETRY_TIMES": 2,
        "COOKIES_ENABLED": False,
        "REFERER_ENABLED": False,
        "TELNETCONSOLE_ENABLED": False,
        # A proxy would connect in our place, and the check of addresses would see the proxy's only.
        "HTTPPROXY_ENABLED": False,
        "TWISTED_DNS_RESOLVER": "tasks.crawl.addresses.GuardedResolver",
        "HEADWATER_ALLOW_HOSTS": list(job.crawl.allow_hosts),
        "HEADWATER_PLACES": {host: list(place) for host, place in job.crawl.places.items()},
        "DOWNLOADER_MIDDLEWARES": {
            "scrapy.downloadermiddlewares.robotstxt.RobotsTxtMiddleware": None,
            "tasks.crawl.fetch.Robots": 100,
            "tasks.crawl.fetch.Archive": 800,
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
