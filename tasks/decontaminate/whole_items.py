"""Items too short for n-grams, found whole: an index of their words, in each spelling.

A text is found whole from a few words on (`forms.FEWEST_WORDS`); single words and lone answers stand on too many clean
pages. Candidates come from the hashes of the words, the same for pages as for n-grams; the form is then compared.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.contracts.durable_files import atomic_path
from tasks.decontaminate.characters import Places
from tasks.decontaminate.forms import form_hash
from tasks.decontaminate.hashed_words import Hashes, Located, Units, gram_hashes, partial_sums

ROWS, ANCHORS, LENGTHS, PAIRS = "whole_rows.npy", "whole_anchors.npy", "whole_lengths.npy", "whole_pairs.npy"
FILES = (ROWS, ANCHORS, LENGTHS, PAIRS)

ANCHOR_WORDS = 3
"""A text is looked up by its first words, so many where it has them; then by all of them."""
_PAIR_BITS = 20
_ALONE, _FIRST, _SECOND = 1, 2, 4  # two words that are all of a text; its first and second word; its second and third
_ONE, _PAIR_SHIFT = np.uint64(1), np.uint64(64 - _PAIR_BITS)


class Candidate(NamedTuple):
    """Words `first` up to `end` of a document, which are those of these rows; their operators may differ."""

    first: int
    end: int
    rows: range


@dataclass(frozen=True)
class WholeIndex:
    """One row for each spelling of each short text, in order of the hashes of their words.

    Attributes:
        grams: hashes of all the words.
        forms: hashes of the forms.
        counted: hashes of the texts' own forms, by which they are counted in documents.
        numbers: numbers of the texts.
        plain: 1 where the words are all that there is to compare, as there are neither operators nor numbers at the
            ends; else 0.
        anchors: hashes of the beginnings of texts, sorted; `lengths` says of each how many words such a text has.
        pairs: by 20 bits of two words, what they may be of a text (`_ALONE` and its neighbours): one look at a table
            of 1 MB a word leaves few places of a page to look up.
    """

    grams: Hashes
    forms: Hashes
    counted: Hashes
    numbers: Hashes
    plain: Hashes
    anchors: Hashes
    lengths: NDArray[np.int64]
    pairs: NDArray[np.uint8]

    def candidates(self, units: Units, sums: Hashes) -> list[Candidate]:
        """Look up the texts whose words stand in a document; their operators may differ."""
        if not len(self.grams) or len(units.hashes) < 2:
            return []
        kinds = self.pairs.take(_pairs(units.hashes).view(np.int64))
        (alone,) = (kinds & _ALONE).astype(np.bool_).nonzero()
        (longer,) = (kinds[:-1] & (kinds[1:] >> 1) & _FIRST).astype(np.bool_).nonzero()
        runs = [*self._runs(units, sums, alone, 2), *self._runs(units, sums, longer, ANCHOR_WORDS)]
        if not runs:
            return []
        firsts, ends = np.array(runs).T
        grams = gram_hashes(sums, firsts, ends)
        left, same = _look_up(self.grams, grams)
        right = np.searchsorted(self.grams, grams[same], side="right")
        return [
            Candidate(*places)
            for places in zip(
                firsts[same].tolist(), ends[same].tolist(), map(range, left[same].tolist(), right.tolist()), strict=True
            )
        ]

    def _runs(self, units: Units, sums: Hashes, places: Places, anchor: int) -> list[tuple[int, int]]:
        """Return first word and end of what may be a text, by its first words."""
        if not len(places):
            return []
        left, same = _look_up(self.anchors, gram_hashes(sums, places, places + anchor))
        rows, firsts = left[same], places[same]
        # Of one anchor, all lengths: the first in the next row and so on, until another anchor begins.
        runs: list[tuple[int, int]] = []
        anchors = self.anchors[rows]
        while len(rows):
            ends = firsts + self.lengths[rows]
            runs += zip(firsts.tolist(), ends.tolist(), strict=True)
            rows = rows + 1
            more = rows < len(self.anchors)
            more[more] = self.anchors[rows[more]] == anchors[more]
            rows, firsts, anchors = rows[more], firsts[more], anchors[more]
        return [
            (first, end) for first, end in runs if end <= len(units.hashes) and min(end - first, ANCHOR_WORDS) == anchor
        ]


def _pairs(hashes: Hashes) -> Hashes:
    """Return 20 bits of each word and the one after it."""
    return (hashes[:-1] + (hashes[1:] << _ONE)) >> _PAIR_SHIFT


def _look_up(table: Hashes, hashes: Hashes) -> tuple[Places, NDArray[np.bool_]]:
    left = np.minimum(np.searchsorted(table, hashes), len(table) - 1)
    return left, table[left] == hashes


@dataclass
class WholeTexts:
    """Gathers the texts that are found whole, and writes their index."""

    rows: list[tuple[int, int, int, int, int]] = field(default_factory=list)
    anchors: set[tuple[int, int]] = field(default_factory=set)
    pairs: list[tuple[int, int]] = field(default_factory=list)

    def add(self, number: int, located: Located, form: str, own: str) -> None:
        """Take in a spelling of a text: the text's number, words and form, and the form that the text itself has."""
        units, words = located.units, located.words
        sums = partial_sums(units.hashes)
        ends_in_number = words[0].isdigit() or words[-1].isdigit()
        plain = not ends_in_number and form == " ".join(words)
        length = len(units.hashes)
        ends = np.array([length, min(length, ANCHOR_WORDS)])
        gram, anchor = gram_hashes(sums, np.zeros(2, np.int64), ends).tolist()
        self.rows.append((gram, form_hash(form), form_hash(own), number, plain))
        self.anchors.add((anchor, length))
        first, *others = _pairs(units.hashes[:ANCHOR_WORDS]).tolist()
        self.pairs += [(first, _FIRST), (others[0], _SECOND)] if others else [(first, _ALONE)]

    def write(self, folder: Path) -> None:
        """Write the index."""
        anchors = sorted(self.anchors)
        pairs = np.zeros(1 << _PAIR_BITS, np.uint8)
        for pair, kind in self.pairs:
            pairs[pair] |= kind
        arrays: dict[str, NDArray[np.generic]] = {
            ROWS: np.array(sorted(set(self.rows)), np.uint64).reshape(-1, 5).T.copy(),
            ANCHORS: np.array([anchor for anchor, _ in anchors], np.uint64),
            LENGTHS: np.array([length for _, length in anchors], np.int64),
            PAIRS: pairs,
        }
        for name, array in arrays.items():
            with atomic_path(folder / name) as temporary, temporary.open("wb") as stream:
                np.save(stream, array)


def read_whole(folder: Path) -> WholeIndex:
    """Map what `WholeTexts` wrote into memory."""
    rows, *others = (np.asarray(np.load(folder / name, mmap_mode="r")) for name in FILES)
    return WholeIndex(*rows, *others)
