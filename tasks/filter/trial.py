"""Try one filter on real documents: what it would drop or edit alone, and what is left for it after the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pyarrow.parquet as pq

from tasks.contracts.base import Drop, Edit
from tasks.contracts.document import Document, read_documents
from tasks.contracts.errors import InputError
from tasks.contracts.files import PARQUET_PARTS
from tasks.contracts.manifest import MANIFEST_NAME, read_whole
from tasks.filter.loading import LoadedFilter
from tasks.filter.stage import answer, apply, as_applied, scores_of

AROUND = 90  # characters shown on each side


@dataclass(frozen=True, slots=True, kw_only=True)
class Excerpt:
    """A place in a text: what the rule means, what stands in its place after an edit, and what is around."""

    before: str
    found: str
    after: str
    becomes: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One document that the filter drops or edits when it is asked alone.

    Attributes:
        marginal: whether it would still do so after the others, which keep the document.
    """

    action: Literal["drop", "edit"]
    rule: str
    url: str
    score: float | None
    threshold: float | None
    detail: str | None
    marginal: bool
    excerpt: Excerpt


@dataclass(slots=True)
class Effect:
    """What a filter does to the documents that it is asked about."""

    asked: int = 0
    dropped: int = 0
    edited: int = 0
    rules: Counter[str] = field(default_factory=Counter)

    def add(self, reason: Drop | Edit | None) -> None:
        """Count one answer."""
        self.asked += 1
        self.dropped += isinstance(reason, Drop)
        self.edited += isinstance(reason, Edit)
        if reason is not None:
            self.rules[reason.rule] += 1

    @property
    def kept(self) -> int:
        """Documents that it leaves as they are."""
        return self.asked - self.dropped - self.edited


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A filter's effect alone, and on what the others keep; each document that it touches alone is a case."""

    alone: Effect
    after: Effect
    cases: Sequence[Case]


def attempt(loaded: LoadedFilter, others: Sequence[LoadedFilter], documents: Iterator[Document]) -> Trial:
    """Ask a filter about each document, and again about what the others leave of it."""
    alone, after = Effect(), Effect()
    cases = []
    for document in documents:
        scored = document.with_scores(scores_of([loaded, *others], document))
        reason = as_applied(answer(loaded, scored))
        alone.add(reason)
        left = next((kept for kept in apply(iter([scored]), filters=others) if isinstance(kept, Document)), None)
        later = None
        if left is not None:
            later = as_applied(answer(loaded, left))
            after.add(later)
        if reason is not None:
            cases.append(_case(document, reason, marginal=later is not None))
    return Trial(alone=alone, after=after, cases=cases)


def sample(shards: Path, most: int) -> tuple[list[Document], int]:
    """Return at most `most` documents, evenly spread over a folder's shards or one shard, and how many there are.

    Raises:
        InputError: there are no shards.
    """
    if (shards / MANIFEST_NAME).is_file():
        read_whole(shards)
    parts = sorted(shards.glob(PARQUET_PARTS)) if shards.is_dir() else [shards] if shards.is_file() else []
    if not parts:
        raise InputError(
            "there are no documents to try a filter on",
            where=str(shards),
            expected=f"a folder with {PARQUET_PARTS}, or one such file",
            found="an empty folder" if shards.is_dir() else "nothing",
            fix="`headwater run --until extract` makes data/extract, or name another folder with --input",
        )
    total = sum(_rows(part) for part in parts)
    wanted = {index * total // min(most, total) for index in range(min(most, total))}
    chosen: list[Document] = []
    start = 0
    for part in parts:
        size = _rows(part)
        if not wanted.isdisjoint(range(start, start + size)):
            chosen += [document for row, document in enumerate(read_documents(part), start) if row in wanted]
        start += size
    return chosen, total


def _rows(part: Path) -> int:
    try:
        return int(pq.read_metadata(part).num_rows)
    except (OSError, ValueError) as error:
        raise InputError(
            "a shard cannot be read", where=str(part), expected="a Parquet file", found=str(error).splitlines()[0]
        ) from error


def _case(document: Document, reason: Drop | Edit, *, marginal: bool) -> Case:
    edit = isinstance(reason, Edit)
    return Case(
        action="edit" if edit else "drop",
        rule=reason.rule,
        url=document.url,
        score=reason.score,
        threshold=reason.threshold if isinstance(reason, Drop) else None,
        detail=reason.detail,
        marginal=marginal,
        excerpt=edited_place(document.text, reason.text)
        if isinstance(reason, Edit)
        else meant_place(document.text, reason.detail or ""),
    )


def meant_place(text: str, detail: str) -> Excerpt:
    """Return where a drop's detail stands in the text, or the text's beginning where it stands nowhere."""
    name, _, _ = detail.partition(" ")
    for needle in (detail.removesuffix("…"), name):
        place = text.lower().find(needle.lower()) if len(needle) > 2 else -1
        if place >= 0 and len(text.lower()) == len(text):
            end = place + len(needle)
            return Excerpt(
                before=text[max(0, place - AROUND) : place], found=text[place:end], after=text[end : end + AROUND]
            )
    return Excerpt(before="", found="", after=text[: 2 * AROUND])


def edited_place(old: str, new: str) -> Excerpt:
    """Return the first line that an edit removed or changed, and what became of it.

    >>> edited_place("One line.\\nMail a@b.example now.\\nEnd.", "One line.\\nMail <email> now.\\nEnd.").becomes
    '<email>'
    >>> edited_place("One line.\\nHome | About\\nEnd.", "One line.\\nEnd.").found
    'Home | About\\n'
    """
    before, after = old.split("\n"), new.split("\n")
    pairs = zip(before, after, strict=False)
    at = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(before), len(after)))
    start = sum(len(line) + 1 for line in before[:at])
    if at >= len(before):
        return Excerpt(before=old[-AROUND:], found="", after="", becomes=new[len(old) :][:AROUND])
    line = before[at]
    becomes: str | None = None
    end = start + len(line) + 1
    if at < len(after) and after[at] not in before:
        changed = after[at]
        left = _shared(line, changed)
        right = _shared(line[left:][::-1], changed[left:][::-1])
        end = start + len(line) - right
        start += left
        becomes = changed[left : len(changed) - right]
    return Excerpt(
        before=old[max(0, start - AROUND) : start],
        found=old[start : min(end, start + 2 * AROUND)],
        after=old[end : end + AROUND],
        becomes=becomes,
    )


def _shared(one: str, other: str) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def effect_as_json(effect: Effect) -> Mapping[str, object]:
    """Return an effect as plain values, its rules by frequency."""
    return {
        "asked": effect.asked,
        "kept": effect.kept,
        "edited": effect.edited,
        "dropped": effect.dropped,
        "rules": dict(sorted(effect.rules.items(), key=lambda item: (-item[1], item[0]))),
    }
