"""What rules measured of a shard's documents, kept so that another threshold measures nothing again.

A row a document: what each rule of the list gave, in the list's order, as far as the document came. Kept in the shard
cache under a key without thresholds; a looser threshold lets documents come further, and what is measured then is
added. It decides no output: whatever is missing is measured.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from itertools import repeat
from pathlib import Path

import pyarrow as pa
from pydantic import JsonValue

from tasks.contracts.base import Drop, Edit, Measured
from tasks.contracts.document import parquet_writer, read_rows
from tasks.contracts.durable_files import write_json
from tasks.contracts.manifest import Counts
from tasks.engine.shards import cached, new_entry

_SCHEMA = pa.schema([pa.field("measured", pa.list_(pa.string()), nullable=False)])
_COUNTS = "counts.json"
_ROWS_AT_ONCE = 1000


@dataclass(slots=True)
class Known:
    """What is known of one document, by the place of the rule in the list: as JSON, null where it is not kept."""

    texts: list[str | None] = field(default_factory=list)

    def of(self, place: int) -> Measured | None:
        """Return what the rule at this place measured before."""
        text = self.texts[place] if place < len(self.texts) else None
        return None if text is None else _from_json(text)

    def add(self, place: int, measured: Measured | None) -> None:
        """Remember what the rule at this place, the first that is not known, or one that was not kept, measured."""
        self.texts[place : place + 1] = [None if measured is None else _to_json(measured)]


@dataclass(slots=True)
class Tally:
    """How many documents each rule measured now, and of how many it was known before, by the rules' names."""

    measured: Counter[str] = field(default_factory=Counter)
    known: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        """Return both by rule: "length 0 of 40, c4 5 of 31" where c4 met 26 documents that it had measured before."""
        names = dict.fromkeys([*self.measured, *self.known])
        return ", ".join(f"{name} {self.measured[name]} of {self.measured[name] + self.known[name]}" for name in names)


@contextmanager
def kept_measurements(place: Path, name: str, tally: Tally) -> Iterator[Iterator[Known]]:
    """Give what is known of each document of a part, in order; what it has become in the end is written in its place.

    Args:
        place: in the shard cache.
        name: the part's.
        tally: is written beside it.
    """
    path = place / f"{name}.parquet"
    before = (list(row["measured"]) for row in read_rows(path, _SCHEMA)) if cached(place) else repeat(())
    with new_entry(place) as entry:
        with parquet_writer(entry.folder / path.name, _SCHEMA) as writer:
            rows: list[Known] = []

            def write() -> None:
                entry.counts += Counts(in_=len(rows), out=len(rows))
                writer.write_table(pa.Table.from_pylist([{"measured": known.texts} for known in rows], schema=_SCHEMA))
                rows.clear()

            def documents() -> Iterator[Known]:
                for texts in before:
                    if len(rows) == _ROWS_AT_ONCE:
                        write()
                    rows.append(Known(list(texts)))
                    yield rows[-1]

            yield documents()
            write()
        write_json(entry.folder / _COUNTS, {"measured": dict(tally.measured), "known": dict(tally.known)})


def tallies(places: Sequence[Path]) -> Tally:
    """Return how much was measured when these shards were made last, and how much was known."""
    total = Tally()
    for place in places:
        counts: Mapping[str, Mapping[str, int]] = json.loads((place / _COUNTS).read_bytes())
        total.measured.update(counts["measured"])
        total.known.update(counts["known"])
    return total


def _to_json(measured: Measured) -> str:
    values = {name: float(value) for name, value in measured.values.items()}
    return json.dumps([values, measured.detail, _answer_as_json(measured.otherwise)])


def _answer_as_json(answer: Drop | Edit | None) -> JsonValue:
    """Return an answer's kind and fields; its numbers are Python's, whatever kind a rule gave."""
    if answer is None:
        return None
    kind = Drop if isinstance(answer, Drop) else Edit
    given = {one.name: getattr(answer, one.name) for one in fields(kind)}
    numbers = {name: float(given[name]) for name in ("score", "threshold") if given.get(name) is not None}
    return [kind.__name__, {**given, **numbers}]


def _from_json(text: str) -> Measured:
    values, detail, answer = json.loads(text)
    if answer is None:
        return Measured(values=values, detail=detail)
    kind, given = answer
    return Measured(values=values, detail=detail, otherwise=Drop(**given) if kind == Drop.__name__ else Edit(**given))
