"""Backs off a host that says it is busy (429, 503), that host only, and gives it up after a number of tries.

RFC 6585, section 4 (429); `retry_after` says how long it asks to be left alone.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar, cast
from urllib.parse import urlsplit

from scrapy.core.downloader.handlers.http11 import HTTP11DownloadHandler
from scrapy.exceptions import IgnoreRequest

from tasks.contracts.urls import named
from tasks.crawl.addresses import GuardedResolver, RefusedAddressError
from tasks.crawl.certificates import CertificateRefusedError, Certificates, fingerprint
from tasks.crawl.credentials import Placeholders, basic, login
from tasks.crawl.exchange import POLICY_FILE, BoundedFactory, HeadersTooLongError
from tasks.crawl.retry_after import FIRST_WAIT_SECONDS, retry_after
from tasks.crawl.scrapy_settings import (
    BUSY_TRIES_SETTING,
    CA_FILE_SETTING,
    INSECURE_HOSTS_SETTING,
    MAX_WAIT_SETTING,
    OWN_HOSTS_SETTING,
    PLACEHOLDERS_SETTING,
)
from tasks.rights.evidence import Certificate

if TYPE_CHECKING:
    from twisted.web.iweb import IPolicyForHTTPS

BUSY = frozenset({429, 503})
RETRIES = 2  # of a request that failed on its way
BROKEN_OFF = "dataloss"  # in a response's flags, by Scrapy: the connection ended before the body did
CERTIFICATE = "certificate"  # in a request's meta: what the server of the answer showed
# Without a delay, Scrapy (2.19) looks neither at a host's pause nor, when many requests come at once, at the number
# that may be open: each is counted only when its task has started.
SHORTEST_DELAY_SECONDS = 0.001


class HostBusy(IgnoreRequest):
    """The host was busy at every try, or asked to wait for longer than the crawl will."""


@dataclass(slots=True)
class _Host:
    until: float = 0.0
    tries: int = 0


class Handler(HTTP11DownloadHandler):
    """Sends requests, and keeps a busy host's queue waiting from the moment at which its answer is read.

    A middleware would come too late: by the time it sees an answer, Scrapy has sent the next request of the queue.

    Attributes:
        hosts: one table for the process, which makes one crawler.
        given_up: host → why.
    """

    hosts: ClassVar[dict[str, _Host]] = {}
    given_up: ClassVar[dict[str, str]] = {}

    def __init__(self, crawler: Any) -> None:
        super().__init__(crawler)
        self.crawler = crawler
        self.longest = crawler.settings.getfloat(MAX_WAIT_SETTING)
        self.tries = crawler.settings.getint(BUSY_TRIES_SETTING)
        settings = crawler.settings
        self.placeholders: Placeholders = settings[PLACEHOLDERS_SETTING]
        self.own_hosts: list[str] = settings[OWN_HOSTS_SETTING]
        self.certificates = Certificates(settings[CA_FILE_SETTING], settings.getlist(INSECURE_HOSTS_SETTING))
        # It says so by zope.interface, which has no types.
        self._contextFactory = cast("IPolicyForHTTPS", self.certificates)
        self._pool._factory = BoundedFactory

    async def download_request(self, request: Any) -> Any:
        """Return the response.

        Raises:
            HostBusy: the host was given up while the request stood in the queue.
            RefusedAddressError: the host is where this crawl may not go.
            CertificateRefusedError: the server may not speak for the host.
            HeadersTooLongError: its answer's header fields do not end.
        """
        name = urlsplit(request.url).hostname or ""
        if name in self.given_up:
            raise HostBusy(self.given_up[name])
        if request.meta.get("retry_times", 0) >= RETRIES and POLICY_FILE not in request.meta:
            # The last try: a page that breaks off again is what there is of it. Half a robots.txt forbids too little.
            request.meta["download_fail_on_dataloss"] = False
        host = self.hosts.setdefault(name, _Host())
        sent = time.monotonic()
        try:
            response = await self._sent(request)
        except Exception as error:
            if name in GuardedResolver.refused:
                raise RefusedAddressError(name) from error
            for cause in _causes(error):
                if isinstance(cause, CertificateRefusedError | HeadersTooLongError):
                    raise cause from error
            raise
        if response.certificate is not None:
            sha256 = fingerprint(response.certificate.original)
            request.meta[CERTIFICATE] = Certificate(sha256=sha256, problem=self.certificates.problem_of(name, sha256))
        if response.status not in BUSY:
            host.tries = 0
        elif sent >= host.until:  # what was on its way already when the pause began says nothing new
            host.tries += 1
            self._pause(host, name, request, response)
        return response

    async def _sent(self, request: Any) -> Any:
        """Send a request with the credentials of its host, which stand neither in it nor in the answer nor in an error.

        Whatever is stored of the exchange is made from the request as it came here.
        """
        url = self.placeholders.filled(request.url)
        known = login(url) if named(urlsplit(url).hostname or "", self.own_hosts) else None
        if url == request.url and known is None:
            return await super().download_request(request)
        sent = request.replace(url=url)
        if known is not None:
            sent.headers["Authorization"] = basic(*known)
        response = await super().download_request(sent)
        return response.replace(url=request.url)

    def _pause(self, host: _Host, name: str, request: Any, response: Any) -> None:
        """Give the host up, or keep its queue waiting for as long as it asks."""
        asked = retry_after(response.headers.get("Retry-After", b"").decode("latin-1"), datetime.now(UTC))
        said = f"answered {response.status}"
        if asked is not None and asked > self.longest:
            limit = f"crawl.max_wait_seconds is {self.longest:g}"
            self.given_up[name] = f"{said} with Retry-After {asked:.0f} s, {limit}"
            return
        if host.tries >= self.tries:
            self.given_up[name] = f"{said} {host.tries} times in a row"
            return
        wait = asked if asked is not None else FIRST_WAIT_SECONDS * 2.0 ** (host.tries - 1)
        host.until = time.monotonic() + min(wait, self.longest)
        downloader = self.crawler.engine.downloader
        slot = downloader.slots.get(downloader.get_slot_key(request))
        if slot is not None:
            slot.lastseen = max(slot.lastseen, host.until)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what it was made from: Twisted keeps failures in a list, Scrapy raises "from" it."""
    yield error
    for failure in getattr(error, "reasons", None) or ():
        yield from _causes(failure.value)
    if error.__cause__ is not None:
        yield from _causes(error.__cause__)


class Backoff:
    """Downloader middleware: asks again for what a busy host did not give; its URLs end as `host_busy` after that."""

    def __init__(self, crawler: Any) -> None:
        self.tries = crawler.settings.getint(BUSY_TRIES_SETTING)

    @classmethod
    def from_crawler(cls, crawler: Any) -> Backoff:
        """Make it as Scrapy makes its middlewares."""
        return cls(crawler)

    def process_request(self, request: Any) -> None:
        """Turn away what is meant for a host that was given up."""
        if reason := Handler.given_up.get(urlsplit(request.url).hostname or ""):
            raise HostBusy(reason)

    def process_response(self, request: Any, response: Any) -> Any:
        """Return the response, or the request again where the host was busy."""
        if response.status not in BUSY:
            return response
        tries = request.meta.get("busy_tries", 0) + 1
        reason = Handler.given_up.get(urlsplit(request.url).hostname or "")
        if reason or tries >= self.tries:
            raise HostBusy(reason or f"answered {response.status} at each of {tries} tries")
        again = request.copy()
        again.meta["busy_tries"] = tries
        again.dont_filter = True
        return again
