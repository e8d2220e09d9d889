"""Forward: from a URL, host, document, WARC record or payload to all that became of it, from the files alone.

Every answer is read from the rows themselves: the trace index only says where they stand.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow.parquet as pq

from flows.history.releases import KnownRelease, holders
from flows.history.trace_index import Index, Kind, Place
from flows.proof.trace_captures import Capture, read_captures, read_record
from flows.proof.trace_training import Seen, Training, open_training, weights_sha256
from tasks.contracts.document import make_doc_id
from tasks.contracts.errors import ManifestError
from tasks.contracts.files import HELD_OUT_FOLDER, STEPS_NAME, VALIDATION_NAME
from tasks.contracts.manifest import read_manifest
from tasks.contracts.urls import canonical_host, canonical_url
from tasks.rights.evidence import CONTENT_TYPE
from tasks.rights.robots import ROBOTS_TXT

MOST_CANDIDATES = 10_000
DEEPEST_SURVIVOR = 10
ROBOTS_RULES = ("robots", "crawl_delay")
HELD_OUT_RULE = "held_out"
KIND_NAMES: Mapping[Kind, str] = {
    "document": "doc_id",
    "record": "WARC record id",
    "url": "URL",
    "digest": "payload digest",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What one stage did to one document, and the row that says so.

    Attributes:
        action: "kept", "held out" (kept apart for evaluation), or the ledger's "drop", "edit" or "note".
        scores: what the stage measured of a document that it kept, as far as earlier stages had not.
        file: the file in the stage's folder, and `row` the row in it, counted from 0.
    """

    stage: str
    action: str
    file: str
    row: int
    rule: str | None = None
    score: float | None = None
    threshold: float | None = None
    survivor_id: str | None = None
    detail: str | None = None
    scores: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenPlace:
    """Where one copy of a document stands in a token shard (counted in tokens), and the steps that saw it."""

    shard: str
    offset: int
    length: int
    epoch: int
    seen: tuple[Seen, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldBy:
    """A release that holds a document; `takedown` is the mark of a takedown on it, where there is one."""

    name: str
    manifest_sha256: str
    weights_sha256: str
    takedown: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicate:
    """A document that was dropped in favour of another."""

    doc_id: str | None
    url: str | None
    stage: str
    rule: str
    score: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One document or, where a page never became one, the URL or record that stands for it."""

    doc_id: str | None = None
    record_id: str | None = None
    url: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentTrace:
    """All that became of one document.

    Attributes:
        survivor_of: the dropped document in whose stead this one was kept, where it was not asked for itself.
        facts: title, language, licence, opt-out signals and source, as extract wrote them.
        tuned: of an example, the steps of the adaptation that learnt from it.
        duplicates: documents that were dropped in favour of this one (the first of `duplicate_count`).
        outcome: how it ended, in a line.
    """

    subject: Subject
    survivor_of: str | None
    facts: Mapping[str, Any]
    events: tuple[Event, ...]
    tokens: tuple[TokenPlace, ...] = ()
    tuned: tuple[int, ...] = ()
    duplicates: tuple[Duplicate, ...] = ()
    duplicate_count: int = 0
    releases: tuple[HeldBy, ...] = ()
    outcome: str = ""

    @property
    def dropped(self) -> Event | None:
        """The row that dropped it, None where it went on to the token shards."""
        return next((event for event in reversed(self.events) if event.action == "drop"), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherRecord:
    """A WARC record that is no capture of a page, such as a robots.txt."""

    record_id: str
    url: str
    warc: str
    offset: int
    captured_at: str | None
    content_type: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingFacts:
    """The training run that the steps are of; `problem` says why there are none to show."""

    steps: int = 0
    ranks: int = 0
    weights_sha256: str = ""
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """The answer to one query.

    Attributes:
        matched: what the query was found as: "URL", "doc_id", …; empty where nothing was found.
        total: how many documents match; `documents` holds the first of them, and their survivors.
    """

    query: str
    matched: tuple[str, ...]
    total: int
    captures: tuple[Capture, ...]
    records: tuple[OtherRecord, ...]
    documents: tuple[DocumentTrace, ...]
    training: TrainingFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class HostTrace:
    """What became of a host: rows by stage, action and rule, and its first documents."""

    query: str
    host: str
    counts: Mapping[str, Mapping[str, int]]
    documents: tuple[DocumentTrace, ...]
    training: TrainingFacts


class Tracer:
    """Answers queries from a workspace's files through its trace index."""

    def __init__(self, index: Index, data: Path) -> None:
        self.index = index
        self.data = data
        self.training: Training | None = None
        self.training_facts = TrainingFacts(problem="there is no finished training run here")
        try:
            self.training = open_training(data)
        except ManifestError as error:
            self.training_facts = TrainingFacts(problem=error.problem)
        if self.training is not None:
            order = self.training.order
            self.training_facts = TrainingFacts(
                steps=order.steps, ranks=order.ranks, weights_sha256=weights_sha256(data)
            )

    def trace(self, query: str, limit: int = 20) -> Trace | HostTrace:
        """Return what is known under a name, whatever kind of name it is; a host only where nothing else is meant."""
        query = query.strip()
        host = self._host(query)
        return self.trace_host(query, host, limit) if host else self.trace_names(query, limit)

    def trace_names(self, query: str, limit: int = 20) -> Trace:
        """Return what is known under a URL, doc_id, WARC record id or payload digest."""
        matched: dict[str, None] = {}
        subjects: dict[Subject, None] = {}
        captures: dict[tuple[str, int], Capture] = {}
        records: dict[tuple[str, int], OtherRecord] = {}
        for kind, names in self._spellings(query).items():
            places = self.index.find(kind, names, MOST_CANDIDATES)
            rows = self.index.read(place for place in places if place.content != "warc")
            for row in rows.values():
                if self._is(kind, row, names):
                    matched[KIND_NAMES[kind]] = None
                    subjects[_subject(row, self.index.source)] = None
            in_warc = [place for place in places if place.content == "warc"]
            for capture in read_captures(self.index, in_warc):
                if _same(kind, capture.url, capture.record_id, capture.payload_digest, names):
                    matched[KIND_NAMES[kind]] = None
                    captures[capture.warc, capture.offset] = capture
                    subjects[Subject(doc_id=capture.doc_id, record_id=capture.record_id, url=capture.url)] = None
            for record, about in self._other_records(in_warc):
                if _same(kind, record.url, record.record_id, None, names):
                    matched[KIND_NAMES[kind]] = None
                    records[record.warc, record.offset] = record
                    if about is not None:
                        subjects[Subject(doc_id=make_doc_id(self.index.source, about), record_id=about)] = None
        distinct = _distinct(subjects)
        documents = self.trace_documents(distinct[:limit])
        for document in documents:
            captures |= self._captures(document.subject)
            if any(event.stage == "crawl" and event.rule in ROBOTS_RULES for event in document.events):
                records |= self._robots_txt(document.subject.url or "")
        return Trace(
            query=query,
            matched=tuple(matched),
            total=len(distinct),
            captures=tuple(captures[key] for key in sorted(captures)),
            records=tuple(records[key] for key in sorted(records)),
            documents=tuple(documents),
            training=self.training_facts,
        )

    def trace_host(self, query: str, host: str, limit: int = 20) -> HostTrace:
        """Return the counts of a host and its first documents."""
        counts: dict[str, dict[str, int]] = {}
        for stage, part in self.index.parts.items():
            found = part.tally(host)
            if found:
                counts[stage] = {f"{action} {rule}".strip(): number for (action, rule), number in sorted(found.items())}
        subjects: dict[Subject, None] = {}
        stages = list(self.index.parts)
        for stage in sorted(stages, key=lambda name: (name == "crawl", stages.index(name))):
            if len(subjects) < limit:
                part = self.index.parts[stage]
                rows = part.read(part.find("host", [host], limit))
                subjects |= dict.fromkeys(_subject(row, self.index.source) for row in rows.values())
        return HostTrace(
            query=query,
            host=host,
            counts=counts,
            documents=tuple(self.trace_documents(_distinct(subjects)[:limit], survivors=False)),
            training=self.training_facts,
        )

    def trace_documents(self, subjects: Sequence[Subject], *, survivors: bool = True) -> list[DocumentTrace]:
        """Return the chain of each document and, after it, those of the survivors of what was dropped for them."""
        found = self._chains(subjects, survivor_of={})
        known = {document.subject.doc_id for document in found}
        newest = found
        for _ in range(DEEPEST_SURVIVOR if survivors else 0):
            wanted = {
                event.survivor_id: document.subject.doc_id or document.subject.url or ""
                for document in newest
                for event in document.events
                if event.survivor_id and event.survivor_id not in known
            }
            if not wanted:
                break
            newest = self._chains([Subject(doc_id=doc_id) for doc_id in wanted], survivor_of=wanted)
            known |= set(wanted)
            found = [*found, *newest]
        return found

    def _chains(self, subjects: Sequence[Subject], survivor_of: Mapping[str, str]) -> list[DocumentTrace]:
        places = self.index.find("document", [s.doc_id for s in subjects if s.doc_id])
        places += self.index.find("record", [s.record_id for s in subjects if s.record_id])
        places += self.index.find("url", [s.url for s in subjects if s.url and not s.doc_id], MOST_CANDIDATES)
        rows = self.index.read({place for place in places if place.content != "warc"})
        by_subject: dict[str, list[tuple[Place, dict[str, Any]]]] = {}
        for place, row in rows.items():
            by_subject.setdefault(_key(_subject(row, self.index.source)), []).append((place, row))
        held = holders([subject.doc_id for subject in subjects if subject.doc_id])
        return [
            self._chain(subject, by_subject.get(_key(subject), []), survivor_of.get(subject.doc_id or ""), held)
            for subject in subjects
        ]

    def _chain(
        self,
        subject: Subject,
        rows: Sequence[tuple[Place, dict[str, Any]]],
        survivor_of: str | None,
        held: Mapping[str, Sequence[KnownRelease]],
    ) -> DocumentTrace:
        events: list[Event] = []
        facts: dict[str, Any] = {}
        scores: dict[str, float] = {}
        order = {stage: number for number, stage in enumerate(self.index.parts)}
        for place, row in sorted(rows, key=lambda item: (order[item[0].stage], item[0].content != "ledger", item[0])):
            subject = _merged(subject, row)
            if place.content == "ledger":
                said = ("action", "rule", "score", "threshold", "survivor_id", "detail")
                events.append(
                    Event(stage=place.stage, file=place.file, row=place.at, **{name: row[name] for name in said})
                )
            elif place.content == "documents":
                measured = {name: value for name, value in dict(row["scores"]).items() if scores.get(name) != value}
                scores |= measured
                facts = {name: row[name] for name in ("source", "title", "language", "license", "opt_out")}
                facts["captured_at"] = row["captured_at"]
                action = "held out" if place.file.startswith(HELD_OUT_FOLDER) else "kept"
                events.append(Event(stage=place.stage, action=action, file=place.file, row=place.at, scores=measured))
        tokens = tuple(
            self._token_place(place, row) for place, row in sorted(rows, key=_token_order) if place.content == "tokens"
        )
        document = DocumentTrace(
            subject=subject,
            survivor_of=survivor_of,
            facts=facts,
            events=tuple(events),
            tokens=tokens,
            tuned=self._tuned(subject.doc_id),
            releases=tuple(
                HeldBy(
                    name=release.name,
                    manifest_sha256=release.manifest_sha256,
                    weights_sha256=release.weights_sha256,
                    takedown=bool(release.takedown),
                )
                for release in held.get(subject.doc_id or "", ())
            ),
        )
        duplicates, count = self._duplicates(subject)
        document = replace(document, duplicates=duplicates, duplicate_count=count)
        return replace(document, outcome=self._outcome(document))

    def _tuned(self, doc_id: str | None) -> tuple[int, ...]:
        path = self.data / "adapt" / STEPS_NAME
        if doc_id is None or not path.is_file():
            return ()
        return tuple(pq.read_table(path, filters=[("doc_id", "=", doc_id)])["step"].to_pylist())

    def _token_place(self, place: Place, row: Mapping[str, Any]) -> TokenPlace:
        shard = place.file.removesuffix(".parquet") + ".bin"
        seen = self.training.seen(shard, row["offset"], row["length"]) if self.training is not None else []
        return TokenPlace(shard=shard, offset=row["offset"], length=row["length"], epoch=row["epoch"], seen=tuple(seen))

    def _duplicates(self, subject: Subject, most: int = 20) -> tuple[tuple[Duplicate, ...], int]:
        if not subject.doc_id:
            return (), 0
        places = self.index.find("survivor", [subject.doc_id], MOST_CANDIDATES)
        rows = self.index.read(places[:most])
        found = [row for row in rows.values() if row["survivor_id"] == subject.doc_id]
        names = ("doc_id", "url", "stage", "rule", "score")
        return tuple(Duplicate(**{name: row[name] for name in names}) for row in found), len(places) if found else 0

    def _outcome(self, document: DocumentTrace) -> str:
        trained = [token for token in document.tokens if token.shard != VALIDATION_NAME]
        dropped = document.dropped
        if trained:
            length = sum(token.length for token in trained)
            steps = {seen.step for token in trained for seen in token.seen}
            seen = sum(one.tokens for token in trained for one in token.seen)
            if steps:
                count = "one step" if len(steps) == 1 else f"{len(steps):,} steps"
                return f"in training: {seen:,} of its tokens seen, in {count} ({length:,} stand in shards)"
            return f"in the token shards ({length:,} tokens), and no step saw it: training ended before"
        if document.tuned:
            return f"tuned on, in {len(document.tuned):,} of the adaptation's steps"
        if dropped is not None and dropped.rule == HELD_OUT_RULE:
            return "held out for evaluation; not in training"
        if dropped is not None:
            return f"dropped by {dropped.stage}: {dropped.rule}"
        kept = [event.stage for event in document.events if event.action == "kept"]
        return (
            f"kept up to {kept[-1]}; the stages after it have not run on it"
            if kept
            else "stored, and no stage has run on it"
        )

    def _captures(self, subject: Subject) -> dict[tuple[str, int], Capture]:
        if not subject.record_id:
            return {}
        places = [place for place in self.index.find("record", [subject.record_id]) if place.content == "warc"]
        found = [one for one in read_captures(self.index, places) if one.record_id == subject.record_id]
        return {(capture.warc, capture.offset): capture for capture in found}

    def _robots_txt(self, url: str) -> dict[tuple[str, int], OtherRecord]:
        """Return the robots.txt by which a URL was not fetched."""
        parts = urlsplit(url)
        name = f"{parts.scheme}://{parts.netloc}{ROBOTS_TXT}"
        places = [place for place in self.index.find("url", [name], MOST_CANDIDATES) if place.content == "warc"]
        found = [record for record, _ in self._other_records(places) if record.url == name]
        return {(record.warc, record.offset): record for record in found}

    def _other_records(self, places: Iterable[Place]) -> list[tuple[OtherRecord, str | None]]:
        """Return the metadata records at these places; for what was seen of a page, also the record of the page."""
        found: list[tuple[OtherRecord, str | None]] = []
        for place in places:
            record = read_record(self.index.parts[place.stage].data / place.file, place.at)
            headers = record.headers
            if headers.get("WARC-Type") != "metadata":
                continue
            evidence = headers.get("Content-Type") == CONTENT_TYPE
            other = OtherRecord(
                record_id=record.record_id or "",
                url=headers.get("WARC-Target-URI") or "",
                warc=place.file,
                offset=place.at,
                captured_at=headers.get("WARC-Date"),
                content_type=headers.get("Content-Type"),
            )
            found.append((other, headers.get("WARC-Refers-To") if evidence else None))
        return found

    def _host(self, query: str) -> str | None:
        if "/" in query or "<" in query:
            return None
        names = dict.fromkeys(filter(None, (query, query.lower(), canonical_host(query))))
        return next((name for name in names if any(part.tally(name) for part in self.index.parts.values())), None)

    def _spellings(self, query: str) -> dict[Kind, list[str]]:
        """Return the names under which a query may stand, by kind, the surest first."""
        crawl = self.index.parts.get("crawl")
        dropped = read_manifest(crawl.data).params.get("drop_query") if crawl else None
        patterns = [str(one) for one in dropped] if isinstance(dropped, list) else []
        written = [query] if "://" in query else [query, f"http://{query}", f"https://{query}"]
        spelled = [canonical_url(url, drop) for url in written if "://" in url for drop in ((), patterns)]
        bare = query.removeprefix("<").removesuffix(">")
        return {
            "document": [query.lower()],
            "record": list(dict.fromkeys([query, f"<{bare}>", f"<urn:uuid:{bare}>"])),
            "url": list(dict.fromkeys([*written, *filter(None, spelled)])),
            "digest": [query],
        }

    def _is(self, kind: Kind, row: Mapping[str, Any], names: Sequence[str]) -> bool:
        if kind == "document":
            return row.get("doc_id") in names
        return _same(kind, row.get("url"), row.get("record_id"), row.get("payload_digest"), names)


def _same(kind: Kind, url: str | None, record_id: str | None, digest: str | None, names: Sequence[str]) -> bool:
    if kind == "url":
        return url is not None and (url in names or canonical_url(url) in names)
    return (record_id if kind == "record" else digest) in names


def _subject(row: Mapping[str, Any], source: str) -> Subject:
    """Return what a row is about; a row of the crawl that names a record only is about the document of that record."""
    doc_id, record_id = row.get("doc_id"), row.get("record_id")
    if doc_id is None and record_id:
        doc_id = make_doc_id(source, record_id)
    return Subject(doc_id=doc_id, record_id=record_id, url=row.get("url"))


def _merged(subject: Subject, row: Mapping[str, Any]) -> Subject:
    return Subject(
        doc_id=subject.doc_id,
        record_id=subject.record_id or row.get("record_id"),
        url=subject.url or row.get("url"),
    )


def _key(subject: Subject) -> str:
    return subject.doc_id or f"{subject.record_id or ''} {subject.url or ''}"


def _distinct(subjects: Iterable[Subject]) -> list[Subject]:
    """Return each document once, by the row that says most of it."""
    found: dict[str, Subject] = {}
    for subject in subjects:
        known = found.get(_key(subject))
        found[_key(subject)] = (
            subject
            if known is None
            else replace(known, record_id=known.record_id or subject.record_id, url=known.url or subject.url)
        )
    return list(found.values())


def _token_order(item: tuple[Place, Mapping[str, Any]]) -> tuple[str, int]:
    return (item[0].file, item[0].at)
