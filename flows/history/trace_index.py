"""The trace index: where in every stage's shards and ledgers a URL, host, document or record stands.

It is a cache of the files in `data/`, one part a stage, under `.headwater/lineage/index/<stage>-<manifest's hash>/`,
so a stage that ran again is indexed again and no other, and a part can never speak of other files than those it was
made from. For each kind of name a part holds two arrays, sorted by a 64-bit hash of the name: the hashes (`.keys`)
and the places (`.places`: number of the file, and in it the row, or the offset of a WARC record). A query is a binary
search in mapped files; each row that it finds is read from its Parquet row group and compared with the name itself,
so two names with one hash are never confused. 16 bytes a name, and about 50 bytes of memory a row while a part is made.

Documents are named in full by the first stages that hold them (crawl, extract) and by doc_id alone from then on; rows
of ledgers always in full. Rows are counted by host, action and rule while they pass, as a host may have millions.
"""

from __future__ import annotations

import logging
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash
from fastwarc.warc import ArchiveIterator, WarcRecordType
from pydantic import ValidationError

from tasks.contracts.base import FrozenModel
from tasks.contracts.document import DOCUMENT_SCHEMA, open_shard
from tasks.contracts.durable_files import atomic_folder, write_json
from tasks.contracts.files import DROPPED_FOLDER, HELD_OUT_FOLDER, is_part
from tasks.contracts.ledger import LEDGER_SCHEMA
from tasks.contracts.manifest import MANIFEST_NAME, Manifest, chain_order, manifest_hash, read_manifest
from tasks.contracts.tokens import INDEX_SCHEMA
from tasks.contracts.urls import canonical_url, host_of
from tasks.contracts.workspace import state_folder
from tasks.rights.evidence import CONTENT_TYPE

logger = logging.getLogger(__name__)

Content = Literal["documents", "ledger", "tokens", "warc"]
Kind = Literal["document", "record", "url", "digest", "host", "survivor"]
Hashes = npt.NDArray[np.uint64]

KINDS: tuple[Kind, ...] = ("document", "record", "url", "digest", "host", "survivor")
COLUMNS: Mapping[Content, Mapping[Kind, str]] = {
    "documents": {"document": "doc_id", "record": "record_id", "url": "url", "digest": "payload_digest"},
    "ledger": {"document": "doc_id", "record": "record_id", "url": "url", "survivor": "survivor_id"},
    "tokens": {"document": "doc_id"},
    "warc": {},
}
SCHEMAS: Mapping[Content, pa.Schema] = {
    "documents": DOCUMENT_SCHEMA,
    "ledger": LEDGER_SCHEMA,
    "tokens": INDEX_SCHEMA,
}
NAMED_IN_FULL = ("crawl", "extract", "examples")
FORMAT = 1
KEPT = "kept"
ROWS_AT_A_TIME = 1 << 16
FILE_BIT = np.uint64(40)
ENTRY = np.dtype([("key", "<u8"), ("place", "<u8")])
TALLY = np.dtype([("key", "<u8"), ("what", "<u4"), ("count", "<u8")])
WARC_KINDS = WarcRecordType.response | WarcRecordType.resource | WarcRecordType.revisit | WarcRecordType.metadata

# URLs that are in their one spelling already, by a stricter rule than need be; the others are brought into it.
_PLAIN_URL = (
    r"^https?://(?:[a-z0-9-]+\.)*[a-z][a-z0-9-]*/(?:[A-Za-z0-9_~/-]|[A-Za-z0-9_~-]\.)*(?:\?[A-Za-z0-9._~=&-]+)?$"
)
_HOST = r"^[A-Za-z][A-Za-z0-9+.-]*://(?P<host>[A-Za-z0-9._-]+)(?::[0-9]*)?(?:[/?#].*)?$"


class IndexedFile(FrozenModel):
    """One file of the stage, by its name in the stage's folder, and what it holds."""

    name: str
    content: Content


class Description(FrozenModel):
    """`part.json`: what a part of the index was made from."""

    format: int
    stage: str
    manifest_sha256: str
    files: tuple[IndexedFile, ...]
    entries: dict[str, int]
    """How many places are kept for each kind of name."""
    tallied: tuple[tuple[str, str], ...]
    """(action, rule) by the numbers that the tallies by host use."""


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A row of a Parquet file of a stage, or (in a WARC file) the record that begins at this offset."""

    stage: str
    content: Content
    file: str
    at: int


class Part:
    """One stage's part of the index, and the stage's folder."""

    def __init__(self, folder: Path, data: Path, description: Description) -> None:
        self.folder = folder
        self.data = data
        self.description = description
        self._mapped: dict[Kind, tuple[Hashes, Hashes]] = {}

    @property
    def stage(self) -> str:
        """The stage's name."""
        return self.description.stage

    def find(self, kind: Kind, names: Sequence[str], most: int | None = None) -> list[Place]:
        """Return the places under the hashes of these names, in order: candidates, as hashes may collide."""
        if not self.description.entries.get(kind):
            return []
        keys, places = self._entries(kind)
        found: list[int] = []
        for key in sorted({hash_name(name) for name in names}):
            start, stop = (int(np.searchsorted(keys, np.uint64(key), side=side)) for side in ("left", "right"))
            stop = stop if most is None else min(stop, start + most)
            found += places[start:stop].tolist()
        return [self.place(number) for number in sorted(set(found))]

    def _entries(self, kind: Kind) -> tuple[Hashes, Hashes]:
        """Map the sorted hashes of one kind of name, and their places."""
        if kind not in self._mapped:
            keys, places = (np.load(self.folder / f"{kind}.{what}.npy", mmap_mode="r") for what in ("keys", "places"))
            self._mapped[kind] = (keys, places)
        return self._mapped[kind]

    def tally(self, host: str) -> dict[tuple[str, str], int]:
        """Return how many rows of a host there are by (action, rule); ("kept", "") are documents that stayed."""
        tallies = np.load(self.folder / "tallies.npy")
        start, stop = (
            np.searchsorted(tallies["key"], np.uint64(hash_name(host)), side=side) for side in ("left", "right")
        )
        return {
            self.description.tallied[int(row["what"])]: int(row["count"])
            for row in sorted(tallies[start:stop], key=lambda one: int(one["what"]))
        }

    def read(self, places: Iterable[Place], columns: Sequence[str] | None = None) -> dict[Place, dict[str, Any]]:
        """Read the rows of Parquet files at these places, each file opened and each row group read once.

        Args:
            columns: which to read; all but `text` when left out.
        """
        by_file: dict[tuple[str, Content], list[Place]] = {}
        for place in sorted(places):
            by_file.setdefault((place.file, place.content), []).append(place)
        rows: dict[Place, dict[str, Any]] = {}
        for (file, content), wanted in by_file.items():
            schema = SCHEMAS[content]
            chosen = [name for name in schema.names if name != "text"] if columns is None else list(columns)
            with open_shard(self.data / file, schema) as shard:
                rows |= _rows(shard, wanted, [name for name in chosen if name in schema.names])
        return rows

    def place(self, number: int) -> Place:
        """Return the place that a number stands for."""
        file = self.description.files[number >> int(FILE_BIT)]
        return Place(self.stage, file.content, file.name, number & ((1 << int(FILE_BIT)) - 1))


class Index:
    """The parts of all stages that have a finished folder, in the order of the stages."""

    def __init__(self, parts: Iterable[Part]) -> None:
        self.parts = {part.stage: part for part in parts}

    def find(self, kind: Kind, names: Sequence[str], most: int | None = None) -> list[Place]:
        """Return the candidates of every stage."""
        return [place for part in self.parts.values() for place in part.find(kind, names, most)]

    def read(self, places: Iterable[Place], columns: Sequence[str] | None = None) -> dict[Place, dict[str, Any]]:
        """Read rows of several stages."""
        rows: dict[Place, dict[str, Any]] = {}
        wanted = list(places)
        for stage, part in self.parts.items():
            rows |= part.read((place for place in wanted if place.stage == stage), columns)
        return rows

    @cached_property
    def source(self) -> str:
        """What the crawl calls its source, of which a doc_id is made."""
        return str(read_manifest(self.parts["crawl"].data).params.get("source", "web")) if "crawl" in self.parts else ""


def index_folder() -> Path:
    """Return where the index is kept."""
    return state_folder() / "lineage" / "index"


def open_index(data: Path) -> Index:
    """Open the index of the stage folders in `data`, after making the parts that are missing or stale.

    Raises:
        InputError: a shard cannot be read.
    """
    stages = stages_with_documents(data)
    stale = [stage for stage in stages if _opened(data / stage) is None]
    if stale:
        logger.info("trace: indexing %s, whose files are new", ", ".join(stale))
    return Index(_opened(data / stage) or _make(stage, data / stage) for stage in stages)


def stages_with_documents(data: Path) -> list[str]:
    """Return the stages in `data` whose folders hold rows about documents, each after those it was made from."""
    manifests = {path.parent.name: read_manifest(path.parent) for path in data.glob(f"*/{MANIFEST_NAME}")}
    named = {stage for stage, manifest in manifests.items() if any(_indexed_files(manifest))}
    return [stage for stage in chain_order({s: m.inputs for s, m in manifests.items()}) if stage in named]


def hash_name(name: str) -> int:
    """Return the 64-bit hash under which a name stands (XXH3)."""
    return xxhash.xxh3_64_intdigest(name.encode("utf-8", "surrogatepass"))


def remove_stale(stage: str, current: Path) -> None:
    """Remove a stage's parts but the current one."""
    for folder in current.parent.glob(f"{stage}-*"):
        if folder != current:
            shutil.rmtree(folder, ignore_errors=True)


def part_folder(name: str, hash_: str) -> Path:
    """Return the folder of one part of the index, which says by its name what it was made from."""
    return index_folder() / f"{name}-{hash_[:32]}"


def label(data: Path) -> str:
    """Return what the parts of a stage's folder are called: an adaptation has stages of the same names.

    >>> label(Path("data/filter")), label(Path("data/adapt/filter"))
    ('filter', 'adapt.filter')
    """
    return f"adapt.{data.name}" if data.parent.name == "adapt" else data.name


def _opened(data: Path) -> Part | None:
    hash_ = manifest_hash(data)
    folder = part_folder(label(data), hash_)
    try:
        description = Description.model_validate_json((folder / "part.json").read_bytes())
    except (OSError, ValidationError):
        return None
    current = description.format == FORMAT and description.manifest_sha256 == hash_
    return Part(folder, data, description) if current else None


def _make(stage: str, data: Path) -> Part:
    hash_ = manifest_hash(data)
    folder = part_folder(label(data), hash_)
    with atomic_folder(folder) as temporary, closing(_Maker(temporary)) as maker:
        files = tuple(_indexed_files(read_manifest(data)))
        for number, file in enumerate(files):
            maker.add(
                number, data / file.name, file.content, in_full=stage in NAMED_IN_FULL or file.content == "ledger"
            )
        description = maker.describe(stage, hash_, files)
        write_json(temporary / "part.json", description.model_dump(mode="json"))
    remove_stale(label(data), folder)
    return Part(folder, data, description)


def _indexed_files(manifest: Manifest) -> Iterator[IndexedFile]:
    """Tell which files of a stage hold rows that have names; those of other stages' making are left out."""
    tokens = manifest.stage == "tokenize"
    for shard in manifest.shards:
        folder, _, name = shard.name.rpartition("/")
        if folder == "" and is_part(name, ".warc.gz"):
            yield IndexedFile(name=shard.name, content="warc")
        elif not name.endswith(".parquet"):
            continue
        elif folder == DROPPED_FOLDER:
            yield IndexedFile(name=shard.name, content="ledger")
        elif tokens and (is_part(name) or name == "validation.parquet"):
            yield IndexedFile(name=shard.name, content="tokens")
        elif folder in ("", HELD_OUT_FOLDER) and is_part(name):
            yield IndexedFile(name=shard.name, content="documents")


class EntryWriter:
    """Writes entries to disk as they come, then sorts them, one kind at a time, so that memory holds one kind only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.streams: dict[str, BinaryIO] = {}

    def append(self, kind: str, keys: Hashes, places: Hashes) -> None:
        """Add entries of one kind."""
        entries = np.empty(len(keys), ENTRY)
        entries["key"], entries["place"] = keys, places
        if kind not in self.streams:
            self.streams[kind] = (self.folder / f"{kind}.unsorted").open("wb")
        self.streams[kind].write(entries.tobytes())

    def close(self) -> None:
        """Close the files."""
        for stream in self.streams.values():
            stream.close()

    def finish(self) -> dict[str, int]:
        """Sort each kind into its `.keys` and `.places`, equal keys in the order they came; return how many."""
        self.close()
        counts: dict[str, int] = {}
        for kind in self.streams:
            unsorted = self.folder / f"{kind}.unsorted"
            entries = np.fromfile(unsorted, ENTRY)
            unsorted.unlink()
            keys, places = entries["key"].copy(), entries["place"].copy()
            counts[kind] = len(entries)
            del entries
            order = np.argsort(keys, kind="stable")
            np.save(self.folder / f"{kind}.keys.npy", keys[order])
            np.save(self.folder / f"{kind}.places.npy", places[order])
        return counts


class _Maker(EntryWriter):
    """Makes one stage's part: names by kind, and the tallies by host."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.tallies: Counter[tuple[int, int]] = Counter()
        self.tallied: dict[tuple[str, str], int] = {}

    def add(self, number: int, path: Path, content: Content, *, in_full: bool) -> None:
        """Index one file."""
        base = number << int(FILE_BIT)
        if content == "warc":
            self._add_records(path, base)
            return
        columns = {kind: name for kind, name in COLUMNS[content].items() if in_full or kind == "document"}
        names = {"ledger": ["url", "action", "rule"], "documents": ["host"], "tokens": []}[content]
        held_out = path.parent.name == HELD_OUT_FOLDER
        with open_shard(path, SCHEMAS[content]) as shard:
            for batch in shard.iter_batches(ROWS_AT_A_TIME, columns=sorted({*columns.values(), *names})):
                places = np.arange(base, base + batch.num_rows, dtype=np.uint64)
                base += batch.num_rows
                for kind, name in columns.items():
                    self._write(kind, batch[name], places)
                if "url" in columns:
                    self._write("url", *_other_spellings(batch[columns["url"]], places))
                if content != "tokens":
                    # What is held out stands in the ledger besides, and is not among what the stage hands on.
                    self._add_hosts(batch, places, postings=in_full, counted=not held_out)

    def _add_hosts(self, batch: pa.RecordBatch, places: Hashes, *, postings: bool, counted: bool) -> None:
        ledger = "host" not in batch.schema.names
        hosts = _hosts(batch["url"]) if ledger else batch["host"]
        if postings:
            self._write("host", hosts, places)
        if not counted:
            return
        actions = batch["action"] if ledger else pa.array([KEPT] * batch.num_rows)
        rules = batch["rule"] if ledger else pa.array([""] * batch.num_rows)
        table = pa.table({"host": hosts, "action": actions, "rule": rules})
        for row in table.group_by(["host", "action", "rule"]).aggregate([([], "count_all")]).to_pylist():
            if row["host"]:
                what = self.tallied.setdefault((row["action"], row["rule"]), len(self.tallied))
                self.tallies[hash_name(row["host"]), what] += row["count_all"]

    def _add_records(self, path: Path, base: int) -> None:
        """Index the records of a WARC file; what the crawl saw of a page's rights stands under the page's id too."""
        names: dict[Kind, list[str | None]] = {"record": [], "url": [], "digest": []}
        places: list[int] = []
        with path.open("rb") as stream:
            for record in ArchiveIterator(stream, record_types=WARC_KINDS, parse_http=False):
                headers = record.headers
                evidence = headers.get("Content-Type") == CONTENT_TYPE
                url = (headers.get("WARC-Target-URI") or "").strip().removeprefix("<").removesuffix(">")
                places.append(base + record.stream_pos)
                names["record"].append(record.record_id)
                names["url"].append(None if evidence else url)
                names["digest"].append(None if evidence else headers.get("WARC-Payload-Digest"))
                if evidence and headers.get("WARC-Refers-To"):
                    places.append(base + record.stream_pos)
                    names["record"].append(headers.get("WARC-Refers-To"))
                    names["url"].append(None)
                    names["digest"].append(None)
        at = np.array(places, np.uint64)
        for kind, values in names.items():
            self._write(kind, pa.array(values, pa.string()), at)
        self._write("url", *_other_spellings(pa.array(names["url"], pa.string()), at))

    def _write(self, kind: Kind, names: pa.Array, places: Hashes) -> None:
        some = pc.fill_null(pc.greater(pc.binary_length(names), 0), False)
        chosen = names.filter(some)
        if not len(chosen):
            return
        raw = chosen.cast(pa.binary()).to_numpy(zero_copy_only=False).tolist()
        keys = np.fromiter(map(xxhash.xxh3_64_intdigest, raw), np.uint64, len(raw))
        self.append(kind, keys, places[some.to_numpy(zero_copy_only=False)])

    def describe(self, stage: str, hash_: str, files: tuple[IndexedFile, ...]) -> Description:
        """Sort and write everything, and describe it."""
        rows = np.array([(key, what, count) for (key, what), count in sorted(self.tallies.items())], TALLY)
        np.save(self.folder / "tallies.npy", rows)
        return Description(
            format=FORMAT,
            stage=stage,
            manifest_sha256=hash_,
            files=files,
            entries=self.finish(),
            tallied=tuple(self.tallied),
        )


def _other_spellings(urls: pa.Array, places: Hashes) -> tuple[pa.Array, Hashes]:
    """Return the one spelling of those URLs that are written otherwise, and their places."""
    odd = pc.fill_null(pc.invert(pc.match_substring_regex(urls, _PLAIN_URL)), False).to_numpy(zero_copy_only=False)
    given = urls.filter(pa.array(odd)).to_pylist()
    spelled = [canonical_url(url) for url in given]
    changed = [new if new != old else None for old, new in zip(given, spelled, strict=True)]
    return pa.array(changed, pa.string()), places[odd]


def _hosts(urls: pa.Array) -> pa.Array:
    """Return the hosts of URLs; the few that a plain pattern cannot read are read one by one."""
    hosts = pc.utf8_lower(pc.struct_field(pc.extract_regex(urls, _HOST), "host"))
    unread = pc.and_(pc.is_valid(urls), pc.fill_null(pc.equal(hosts, ""), True))
    if not pc.any(unread).as_py():
        return hosts
    return pc.replace_with_mask(hosts, unread, pa.array([host_of(url) for url in urls.filter(unread).to_pylist()]))


def _rows(shard: pq.ParquetFile, places: Sequence[Place], columns: list[str]) -> dict[Place, dict[str, Any]]:
    ends = np.cumsum([shard.metadata.row_group(i).num_rows for i in range(shard.num_row_groups)])
    groups: dict[int, list[Place]] = {}
    for place in places:
        groups.setdefault(int(np.searchsorted(ends, place.at, side="right")), []).append(place)
    rows: dict[Place, dict[str, Any]] = {}
    for group, wanted in groups.items():
        table = shard.read_row_group(group, columns=columns)
        begin = int(ends[group]) - table.num_rows
        # Not `take`, which makes Arrow import pandas: a third of a second, for a handful of rows.
        rows |= {place: table.slice(place.at - begin, 1).to_pylist()[0] for place in wanted}
    return rows
