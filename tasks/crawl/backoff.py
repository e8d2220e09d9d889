"""Backs off a host that says it is busy (429, 503), that host only, and gives it up after a number of tries.

RFC 9110, section 10.2.3 (Retry-After: seconds or a date) and RFC 6585, section 4 (429).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from scrapy.exceptions import IgnoreRequest

BUSY = frozenset({429, 503})
FIRST_WAIT_SECONDS = 2.0
SHORTEST_DELAY_SECONDS = 0.01  # Scrapy looks at a slot's pause only where its delay is not zero


class HostBusy(IgnoreRequest):
    """The host was busy at every try, or asked to wait for longer than the crawl will."""


@dataclass(slots=True)
class _Host:
    until: float = 0.0
    tries: int = 0
    given_up: str = ""


class Backoff:
    """Downloader middleware: pauses a busy host's queue, then asks again; its URLs end as `host_busy` after that."""

    def __init__(self, crawler: Any) -> None:
        self.crawler = crawler
        self.longest = crawler.settings.getfloat("HEADWATER_MAX_WAIT")
        self.tries = crawler.settings.getint("HEADWATER_BUSY_TRIES")
        self.hosts: dict[str, _Host] = {}

    @classmethod
    def from_crawler(cls, crawler: Any) -> Backoff:
        """Make it as Scrapy makes its middlewares."""
        return cls(crawler)

    def process_request(self, request: Any) -> None:
        """Turn away what is meant for a host that was given up."""
        host = self.hosts.get(urlsplit(request.url).hostname or "")
        if host is not None and host.given_up:
            raise HostBusy(host.given_up)

    def process_response(self, request: Any, response: Any) -> Any:
        """Return the response, or the request again where the host was busy."""
        name = urlsplit(request.url).hostname or ""
        if response.status not in BUSY:
            if name in self.hosts:
                self.hosts[name].tries = 0
            return response
        host = self.hosts.setdefault(name, _Host())
        now = time.monotonic()
        # What was on its way already when the pause began says nothing new.
        if now - request.meta.get("download_latency", 0.0) >= host.until:
            host.tries += 1
            self._pause(host, request, response, now)
        tries = request.meta.get("busy_tries", 0) + 1
        if host.given_up or tries >= self.tries:
            raise HostBusy(host.given_up or f"answered {response.status} at each of {tries} tries")
        again = request.copy()
        again.meta["busy_tries"] = tries
        again.dont_filter = True
        return again

    def _pause(self, host: _Host, request: Any, response: Any, now: float) -> None:
        asked = retry_after(response.headers.get("Retry-After", b"").decode("latin-1"), datetime.now(UTC))
        if asked is not None and asked > self.longest:
            host.given_up = (
                f"answered {response.status} with Retry-After {asked:.0f} s, crawl.max_wait_seconds is {self.longest:g}"
            )
        elif host.tries >= self.tries:
            host.given_up = f"answered {response.status} {host.tries} times in a row"
        wait = asked if asked is not None else FIRST_WAIT_SECONDS * 2.0 ** (host.tries - 1)
        host.until = now + min(wait, self.longest)
        downloader = self.crawler.engine.downloader
        slot = downloader.slots.get(downloader.get_slot_key(request))
        if slot is not None:
            slot.delay = max(slot.delay, SHORTEST_DELAY_SECONDS)
            slot.lastseen = max(slot.lastseen, host.until)


def retry_after(value: str, now: datetime) -> float | None:
    """Return the seconds that a Retry-After field asks for, None where it is missing or makes no sense.

    >>> now = datetime(2026, 1, 1, tzinfo=UTC)
    >>> retry_after("120", now), retry_after("Thu, 01 Jan 2026 00:01:00 GMT", now), retry_after("soon", now)
    (120.0, 60.0, None)
    """
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value[:12])
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, TypeError, OverflowError):
        return None
    return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - now).total_seconds())
