"""Lines and paragraphs that stand in too many documents: navigation, notices, boilerplate.

Counted over the documents that survived, so that copies of a page do not make its text look common.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tasks.contracts.manifest import Counts
from tasks.dedup.candidates import preference_order
from tasks.dedup.corpus import Corpus
from tasks.dedup.passages import BLOCK_KINDS, BlockKind
from tasks.engine.shards import ShardWork

CUT: Final = np.dtype([("document", "<u8"), ("key", "<u8")])


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """From when on a block of one kind is cut; None sets no limit.

    Attributes:
        documents: in more documents than this.
        host_share: in more than this share of one host's documents.
    """

    documents: int | None
    host_share: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cutting:
    """How common lines and paragraphs are found and cut."""

    limits: dict[BlockKind, Limits]
    host_documents: int
    keep_one: bool

    def kinds(self) -> tuple[BlockKind, ...]:
        """Return the kinds that are counted."""
        return tuple(kind for kind in BLOCK_KINDS if kind in self.limits)


def find_common_blocks(
    corpus: Corpus,
    ranges: dict[str, tuple[int, int]],
    cutting: Cutting,
    held: int,
    kept: Path,
    hosts: Path,
    work: ShardWork,
    folder: Path,
) -> Counts:
    """Write what to cut from which document, for one range of keys, sorted by document.

    All documents that share one line are in memory together, at about 100 bytes each.

    Args:
        held: entries sorted at a time.
        kept: one byte a document, 1 for those that survived.
        hosts: an .npz of host keys and how many surviving documents each has.
    """
    cuts: list[NDArray[Any]] = [np.zeros(0, CUT)]
    with np.load(hosts) as counts:
        host_keys, host_counts = counts["keys"], counts["counts"]
    for chosen in corpus.ranges(*ranges[work.name], held, keys="line_keys"):
        found = list(corpus.entries(chosen, keys="line_keys"))
        if not found:
            continue
        keys, numbers = map(np.concatenate, zip(*found, strict=True))
        alive = np.memmap(kept, dtype=np.uint8, mode="r")[numbers] == 1
        keys, numbers = keys[alive], numbers[alive]
        order = np.argsort(keys, kind="stable")
        keys, numbers = keys[order], numbers[order]
        frequency = _repeat_counts(keys)
        cuts.append(_cut_common(corpus, keys[frequency > 1], numbers[frequency > 1], cutting, host_keys, host_counts))
    all_cuts = np.concatenate(cuts)
    all_cuts[np.lexsort((all_cuts["key"], all_cuts["document"]))].tofile(folder / f"{work.name}.cuts.bin")
    return Counts(in_=0, out=0)


def _repeat_counts(*columns: NDArray[Any]) -> NDArray[np.int64]:
    """Return for each row of sorted columns how many rows equal it."""
    new = np.ones(len(columns[0]), dtype=np.bool_)
    new[1:] = np.logical_or.reduce([column[1:] != column[:-1] for column in columns])
    group = np.cumsum(new) - 1
    return np.bincount(group)[group] if len(group) else np.zeros(0, np.int64)


def _cut_common(
    corpus: Corpus,
    keys: NDArray[np.uint64],
    numbers: NDArray[np.int64],
    cutting: Cutting,
    host_keys: NDArray[np.uint64],
    host_counts: NDArray[np.int64],
) -> NDArray[Any]:
    """Return what to cut among blocks that stand in two documents at least; rows are sorted by key."""
    if not len(keys):
        return np.zeros(0, CUT)
    known, which = np.unique(numbers, return_inverse=True)
    records = corpus.documents(known)
    preferred = np.empty(len(known), dtype=np.int64)
    preferred[preference_order(records["order"], known)] = np.arange(len(known))
    preference, host = preferred[which], records["host"][which]
    cut = np.zeros(len(keys), dtype=np.bool_)
    for kind, limits in cutting.limits.items():
        of_kind = (keys & np.uint64(1)) == BLOCK_KINDS.index(kind)
        if limits.documents is not None:
            order = np.lexsort((preference, keys))
            common = _repeat_counts(keys[order]) > limits.documents
            if cutting.keep_one:
                common &= ~_first_of_its_kind(keys[order])
            cut[order] |= common & of_kind[order]
        if limits.host_share is not None:
            order = np.lexsort((preference, host, keys))
            of_host = host_counts[np.searchsorted(host_keys, host[order])]
            shared = _repeat_counts(keys[order], host[order])
            common = (shared > 1) & (of_host >= cutting.host_documents) & (shared > limits.host_share * of_host)
            if cutting.keep_one:
                common &= ~_first_of_its_kind(keys[order], host[order])
            cut[order] |= common & of_kind[order]
    cuts = np.zeros(int(cut.sum()), CUT)
    cuts["document"], cuts["key"] = numbers[cut], keys[cut]
    return cuts


def _first_of_its_kind(*columns: NDArray[Any]) -> NDArray[np.bool_]:
    new = np.ones(len(columns[0]), dtype=np.bool_)
    new[1:] = np.logical_or.reduce([column[1:] != column[:-1] for column in columns])
    return new
