"""Between the passes: what was decided for the corpus, handed out part by part."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.dedup.corpus import Corpus
from tasks.dedup.frequency import CUT
from tasks.dedup.survivors import Fates
from tasks.dedup.writing import FATE, PART_CUT, Decided
from tasks.engine.shards import ShardWork

# Documents looked at in one go.
_CHUNK = 1 << 16


def write_decisions(
    corpus: Corpus, fates: Fates, cuts: Sequence[Path], work: Sequence[ShardWork], folder: Path
) -> tuple[list[ShardWork], dict[str, Decided]]:
    """Write all fates and all cuts, part after part; return the parts with these two as further inputs, and where.

    Of the two files a part's hashes cover what is its own, so that other parts' decisions do not touch it.
    """
    folder.mkdir(parents=True)
    decided, bounds = _fates(corpus, fates)
    decided.tofile(folder / "fates.bin")
    found = [np.memmap(path, dtype=CUT, mode="r") for path in cuts if path.stat().st_size]
    paired, places, cuts_before = [], {}, 0
    with (folder / "cuts.bin").open("wb") as stream:
        for part, item in enumerate(work):
            own_fates = decided[bounds[part] : bounds[part + 1]]
            own_cuts = _part_cuts(found, int(corpus.starts[part]), int(corpus.starts[part + 1]))
            own_cuts.tofile(stream)
            places[item.name] = Decided(
                first_fate=int(bounds[part]), fates=len(own_fates), first_cut=cuts_before, cuts=len(own_cuts)
            )
            cuts_before += len(own_cuts)
            hashes = (hashlib.sha256(own.tobytes()).hexdigest() for own in (own_fates, own_cuts))
            paired.append(
                ShardWork(
                    name=item.name,
                    inputs=(*item.inputs, folder / "fates.bin", folder / "cuts.bin"),
                    input_hashes=(*item.input_hashes, *hashes),
                )
            )
    return paired, places


def _fates(corpus: Corpus, fates: Fates) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return what is decided, in order of the documents, and where each part's begins."""
    decided = np.zeros(len(fates.numbers), FATE)
    decided["rule"] = fates.rule
    decided["survivor"] = fates.orders[fates.survivor, -2:]
    decided["similarity"] = fates.similarity
    # Survivors are not mentioned: a part stays as it was written when a later one repeats its documents.
    mentioned = np.flatnonzero(decided["rule"] >= 0)
    mentioned = mentioned[np.argsort(fates.numbers[mentioned])]
    decided, numbers = decided[mentioned], fates.numbers[mentioned]
    bounds = np.searchsorted(numbers, corpus.starts)
    decided["row"] = numbers - np.repeat(corpus.starts[:-1], np.diff(bounds))
    return decided, bounds


def _part_cuts(found: Sequence[NDArray[Any]], start: int, stop: int) -> NDArray[Any]:
    slices = [np.zeros(0, CUT)]
    for cuts in found:
        first, last = np.searchsorted(cuts["document"], [start, stop])
        slices.append(np.asarray(cuts[first:last]))
    own = np.concatenate(slices)
    own = own[np.lexsort((own["key"], own["document"]))]
    cut = np.zeros(len(own), PART_CUT)
    cut["row"], cut["key"] = own["document"] - np.uint64(start), own["key"]
    return cut


def mark_kept(corpus: Corpus, fates: Fates, path: Path) -> None:
    """Write one byte a document: 1 for those that no other stands for."""
    with path.open("wb") as stream:
        for start in range(0, len(corpus), _CHUNK):
            np.ones(min(_CHUNK, len(corpus) - start), np.uint8).tofile(stream)
    if len(corpus):
        marks = np.memmap(path, dtype=np.uint8, mode="r+")
        marks[fates.numbers[fates.rule >= 0]] = 0
        marks.flush()


def count_hosts(corpus: Corpus, kept: Path, path: Path) -> None:
    """Write how many surviving documents each host has, as `find_common_blocks` reads it."""
    totals: dict[int, int] = {}
    for start in range(0, len(corpus), _CHUNK):
        numbers = np.arange(start, min(start + _CHUNK, len(corpus)))
        alive = np.fromfile(kept, dtype=np.uint8, count=len(numbers), offset=start) == 1
        hosts, counts = np.unique(corpus.documents(numbers)["host"][alive], return_counts=True)
        for host, count in zip(hosts.tolist(), counts.tolist(), strict=True):
            totals[host] = totals.get(host, 0) + count
    keys = np.array(sorted(totals), dtype=np.uint64)
    counts = np.array([totals[key] for key in sorted(totals)], dtype=np.int64)
    with path.open("wb") as stream:
        np.savez(stream, keys=keys, counts=counts)
