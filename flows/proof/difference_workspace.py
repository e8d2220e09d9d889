"""What only the workspace that made two releases knows of them: their documents one by one, and the code that ran.

A release names no document and no commit: it holds hashes of shards, and identity only. Beside the releases the
workspace keeps the doc_ids of each (flows/history/releases.py) and the run records.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flows.history.releases import DOC_ID_BYTES, documents_file
from flows.history.run_records import latest_record
from flows.proof.release_files import ReleaseFiles

CHUNK_HASHES = 1 << 20
# Bytes compare as the hex digits that they stand for do. numpy leaves out the zeros at the end of such a string when
# it is taken out, but not when two of one length are compared.
_DOC_ID = np.dtype(f"S{DOC_ID_BYTES}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """How many documents two releases have in common, and how many each has alone."""

    both: int
    only_a: int
    only_b: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """On which code a stage's output was made: git commit, whether files differed from it, versions of libraries."""

    commit: str | None
    dirty: bool | None
    versions: Mapping[str, str]

    @property
    def known(self) -> bool:
        """Whether the record says exactly which code ran."""
        return self.commit is not None and self.dirty is False


def overlap(a: ReleaseFiles, b: ReleaseFiles) -> Overlap | None:
    """Compare the documents of two releases by their ids; None unless both were made in this workspace.

    The lists are sorted files. Each piece is mapped by itself, so that 100 million ids take the
    memory of one million.
    """
    lists = [documents_file(release.hashes["release"]) for release in (a, b)]
    if not all(path.is_file() for path in lists):
        return None
    sizes = [path.stat().st_size // DOC_ID_BYTES for path in lists]
    both = begin = 0
    for start in range(0, sizes[0], CHUNK_HASHES):
        first, second = map(_mapped, lists)
        piece = np.asarray(first[start : start + CHUNK_HASHES])
        end = int(np.searchsorted(second, piece[-1:], side="right")[0])
        both += _shared(piece, np.asarray(second[begin:end]))
        begin = end
    return Overlap(both=both, only_a=sizes[0] - both, only_b=sizes[1] - both)


def runs(release: ReleaseFiles) -> dict[str, Run]:
    """Return the newest run of each stage that gave the release's manifests: stage → run, as far as there are records.

    Raises:
        ManifestError: a run record cannot be read.
    """
    found: dict[str, Run] = {}
    for stage, sha256 in release.hashes.items():
        record = latest_record(stage, sha256)
        if record is not None:
            found[stage] = Run(commit=record.code.commit, dirty=record.code.dirty, versions=record.versions)
    return found


def _mapped(path: Path) -> NDArray[Any]:
    return np.memmap(path, dtype=_DOC_ID, mode="r") if path.stat().st_size else np.empty(0, dtype=_DOC_ID)


def _shared(a: NDArray[Any], b: NDArray[Any]) -> int:
    if not len(a) or not len(b):
        return 0
    places = np.minimum(np.searchsorted(b, a), len(b) - 1)
    return int(np.count_nonzero(b[places] == a))
