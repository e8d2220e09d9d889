"""The first pass, part by part: everything that dedup needs to know about a document, without its text.

A part's files are arrays of fixed-size little-endian items, so that any slice is read without the rest:

- `part-k.docs.bin`: one `DOCUMENT` a document, in the part's order
- `part-k.keys.bin`: what documents may share (URL, payload, text, bands) and whose it is, one `ENTRY` each, sorted by
  key; a range of keys is one slice
- `part-k.sets.bin`: the shingle sets back to back
- `part-k.line_keys.bin`: the same as `keys` for lines and paragraphs, where they are counted
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from tasks.contracts.document import ROWS_PER_GROUP, open_shard
from tasks.contracts.errors import InputError
from tasks.contracts.manifest import Counts
from tasks.contracts.normal_form import normal_bytes
from tasks.contracts.urls import host_matches
from tasks.dedup.minhash import Hasher, Sketch, band_keys, hasher
from tasks.dedup.passages import BlockKind, block_keys
from tasks.dedup.shingles import ShingleSets, shingle_sets
from tasks.engine.shards import ShardWork

Exact = Literal["url", "payload", "text"]
Criterion = Literal["hosts", "longest", "shortest", "earliest", "latest"]

# What a key's lowest two bits say it is of.
KINDS: Final = ("url", "payload", "text", "band")
KIND_BITS: Final = np.uint64(3)
BAND: Final = KINDS.index("band")

TIME_WORDS: Final = 4  # captured_at's first 32 bytes, as numbers that sort like them
ORDER_WORDS: Final = 1 + 1 + TIME_WORDS + 2
DOCUMENT: Final = np.dtype(
    [
        ("order", "<u8", ORDER_WORDS),  # smaller is preferred; the last two are the doc_id
        ("url", "<u8", 2),  # 128 bits of SHA-256; zero where there is none
        ("payload", "<u8", 2),
        ("text", "<u8", 2),
        ("host", "<u8"),
        ("set_start", "<u8"),
        ("set_kept", "<u4"),
        ("set_size", "<u4"),
    ]
)
ENTRY: Final = np.dtype([("key", "<u8"), ("row", "<u4")])
DOCUMENTS_ENDING, SETS_ENDING = ".docs.bin", ".sets.bin"
COLUMNS: Final = ["doc_id", "url", "host", "captured_at", "payload_digest", "text"]

# Bytes of text that are hashed together.
_BATCH: Final = 1 << 18


@dataclass(frozen=True, slots=True, kw_only=True)
class Signing:
    """What the first pass does.

    Attributes:
        exact: what makes two documents exact duplicates.
        prefer: by what a survivor is chosen, first to last; the doc_id decides the rest.
        prefer_hosts: host patterns, best first.
        blocks: which frequencies are counted later.
        block_characters: shorter lines and paragraphs are not counted.
    """

    sketch: Sketch
    exact: tuple[Exact, ...]
    prefer: tuple[Criterion, ...]
    prefer_hosts: tuple[str, ...]
    blocks: tuple[BlockKind, ...]
    block_characters: int


def sign_part(signing: Signing, work: ShardWork, folder: Path) -> Counts:
    """Write one part's arrays."""
    make = hasher(signing.sketch)
    preference = _Preference(signing)
    documents: list[NDArray[Any]] = [np.zeros(0, DOCUMENT)]
    keys: list[NDArray[np.uint64]] = [np.zeros(0, np.uint64)]
    rows: list[NDArray[np.int64]] = [np.zeros(0, np.int64)]
    line_keys: list[NDArray[np.uint64]] = [np.zeros(0, np.uint64)]
    line_rows: list[NDArray[np.int64]] = [np.zeros(0, np.int64)]
    count = start = 0
    with (folder / f"{work.name}{SETS_ENDING}").open("wb") as sets_file, open_shard(work.inputs[0]) as shard:
        for batch in shard.iter_batches(batch_size=ROWS_PER_GROUP, columns=COLUMNS):
            columns: dict[str, list[Any]] = {name: batch[name].to_pylist() for name in COLUMNS}
            for chosen in _by_bytes(columns["text"]):
                part = {name: column[chosen] for name, column in columns.items()}
                found, sets, kept = _describe(part, signing, preference, start)
                kept.tofile(sets_file)
                start += len(kept)
                documents.append(found)
                for new_keys, new_rows in _keys(found, sets, signing, make):
                    keys.append(new_keys)
                    rows.append(new_rows + count)
                if signing.blocks:
                    for row, text in enumerate(part["text"]):
                        of_text = block_keys(text, signing.blocks, signing.block_characters)
                        line_keys.append(of_text)
                        line_rows.append(np.full(len(of_text), count + row, dtype=np.int64))
                count += len(found)
    np.concatenate(documents).tofile(folder / f"{work.name}{DOCUMENTS_ENDING}")
    _write_sorted(folder / f"{work.name}.keys.bin", keys, rows)
    if signing.blocks:
        _write_sorted(folder / f"{work.name}.line_keys.bin", line_keys, line_rows)
    return Counts(in_=count, out=count)


def _by_bytes(texts: Sequence[str]) -> Iterator[slice]:
    """Cut a batch into runs of documents that are hashed together."""
    start = size = 0
    for index, text in enumerate(texts):
        size += len(text)
        if size >= _BATCH:
            yield slice(start, index + 1)
            start, size = index + 1, 0
    if start < len(texts):
        yield slice(start, len(texts))


def _describe(
    part: dict[str, list[Any]], signing: Signing, preference: _Preference, start: int
) -> tuple[NDArray[Any], ShingleSets, NDArray[np.uint32]]:
    """Return the documents' records, their whole shingle sets, and the values that are kept of them."""
    sketch = signing.sketch
    normals = [normal_bytes(text) for text in part["text"]]
    sets = shingle_sets(normals, size=sketch.shingle_words)
    # The smallest hashes, not the first words: a sample of the whole text (see `shingles.jaccard`).
    kept_sizes = np.minimum(sets.sizes, sketch.max_shingles)
    kept = sets.values
    if kept_sizes.sum() < len(kept):
        kept = np.concatenate([values[: sketch.max_shingles] for values in sets])
    found = np.zeros(len(normals), DOCUMENT)
    found["order"] = preference(part)
    found["url"] = _digests(part["url"])
    found["payload"] = _digests(part["payload_digest"])
    found["text"] = _digests(normals, empty_too=True)
    found["host"] = _digests(part["host"], empty_too=True)[:, 0]
    found["set_start"] = start + np.cumsum(kept_sizes) - kept_sizes
    found["set_kept"] = kept_sizes
    found["set_size"] = sets.sizes
    return found, sets, kept


def _digests(values: Sequence[str | bytes | None], *, empty_too: bool = False) -> NDArray[np.uint64]:
    """Return 128 bits of SHA-256 for each value, zero where there is none."""
    nothing = bytes(16)
    joined = b"".join(
        hashlib.sha256(value if isinstance(value, bytes) else (value or "").encode("utf-8", "surrogatepass")).digest()[
            :16
        ]
        if value or empty_too
        else nothing
        for value in values
    )
    return np.frombuffer(joined, dtype="<u8").reshape(-1, 2).astype(np.uint64)


def _keys(
    found: NDArray[Any], sets: ShingleSets, signing: Signing, make: Hasher
) -> Iterator[tuple[NDArray[np.uint64], NDArray[np.int64]]]:
    """Yield what documents may share, with its kind in the lowest bits, and the documents' places."""
    for kind, name in enumerate(KINDS[:BAND]):
        if name in signing.exact:
            present = np.flatnonzero(found[name].any(axis=1))
            yield (found[name][present, 0] & ~KIND_BITS) | np.uint64(kind), present
    filled = np.flatnonzero(sets.sizes)
    if len(filled):
        keys = band_keys(make(ShingleSets(sets.values, sets.sizes[filled])), signing.sketch.bands)
        yield (keys & ~KIND_BITS).ravel() | np.uint64(BAND), np.repeat(filled, keys.shape[1])


def _write_sorted(path: Path, keys: list[NDArray[Any]], rows: list[NDArray[Any]]) -> None:
    all_keys, all_rows = np.concatenate(keys), np.concatenate(rows)
    order = np.argsort(all_keys, kind="stable")
    entries = np.zeros(len(order), ENTRY)
    entries["key"], entries["row"] = all_keys[order], all_rows[order]
    entries.tofile(path)


class _Preference:
    """Turns what a survivor is chosen by into numbers of which the smallest is preferred."""

    def __init__(self, signing: Signing) -> None:
        self._criteria = signing.prefer
        self._patterns = signing.prefer_hosts
        self._ranks: dict[str, int] = {}

    def __call__(self, part: dict[str, list[Any]]) -> NDArray[np.uint64]:
        """Return documents x ORDER_WORDS."""
        columns = [self._criterion(name, part) for name in self._criteria]
        count = len(part["doc_id"])
        spare = ORDER_WORDS - 2 - sum(column.shape[1] for column in columns)
        return np.concatenate([*columns, np.zeros((count, spare), np.uint64), _identities(part["doc_id"])], axis=1)

    def _criterion(self, name: Criterion, part: dict[str, list[Any]]) -> NDArray[np.uint64]:
        if name == "hosts":
            return np.array([[self._rank(host)] for host in part["host"]], dtype=np.uint64)
        if name in ("longest", "shortest"):
            lengths = np.array([[len(text)] for text in part["text"]], dtype=np.uint64)
            return ~lengths if name == "longest" else lengths
        last = b"\xff" * 8 * TIME_WORDS
        joined = b"".join(
            (time or "").encode()[: 8 * TIME_WORDS].ljust(8 * TIME_WORDS, b"\0") for time in part["captured_at"]
        )
        times = np.frombuffer(joined, dtype=">u8").reshape(-1, TIME_WORDS).astype(np.uint64)
        if name == "latest":
            times = ~times
        # An unknown time comes last either way.
        times[[not time for time in part["captured_at"]]] = np.frombuffer(last, dtype=">u8")
        return times

    def _rank(self, host: str) -> int:
        rank = self._ranks.get(host)
        if rank is None:
            matches = (n for n, pattern in enumerate(self._patterns) if host_matches(host, pattern))
            rank = self._ranks[host] = next(matches, len(self._patterns))
        return rank


def _identities(doc_ids: Sequence[str]) -> NDArray[np.uint64]:
    joined = "".join(doc_ids)
    try:
        if any(len(doc_id) != 32 for doc_id in doc_ids):
            raise ValueError
        raw = bytes.fromhex(joined)
    except ValueError as error:
        wrong = next((d for d in doc_ids if len(d) != 32 or not set(d) <= set("0123456789abcdef")), joined[:32])
        raise InputError(
            "a document has an id of another form",
            expected="32 hexadecimal digits (tasks.contracts.document.make_doc_id)",
            found=repr(wrong),
            fix="run the stage that made it again",
        ) from error
    return np.frombuffer(raw, dtype=">u8").reshape(-1, 2).astype(np.uint64)


def doc_id(order: NDArray[np.uint64]) -> str:
    """Return the doc_id that an order ends with."""
    return order[-2:].astype(">u8").tobytes().hex()
