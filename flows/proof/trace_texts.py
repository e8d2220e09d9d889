"""Which document a text is: by its normal form, or, where none is equal, by the shingles it shares.

Both are dedup's own (`tasks.dedup.shingles`): what is equal here is an exact duplicate there. Of each document the
shingles below a fixed hash are kept, one in 32, and never fewer than four (FracMinHash: Irber et al. 2022, "Lightweight
compositional analysis of metagenomes with FracMinHash", bioRxiv 2022.01.11.475838), so that a passage finds the
document that it is from; candidates are then compared in full. This part of the trace index needs all texts read, so
it is made at the first query by text, from the texts as extracted and as they went into training.
"""

from __future__ import annotations

import logging
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xxhash

from flows.history.trace_index import FILE_BIT, EntryWriter, Index, Part, label, part_folder, remove_stale
from tasks.contracts.document import DOCUMENT_SCHEMA, open_shard
from tasks.contracts.durable_files import atomic_folder, write_json
from tasks.contracts.errors import InputError, ManifestError
from tasks.contracts.manifest import manifest_hash, read_manifest
from tasks.contracts.normal_form import normal_bytes
from tasks.dedup.shingles import jaccard, shingle_sets

logger = logging.getLogger(__name__)

SHINGLE_WORDS = 5
ONE_SHINGLE_IN = 32
FEWEST_SHINGLES = 4
MOST_DOCUMENTS_OF_A_SHINGLE = 1_000
"""A shingle that more documents have than this says nothing about which one it is."""
CANDIDATES = 16
DOCUMENTS_AT_A_TIME = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A document whose text is equal to the one asked about, or near it.

    Attributes:
        stage: whose shard holds the text that was compared.
        equal: whether the two are the same in dedup's normal form (NFKC, case folded, white space collapsed).
        jaccard: shared shingles among all shingles of both, 0 to 1.
        contained: the share of the asked text's shingles that the document has, 0 to 1.
    """

    doc_id: str
    url: str
    stage: str
    equal: bool
    jaccard: float
    contained: float


def find_text(index: Index, text: str) -> Match | None:
    """Return the document that has a text, or the nearest one; None where no document shares a shingle with it.

    Raises:
        InputError: the text is empty, or the stages that hold texts have not run.
    """
    normal = normal_bytes(text)
    if not normal:
        raise InputError("the text is empty", expected="some words")
    holding = [
        part for part in index.parts.values() if any(file.content == "documents" for file in part.description.files)
    ]
    # As extracted, and as trained on.
    parts = list(dict.fromkeys([*holding[:1], *holding[-1:]]))
    if not parts:
        raise InputError("no stage that keeps texts has run", expected="data/extract", fix="headwater run")
    folders = [_folder(part) for part in parts]
    for part, folder in zip(parts, folders, strict=True):
        if (equal := _equal(part, folder, normal)) is not None:
            return equal
    size = _shingle_words(parts[0])
    nearest = [_nearest(part, folder, normal, size) for part, folder in zip(parts, folders, strict=True)]
    found = [one for one in nearest if one is not None]
    return max(found, key=lambda one: (one.jaccard, one.contained), default=None)


def _equal(part: Part, folder: Path, normal: bytes) -> Match | None:
    for number in _places(folder, "text", [xxhash.xxh3_64_intdigest(normal)]):
        place = part.place(number)
        row = part.read([place], ["doc_id", "url", "text"])[place]
        if normal_bytes(row["text"]) == normal:
            return Match(doc_id=row["doc_id"], url=row["url"], stage=part.stage, equal=True, jaccard=1.0, contained=1.0)
    return None


def _nearest(part: Part, folder: Path, normal: bytes, size: int) -> Match | None:
    wanted = shingle_sets([normal], size=size).values
    votes = Counter(_places(folder, "shingle", wanted.tolist(), most=MOST_DOCUMENTS_OF_A_SHINGLE))
    places = [part.place(number) for number, _ in sorted(votes.items(), key=lambda one: (-one[1], one[0]))[:CANDIDATES]]
    best: Match | None = None
    for place, row in part.read(places, ["doc_id", "url", "text"]).items():
        theirs = shingle_sets([normal_bytes(row["text"])], size=size).values
        match = Match(
            doc_id=row["doc_id"],
            url=row["url"],
            stage=place.stage,
            equal=False,
            jaccard=jaccard(wanted, theirs, left_size=len(wanted), right_size=len(theirs)),
            contained=float(np.isin(wanted, theirs).mean()),
        )
        if best is None or (match.contained, match.jaccard) > (best.contained, best.jaccard):
            best = match
    return best


def _places(folder: Path, kind: str, keys: list[int], most: int | None = None) -> list[int]:
    """Return the numbers of the places under keys, those of each key at most once; keys with too many are left out."""
    if not (folder / f"{kind}.keys.npy").is_file():
        return []
    known = np.load(folder / f"{kind}.keys.npy", mmap_mode="r")
    places = np.load(folder / f"{kind}.places.npy", mmap_mode="r")
    asked = np.array(keys, np.uint64)
    starts, stops = np.searchsorted(known, asked), np.searchsorted(known, asked, side="right")
    found: list[int] = []
    for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
        if most is None or stop - start <= most:
            found += places[start:stop].tolist()
    return found


def _shingle_words(part: Part) -> int:
    """Return how many words dedup's shingles have in this workspace."""
    dedup = part.data.parent / "dedup"
    try:
        return int(str(read_manifest(dedup).params.get("shingle_words", SHINGLE_WORDS)))
    except ManifestError:
        return SHINGLE_WORDS


def _folder(part: Part) -> Path:
    """Return the part of the index by texts, after making it where it is missing."""
    size = _shingle_words(part)
    mark = f"text{size}_{label(part.data)}"
    folder = part_folder(mark, manifest_hash(part.data))
    if (folder / "text.json").is_file():
        return folder
    logger.info("trace: indexing the texts of %s, whose files are new", part.stage)
    with atomic_folder(folder) as temporary, closing(EntryWriter(temporary)) as writer:
        for number, file in enumerate(part.description.files):
            if file.content == "documents":
                _add(writer, part.data / file.name, number << int(FILE_BIT), size)
        write_json(temporary / "text.json", {"entries": dict(writer.finish()), "shingle_words": size})
    remove_stale(mark, folder)
    return folder


def _add(writer: EntryWriter, path: Path, base: int, size: int) -> None:
    with open_shard(path, DOCUMENT_SCHEMA) as shard:
        for batch in shard.iter_batches(DOCUMENTS_AT_A_TIME, columns=["text"]):
            normals = [normal_bytes(text) for text in batch["text"].to_pylist()]
            places = np.arange(base, base + len(normals), dtype=np.uint64)
            base += len(normals)
            writer.append("text", np.fromiter(map(xxhash.xxh3_64_intdigest, normals), np.uint64), places)
            sets = shingle_sets(normals, size=size)
            within = np.arange(len(sets.values)) - np.repeat(np.cumsum(sets.sizes) - sets.sizes, sets.sizes)
            chosen = (sets.values < (1 << 32) // ONE_SHINGLE_IN) | (within < FEWEST_SHINGLES)
            owners = np.repeat(places, sets.sizes)
            writer.append("shingle", sets.values[chosen].astype(np.uint64), owners[chosen])
