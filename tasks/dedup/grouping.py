"""Phases 2 and 3 of dedup: candidates from the bands, each verified, and one survivor for every dropped document.

Clusters are stars, not connected components: documents are taken in order of preference, each one that is still
there survives, and takes with it those left that have a verified edge to it. So a document is dropped only when
its own similarity to the survivor named beside it was verified. A chain A~B~C with A unlike C, A preferred, keeps
A and C: a takedown of B finds a survivor that really stands for it, and no chain can swallow a whole source, as
connected components over long chains of look-alikes do.

Only pairs of a survivor and a candidate are verified, as no other pair can decide anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tasks.dedup.shingles import jaccard
from tasks.dedup.signatures import Signatures

RULES: Final = ("exact_payload", "exact_text", "near_duplicate")
_NEAR: Final = RULES.index("near_duplicate")


@dataclass(frozen=True, slots=True)
class Grouping:
    """What becomes of each document, in the order of `Signatures`.

    Attributes:
        survivor: the document kept in its place, itself when it stays.
        rule: index into RULES for a dropped document, -1 for a kept one.
        similarity: verified Jaccard to the survivor, 1.0 for a kept one.
        verified: how many pairs were compared.
    """

    survivor: NDArray[np.int64]
    rule: NDArray[np.int8]
    similarity: NDArray[np.float64]
    verified: int

    def cluster_sizes(self) -> NDArray[np.int64]:
        """Return for each document how many have it as their survivor, itself included (0 when dropped)."""
        sizes: NDArray[np.int64] = np.bincount(self.survivor, minlength=len(self.survivor)).astype(np.int64)
        return sizes


@dataclass(frozen=True, slots=True)
class _Buckets:
    """Documents that share a key, for buckets of two and more: members[start:stop] of each (rule, document)."""

    members: NDArray[np.int64]
    document: NDArray[np.int64]
    rule: NDArray[np.int8]
    start: NDArray[np.int64]
    stop: NDArray[np.int64]


def group(signatures: Signatures, *, bands: int, threshold: float) -> Grouping:
    """Find the survivor of every document.

    Args:
        bands: how many bands the signatures have.
        threshold: Jaccard similarity from which two documents are near duplicates.
    """
    count = len(signatures)
    survivor = np.full(count, -1, dtype=np.int64)
    rules = np.full(count, -1, dtype=np.int8)
    similarity = np.ones(count, dtype=np.float64)
    buckets = _fill_buckets(signatures, bands)
    text_codes, _ = signatures.exact_codes("text")
    verified = 0
    firsts = np.searchsorted(buckets.document, np.arange(count + 1))
    for document in range(count):
        if survivor[document] >= 0:
            continue
        survivor[document] = document
        entries = slice(firsts[document], firsts[document + 1])
        if entries.start == entries.stop:
            continue
        for number in range(len(RULES)):
            chosen = np.flatnonzero(buckets.rule[entries] == number) + entries.start
            if not len(chosen):
                continue
            mates = np.unique(np.concatenate([buckets.members[buckets.start[e] : buckets.stop[e]] for e in chosen]))
            mates = mates[survivor[mates] < 0]
            if number == _NEAR:
                mates = _of_like_size(mates, signatures.sizes, document, threshold)
            for mate in mates:
                verified += 1
                same_text = text_codes[mate] == text_codes[document]
                score = 1.0 if same_text else _similarity(signatures, document, int(mate))
                if number == _NEAR and score < threshold:
                    continue
                survivor[mate], rules[mate], similarity[mate] = document, number, score
    return Grouping(survivor=survivor, rule=rules, similarity=similarity, verified=verified)


def _of_like_size(
    mates: NDArray[np.int64], sizes: NDArray[np.int64], document: int, threshold: float
) -> NDArray[np.int64]:
    """Leave out mates that cannot reach the threshold: Jaccard is at most the smaller size over the larger."""
    smaller = np.minimum(sizes[mates], sizes[document])
    larger = np.maximum(sizes[mates], sizes[document])
    return mates[smaller >= threshold * larger]


def _similarity(signatures: Signatures, left: int, right: int) -> float:
    return jaccard(
        signatures.shingles(left),
        signatures.shingles(right),
        left_size=int(signatures.sizes[left]),
        right_size=int(signatures.sizes[right]),
    )


def _fill_buckets(signatures: Signatures, bands: int) -> _Buckets:
    """Group documents by each exact key and each band, by sorting one column at a time."""
    columns: list[tuple[int, NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]] = []
    offset = 0
    for number in range(bands + _NEAR):
        rule = min(number, _NEAR)
        if rule == _NEAR:
            keys: NDArray[np.int64] | NDArray[np.uint64] = signatures.band(number - _NEAR)
            valid = signatures.sizes > 0
        else:
            keys, valid = signatures.exact_codes("payload" if number == 0 else "text")
        members, start, stop = _shared(keys, np.flatnonzero(valid))
        columns.append((rule, members, start + offset, stop + offset))
        offset += len(members)
    members = np.concatenate([column[1] for column in columns])
    order = np.argsort(members, kind="stable")
    return _Buckets(
        members=members,
        document=members[order],
        rule=np.concatenate([np.full(len(column[1]), column[0], dtype=np.int8) for column in columns])[order],
        start=np.concatenate([column[2] for column in columns])[order],
        stop=np.concatenate([column[3] for column in columns])[order],
    )


def _shared(
    keys: NDArray[np.int64] | NDArray[np.uint64], documents: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the documents that share their key with another, bucket by bucket, and each one's bucket bounds."""
    order = documents[np.argsort(keys[documents], kind="stable")]
    borders = np.flatnonzero(keys[order][1:] != keys[order][:-1]) + 1
    sizes = np.diff(np.concatenate([[0], borders, [len(order)]]))
    repeated = np.repeat(sizes, sizes)
    members = order[repeated > 1]
    kept_sizes = sizes[sizes > 1]
    stops = np.cumsum(kept_sizes)
    return members, np.repeat(stops - kept_sizes, kept_sizes), np.repeat(stops, kept_sizes)
