"""What a page says about itself: title, author, date of publication, licence.

Read from meta elements (HTML, Open Graph, Dublin Core, schema.org), JSON-LD, and links that name a licence. What a
person could only guess from the text, such as an author in a byline, is not guessed here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tasks.rights.licences import absolute, is_licence, is_terms, licence_name, marked_licence, target_of

HEAD_TAGS = frozenset({"meta", "link", "title", "script", "base"})
MAX_CHARACTERS = 500
MAX_JSON_CHARACTERS = 200_000

TITLES = ("og:title", "twitter:title", "citation_title", "dc.title", "dcterms.title", "title", "headline")
AUTHORS = (
    "author",
    "article:author",
    "citation_author",
    "dc.creator",
    "dcterms.creator",
    "parsely-author",
    "sailthru.author",
)
DATES = (
    "article:published_time",
    "og:article:published_time",
    "datepublished",
    "citation_publication_date",
    "citation_date",
    "dc.date",
    "dcterms.created",
    "dcterms.date",
    "dc.date.issued",
    "parsely-pub-date",
    "sailthru.date",
    "pubdate",
    "publishdate",
    "date",
)
LICENCES = ("license", "dc.rights", "dcterms.license")
_DATE = re.compile(r"(\d{4})-?(\d{2})-?(\d{2})")
_BETWEEN_TITLE_AND_SITE = re.compile(r" [|–—·•»:-] ")  # the title's white space is single spaces


@dataclass(slots=True)
class Head:
    """The elements that speak about the page, wherever they stand in it.

    Attributes:
        licenses: targets of the links in the text that are marked as the licence.
        terms: targets of links to RSL terms: what they reserve is no licence, whatever else names it so.
        base: to which the page says that its links are relative, empty where it does not.
        json_ld: the scripts of type application/ld+json.
    """

    metas: list[Mapping[str, str]] = field(default_factory=list)
    links: list[Mapping[str, str]] = field(default_factory=list)
    licenses: list[str] = field(default_factory=list)
    terms: set[str] = field(default_factory=set)
    json_ld: list[str] = field(default_factory=list)
    title: str = ""
    base: str = ""

    def take(self, tag: str, attributes: Mapping[str, str]) -> list[str] | None:
        """Take note of an element; a list means that the caller collects its text into it, for `finish`."""
        if tag == "meta":
            self.metas.append(attributes)
        elif tag == "link":
            self.links.append(attributes)
            self.take_licence(attributes, in_text=False)
        elif tag == "base":
            self.base = self.base or (attributes.get("href") or "").strip()
        elif (tag == "title" and not self.title) or (tag == "script" and "ld+json" in attributes.get("type", "")):
            return []
        return None

    def take_licence(self, attributes: Mapping[str, str], *, in_text: bool = True) -> None:
        """Take note of a link that may lead to the page's licence, or to terms that are none."""
        if is_terms(attributes):
            self.terms.add(target_of(attributes))
        elif in_text and (target := marked_licence(attributes)) is not None:
            self.licenses.append(target)

    def finish(self, tag: str, text: str) -> None:
        """Take note of the text of an element."""
        if tag == "title":
            self.title = self.title or " ".join(text.split())
        elif tag == "script":
            self.json_ld.append(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """What a page says about itself; None where it does not.

    Attributes:
        published: the day of publication, "2026-01-31".
        license: its name, or its address, which is relative to the page's own where the page says it so.
    """

    title: str | None = None
    author: str | None = None
    published: str | None = None
    license: str | None = None


def head_of(tree: Any) -> Head:
    """Return what a page's lxml tree says about the page."""
    head = Head()
    for element in tree.iter(*HEAD_TAGS):
        if head.take(element.tag, element.attrib) is not None:
            head.finish(element.tag, element.text or "")
    for link in tree.iterfind(".//a[@rel]"):
        head.take_licence(link.attrib)
    return head


def metadata_of(head: Head, heading: str | None = None) -> Metadata:
    """Return what a page says about itself.

    Args:
        heading: the text of the page's only h1 element, if it has one.
    """
    said = _metas(head)
    author = next((said[name] for name in AUTHORS if name in said and not said[name].startswith("http")), None)
    published = next((day for name in DATES if name in said and (day := _day(said[name]))), None)
    if head.json_ld and (author is None or published is None):
        found_author, found_day = _from_json_ld(head.json_ld)
        author, published = author or found_author, published or found_day
    title = next((said[name] for name in TITLES if name in said), None) or heading or _without_site(head.title)
    return Metadata(
        title=_short(title), author=_short(author), published=published, license=_short(_license(head, said))
    )


def _metas(head: Head) -> dict[str, str]:
    """Return the first content of each meta element's name, property or itemprop."""
    said: dict[str, str] = {}
    for meta in head.metas:
        content = (meta.get("content") or "").strip()
        name = meta.get("property") or meta.get("name") or meta.get("itemprop")
        if content and name:
            said.setdefault(name.strip().lower(), content)
    return said


def _short(text: str | None) -> str | None:
    return " ".join(text.split())[:MAX_CHARACTERS] or None if text else None


def _without_site(title: str) -> str:
    """Return a title element's text without the site's name, which is mostly the shorter part.

    >>> _without_site("How rivers meet the sea | The Coast")
    'How rivers meet the sea'
    """
    return max(_BETWEEN_TITLE_AND_SITE.split(title), key=len) if title else ""


def _day(text: str) -> str | None:
    """Return the day of a date that begins as ISO 8601 does, None for another form or an impossible day.

    >>> _day("2026-01-31T23:59:00+02:00"), _day("20260131"), _day("31/01/26"), _day("2026-13-01")
    ('2026-01-31', '2026-01-31', None, None)
    """
    match = _DATE.match(text.strip().replace("/", "-"))
    if match is None:
        return None
    try:
        return datetime(int(match[1]), int(match[2]), int(match[3]), tzinfo=UTC).date().isoformat()
    except ValueError:
        return None


def _license(head: Head, said: Mapping[str, str]) -> str | None:
    targets = [*head.licenses, *(target for link in head.links if (target := marked_licence(link)) is not None)]
    for target in filter(is_licence, targets):
        if target not in head.terms:
            return licence_name(absolute(target, head.base))
    named = (said[name] for name in LICENCES if name in said and said[name] not in head.terms)
    return next((licence_name(one) for one in named if is_licence(one)), None)


def _from_json_ld(scripts: Iterable[str]) -> tuple[str | None, str | None]:
    """Return author and day of publication from schema.org descriptions."""
    author = published = None
    for script in scripts:
        if len(script) > MAX_JSON_CHARACTERS or ("datePublished" not in script and '"author"' not in script):
            continue
        try:
            found: Any = json.loads(script, strict=False)
        except (ValueError, RecursionError):
            continue
        for thing in _things(found):
            if author is None:
                author = _names(thing.get("author"))
            if published is None and isinstance(thing.get("datePublished"), str):
                published = _day(thing["datePublished"])
    return author, published


def _things(found: Any) -> Iterable[Mapping[str, Any]]:
    for thing in found if isinstance(found, list) else [found]:
        if isinstance(thing, dict):
            yield thing
            graph = thing.get("@graph")
            if isinstance(graph, list):
                yield from (item for item in graph if isinstance(item, dict))


def _names(author: Any) -> str | None:
    people = author if isinstance(author, list) else [author]
    names = [person.get("name") if isinstance(person, dict) else person for person in people]
    return "; ".join(name.strip() for name in names if isinstance(name, str) and name.strip()) or None
