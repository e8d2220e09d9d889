"""Near duplicates of what was taken down: found among the shingle sets of the first pass, before survivors are chosen.

Every document's set is held against the fingerprints in the takedown list, without LSH, so none is missed: a list is
short beside a corpus, and a document shares few shingles with it unless it is a copy. A Jaccard similarity of t needs
t of the document's own shingles in common, so nearly all are put aside by one look-up of their shingles; the rest are
verified one by one.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tasks.contracts.errors import InputError
from tasks.dedup.corpus import Corpus, Keys, Numbers
from tasks.dedup.shingles import Shingles, jaccard
from tasks.dedup.survivors import RULES, Fates
from tasks.rights.takedowns import SHINGLE_WORDS, Fingerprint, Takedowns

logger = logging.getLogger(__name__)

TAKEN_RULE: Final = len(RULES)
"""A fate's rule that says takedown_near; its survivor column then holds the tombstone's id."""
TOMBSTONE_DIGITS: Final = 16
# Documents whose sets are read in one go.
_CHUNK: Final = 1 << 12


@dataclass(frozen=True, slots=True)
class Taken:
    """Documents near to something taken down, in order of their numbers, with the nearest tombstone of each."""

    numbers: Numbers
    tombstones: NDArray[np.uint64]
    similarities: NDArray[np.float64]


NOTHING: Final = Taken(np.zeros(0, np.int64), np.zeros(0, np.uint64), np.zeros(0, np.float64))


def find_taken(corpus: Corpus, takedowns: Takedowns, *, threshold: float, shingle_words: int) -> Taken:
    """Return the documents whose text is one that was taken down, or near to it by `threshold`.

    Raises:
        InputError: the corpus is compared by other shingles than the list holds.
    """
    if not takedowns.fingerprints or not len(corpus):
        return NOTHING
    if shingle_words != SHINGLE_WORDS:
        raise InputError(
            "near duplicates of taken-down pages cannot be found with these shingles",
            where="params.yaml, dedup.shingle_words",
            expected=f"{SHINGLE_WORDS}, as in {len(takedowns.fingerprints)} stored fingerprints",
            found=str(shingle_words),
            fix=f"set dedup.shingle_words to {SHINGLE_WORDS}: the texts may be gone, so they cannot be made anew",
        )
    look = Lookup(takedowns.fingerprints, threshold)
    numbers, tombstones, similarities = [], [], []
    for start in range(0, len(corpus), _CHUNK):
        chosen = np.arange(start, min(start + _CHUNK, len(corpus)))
        records = corpus.documents(chosen)
        for number, record, values in zip(chosen.tolist(), records, corpus.sets(chosen, records), strict=True):
            found = look.nearest(values, int(record["set_size"]), record["text"].tobytes())
            if found is not None:
                numbers.append(number)
                tombstones.append(found[0])
                similarities.append(found[1])
    logger.info("dedup: takedown_near: %d documents", len(numbers))
    return Taken(np.array(numbers, np.int64), np.array(tombstones, np.uint64), np.array(similarities, np.float64))


def text_key(normal: bytes) -> bytes:
    """Return what equal texts share: 128 bits of SHA-256 of the normal form, as the first pass writes them."""
    return hashlib.sha256(normal).digest()[:16]


class Lookup:
    """The fingerprints, arranged for looking a document up.

    Args:
        threshold: Jaccard similarity from which a document is near.
    """

    def __init__(self, fingerprints: tuple[Fingerprint, ...], threshold: float) -> None:
        self.threshold = threshold
        self.fingerprints = fingerprints
        self.sets = [np.frombuffer(one.shingle_bytes(), dtype="<u4") for one in fingerprints]
        self.texts: dict[bytes, int] = {}
        for one in reversed(fingerprints):
            if one.text_sha256:
                self.texts[bytes.fromhex(one.text_sha256)[:16]] = int(one.tombstone, 16)
        owners = np.repeat(np.arange(len(self.sets)), [len(values) for values in self.sets])
        values = np.concatenate(self.sets) if self.sets else np.zeros(0, np.uint32)
        order = np.argsort(values, kind="stable")
        self.values, self.owners = values[order], owners[order]
        self.any_sampled = any(len(v) < f.shingle_count for v, f in zip(self.sets, fingerprints, strict=True))

    def nearest(self, values: Shingles, size: int, text: bytes) -> tuple[int, float] | None:
        """Return the tombstone that a document falls to and its similarity, None where it is near to none.

        Args:
            values: its shingle set, or the smallest of it where there are too many.
            size: how many there are.
            text: its `text_key`.
        """
        same = self.texts.get(text)
        if same is not None:
            return same, 1.0
        if not len(values) or not len(self.values):
            return None
        firsts = np.searchsorted(self.values, values, side="left")
        lasts = np.searchsorted(self.values, values, side="right")
        shared = lasts > firsts
        common = int(shared.sum())
        # What is kept of a very long text is a sample, whose bound is another: those are verified in any case.
        sampled = self.any_sampled or len(values) < size
        if not common or (not sampled and common < self.threshold * len(values)):
            return None
        owners = np.concatenate(
            [self.owners[a:b] for a, b in zip(firsts[shared].tolist(), lasts[shared].tolist(), strict=True)]
        )
        best: tuple[float, int] | None = None
        for owner, count in enumerate(np.bincount(owners).tolist()):
            if not count or (not sampled and count < self.threshold * len(values)):
                continue
            one = self.fingerprints[owner]
            found = jaccard(values, self.sets[owner], left_size=size, right_size=one.shingle_count)
            # The most alike; of equal ones that with the smallest id, whatever the order of the list.
            if found >= self.threshold and (best is None or (found, -int(one.tombstone, 16)) > (best[0], -best[1])):
                best = found, int(one.tombstone, 16)
        return None if best is None else (best[1], best[0])


def without(taken: Taken, groups: NDArray[Any], edges: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the groups and edges in which nothing taken down has a part: it stands for no other document."""
    alive = ~np.isin(edges["left"], taken.numbers) & ~np.isin(edges["right"], taken.numbers)
    return groups[~np.isin(groups["document"], taken.numbers)], edges[alive]


def with_taken(fates: Fates, taken: Taken, corpus: Corpus) -> Fates:
    """Return the fates with those of the taken-down documents behind them."""
    if not len(taken.numbers):
        return fates
    orders: Keys = corpus.documents(taken.numbers)["order"].copy()
    # The last two numbers name the survivor in the decisions; here they name the tombstone.
    orders[:, -2], orders[:, -1] = taken.tombstones, 0
    places = len(fates.numbers) + np.arange(len(taken.numbers))
    return Fates(
        np.concatenate([fates.numbers, taken.numbers]),
        np.concatenate([fates.orders, orders]),
        np.concatenate([fates.survivor, places]),
        np.concatenate([fates.rule, np.full(len(places), TAKEN_RULE, np.int8)]),
        np.concatenate([fates.similarity, taken.similarities]),
    )
