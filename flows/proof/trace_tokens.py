"""Where a run of tokens stands in the training text: a suffix array over the token shards.

After Liu et al. 2024, "Infini-gram: scaling unbounded n-gram language models to a trillion tokens" (arXiv 2401.17377).
All places of the training text, sorted by the tokens that follow them, so that those with one beginning stand together
and are found by a binary search. Only the first copy of each document is in it. It is cut into parts of some
33 million tokens, which bounds the memory: some 65 bytes a token of a part while it is made (by prefix doubling),
and nothing but mapped files when it is asked. On the disk it takes 6 bytes a token (8 with 32-bit token ids).

Made when it is first asked for, under the hash of the shards' manifest, beside the rest of the trace index. Where a
file of it is missing, of another size or out of order it is made again; and whoever reads a place that it names
compares the shard itself.
"""

from __future__ import annotations

import logging
import mmap
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import psutil
import pyarrow.parquet as pq
from pydantic import ValidationError

from flows.history.trace_index import part_folder, remove_stale
from tasks.contracts.base import FrozenModel
from tasks.contracts.durable_files import atomic_folder, write_json
from tasks.contracts.errors import InputError
from tasks.contracts.manifest import manifest_hash
from tasks.contracts.tokens import WIDTHS, Dtype, TokensInfo, index_name, read_tokens_info

logger = logging.getLogger(__name__)

MARK: Final = "suffixes"
FORMAT: Final = 1
PART_TOKENS: Final = 1 << 25
BYTES_A_TOKEN: Final = 65
"""Memory that making a part takes, measured."""
LONGEST: Final = 4096
"""Tokens of an output that are looked up at once; who reads the place follows it further."""
SPOT_CHECKS: Final = 64

Numbers = npt.NDArray[np.int64]


class ShardPart(FrozenModel):
    """A token shard's share of a part: its name, and its first copies of documents."""

    name: str
    documents: int
    tokens: int


class Description(FrozenModel):
    """`suffixes.json`: what the index was made from."""

    format: int
    tokenize_manifest: str
    dtype: Dtype
    parts: tuple[tuple[ShardPart, ...], ...]


@dataclass(frozen=True, slots=True)
class Found:
    """A document that holds a run of tokens.

    Attributes:
        shard: the token shard's name.
        row: the document's row in the shard's index.
        offset: the document's first token in the shard; `length` is its tokens, the one that ends it included.
        at: the run's first token, counted from the document's first.
    """

    shard: str
    row: int
    offset: int
    length: int
    at: int


class Part:
    """A part of the index, mapped into memory."""

    def __init__(self, folder: Path, number: int, shards: Sequence[ShardPart], width: int) -> None:
        self.width = width
        self.shards = shards
        self.starts: Numbers = np.load(folder / f"{number}.starts.npy", mmap_mode="r")
        with ExitStack() as stack:
            files = [stack.enter_context((folder / f"{number}.{name}").open("rb")) for name in ("tokens", "suffixes")]
            self.tokens, places = (mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) for file in files)
        self.places = memoryview(places).cast("I")
        self.shard_starts = np.cumsum([0, *(shard.tokens for shard in shards)])
        self.first_rows = np.cumsum([0, *(shard.documents for shard in shards)])

    def longest(self, ids: bytes) -> int:
        """Return how many tokens of the beginning of `ids` stand somewhere in this part."""
        at = bisect_left(range(len(self.places)), ids, key=lambda place: self._follows(place, len(ids)))
        near = [self._follows(place, len(ids)) for place in (at - 1, at) if 0 <= place < len(self.places)]
        return max((_common(ids, one) for one in near), default=0) // self.width

    def range(self, ids: bytes) -> tuple[int, int]:
        """Return from where to where the places stand that `ids` follows."""
        everywhere = range(len(self.places))
        first = bisect_left(everywhere, ids, key=lambda place: self._follows(place, len(ids)))
        return first, bisect_right(everywhere, ids, lo=first, key=lambda place: self._follows(place, len(ids)))

    def found(self, first: int, stop: int) -> Iterator[Found]:
        """Yield the documents at places of the index."""
        for token in sorted(self.places[first:stop].tolist()):
            document = int(np.searchsorted(self.starts, token, side="right")) - 1
            number = int(np.searchsorted(self.first_rows, document, side="right")) - 1
            start, base = int(self.starts[document]), int(self.shard_starts[number])
            last = document + 1 == len(self.starts)
            yield Found(
                shard=self.shards[number].name,
                row=document - int(self.first_rows[number]),
                offset=start - base,
                length=(int(self.shard_starts[-1]) if last else int(self.starts[document + 1])) - start,
                at=token - start,
            )

    def _follows(self, place: int, length: int) -> bytes:
        begin = self.places[place] * self.width
        return self.tokens[begin : begin + length]

    def is_whole(self) -> bool:
        """Say whether sizes fit, and a sample of neighbours stands in order."""
        count = int(self.shard_starts[-1])
        if (len(self.tokens), len(self.places), len(self.starts)) != (
            count * self.width, count, int(self.first_rows[-1])
        ):  # fmt: skip
            return False
        sample = np.unique(np.linspace(0, max(count - 2, 0), SPOT_CHECKS).astype(np.int64)).tolist()
        few = 8 * self.width
        return all(
            (max(self.places[place : place + 2]) < count and self._follows(place, few) <= self._follows(place + 1, few))
            # Equal up to a document's end: what follows that end decides nothing.
            or self._up_to_end(place, few) == self._up_to_end(place + 1, few)
            for place in sample
        )

    def _up_to_end(self, place: int, length: int) -> bytes:
        token = self.places[place]
        document = int(np.searchsorted(self.starts, token, side="right"))
        end = int(self.starts[document]) if document < len(self.starts) else int(self.shard_starts[-1])
        return self._follows(place, min(length, (end - token) * self.width))


class TokenIndex:
    """The training text of `data/tokenize`, to be asked where a run of tokens stands."""

    def __init__(self, data: Path) -> None:
        self.folder = data / "tokenize"
        self.info = read_tokens_info(self.folder)
        self.width = WIDTHS[self.info.dtype]
        self.parts = _opened(self.folder, self.info) or _make(self.folder, self.info)

    def bytes_of(self, ids: Sequence[int]) -> bytes:
        """Return tokens as the index holds them: with the high byte first, which sorts as the numbers do."""
        return np.array(ids, _big(self.info.dtype)).tobytes()

    def tokens(self, found: Found) -> npt.NDArray[np.unsignedinteger]:
        """Return the tokens of a document, from the shard itself."""
        shard: npt.NDArray[np.unsignedinteger] = self._shards[found.shard]
        return shard[found.offset : found.offset + found.length]

    def names(self, found: Found) -> tuple[str, str]:
        """Return the doc_id and the URL of a document."""
        with pq.ParquetFile(self.folder / index_name(found.shard)) as file:
            row = found.row
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                if row < rows:
                    table = file.read_row_group(group, columns=["doc_id", "url", "offset"]).slice(row, 1).to_pylist()
                    if table[0]["offset"] != found.offset:
                        break
                    return str(table[0]["doc_id"]), str(table[0]["url"])
                row -= rows
        raise InputError(
            "the index of a token shard does not fit the shard",
            where=str(self.folder / index_name(found.shard)),
            expected=f"a document that begins at token {found.offset}",
            fix="`headwater verify` says which file is not what it was",
        )

    @cached_property
    def _shards(self) -> dict[str, Any]:
        little = np.dtype(self.info.dtype).newbyteorder("<")
        return {
            shard.name: np.memmap(self.folder / shard.name, dtype=little, mode="r")
            for shard in self.info.shards
            if shard.tokens
        }


def index_folder(tokenize: Path) -> Path:
    """Return where the index of a folder of token shards is kept."""
    return part_folder(MARK, manifest_hash(tokenize))


def _big(dtype: Dtype) -> np.dtype[Any]:
    return np.dtype(dtype).newbyteorder(">")


def _opened(tokenize: Path, info: TokensInfo) -> list[Part] | None:
    """Return the parts of the index that was made before, None where there is none or not a whole one."""
    folder = index_folder(tokenize)
    try:
        described = Description.model_validate_json((folder / f"{MARK}.json").read_bytes())
        if (described.format, described.tokenize_manifest) != (FORMAT, manifest_hash(tokenize)):
            return None
        width = WIDTHS[info.dtype]
        parts = [Part(folder, number, shards, width) for number, shards in enumerate(described.parts)]
    except (OSError, ValidationError, ValueError, EOFError):
        return None
    if all(part.is_whole() for part in parts):
        return parts
    logger.warning("trace: the index of the training text is damaged, and is made again")
    return None


def _make(tokenize: Path, info: TokensInfo) -> list[Part]:
    folder = index_folder(tokenize)
    groups, documents = _groups(tokenize, info)
    largest = max((sum(shard.tokens for shard in group) for group in groups), default=0)
    if largest * BYTES_A_TOKEN > psutil.virtual_memory().available:
        raise InputError(
            "there is not enough memory to index the training text",
            where=str(tokenize),
            expected=f"{largest * BYTES_A_TOKEN / 1e9:.1f} GB free, for a part of {largest:,} tokens",
            found=f"{psutil.virtual_memory().available / 1e9:.1f} GB",
            fix="end other programs, or ask on a larger machine",
        )
    tokens = sum(shard.tokens for group in groups for shard in group)
    logger.info("trace: indexing %s tokens of training text, which are new", f"{tokens:,}")
    with atomic_folder(folder) as temporary:
        for number, group in enumerate(groups):
            _make_part(temporary, number, group, documents, tokenize, info)
        described = Description(
            format=FORMAT,
            tokenize_manifest=manifest_hash(tokenize),
            dtype=info.dtype,
            parts=tuple(map(tuple, groups)),
        )
        write_json(temporary / f"{MARK}.json", described.model_dump(mode="json"))
    remove_stale(MARK, folder)
    return [Part(folder, number, group, WIDTHS[info.dtype]) for number, group in enumerate(groups)]


def _groups(tokenize: Path, info: TokensInfo) -> tuple[list[list[ShardPart]], dict[str, Numbers]]:
    """Return the shards of each part, and where the documents of each shard begin: first copies only."""
    groups: list[list[ShardPart]] = []
    documents: dict[str, Numbers] = {}
    for shard in info.shards:
        table = pq.read_table(tokenize / index_name(shard.name), columns=["epoch", "offset", "length"])
        first = table["epoch"].to_numpy() == 1
        starts = table["offset"].to_numpy()[first].astype(np.int64)
        if not len(starts):
            continue
        documents[shard.name] = starts
        # They stand before all further copies, without a gap.
        part = ShardPart(name=shard.name, documents=len(starts), tokens=int(table["length"].to_numpy()[first].sum()))
        if not groups or sum(one.tokens for one in groups[-1]) + part.tokens > PART_TOKENS:
            groups.append([])
        groups[-1].append(part)
    return groups, documents


def _make_part(
    folder: Path,
    number: int,
    group: Sequence[ShardPart],
    documents: dict[str, Numbers],
    tokenize: Path,
    info: TokensInfo,
) -> None:
    little = np.dtype(info.dtype).newbyteorder("<")
    tokens = np.concatenate([np.fromfile(tokenize / one.name, little, count=one.tokens) for one in group])
    bases = np.cumsum([0, *(one.tokens for one in group)])
    starts = [documents[one.name] + base for one, base in zip(group, bases, strict=False)]
    np.save(folder / f"{number}.starts.npy", np.concatenate(starts))
    tokens.astype(_big(info.dtype)).tofile(folder / f"{number}.tokens")
    sort_suffixes(tokens, info.eos_id).astype("<u4").tofile(folder / f"{number}.suffixes")


def sort_suffixes(tokens: npt.NDArray[Any], end: int) -> Numbers:
    """Return the places of `tokens` in the order of what follows them, each up to the next `end`; the last is one.

    Prefix doubling (Manber and Myers 1993): places sorted by their first h tokens are sorted by 2h by asking the rank
    of the place h further on. Only those that are still equal are sorted again. Ends differ from each other, so that
    nothing is compared beyond a document.
    """
    count = len(tokens)
    rank = tokens.astype(np.int64) * (count + 1)
    rank += np.where(tokens == end, np.arange(count), 0)
    order = np.argsort(rank, kind="stable")
    keys = rank[order]
    slots = np.arange(count)
    step = 1
    while True:
        first = np.empty(len(keys), np.bool_)
        first[:1] = True
        np.not_equal(keys[1:], keys[:-1], out=first[1:])
        # The rank of equal places is the slot of the first of them.
        rank[order[slots]] = np.maximum.accumulate(np.where(first, slots, 0))
        alone = first & np.append(first[1:], True)
        slots = slots[~alone]
        if not len(slots):
            return order
        tied = order[slots]
        keys = rank[tied] * (count + 1) + rank[np.minimum(tied + step, count - 1)]
        sorting = np.argsort(keys, kind="stable")
        order[slots] = tied[sorting]
        keys = keys[sorting]
        step *= 2


def _common(left: bytes, right: bytes) -> int:
    """Return how many bytes two beginnings share."""
    size = min(len(left), len(right))
    if left[:size] == right[:size]:
        return size
    one, other = (np.frombuffer(each, np.uint8, size) for each in (left, right))
    return int((one != other).argmax())
