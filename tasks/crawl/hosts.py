"""Asks each host first: robots.txt by RFC 9309, then the files in which it may reserve its use (TDMRep, ai.txt).

Scrapy's own check allows what it cannot read, follows no redirect, and never reads a file again.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urljoin, urlsplit

import scrapy
from scrapy import signals
from scrapy.exceptions import IgnoreRequest
from scrapy.http.request import NO_CALLBACK
from scrapy.utils.defer import maybe_deferred_to_future
from twisted.internet.defer import Deferred

from tasks.contracts.http_responses import REFUSALS
from tasks.contracts.urls import canonical_url
from tasks.crawl.backoff import HostBusy
from tasks.crawl.exchange import MOST_POLICY_BYTES, POLICY_FILE, REDIRECTS, header_fields, stop_at_limit
from tasks.crawl.page_links import location_of
from tasks.crawl.scrapy_settings import MAX_DELAY_SETTING, POLICY_FILES_SETTING, ROBOTS_SECONDS_SETTING
from tasks.rights.evidence import (
    READER,
    Certificate,
    Evidence,
    RobotsVerdict,
    find_licenses,
    host_signals,
    most_telling,
    page_signals,
)
from tasks.rights.robots import AI_TXT, ROBOTS_TXT, TDMREP, Decision, Robots, names_of

logger = logging.getLogger(__name__)

# RFC 9309, section 2.3.1.2: at least five, also to other hosts; a host that sends one further has no robots.txt.
MOST_REDIRECTS = 5
# Of the files of all hosts whose rules are kept, parsed; a host that was forgotten is asked again when its turn comes.
MOST_RULES_BYTES = 16 << 20
URGENT = 1000


class Forbidden(IgnoreRequest):
    """robots.txt says no, or the server failed to give it (section 2.3.1.4: then everything is forbidden)."""


class RobotsFailed(Forbidden):
    """The server failed to give robots.txt: that forbids the host now, and may not at another time."""


class TooSlow(IgnoreRequest):
    """The host asks for longer pauses than the crawl will make."""


class Unreachable(IgnoreRequest):
    """robots.txt could not be fetched at all, for `reason`, from `url`; that forbids the whole host."""

    def __init__(self, reason: Exception, url: str) -> None:
        super().__init__(f"robots.txt: {type(reason).__name__}: {reason}")
        self.reason = reason
        self.url = url


@dataclass(slots=True)
class HostRules:
    """What a host said, and when.

    Attributes:
        refusal: raised for each page of a host that is closed as a whole.
        size: bytes of its files, and something for the host itself.
        records: file ("robots.txt", "ai.txt", "tdmrep.json") → WARC record that holds it.
    """

    read_at: float
    robots: Robots | None = None
    refusal: IgnoreRequest | None = None
    size: int = 1024
    tdmrep: bytes | None = None
    ai_txt: bytes | None = None
    records: dict[str, str] = field(default_factory=dict)

    def decide(self, agent: str, url: str) -> Decision:
        """Return what robots.txt says of one URL; a host without one allows everything."""
        return Decision(True) if self.robots is None else self.robots.decide(agent, url)


class HostGate:
    """Downloader middleware that lets a request pass only after its host was asked, and only if it may.

    Pages that pass carry the host's rules in their meta, as "host_rules".
    """

    def __init__(self, crawler: Any) -> None:
        self.crawler = crawler
        settings = crawler.settings
        self.agent: str = settings["USER_AGENT"]
        self.seconds = settings.getfloat(ROBOTS_SECONDS_SETTING)
        self.longest_delay = settings.getfloat(MAX_DELAY_SETTING)
        self.policy_files = settings.getbool(POLICY_FILES_SETTING)
        self.hosts: dict[str, HostRules | list[Deferred[HostRules]]] = {}
        self.sizes: dict[str, int] = {}
        self.size = 0

    @classmethod
    def from_crawler(cls, crawler: Any) -> HostGate:
        """Make it as Scrapy makes its middlewares."""
        crawler.signals.connect(stop_at_limit, signals.bytes_received)
        return cls(crawler)

    async def process_request(self, request: Any) -> None:
        """Raise an IgnoreRequest that says why, or let the request pass."""
        if POLICY_FILE in request.meta:
            return
        rules = await self.rules_of(request.url)
        if rules.refusal is not None:
            raise rules.refusal
        decision = rules.decide(self.agent, request.url)
        if not decision.allowed:
            raise Forbidden(f"robots.txt: {decision.rule} (for {decision.agent})")
        request.meta["host_rules"] = rules

    async def rules_of(self, url: str) -> HostRules:
        """Return the rules of a URL's host, read at most `seconds` ago; requests that come meanwhile wait."""
        parts = urlsplit(url)
        place = f"{parts.scheme}://{parts.netloc}"
        known = self.hosts.get(place)
        if isinstance(known, HostRules) and time.monotonic() - known.read_at < self.seconds:
            return known
        if isinstance(known, list):
            waiting: Deferred[HostRules] = Deferred()
            known.append(waiting)
            return await maybe_deferred_to_future(waiting)
        queue: list[Deferred[HostRules]] = []
        self.hosts[place] = queue
        rules = await self._read(place)
        self.hosts[place] = rules
        self._remember(place, rules)
        for deferred in queue:
            deferred.callback(rules)
        return rules

    def _remember(self, place: str, rules: HostRules) -> None:
        """Note which rules are kept, and forget those that were read first where they are too much."""
        self.size += rules.size - self.sizes.pop(place, 0)
        self.sizes[place] = rules.size
        while self.size > MOST_RULES_BYTES and len(self.sizes) > 1:
            oldest = next(iter(self.sizes))
            self.size -= self.sizes.pop(oldest)
            if isinstance(self.hosts[oldest], HostRules):  # not one that is just being read again
                del self.hosts[oldest]

    async def _read(self, place: str) -> HostRules:
        rules = HostRules(read_at=time.monotonic())
        url = f"{place}{ROBOTS_TXT}"
        try:
            response = await self._fetch(url)
        except IgnoreRequest as error:
            rules.refusal = RobotsFailed(f"robots.txt: {error}") if isinstance(error, HostBusy) else error
            return rules
        if response is not None:
            rules.records["robots.txt"] = self.crawler.spider.note(url, response)
            # Section 2.3.1.3: after a client error one may go on. 429 speaks of this crawl, not of the file; who wants
            # money for the file, or may not give it, will not let the pages go for less.
            if response.status in REFUSALS:
                rules.refusal = Forbidden(f"robots.txt answered {response.status}")
                return rules
            if response.status >= 500 or response.status == 429:
                rules.refusal = RobotsFailed(f"robots.txt answered {response.status}")
                return rules
            if 200 <= response.status < 300:
                rules.size += len(response.body)
                rules.robots = await self.crawler.spider.beside(Robots, response.body)
                self._obey_delay(rules, place)
                self.crawler.spider.read_sitemaps_of(place, rules.robots.sitemaps)
        if self.policy_files and rules.refusal is None:
            rules.tdmrep = await self._policy_file(rules, place, TDMREP)
            rules.ai_txt = await self._policy_file(rules, place, AI_TXT)
            rules.size += len(rules.tdmrep or b"") + len(rules.ai_txt or b"")
        return rules

    async def _fetch(self, url: str) -> Any:
        """Return the answer at the end of the redirects, None where they do not end in time."""
        for _ in range(MOST_REDIRECTS + 1):
            meta = {POLICY_FILE: 0, "dont_redirect": True, "handle_httpstatus_all": True, "download_maxsize": 0}
            # Uncoded, so that what is cut off at the limit can be read up to there.
            request = scrapy.Request(
                url, priority=URGENT, meta=meta, callback=NO_CALLBACK, headers={"Accept-Encoding": "identity"}
            )
            try:
                response = await self.crawler.engine.download_async(request)
            except IgnoreRequest:
                raise
            except Exception as error:  # whatever it was, the host did not say that it may be crawled
                raise Unreachable(error, url) from error
            location = response.headers.get("Location")
            if response.status not in REDIRECTS or not location:
                return response
            target = canonical_url(urljoin(url, location_of(location)))
            if target is None:
                return None
            url = target
        return None

    async def _policy_file(self, rules: HostRules, place: str, path: str) -> bytes | None:
        url = place + path
        if not rules.decide(self.agent, url).allowed:
            return None
        try:
            response = await self._fetch(url)
        except IgnoreRequest as error:  # such a file only adds to what robots.txt said
            logger.info("%s could not be read: %s", url, error)
            return None
        if response is None or response.status != 200 or response.body.lstrip()[:1] in (b"", b"<"):
            return None  # many a server answers every address with a page of its own
        rules.records[path.rpartition("/")[2]] = self.crawler.spider.note(url, response)
        return bytes(response.body[:MOST_POLICY_BYTES])

    def _obey_delay(self, rules: HostRules, place: str) -> None:
        delay = rules.robots.crawl_delay(self.agent) if rules.robots is not None else None
        if delay is None:
            return
        if delay > self.longest_delay:
            asked = (
                f"robots.txt asks for {delay:g} s between requests, crawl.max_delay_seconds is {self.longest_delay:g}"
            )
            rules.refusal = TooSlow(asked)
            return
        downloader = self.crawler.engine.downloader
        key = urlsplit(place).hostname or ""
        if delay > self.crawler.settings.getfloat("DOWNLOAD_DELAY"):
            downloader.per_slot_settings[key] = {"delay": delay, "concurrency": 1, "jitter": 0.0}
            if key in downloader.slots:
                slot = downloader.slots[key]
                slot.delay, slot.concurrency, slot.jitter = delay, 1, 0.0


def evidence_of(
    url: str, received: Any, text: str, rules: HostRules, agent: str, certificate: Certificate | None
) -> Evidence:
    """Return what a page, its answer's headers and its host say about being used."""
    headers = list(header_fields(received.headers))
    decision = rules.decide(agent, url)
    names = names_of(agent)
    said = [*page_signals(headers, text, names), *host_signals(rules.robots, rules.tdmrep, rules.ai_txt, url)]
    files = {name: record for name, record in sorted(rules.records.items()) if name != "robots.txt"}
    return Evidence(
        url=url,
        reader=READER,
        robots=RobotsVerdict(
            record_id=rules.records.get("robots.txt", ""),
            user_agent=agent,
            allowed=decision.allowed,
            agent=decision.agent,
            rule=decision.rule,
        ),
        files=files,
        certificate=certificate,
        signals=most_telling(said, names),
        licenses=find_licenses(headers, text, url, rules.robots.licenses if rules.robots is not None else ()),
    )
