"""Which documents went into which release: asked by trace and takedown, and kept when the data has long changed.

A release's row is in `.headwater/champions.jsonl` (training/champion.py), with a kept copy of its files. Beside it
stands here, written right after the stage release, `.headwater/lineage/releases/<manifest>/documents.bin`: the sorted
16-byte doc_ids of data/mix, so that a document is looked up in a few reads of a mapped file.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import JsonValue

from tasks.contracts.errors import InputError, ManifestError
from tasks.contracts.files import write_bytes
from tasks.contracts.manifest import manifest_hash, read_manifest, text_shards
from tasks.contracts.workspace import state_folder
from training.champion import champions

logger = logging.getLogger(__name__)

MARK: Final = "takedown.json"
NOTICE: Final = "TAKEDOWN.md"
DOC_ID_BYTES: Final = 16
# Big-endian halves sort as the hex digits do.
_DOC_ID: Final = np.dtype([("high", ">u8"), ("low", ">u8")])


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownRelease:
    """One release that was made in this workspace.

    Attributes:
        manifest_sha256: what it is known by.
        folder: its kept copy.
        takedown: the content of its takedown.json, None where nothing in it was taken down.
    """

    name: str
    manifest_sha256: str
    weights_sha256: str
    folder: Path
    takedown: Mapping[str, JsonValue] | None = None


def documents_file(manifest_sha256: str) -> Path:
    """Return where the doc_ids of a release are kept."""
    return state_folder() / "lineage" / "releases" / manifest_sha256 / "documents.bin"


def remember_release(release: Path, mix: Path) -> None:
    """Keep which documents went into a release; called when it has just been made.

    Args:
        release: the release's folder, its manifest written.
        mix: data/mix as the release was made from.

    Raises:
        ManifestError: `mix` is not what the release was made from.
    """
    made_from = read_manifest(release).inputs.get("mix")
    if made_from != manifest_hash(mix):
        raise ManifestError(
            "the documents of a release cannot be noted: data/mix has changed since",
            where=str(mix),
            expected=f"the manifest {made_from}",
            found=manifest_hash(mix),
            fix="run the pipeline: `headwater run`",
        )
    path = documents_file(manifest_hash(release))
    raw = b"".join(bytes.fromhex("".join(_doc_ids(mix / shard.name))) for shard in text_shards(mix))
    found = np.unique(np.frombuffer(raw, dtype=f"V{DOC_ID_BYTES}").view(_DOC_ID))
    write_bytes(path, found.tobytes())
    logger.debug("release: %d documents noted in %s", len(found), path)


def _doc_ids(shard: Path) -> list[str]:
    names: list[str] = pq.read_table(shard, columns=["doc_id"])["doc_id"].to_pylist()
    return names


def known_releases() -> tuple[KnownRelease, ...]:
    """Return every release that was made in this workspace, oldest first, each once."""
    found: dict[str, KnownRelease] = {}
    for champion in champions():
        found.setdefault(
            champion.release,
            KnownRelease(
                name=champion.name,
                manifest_sha256=champion.release,
                weights_sha256=champion.weights_sha256,
                folder=champion.path,
                takedown=read_mark(champion.path),
            ),
        )
    return tuple(found.values())


def read_mark(folder: Path) -> Mapping[str, JsonValue] | None:
    """Return the takedown mark of a release folder, None where it has none.

    Raises:
        InputError: there is a mark that cannot be read.
    """
    path = folder / MARK
    if not path.is_file():
        return None
    try:
        mark: Any = json.loads(path.read_bytes())
        if not isinstance(mark, dict):
            raise ValueError("it is no JSON object")
    except ValueError as error:
        raise InputError(
            "the takedown mark of a release cannot be read",
            where=str(path),
            found=str(error),
            fix="`headwater takedown apply` writes it again once the file is removed",
        ) from error
    return mark


def holders(doc_ids: Sequence[str]) -> Mapping[str, tuple[KnownRelease, ...]]:
    """Return for each document the releases that hold it, oldest first; none is an empty tuple.

    A release that was made before this was kept has no list here; `missing_lists` names those.
    """
    found: dict[str, list[KnownRelease]] = {doc_id: [] for doc_id in doc_ids}
    asked = np.frombuffer(bytes.fromhex("".join(found)), dtype=_DOC_ID)
    names = list(found)
    for release in known_releases():
        path = documents_file(release.manifest_sha256)
        if not path.is_file() or not path.stat().st_size:
            continue
        kept = np.memmap(path, dtype=_DOC_ID, mode="r")
        for at in np.flatnonzero(_within(kept, asked)):
            found[names[at]].append(release)
    return {doc_id: tuple(releases) for doc_id, releases in found.items()}


def missing_lists() -> tuple[KnownRelease, ...]:
    """Return the releases whose documents were never noted here."""
    return tuple(known for known in known_releases() if not documents_file(known.manifest_sha256).is_file())


def _within(kept: NDArray[Any], asked: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which of `asked` stand in the sorted `kept`."""
    found = np.zeros(len(asked), dtype=np.bool_)
    for at, one in enumerate(asked):
        low, high = 0, len(kept)
        wanted = (int(one["high"]), int(one["low"]))
        while low < high:
            middle = (low + high) // 2
            if (int(kept[middle]["high"]), int(kept[middle]["low"])) < wanted:
                low = middle + 1
            else:
                high = middle
        found[at] = low < len(kept) and (int(kept[low]["high"]), int(kept[low]["low"])) == wanted
    return found
