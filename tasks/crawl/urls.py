"""One spelling for each URL (RFC 3986, section 6.2), and the limits that keep a crawl out of traps.

Two spellings of one address would be fetched twice; a calendar or a session id in the path would be fetched for ever.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import lru_cache
from urllib.parse import urlsplit

import idna
from w3lib.url import safe_url_string

from tasks.contracts.warc import host_of
from tasks.rights.takedowns import RULE as TAKEDOWN
from tasks.rights.takedowns import Takedowns

PORTS = {"http": "80", "https": "443"}
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
# What browsers take out of a link before they read it (WHATWG URL, section 4.4).
_TAKEN_OUT = str.maketrans("", "", "\t\n\r")
# A host whose last label is a number is an IPv4 address in one of its odd forms: 2130706433, 0x7f.1, 0177.0.0.1.
_NUMERIC = re.compile(r"(?:.*\.)?(?:\d+|0[xX][0-9A-Fa-f]*)\.?")
# As most links are: nothing to escape, no dots to take out, a name that is no number.
_CANONICAL = re.compile(
    r"https?://(?:[a-z0-9-]{1,60}\.){1,3}[a-z][a-z0-9-]{0,60}"
    r"/(?:[A-Za-z0-9_~-][A-Za-z0-9_~.-]*/)*(?:[A-Za-z0-9_~-][A-Za-z0-9_~.-]*)?"
)
MOST_HOST_CHARACTERS = 1024  # of a host with its escapes; a name has 253 at most (RFC 1035)
_HOST = re.compile(r"[a-z0-9._-]+")


def canonical_url(url: str, drop_query: Sequence[str] = ()) -> str | None:
    """Return the one spelling of a URL of the web, without user name and fragment; None where it is not one.

    Args:
        drop_query: names of query parameters to leave out, such as "utm_*".

    >>> canonical_url("HTTP://Docs.Example:80/a/../%7Ejoe/%c3%a9?#top")
    'http://docs.example/~joe/%C3%A9'
    >>> canonical_url("https://b\u00fccher.example/x?utm_source=mail&id=7", ["utm_*"])
    'https://xn--bcher-kva.example/x?id=7'
    """
    if _CANONICAL.fullmatch(url):
        return url
    try:
        # First, so that what Scrapy sends is read: it takes a backslash for a slash, as browsers do (WHATWG URL, 4.4).
        parts = urlsplit(safe_url_string(url.strip().translate(_TAKEN_OUT)))
        scheme = parts.scheme.lower()
        if scheme not in PORTS or not parts.hostname:
            return None
        host = canonical_host(parts.hostname)
        port = str(parts.port or "")
    except ValueError:
        return None
    if host is None or parts.port == 0:
        return None
    place = host if port in ("", PORTS[scheme]) else f"{host}:{port}"
    query = _kept_query(parts.query, drop_query)
    path = without_dots(_escapes(parts.path) or "/")
    return f"{scheme}://{place}{path}" + (f"?{_escapes(query)}" if query else "")


@lru_cache(maxsize=1 << 14)
def canonical_host(host: str) -> str | None:
    """Return a host in lower case and ASCII, an IP address in its plain form; None where it is no host.

    >>> canonical_host("0x7f.1"), canonical_host("2130706433"), canonical_host("[::FFFF:7F00:1]")
    ('127.0.0.1', '127.0.0.1', '[::ffff:127.0.0.1]')
    """
    if len(host) > MOST_HOST_CHARACTERS:
        return None
    host = _percent_decoded(host).rstrip(".").strip("[]").lower()
    if ":" in host:
        try:
            return f"[{_plain_ipv6(host)}]"
        except ValueError:
            return None
    if _NUMERIC.fullmatch(host):
        try:
            return socket.inet_ntoa(socket.inet_aton(host))
        except OSError:
            return None
    try:
        ascii_host = host if host.isascii() else idna.encode(host, uts46=True).decode()
    except (idna.IDNAError, UnicodeError):
        return None
    if not _HOST.fullmatch(ascii_host) or len(ascii_host) > 253 or not all(ascii_host.split(".")):
        return None
    return ascii_host


def _plain_ipv6(host: str) -> str:
    address = ipaddress.IPv6Address(host.split("%")[0])
    return f"::ffff:{address.ipv4_mapped}" if address.ipv4_mapped else str(address)


def _percent_decoded(host: str) -> str:
    if "%" not in host or ":" in host:
        return host
    raw = re.sub(rb"%([0-9A-Fa-f]{2})", lambda found: bytes([int(found[1], 16)]), host.encode())
    return raw.decode("utf-8", "replace")


def _escapes(text: str) -> str:
    """Write %-escapes in capitals, and those of unreserved characters as the characters they are."""

    def plain(found: re.Match[str]) -> str:
        character = chr(int(found[1], 16))
        return character if character in _UNRESERVED else found[0].upper()

    return _ESCAPE.sub(plain, text) if "%" in text else text


def without_dots(path: str) -> str:
    """Return an absolute path without "." and ".." segments (section 5.2.4).

    >>> without_dots("/a/./b/../../c/"), without_dots("/../x/.")
    ('/c/', '/x/')
    """
    if "/." not in path:
        return path if path.startswith("/") else f"/{path}"
    kept: list[str] = []
    *folders, last = path.split("/")[1:]
    for segment in [*folders, last]:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    ends_in_folder = last in (".", "..")
    return "/" + "/".join([*kept, ""] if ends_in_folder and kept else kept)


def _kept_query(query: str, drop: Sequence[str]) -> str:
    if not query or not drop:
        return query
    kept = [p for p in query.split("&") if not any(fnmatchcase(p.partition("=")[0].lower(), d.lower()) for d in drop)]
    return "&".join(kept)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much of a crawl, of a host and of a URL is allowed; see stage.Params for the fields of the same name."""

    max_pages_per_host: int
    max_depth: int
    max_url_length: int
    max_path_segments: int
    max_repeated_segments: int
    max_query_parameters: int
    max_queries_per_path: int
    takedowns: Takedowns = field(default_factory=Takedowns)
    """Addresses that must not be fetched again."""


class Counted:
    """Counts the URLs taken up by host and by path, and names the limit that one more would break."""

    def __init__(self, limits: Limits, taken: Iterable[str] = ()) -> None:
        self.limits = limits
        self.per_host: Counter[str] = Counter()
        self.per_path: Counter[str] = Counter()
        for url in taken:
            self.add(url)

    def add(self, url: str) -> None:
        """Count a URL as taken up."""
        self.per_host[host_of(url)] += 1
        path, mark, _ = url.partition("?")
        if mark:
            self.per_path[path] += 1

    def refusal(self, url: str, depth: int) -> str | None:
        """Return the rule that keeps a URL out, None where nothing does.

        >>> limits = Limits(max_pages_per_host=9, max_depth=9, max_url_length=60, max_path_segments=6,
        ...                 max_repeated_segments=2, max_query_parameters=2, max_queries_per_path=1)
        >>> counted = Counted(limits, ["http://h.example/find?q=1"])
        >>> [counted.refusal(f"http://h.example/{rest}", 1) for rest in ("a/b/a/b/a", "x?a&b&c", "find?q=2", "ok")]
        ['path_repeats', 'query_parameters', 'query_variants', None]
        """
        limits = self.limits
        if limits.takedowns.covers_address(url, host_of(url)):
            return TAKEDOWN
        if depth > limits.max_depth:
            return "max_depth"
        if len(url) > limits.max_url_length:
            return "url_too_long"
        path, _, query = url.partition("?")
        segments = [segment for segment in path.split("/")[3:] if segment]
        if len(segments) > limits.max_path_segments:
            return "path_too_deep"
        if segments and max(Counter(segments).values()) > limits.max_repeated_segments:
            return "path_repeats"
        if query and query.count("&") + 1 > limits.max_query_parameters:
            return "query_parameters"
        if query and self.per_path[path] >= limits.max_queries_per_path:
            return "query_variants"
        if self.per_host[host_of(url)] >= limits.max_pages_per_host:
            return "max_pages_per_host"
        return None


LIMIT_RULES = frozenset(
    {"max_pages", "max_depth", "max_pages_per_host", "url_too_long", "path_too_deep", "path_repeats",
     "query_parameters", "query_variants", "too_many_links", TAKEDOWN}
)  # fmt: skip
