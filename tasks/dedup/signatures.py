"""Phase 1 of dedup, a shard at a time: exact keys, MinHash bands and shingle sets of every document.

A part's files: `part-k.parquet` (keys and what survivors are chosen by), `part-k.bands.npy` (documents x bands,
uint64) and `part-k.shingles.npy` (the shingle sets back to back, uint64). They are internal, kept in the shard
cache, and memory-mapped by the grouping, so that texts are read and split once.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash
from datasketch import MinHash
from numpy.typing import NDArray

from tasks.contracts.document import read_documents, write_rows
from tasks.contracts.files import atomic_path
from tasks.contracts.manifest import Counts
from tasks.dedup.shingles import Shingles, shingles, text_key
from tasks.engine.shards import ShardWork

Scheme = Literal["affine32", "legacy"]

_LOW_32_BITS = np.uint64(0xFFFFFFFF)

_KEYS_SCHEMA = pa.schema(
    [
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("captured_at", pa.string()),
        pa.field("length", pa.int64(), nullable=False),
        pa.field("payload", pa.string()),
        pa.field("text", pa.string(), nullable=False),
        pa.field("shingles", pa.int64(), nullable=False),
        pa.field("shingles_kept", pa.int64(), nullable=False),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sketch:
    """How texts are sketched: everything that decides a signature's bytes."""

    shingle_words: int
    max_shingles: int
    bands: int
    rows: int
    seed: int
    scheme: Scheme


def write_signatures(sketch: Sketch, work: ShardWork, folder: Path) -> Counts:
    """Write one part's keys, bands and shingle sets."""
    keys: list[dict[str, object]] = []
    sets: list[Shingles] = []
    for document in read_documents(work.inputs[0]):
        found = shingles(document.text, size=sketch.shingle_words)
        # The smallest hashes, not the first words: a sample of the whole text (see `shingles.jaccard`).
        sets.append(found[: sketch.max_shingles])
        keys.append(
            {
                "doc_id": document.doc_id,
                "captured_at": document.captured_at,
                "length": len(document.text),
                "payload": document.payload_digest or None,
                "text": text_key(document.text),
                "shingles": len(found),
                "shingles_kept": len(sets[-1]),
            }
        )
    write_rows(folder / f"{work.name}.parquet", keys, _KEYS_SCHEMA)
    _save(folder / f"{work.name}.bands.npy", band_hashes(sets, sketch))
    _save(folder / f"{work.name}.shingles.npy", np.concatenate([np.zeros(0, np.uint64), *sets]))
    return Counts(in_=len(keys), out=len(keys))


def band_hashes(sets: list[Shingles], sketch: Sketch) -> NDArray[np.uint64]:
    """Return documents x bands: texts that agree on all rows of a band have equal hashes there (LSH banding).

    The row of an empty set means nothing; whoever groups must leave it out.
    """
    settings = {
        "num_perm": sketch.bands * sketch.rows,
        "seed": sketch.seed,
        "scheme": sketch.scheme,
        "hashfunc": int,
    }
    hashed = np.zeros((len(sets), sketch.bands), dtype=np.uint64)
    # Both schemes take 32-bit hashes; the shingles' own 64 bits are what similarity is verified on.
    inputs = ((found & _LOW_32_BITS).tolist() for found in sets)
    for index, minhash in enumerate(MinHash.generator(inputs, **settings)):
        signature = minhash.hashvalues.astype("<u4").reshape(sketch.bands, sketch.rows)
        hashed[index] = [xxhash.xxh3_64_intdigest(band.tobytes()) for band in signature]
    return hashed


class Signatures:
    """The signatures of a whole corpus, in order of preference: document 0 is the first to be kept.

    The order is longest text, then earliest capture, then smallest doc_id, and only for rows that are equal in all
    of these their place in the input. So it does not depend on how the corpus is cut into shards.
    """

    def __init__(self, folder: Path, parts: list[str]) -> None:
        tables = [pq.read_table(folder / f"{part}.parquet") for part in parts]
        table = pa.concat_tables(
            t.append_column("part", pa.array(np.full(len(t), index, np.int32))).append_column(
                "row", pa.array(np.arange(len(t), dtype=np.int64))
            )
            for index, t in enumerate(tables)
        )
        keys = [("length", "descending"), ("captured_at", "ascending"), ("doc_id", "ascending")]
        order = pc.sort_indices(table, sort_keys=[*keys, ("part", "ascending"), ("row", "ascending")])
        self.keys = table.take(order).combine_chunks()
        self.part = self.keys["part"].to_numpy()
        self.row = self.keys["row"].to_numpy()
        self.sizes = self.keys["shingles"].to_numpy()
        self._order = order.to_numpy()
        self._bands = [_load(folder / f"{part}.bands.npy") for part in parts]
        self._sets = [_load(folder / f"{part}.shingles.npy") for part in parts]
        self._ends = [np.concatenate([[0], np.cumsum(t["shingles_kept"].to_numpy())]) for t in tables]

    def __len__(self) -> int:
        return len(self.part)

    def exact_codes(self, key: Literal["payload", "text"]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return a number for each document, equal where the key is equal, and where there is a key at all."""
        codes = pc.dictionary_encode(self.keys[key]).combine_chunks().indices
        return codes.fill_null(-1).to_numpy().astype(np.int64), codes.is_valid().to_numpy(zero_copy_only=False)

    def band(self, number: int) -> NDArray[np.uint64]:
        """Return one band's hash of every document: one column in memory at a time."""
        column: NDArray[np.uint64] = np.concatenate([part[:, number] for part in self._bands])[self._order]
        return column

    def shingles(self, document: int) -> Shingles:
        """Return a document's shingle set from the memory-mapped file."""
        part, row = self.part[document], self.row[document]
        ends = self._ends[part]
        found: Shingles = self._sets[part][ends[row] : ends[row + 1]]
        return found

    def doc_id(self, document: int) -> str:
        """Return a document's id."""
        found: str = self.keys["doc_id"][int(document)].as_py()
        return found


def _save(path: Path, array: NDArray[np.uint64]) -> None:
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.save(stream, array, allow_pickle=False)


def _load(path: Path) -> NDArray[np.uint64]:
    try:
        mapped: NDArray[np.uint64] = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError:  # an array of length 0 cannot be mapped
        mapped = np.load(path, allow_pickle=False)
    return mapped
