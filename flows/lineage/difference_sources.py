"""What differs in where the training text of two releases is from, as far as their folders say it for machines.

| of a source | stands in | with |
| --- | --- | --- |
| languages | eu_ai_act_summary.json | documents and tokens of each |
| domains | eu_ai_act_summary.json, the largest ones | documents and bytes of each |
| licences | croissant.json | their names |
| given files, the site | prov.jsonld | SHA-256 of each |
| when it was fetched | prov.jsonld | first and last time |

Hosts, and the figures of licences, stand in data_card.md alone, which is written for people and is not read here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flows.lineage.release_files import ReleaseFiles

SUMMARY, CROISSANT, PROV = "eu_ai_act_summary.json", "croissant.json", "prov.jsonld"
LANGUAGE, DOMAIN, LICENCE, FILE, TIME = "language", "domain", "licence", "file", "time"
KINDS = {LANGUAGE: SUMMARY, DOMAIN: SUMMARY, LICENCE: CROISSANT, FILE: PROV, TIME: PROV}
# The tables of the summary, by the head of their first column.
TABLES = {"language": ("documents", "tokens"), "domain": ("documents", "bytes")}
FILE_ID = "urn:headwater:source:sha256:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What one release says of one source; None is what its folder does not say."""

    documents: int | None = None
    bytes: int | None = None
    tokens: int | None = None
    value: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceChange:
    """One source.

    Attributes:
        kind: one of KINDS; `name` is a language, domain, licence or file, or "first" and "last" fetched.
        a, b: what each release says of it, None where it does not name it.
        perhaps: the release that does not name it lists its largest ones only, so it may hold some of it.
    """

    kind: str
    name: str
    a: Source | None
    b: Source | None
    perhaps: bool = False

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


@dataclass(frozen=True, slots=True)
class _Told:
    """What one release tells of its sources: kind → name → source, and the kinds of which it lists only the largest."""

    sources: Mapping[str, Mapping[str, Source]]
    cut: frozenset[str]


def compare_sources(a: ReleaseFiles, b: ReleaseFiles) -> tuple[tuple[SourceChange, ...], tuple[NotTold, ...]]:
    """Return every source that a release names, the largest change first, and what a release does not tell of.

    Raises:
        InputError: a paper that the release lists is missing or damaged.
    """
    told = {"a": _told(a), "b": _told(b)}
    changes: list[SourceChange] = []
    missing: list[NotTold] = []
    for kind, paper in KINDS.items():
        silent = [name for name, one in told.items() if kind not in one.sources]
        for name in silent:
            listed = paper in (a if name == "a" else b).listed
            why = f"{paper} has no such table" if listed else f"it has no {paper}"
            missing.append(NotTold(kind=kind, release=name, why=why))
        if silent:
            continue
        first, second = told["a"].sources[kind], told["b"].sources[kind]
        found = [
            SourceChange(
                kind=kind,
                name=name,
                a=first.get(name),
                b=second.get(name),
                perhaps=(name not in first and kind in told["a"].cut) or (name not in second and kind in told["b"].cut),
            )
            for name in {*first, *second}
        ]
        changes += sorted(found, key=lambda change: (-_size(change), change.name))
    return tuple(changes), tuple(missing)


def _size(change: SourceChange) -> int:
    """Return by how much a source changed: in bytes or tokens, whichever is told."""
    sizes = [0 if one is None else one.bytes or one.tokens or 0 for one in (change.a, change.b)]
    return abs(sizes[1] - sizes[0])


def _told(release: ReleaseFiles) -> _Told:
    documents = release.manifests["mix"].counts.out if "mix" in release.manifests else None
    tables = release.read(SUMMARY, _tables) or {}
    sources: dict[str, Mapping[str, Source]] = {**tables}
    # The summary names the largest domains only: all of them, where their documents are all there are.
    cut = {kind for kind, rows in tables.items() if sum(source.documents or 0 for source in rows.values()) != documents}
    licences = release.read(CROISSANT, _licences)
    if licences is not None:
        sources[LICENCE] = licences
    origin = release.read(PROV, _origin)
    if origin is not None:
        sources |= origin
    return _Told(sources, frozenset(cut))


def _tables(value: Any) -> dict[str, dict[str, Source]]:
    found: dict[str, dict[str, Source]] = {}
    for section in value["sections"]:
        for item in section["items"]:
            kind = item["headers"][0] if item["headers"] else None
            if kind in TABLES and tuple(item["headers"][1:3]) == TABLES[kind]:
                found[kind] = {str(row[0]): _row(TABLES[kind], row) for row in item["rows"]}
    return found


def _row(columns: Sequence[str], row: Sequence[Any]) -> Source:
    figures = dict(zip(columns, map(int, row[1:3]), strict=True))
    return Source(documents=figures["documents"], bytes=figures.get("bytes"), tokens=figures.get("tokens"))


def _licences(value: Any) -> dict[str, Source]:
    return {str(name): Source() for name in value["license"]}


def _origin(value: Any) -> dict[str, dict[str, Source]]:
    files = {
        str(entity["label"]): Source(value=str(entity["sha256"]))
        for entity in value["@graph"]
        if entity["@id"].startswith(FILE_ID)
    }
    times = {
        name: Source(value=str(entity[key]))
        for entity in value["@graph"]
        for name, key in (("first", "firstCaptured"), ("last", "lastCaptured"))
        if key in entity
    }
    return {FILE: files, TIME: times}
