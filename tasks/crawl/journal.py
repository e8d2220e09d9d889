"""What a crawl in progress knows: append-only journals beside WARC files, so that a killed crawl goes on.

Each crawler process writes one journal (JSON lines) and one WARC file. A journal line is written after the bytes
it speaks of, so whatever a WARC file holds behind the last line's end was not finished and is cut off.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.crawl.frontier import Beyond

_KEPT = ("offset", "length", "record", "digest", "kind", "when", "response")
TAKEN, FAR, DONE, PAGE, NOTE = "taken", "far", "done", "page", "note"
BEYOND, COUNTED = "beyond", "counted"
PASSING = frozenset({"dns", "timeout", "connection", "not_fetched", "host_busy"})
"""Rules of failures that another try may not meet. What our own rules refuse (an address, a certificate, robots.txt, a
scheme, a limit) is refused again."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page's records stand: file name, first byte, length; of a page, also what its response is.

    Attributes:
        record: the record's id.
        digest: of the payload; `kind` is its media type, `when` the record's date.
        response: where the response's member begins, counted from the first byte.
    """

    file: str
    offset: int
    length: int
    record: str = ""
    digest: str = ""
    kind: str = ""
    when: str = ""
    response: int = 0


@dataclass(slots=True)
class Progress:
    """The journals of one crawl, read together.

    Attributes:
        depth: every URL taken up → links from a seed to it.
        outcome: URLs that gave no page → (rule, detail).
        passing: those of them that another try may give.
        pages: stored URLs → where.
        notes: record id of a robots.txt file, another policy file or a sitemap → (URL, where).
        far: URLs found by a process that does not own their host → depth.
        beyond: (host, rule) → links that were counted only.
    """

    depth: dict[str, int] = field(default_factory=dict)
    outcome: dict[str, tuple[str, str]] = field(default_factory=dict)
    passing: set[str] = field(default_factory=set)
    pages: dict[str, Place] = field(default_factory=dict)
    notes: dict[str, tuple[str, Place]] = field(default_factory=dict)
    far: dict[str, int] = field(default_factory=dict)
    beyond: dict[tuple[str, str], Beyond] = field(default_factory=dict)

    def open_urls(self) -> dict[str, int]:
        """Return the URLs still to fetch, with their depth."""
        urls = dict(self.depth)
        for url, depth in self.far.items():
            urls.setdefault(url, depth)
        return {url: depth for url, depth in urls.items() if url not in self.pages and url not in self.outcome}


class Journal:
    """One process's journal, open for appending."""

    def __init__(self, path: Path) -> None:
        self.stream = path.open("a", encoding="utf-8")

    def add(self, event: str, url: str, **more: Any) -> None:
        """Append one line, at once visible to a reader."""
        self.stream.write(json.dumps({"event": event, "url": url, **more}) + "\n")
        self.stream.flush()

    def add_beyond(self, beyond: Mapping[tuple[str, str], Beyond]) -> None:
        """Append how many links were counted only, so far."""
        for (place, rule), counted in beyond.items():
            self.add(BEYOND, counted.url, place=place, rule=rule, links=counted.links)

    def sync(self) -> None:
        """Flush to the disk."""
        os.fsync(self.stream.fileno())


def read_progress(folder: Path) -> Progress:
    """Read every journal of a crawl, and cut WARC files at their last finished record."""
    progress = Progress()
    counted_only: set[str] = set()
    for path in sorted(folder.glob("*.jsonl")):
        warc = path.with_suffix(".warc.gz")
        size = warc.stat().st_size if warc.exists() else 0
        finished = 0
        beyond: dict[tuple[str, str], Beyond] = {}
        for line in _lines(path):
            url = line["url"]
            match line["event"]:
                case "taken":
                    progress.depth[url] = line["depth"]
                case "far":
                    progress.far[url] = min(line["depth"], progress.far.get(url, line["depth"]))
                case "done":
                    progress.outcome[url] = (line["rule"], line["detail"])
                    (progress.passing.add if line.get("passing") else progress.passing.discard)(url)
                case "counted":
                    counted_only.add(url)
                case "beyond":  # each line holds the number so far
                    beyond[line["place"], line["rule"]] = Beyond(url, line["links"])
                case "page" | "note" if line["offset"] + line["length"] <= size:
                    place = Place(warc.name, **{key: line[key] for key in _KEPT if key in line})
                    if line["event"] == PAGE:
                        progress.pages[url] = place
                    else:
                        progress.notes[place.record] = (url, place)
                    finished = max(finished, place.offset + place.length)
        for key, counted in beyond.items():
            progress.beyond.setdefault(key, Beyond(counted.url)).links += counted.links
        if finished < size:
            os.truncate(warc, finished)
    progress.far = {url: depth for url, depth in progress.far.items() if url not in counted_only}
    return progress


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as stream:
        for line in stream:
            if line.endswith("\n"):
                yield json.loads(line)
