"""One spelling for each URL (RFC 3986, section 6.2), when two are one page's, and which host a pattern names.

Two spellings of one address would be fetched twice, and a page that was taken down would come back by another one.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from urllib.parse import urlsplit

import idna
from w3lib.url import safe_url_string

PORTS = {"http": "80", "https": "443"}
TRACKING = ("utm_*", "gclid", "fbclid", "msclkid")
"""Query parameters that only track who followed a link, as patterns of their names."""
ESCAPED = r"%([0-9A-Fa-f]{2})"
_ESCAPE = re.compile(ESCAPED)
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
    found = _spelled(url, drop_query)
    if found is None or found[0] not in PORTS:
        return None
    scheme, place, path, query = found
    return f"{scheme}://{place}{path}" + (f"?{query}" if query else "")


def page_key(url: str) -> str:
    """Return the form in which two addresses are one page's, which is coarser than the canonical URL.

    The scheme, the order of the query, parameters that only track a visitor and a slash at the path's end do not count.
    What has no host is compared as it stands.

    >>> page_key("HTTP://Docs.Example:80/a%7Eb/?utm_source=x&b=2&a=1#top")
    'docs.example/a~b?a=1&b=2'
    """
    found = _spelled(url, TRACKING)
    if found is None:
        return url.strip()
    _, place, path, query = found
    ordered = "&".join(sorted(part for part in query.split("&") if part))
    return f"{place}{path.rstrip('/') or '/'}" + (f"?{ordered}" if ordered else "")


def _spelled(url: str, drop_query: Sequence[str]) -> tuple[str, str, str, str] | None:
    """Return the scheme, host with port, path and query of a URL in one spelling; None where it has no host."""
    try:
        # First, so that what Scrapy sends is read: it takes a backslash for a slash, as browsers do (WHATWG URL, 4.4).
        parts = urlsplit(safe_url_string(url.strip().translate(_TAKEN_OUT)))
        if not parts.hostname:
            return None
        host = canonical_host(parts.hostname)
        port = str(parts.port or "")
    except ValueError:
        return None
    if host is None or parts.port == 0:
        return None
    scheme = parts.scheme.lower()
    place = host if port in ("", PORTS.get(scheme)) else f"{host}:{port}"
    path = without_dots(percent_form(parts.path) or "/")
    return scheme, place, path, percent_form(without_parameters(parts.query, drop_query))


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
    raw = re.sub(ESCAPED.encode(), lambda found: bytes([int(found[1], 16)]), host.encode())
    return raw.decode("utf-8", "replace")


def percent_form(text: str) -> str:
    """Write %-escapes in capitals, and those of unreserved characters as these (RFC 3986, 6.2.2): %2F is no slash.

    >>> percent_form("a%2fb%7ec")
    'a%2Fb~c'
    """

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


def without_parameters(query: str, drop: Sequence[str]) -> str:
    """Return a query without the parameters that patterns of names such as "utm_*" match."""
    if not query or not drop:
        return query
    kept = [p for p in query.split("&") if not any(fnmatchcase(p.partition("=")[0].lower(), d.lower()) for d in drop)]
    return "&".join(kept)


def host_of(url: str) -> str:
    """Return a URL's host, "" where it has none."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def host_matches(host: str, pattern: str) -> bool:
    """Tell whether a host is one that a setting names: "a.example", "docs-?.example", or "*.example" (and itself).

    >>> [host_matches(host, "*.Docs.example") for host in ("docs.example", "a.docs.example.", "baddocs.example")]
    [True, True, False]
    """
    host, pattern = host.lower().rstrip("."), pattern.lower()
    return fnmatchcase(host, pattern) or host == pattern.removeprefix("*.")


def named(host: str, patterns: Sequence[str]) -> bool:
    """Tell whether a host is among those that some patterns name."""
    return any(host_matches(host, pattern) for pattern in patterns)
