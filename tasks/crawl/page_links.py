"""What the crawler reads in a page and in a sitemap: links, in time linear in their bytes.

Called beside Twisted's reactor, in a thread, so that one host's big page does not hold the others up.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from urllib.parse import urljoin, urlsplit

from scrapy.utils.sitemap import Sitemap

from tasks.contracts.bodies import ERRORS, GZIP_MAGIC, decompressed
from tasks.contracts.markup import tags
from tasks.contracts.urls import canonical_url, host_of, named
from tasks.rights.robot_words import forbids_following

MOST_LINKS = 50_000  # of a page; and of a sitemap, whose protocol (sitemaps.org) allows no more
MOST_LINK_CHARACTERS = 1 << 14
MOST_SITEMAP_BYTES = 50 << 20  # the same protocol's limit, decompressed
SKIPPED_ENDINGS = (
    ".png", ".jpg", ".jpeg", ".gif", ".svg", ".ico", ".webp", ".css", ".js", ".zip", ".gz", ".bz2", ".xz",
    ".tar", ".whl", ".exe", ".dmg", ".iso", ".mp3", ".mp4", ".avi", ".mov", ".webm", ".woff", ".woff2", ".ttf",
)  # fmt: skip
_BEYOND_ASCII = re.compile(rb"[\x80-\xff]")
_READ = frozenset({"a", "base", "meta"})
# A path that stands in a canonical URL as it stands here: nothing to escape, no dots or empty segments to take out.
_PLAIN_PATH = re.compile(r"/(?:[A-Za-z0-9_~-][A-Za-z0-9_~.-]*/)*(?:[A-Za-z0-9_~-][A-Za-z0-9_~.-]*)?")


@dataclass(slots=True)
class Links:
    """Links of the crawl's own hosts, each once, in order.

    Attributes:
        more: links that were not read, since there are too many.
        too_long: links that were not read, since they are too long.
    """

    urls: list[str] = field(default_factory=list)
    more: int = 0
    too_long: int = 0


def links_of(
    text: str,
    url: str,
    drop_query: Sequence[str],
    allowed: Sequence[str],
    hide: Callable[[str], str] | None = None,
    names: tuple[str, ...] = (),
) -> Links:
    """Return a page's links, none where a meta element says nofollow (or none) to every robot or to this one.

    Args:
        hide: takes out of an absolute link what the server was asked with and may repeat.
        names: of the crawl's own robot.
    """
    base = ""
    hrefs: dict[str, None] = {}
    read = Links()
    for name, attributes in tags(text, _READ):
        href = attributes.get("href", "").strip()
        if name == "meta":
            robot = attributes.get("name", "").strip().lower()
            if robot in ("robots", *names) and forbids_following(attributes.get("content", ""), (robot,), robot):
                return Links()
        elif name == "base":
            base = base or href
        elif not href or "nofollow" in attributes.get("rel", ""):
            continue
        elif len(href) > MOST_LINK_CHARACTERS:
            read.too_long += 1
        elif len(hrefs) < MOST_LINKS or href in hrefs:
            hrefs[href] = None
        else:
            read.more += 1
    read.urls = _taken(hrefs, absolute_link(url, base) or url, drop_query, allowed, hide)
    return read


def sitemap_links(
    body: bytes,
    url: str,
    most_bytes: int,
    drop_query: Sequence[str],
    allowed: Sequence[str],
    hide: Callable[[str], str] | None = None,
) -> tuple[str, Links]:
    """Return a sitemap's kind ("urlset", "sitemapindex") and what it lists.

    Args:
        hide: as of `links_of`.

    Raises:
        ValueError: it is no sitemap.
    """
    if body.startswith(GZIP_MAGIC):
        try:
            body = decompressed(body, "gzip", min(MOST_SITEMAP_BYTES, 10 * most_bytes)).content
        except ERRORS as error:
            raise ValueError(str(error)) from error
    try:
        sitemap = Sitemap(body)
        kind = str(sitemap.type)
        locations = [entry["loc"] for entry in islice(sitemap, MOST_LINKS) if entry.get("loc")]
    except (StopIteration, SyntaxError) as error:
        raise ValueError(str(error) or "no element in it") from error
    more = max(0, body.count(b"loc>") // 2 - MOST_LINKS)
    short = {location: None for location in locations if len(location) <= MOST_LINK_CHARACTERS}
    too_long = sum(len(location) > MOST_LINK_CHARACTERS for location in locations)
    return kind, Links(_taken(short, url, drop_query, allowed, hide), more, too_long)


def _taken(
    links: Iterable[str],
    base: str,
    drop_query: Sequence[str],
    allowed: Sequence[str],
    hide: Callable[[str], str] | None,
) -> list[str]:
    """Return the canonical URLs of links that belong to the crawl and may be pages."""
    urls: dict[str, None] = {}
    belongs: dict[str, bool] = {}
    canonical_base = canonical_url(base)
    place = "" if canonical_base is None else "/".join(canonical_base.split("/", 3)[:3])
    for link in links:
        if place and hide is None and _PLAIN_PATH.fullmatch(link):
            url: str | None = place + link
        else:
            absolute = absolute_link(base, link)
            url = None if absolute is None else canonical_url(absolute if hide is None else hide(absolute), drop_query)
        if url is None or url in urls or urlsplit(url).path.lower().endswith(SKIPPED_ENDINGS):
            continue
        host = host_of(url)
        if host not in belongs:
            belongs[host] = named(host, allowed)
        if belongs[host]:
            urls[url] = None
    return list(urls)


def absolute_link(base: str, link: str) -> str | None:
    """Return an absolute link, None where it is none."""
    try:
        return urljoin(base, link)
    except ValueError:
        return None


def location_of(field: bytes) -> str:
    """Return a Location as an address: bytes beyond ASCII, which should not be there, go back as they came.

    They are UTF-8 on nearly every server, else whatever it will read again itself; browsers do the same.

    >>> location_of("/straße".encode()), location_of("/straße".encode("latin-1"))
    ('/stra%C3%9Fe', '/stra%DFe')
    """
    return _BEYOND_ASCII.sub(lambda byte: b"%%%02X" % byte[0][0], field).decode("ascii")
