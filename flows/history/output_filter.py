"""What a marked release may not say: passages of taken-down text, known by their hashed shingles.

The mark of a release (`takedown.json`) holds, under `filter`, what `takedown apply` knows each taken-down text by: the
sorted 32-bit hashes of its runs of five words, as in infra/takedowns.fingerprints.jsonl and as dedup makes them, so
case, white space, punctuation and Unicode form make no difference. No text can be read from it, though who guesses a
passage can see that it is one.

A passage is `IN_A_ROW` different shingles of one text, one after the other: 12 words, and at least `FEWEST_CHARACTERS`
characters. Shingles that many other documents have (licences, boilerplate) are neutral: they neither count nor end a
row. So are those of a very long text of which only a sample of hashes is kept; there a passage is longer by as much.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from pydantic import Field, JsonValue, ValidationError

from tasks.contracts.base import FrozenModel
from tasks.contracts.errors import InputError
from tasks.contracts.normal_form import normal_bytes
from tasks.contracts.release import TAKEDOWN_MARK_NAME
from tasks.contracts.scripts import NO_SPACE_SCRIPTS
from tasks.dedup.shingles import shingles_in_order, word_bytes
from tasks.rights.takedowns import SHINGLE_WORDS, Fingerprint

FORMAT: Final = 1
IN_A_ROW: Final = 8
FEWEST_CHARACTERS: Final = 40
COMMON_DOCUMENTS: Final = 10
"""A shingle that more other documents than this have says nothing about what was taken down."""

_LARGEST: Final = (1 << 32) - 1
# Between white space; of scripts without spaces each character, with the marks that are part of it.
_CHUNK: Final = re.compile(
    f"[{NO_SPACE_SCRIPTS}][\u0300-\u036f\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u3099\u309a]*|[^\\s{NO_SPACE_SCRIPTS}]+"
)

Hashes = npt.NDArray[np.uint32]


class FilteredText(FrozenModel):
    """One taken-down text: the fields of its `Fingerprint` that are needed."""

    tombstone: str = Field(pattern=r"^[0-9a-f]{16}$")
    shingles: str
    shingle_count: int


class Filter(FrozenModel):
    """`filter` in a release's takedown.json."""

    format: int = FORMAT
    shingle_words: int = SHINGLE_WORDS
    common: str = ""
    """Base64 of the sorted hashes of shingles that many other documents have, 4 bytes each, little-endian."""
    texts: tuple[FilteredText, ...] = ()


def make_filter(fingerprints: Iterable[Fingerprint], tombstones: Iterable[str], common: Hashes) -> dict[str, JsonValue]:
    """Return the filter for the texts of some tombstones.

    Args:
        common: hashes of shingles that many other documents have.
    """
    wanted = set(tombstones)
    texts = {
        FilteredText(tombstone=one.tombstone, shingles=one.shingles, shingle_count=one.shingle_count)
        for one in fingerprints
        if one.tombstone in wanted and one.shingles
    }
    held = [_numbers(one.shingles) for one in texts]
    shared = np.intersect1d(common, np.concatenate(held)) if held else np.zeros(0, np.uint32)
    made = Filter(
        common=base64.b64encode(shared.astype("<u4").tobytes()).decode(),
        texts=tuple(sorted(texts, key=lambda one: (one.tombstone, one.shingles))),
    )
    return made.model_dump(mode="json")


def read_filter(mark: Mapping[str, Any], where: str = TAKEDOWN_MARK_NAME) -> OutputFilter:
    """Return the filter of a release's mark.

    Raises:
        InputError: the mark has none, or one of another form: what it names could not be withheld.
    """
    fix = "`headwater takedown apply` in the workspace that made it writes it again"
    if "filter" not in mark:
        raise InputError("the takedown mark of a release has no output filter", where=where, fix=fix)
    try:
        described = Filter.model_validate(mark["filter"])
        if (described.format, described.shingle_words) != (FORMAT, SHINGLE_WORDS):
            raise ValueError(f"format {described.format} with shingles of {described.shingle_words} words")
        return OutputFilter(described)
    except (ValidationError, ValueError) as error:
        raise InputError(
            "the output filter of a release cannot be read",
            where=where,
            expected=f"format {FORMAT} with shingles of {SHINGLE_WORDS} words",
            found=str(error).splitlines()[0],
            fix=fix,
        ) from error


def _numbers(encoded: str) -> Hashes:
    return np.frombuffer(base64.b64decode(encoded, validate=True), "<u4").astype(np.uint32)


class OutputFilter:
    """The taken-down texts of a release, arranged for looking shingles up."""

    def __init__(self, described: Filter) -> None:
        held = [_numbers(one.shingles) for one in described.texts]
        self.tombstones = [one.tombstone for one in described.texts]
        # Of a very long text the smallest hashes are kept: one above them may be in it or not.
        self.bounds = [
            int(hashes[-1]) if len(hashes) < one.shingle_count else _LARGEST
            for hashes, one in zip(held, described.texts, strict=True)
        ]
        values = np.concatenate([*held, np.zeros(0, np.uint32)])
        owners = np.repeat(np.arange(len(held)), [len(hashes) for hashes in held])
        order = np.argsort(values, kind="stable")
        self.values, self.owners = values[order], owners[order]
        self.common = _numbers(described.common)

    def owners_of(self, hashes: Hashes) -> list[list[int]]:
        """Return for each hash the texts that have it."""
        firsts, stops = (np.searchsorted(self.values, hashes, side=side) for side in ("left", "right"))
        return [self.owners[a:b].tolist() for a, b in zip(firsts.tolist(), stops.tolist(), strict=True)]


@dataclass(slots=True)
class _Row:
    first: int
    different: set[int]


class Withholder:
    """Lets an output through as it comes, but no part of a taken-down passage.

    What may be the beginning of one is held back until it is known: some five words, more within a row.

    Attributes:
        tombstone: whose text a passage was of; nothing is let through any more then.
    """

    def __init__(self, filter_: OutputFilter) -> None:
        self.filter = filter_
        self.tombstone: str | None = None
        self._held = ""

    def push(self, text: str) -> str:
        """Take more of the output and return what may leave."""
        return self._pass(text, last=False)

    def finish(self) -> str:
        """Return what may leave of the rest; the output has ended."""
        return self._pass("", last=True)

    def _pass(self, text: str, *, last: bool) -> str:
        if self.tombstone is not None:
            return ""
        self._held += text
        chunks = [match.span() for match in _CHUNK.finditer(self._held)]
        # The last one may become longer, and another word.
        whole = chunks if last else chunks[:-1]
        words = [_words(self._held[begin:end]) for begin, end in whole]
        chunk_of = [number for number, some in enumerate(words) for _ in range(some.count(b" ") + 1 if some else 0)]
        hashes = shingles_in_order(b" ".join(filter(None, words)), size=SHINGLE_WORDS)
        passage, held_from = self._look(hashes, [whole[number] for number in chunk_of])
        if passage is not None:
            begin = whole[chunk_of[held_from]][0]
            self.tombstone = self.filter.tombstones[passage]
        elif last:
            begin = len(self._held)
        elif held_from < len(chunk_of):
            begin = whole[chunk_of[held_from]][0]
        else:
            begin = chunks[-1][0] if chunks else len(self._held)
        passed, self._held = self._held[:begin], self._held[begin:]
        return passed

    def _look(self, hashes: Hashes, places: list[tuple[int, int]]) -> tuple[int | None, int]:
        """Return the text of which a passage stands here, if one does, and the first word that must be held back."""
        rows: dict[int, _Row] = {}
        neutral = np.isin(hashes, self.filter.common)
        for at, (number, owners) in enumerate(zip(hashes.tolist(), self.filter.owners_of(hashes), strict=True)):
            if neutral[at]:
                continue
            for owner in [one for one in rows if one not in owners and number <= self.filter.bounds[one]]:
                del rows[owner]
            for owner in owners:
                row = rows.setdefault(owner, _Row(at, set()))
                row.different.add(number)
                characters = places[at + SHINGLE_WORDS - 1][1] - places[row.first][0]
                if len(row.different) >= IN_A_ROW and characters >= FEWEST_CHARACTERS:
                    return owner, row.first
        # Words that no whole shingle begins with yet.
        undecided = max(len(places) - SHINGLE_WORDS + 1, 0)
        return None, min([undecided, *(row.first for row in rows.values())])


@lru_cache(maxsize=1 << 14)
def _words(chunk: str) -> bytes:
    return b" ".join(word_bytes(normal_bytes(chunk)).split())


def withheld_by(filter_: OutputFilter, text: str) -> tuple[str, str | None]:
    """Return what may leave of a whole text, and the tombstone of the passage before which it ends, if there is one."""
    withholder = Withholder(filter_)
    passed = withholder.push(text) + withholder.finish()
    return passed, withholder.tombstone
