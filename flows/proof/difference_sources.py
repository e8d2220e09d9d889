"""What differs in where the training text of two releases is from, as their folders say it for machines.

Hosts, domains, languages, licences and opt-out signals stand in sources.json with their sizes, and when the text was
fetched; given files (or the site) stand in prov.jsonld with their SHA-256.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flows.proof.release_files import ReleaseFiles
from tasks.contracts.files import SOURCES_NAME
from tasks.contracts.release import PROV_NAME

LISTS = {"language": "languages", "licence": "licenses", "opt-out": "opt_outs", "domain": "domains", "host": "hosts"}
"""Kinds of source that have sizes → the list of sources.json that they stand in."""
FILE, TIME = "file", "time"
TIMES = {"first": "first_captured", "last": "last_captured"}
KINDS = {**dict.fromkeys(LISTS, SOURCES_NAME), TIME: SOURCES_NAME, FILE: PROV_NAME}
FILE_ID = "urn:headwater:source:sha256:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What one release says of one source: its sizes, or the `value` of a file (SHA-256) or time (RFC 3339, UTC)."""

    documents: int | None = None
    bytes: int | None = None
    tokens: int | None = None
    value: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceChange:
    """One source.

    Attributes:
        kind: one of KINDS; `name` is a host, language, file and so on, or "first" and "last" fetched.
        a, b: what each release says of it, None where it does not name it.
    """

    kind: str
    name: str
    a: Source | None
    b: Source | None

    @property
    def same(self) -> bool:
        """Whether both say the same of it."""
        return self.a == self.b


@dataclass(frozen=True, slots=True, kw_only=True)
class NotTold:
    """What could not be compared: a kind of source that a release does not tell of for machines."""

    kind: str
    release: str
    why: str


def compare_sources(a: ReleaseFiles, b: ReleaseFiles) -> tuple[tuple[SourceChange, ...], tuple[NotTold, ...]]:
    """Return every source that a release names, the largest change of each kind first, and what is not told.

    Raises:
        InputError: a paper that the release lists is missing or damaged.
    """
    told = {"a": _told(a), "b": _told(b)}
    changes: list[SourceChange] = []
    missing: list[NotTold] = []
    for kind, paper in KINDS.items():
        silent = [name for name, sources in told.items() if kind not in sources]
        missing += [NotTold(kind=kind, release=name, why=f"it has no {paper}") for name in silent]
        if silent:
            continue
        first, second = told["a"][kind], told["b"][kind]
        found = [SourceChange(kind=kind, name=n, a=first.get(n), b=second.get(n)) for n in {*first, *second}]
        changes += sorted(found, key=lambda change: (-_size(change), change.name))
    return tuple(changes), tuple(missing)


def _size(change: SourceChange) -> int:
    """Return by how many tokens a source changed."""
    sizes = [0 if one is None else one.tokens or 0 for one in (change.a, change.b)]
    return abs(sizes[1] - sizes[0])


def _told(release: ReleaseFiles) -> Mapping[str, Mapping[str, Source]]:
    """Return what one release tells: kind → name → source."""
    return {**(release.read(SOURCES_NAME, _lists) or {}), **(release.read(PROV_NAME, _files) or {})}


def _lists(value: Any) -> dict[str, dict[str, Source]]:
    found = {
        kind: {
            str(row["name"]): Source(documents=row["documents"], bytes=row["bytes"], tokens=row["tokens"])
            for row in value[listed]
        }
        for kind, listed in LISTS.items()
    }
    found[TIME] = {name: Source(value=str(value[key])) for name, key in TIMES.items() if value[key] is not None}
    return found


def _files(value: Any) -> dict[str, dict[str, Source]]:
    entities = (entity for entity in value["@graph"] if entity["@id"].startswith(FILE_ID))
    return {FILE: {str(entity["label"]): Source(value=str(entity["sha256"])) for entity in entities}}
