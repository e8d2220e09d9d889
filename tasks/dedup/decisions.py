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
from tasks.dedup.writing import FATE, PART_CUT
from tasks.engine.shards import ShardWork

# Documents looked at in one go.
_CHUNK = 1 << 16


def write_decisions(
    corpus: Corpus, fates: Fates, cuts: Sequence[Path], work: Sequence[ShardWork], folder: Path
) -> list[ShardWork]:
    """Write each part's fates and cuts, and return the parts with these files as further inputs."""
    folder.mkdir(parents=True)
    decided = _fates(fates)
    order = np.argsort(fates.numbers)
    decided, numbers = decided[order], fates.numbers[order]
    bounds = np.searchsorted(numbers, corpus.starts)
    paired = []
    for part, item in enumerate(work):
        of_part = slice(bounds[part], bounds[part + 1])
        rows = decided[of_part]
        rows["row"] = numbers[of_part] - corpus.starts[part]
        # A document that shares something and neither goes nor stands for another needs no mention.
        contents = [
            rows[(rows["rule"] >= 0) | (rows["cluster"] > 1)].tobytes(),
            _part_cuts(cuts, int(corpus.starts[part]), int(corpus.starts[part + 1])).tobytes(),
        ]
        paths = [folder / f"{item.name}.{name}.bin" for name in ("fates", "cuts")]
        for path, content in zip(paths, contents, strict=True):
            path.write_bytes(content)
        hashes = [hashlib.sha256(content).hexdigest() for content in contents]
        paired.append(
            ShardWork(name=item.name, inputs=(*item.inputs, *paths), input_hashes=(*item.input_hashes, *hashes))
        )
    return paired


def _fates(fates: Fates) -> NDArray[Any]:
    decided = np.zeros(len(fates.numbers), FATE)
    decided["rule"] = fates.rule
    decided["survivor"] = fates.orders[fates.survivor, -2:]
    decided["similarity"] = fates.similarity
    decided["cluster"] = fates.cluster_sizes()
    return decided


def _part_cuts(files: Sequence[Path], start: int, stop: int) -> NDArray[Any]:
    slices = [np.zeros(0, CUT)]
    for path in files:
        if path.stat().st_size:
            cuts = np.memmap(path, dtype=CUT, mode="r")
            first, last = np.searchsorted(cuts["document"], [start, stop])
            slices.append(np.asarray(cuts[first:last]))
    found = np.concatenate(slices)
    found = found[np.lexsort((found["key"], found["document"]))]
    cut = np.zeros(len(found), PART_CUT)
    cut["row"], cut["key"] = found["document"] - np.uint64(start), found["key"]
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
