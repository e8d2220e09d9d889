"""Which documents went into which release: asked by trace and takedown, and kept when the data has long changed.

A release's row is in `.headwater/champions.jsonl` (`training.champions`), with a kept copy of its files.
Beside it stands here, written right after the stage release, `.headwater/lineage/releases/<manifest>/documents.bin`:
the sorted 16-byte doc_ids of data/mix, so that a document is looked up in a few reads of a mapped file;
`held_out.bin`, the same of the documents whose text stands in the release's own `tasks/`, to be scored on; and
`names.parquet`, by which a takedown finds documents in a release whose data is on no disk any more.
"""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import JsonValue

from flows.history.run_records import records_on_disk
from tasks.contracts.base_release import BASE_FOLDER
from tasks.contracts.document import parquet_writer
from tasks.contracts.durable_files import write_bytes
from tasks.contracts.errors import InputError, ManifestError
from tasks.contracts.files import DROPPED_FOLDER
from tasks.contracts.ledger import read_ledger
from tasks.contracts.manifest import MANIFEST_NAME, manifest_hash, read_manifest, text_shards
from tasks.contracts.release import LINEAGE_NAME, RELEASE_FOLDER, TAKEDOWN_MARK_NAME
from tasks.contracts.workspace import state_folder
from tasks.rights.takedowns import text_sha256
from training.champions import read_champions
from training.release.local_tasks import documents_of_tasks

logger = logging.getLogger(__name__)

DOC_ID_BYTES: Final = 16
RELEASE: Final = Path(RELEASE_FOLDER)
UNNAMED: Final = "(its name is not kept)"
NAMES: Final = pa.schema(
    [(name, pa.string()) for name in ("doc_id", "url", "host", "payload_digest", "text_sha256", "by")]
)
"""`by`: OWN for the document's own names, duplicate or revisit for those of a page that led to it."""
OWN: Final = "own"
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


def held_out_file(manifest_sha256: str) -> Path:
    """Return where the doc_ids of a release's held-out items are kept."""
    return documents_file(manifest_sha256).with_name("held_out.bin")


def names_file(manifest_sha256: str) -> Path:
    """Return where the addresses and hashes of a release's documents are kept."""
    return documents_file(manifest_sha256).with_name("names.parquet")


def holds_release(folder: Path) -> bool:
    """Return whether a stage's folder is a release, whatever the stage is called."""
    return (folder / LINEAGE_NAME).is_file()


def remember_release(release: Path, mix: Path, inputs: Mapping[str, Path] | None = None) -> None:
    """Keep which documents went into a release; called when it has just been made.

    Args:
        release: the release's folder, its manifest written.
        mix: data/mix as the release was made from.
        inputs: stage → folder, for the names under which the documents are known too.

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
    own = manifest_hash(release)
    held_out = remember_held_out(own, release)
    remember_names(own, mix, inputs or {}, held_out)
    remember_documents(own, [mix / shard.name for shard in text_shards(mix)])
    if (release / BASE_FOLDER).is_dir():
        _add_base(own, manifest_hash(release / BASE_FOLDER))


def _add_base(own: str, base: str) -> None:
    """Let the documents of the release that training went on from be this one's too: its weights learnt from them."""
    if not _is_list(documents_file(base)):
        logger.warning(
            "release: the documents of %s, whose weights training began with, are not known in this workspace: "
            "a takedown of one of them is found in the workspace where it was made, and not here",
            base,
        )
        return
    _note_bytes(documents_file(own), b"".join(documents_file(one).read_bytes() for one in (own, base)))
    tables = [table for one in (own, base) if (table := _names_table(one)) is not None]
    with parquet_writer(names_file(own), NAMES) as writer:
        writer.write_table(pa.concat_tables(tables).group_by(NAMES.names).aggregate([]).select(NAMES.names))


def remember_documents(manifest_sha256: str, shards: Sequence[Path]) -> None:
    """Keep the doc_ids of a release, read from the shards of its mixture."""
    _note(documents_file(manifest_sha256), itertools.chain.from_iterable(map(_doc_ids, shards)))


def remember_held_out(manifest_sha256: str, release: Path) -> set[str]:
    """Keep the doc_ids of a release's held-out items, read from its own files, and return them."""
    found = documents_of_tasks(release)
    _note(held_out_file(manifest_sha256), found)
    return found


def _note(path: Path, doc_ids: Iterable[str]) -> None:
    _note_bytes(path, bytes.fromhex("".join(doc_ids)))


def _note_bytes(path: Path, raw: bytes) -> None:
    found = np.unique(np.frombuffer(raw, dtype=f"V{DOC_ID_BYTES}").view(_DOC_ID))
    write_bytes(path, found.tobytes())
    logger.debug("release: %d documents noted in %s", len(found), path)


def remember_names(manifest_sha256: str, mix: Path, inputs: Mapping[str, Path], held_out: Collection[str] = ()) -> None:
    """Keep by which names a release's documents can be asked for once all data is gone; about 100 bytes a document.

    Each document's URL, host, payload digest and text's hash, that of its text before any stage edited it, and the
    addresses of what dedup dropped in its favour and of what the crawl fetched with the same payload.
    """
    path = names_file(manifest_sha256)
    shards = [mix / shard.name for shard in text_shards(mix)]
    known = {doc_id for path in shards for doc_id in _doc_ids(path)} | set(held_out)
    ids = pa.array(sorted(known), pa.string())
    with parquet_writer(path, NAMES) as writer:
        for shard in shards:
            writer.write_table(_names_of(shard))
        # What filters edited of held-out texts stands after `filter`; the mixture has none of them.
        for stage in (one for one in ("extract", "filter") if one in inputs):
            for described in text_shards(inputs[stage]):
                table = _names_of(inputs[stage] / described.name)
                writer.write_table(table.filter(pc.is_in(table["doc_id"], value_set=ids)))
        survivors: dict[str, str] = {}
        aliases: list[dict[str, str | None]] = []
        for stage, by in (("dedup", "duplicate"), ("crawl", "revisit")):
            for ledger in sorted((inputs[stage] / DROPPED_FOLDER).glob("*.parquet")) if stage in inputs else ():
                for row in read_ledger(ledger):
                    if row.survivor_id:
                        aliases.append({"doc_id": row.survivor_id, "url": row.url, "by": by})
                        if row.doc_id:
                            survivors[row.doc_id] = row.survivor_id
        for alias in aliases:
            # A page that the crawl stored once may have lost to another in dedup.
            alias["doc_id"] = survivors.get(str(alias["doc_id"]), alias["doc_id"])
            alias["host"] = str(alias["url"] or "").partition("://")[2].partition("/")[0].partition(":")[0]
        kept = [alias for alias in aliases if alias["doc_id"] in known and alias["url"]]
        writer.write_table(pa.Table.from_pylist(kept, schema=NAMES))


def _names_of(shard: Path) -> pa.Table:
    table = pq.read_table(shard, columns=["doc_id", "url", "host", "payload_digest", "text"])
    hashes = pa.array([text_sha256(text) for text in table["text"].to_pylist()], pa.string())
    named = table.drop_columns(["text"]).append_column("text_sha256", hashes)
    return named.append_column("by", pa.array([OWN] * table.num_rows, pa.string())).cast(NAMES)


def read_names(manifest_sha256: str) -> list[dict[str, Any]] | None:
    """Return what `remember_names` kept, None where nothing was or it cannot be read."""
    table = _names_table(manifest_sha256)
    return None if table is None else table.to_pylist()


def _names_table(manifest_sha256: str) -> pa.Table | None:
    try:
        return pq.read_table(names_file(manifest_sha256), schema=NAMES)
    except (OSError, pa.ArrowInvalid):
        return None


def _doc_ids(shard: Path) -> list[str]:
    names: list[str] = pq.read_table(shard, columns=["doc_id"])["doc_id"].to_pylist()
    return names


def known_releases() -> tuple[KnownRelease, ...]:
    """Return every release that was made in this workspace, oldest first, each once.

    They are asked of all that tells of one, so that none is forgotten when one of these is lost: the champions' list,
    the kept copies, data/release, the run records, and what is noted here. `folder` need not exist any more.
    """
    found: dict[str, KnownRelease] = {}
    for champion in read_champions():
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
    for folder in (*sorted((state_folder() / "releases").glob("*")), RELEASE):
        if (folder / MANIFEST_NAME).is_file() and (own := manifest_hash(folder)) not in found:
            described = _described(folder)
            found[own] = KnownRelease(
                name=str(described.get("name", UNNAMED)),
                manifest_sha256=own,
                weights_sha256=str(described.get("weights_sha256", "")),
                folder=folder,
                takedown=read_mark(folder),
            )
    told = {
        record.manifest_sha256: str(record.params.get("name", UNNAMED))
        for record in records_on_disk("release")
        if record.manifest_sha256
    }
    noted = {path.name: UNNAMED for path in sorted((state_folder() / "lineage" / "releases").glob("*"))}
    for own, name in {**noted, **told}.items():
        folder = state_folder() / "releases" / own
        found.setdefault(own, KnownRelease(name=name, manifest_sha256=own, weights_sha256="", folder=folder))
    return tuple(found.values())


def _described(folder: Path) -> dict[str, Any]:
    try:
        described: dict[str, Any] = json.loads((folder / LINEAGE_NAME).read_bytes())
    except (OSError, ValueError):
        return {}
    return described


def read_mark(folder: Path) -> Mapping[str, JsonValue] | None:
    """Return the takedown mark of a release folder, None where it has none.

    Raises:
        InputError: there is a mark that cannot be read.
    """
    path = folder / TAKEDOWN_MARK_NAME
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


def holders(
    doc_ids: Sequence[str], list_of: Callable[[str], Path] = documents_file
) -> Mapping[str, tuple[KnownRelease, ...]]:
    """Return for each document the releases that were trained on it, oldest first; none is an empty tuple.

    A release that was made before this was kept has no list here; `missing_lists` names those.

    Args:
        list_of: `held_out_file` asks for the releases whose `tasks/` hold the document instead.
    """
    found: dict[str, list[KnownRelease]] = {doc_id: [] for doc_id in doc_ids}
    asked = np.frombuffer(bytes.fromhex("".join(found)), dtype=_DOC_ID)
    names = list(found)
    for release in known_releases():
        path = list_of(release.manifest_sha256)
        if not _is_list(path):
            continue
        kept = np.memmap(path, dtype=_DOC_ID, mode="r")
        for at in np.flatnonzero(_within(kept, asked)):
            found[names[at]].append(release)
    return {doc_id: tuple(releases) for doc_id, releases in found.items()}


def missing_lists() -> tuple[KnownRelease, ...]:
    """Return the releases whose documents were never noted here, or whose list is damaged."""
    return tuple(known for known in known_releases() if not _is_list(documents_file(known.manifest_sha256)))


def missing_held_out() -> tuple[KnownRelease, ...]:
    """Return the releases whose held-out items were never noted here; a release may have none, and an empty list."""
    return tuple(known for known in known_releases() if not held_out_file(known.manifest_sha256).is_file())


def _is_list(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0 and path.stat().st_size % DOC_ID_BYTES == 0


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
