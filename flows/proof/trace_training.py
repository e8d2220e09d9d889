"""Which steps saw a document, and which documents a step saw: recomputed from the recorded order of training.

What `order.json` and the token shards' indexes decide (the packing of documents into sequences) takes seconds to
compute for a million documents, so it is kept beside the trace index, under the hash of the training manifest. The
steps themselves are not stored: they follow from the order's permutation, forwards and backwards.
"""

from __future__ import annotations

import hashlib
import json
import logging
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from flows.history.trace_index import part_folder, remove_stale
from tasks.contracts.durable_files import atomic_folder
from tasks.contracts.errors import InputError, ManifestError, UsageError
from tasks.contracts.files import METRICS_NAME, ORDER_NAME, STEPS_NAME
from tasks.contracts.manifest import MANIFEST_NAME, manifest_hash
from tasks.contracts.tokens import index_name, read_tokens_info
from training.train.order import Order
from training.train.packing import Packing, TokenStream, read_packing

logger = logging.getLogger(__name__)

MARK = "train"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One time that training saw a document, or part of one: the step, its rank, the sequence, and how many tokens."""

    step: int
    rank: int
    sequence: int
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A document, or part of one, in a step's batch.

    Attributes:
        row: which of the batch's sequences it is in, counted from 0 over the rank's.
        shard: the token shard; `offset` is the piece's first token there.
        within: the piece's first token counted from the document's first.
        tokens: how many tokens of the document stand there; `of` is how many it has.
        epoch: which copy of the document, 1 for the first.
    """

    rank: int
    row: int
    sequence: int
    doc_id: str
    url: str
    shard: str
    offset: int
    within: int
    tokens: int
    of: int
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What one rank saw in one step, and whether that is what the trainer recorded when it ran."""

    step: int
    rank: int
    sha256: str
    recorded: str | None
    pieces: tuple[Piece, ...]

    @property
    def equal(self) -> bool:
        """Whether the recomputed batch has the hash that the trainer recorded at run time."""
        return self.sha256 == self.recorded


class Training:
    """The training run in `data/train`, on the token shards in `data/tokenize`."""

    def __init__(self, data: Path) -> None:
        self.folder = data / "train"
        self.tokens = data / "tokenize"
        self.order = Order.model_validate_json((self.folder / ORDER_NAME).read_bytes())
        self._begins: dict[str, list[int]] = {}
        self._entries: dict[tuple[str, int], Any] = {}
        found = manifest_hash(self.tokens)
        if found != self.order.tokenize_manifest:
            raise ManifestError(
                "training read other token shards than those that stand here",
                where=str(self.tokens),
                expected=f"the manifest {self.order.tokenize_manifest}",
                found=found,
                fix="`headwater run` trains again on these, or `dvc checkout` brings the others back",
            )

    @cached_property
    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The packing's arrays and the order of its pieces in the stream, from the cache or computed and put there."""
        folder = part_folder(MARK, manifest_hash(self.folder))
        names = [field.name for field in fields(Packing) if field.name != "seq_len"]
        if not (folder / "stream.npy").is_file():
            logger.info("trace: indexing train, whose files are new")
            made = read_packing(self.tokens, self.order.shards, self.order.seq_len)
            by_start = np.argsort(made.starts, kind="stable")
            with atomic_folder(folder) as temporary:
                for name in names:
                    np.save(temporary / f"{name}.npy", getattr(made, name))
                np.save(temporary / "by_start.npy", by_start)
                np.save(temporary / "stream.npy", made.starts[by_start])
            remove_stale(MARK, folder)
        return {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in [*names, "by_start", "stream"]}

    @cached_property
    def packing(self) -> Packing:
        """The sequences that the order numbers.

        Raises:
            ManifestError: there are more or fewer than training had.
        """
        arrays = {name: array for name, array in self._arrays.items() if name not in ("by_start", "stream")}
        packing = Packing(seq_len=self.order.seq_len, **arrays)
        if packing.sequences != self.order.sequences:
            raise ManifestError(
                "the order of training has another number of sequences than its token shards give",
                where=str(self.folder / ORDER_NAME),
                expected=str(packing.sequences),
                found=str(self.order.sequences),
                fix="`headwater verify` says which file is not what it was",
            )
        return packing

    @cached_property
    def bases(self) -> dict[str, int]:
        """Where each token shard begins in the stream of all."""
        ends = np.cumsum([0, *(shard.tokens for shard in self.order.shards)])
        return {shard.name: int(start) for shard, start in zip(self.order.shards, ends[:-1], strict=True)}

    def seen(self, shard: str, offset: int, length: int) -> list[Seen]:
        """Return every time that training saw a token range, in order of steps.

        Args:
            shard: the token shard's name, as in the index of the token shards.
        """
        packing = self.packing
        if shard not in self.bases:
            return []
        start = self.bases[shard] + offset
        # A document's pieces begin inside it, as every document begins a piece of its own.
        first, last = (int(np.searchsorted(self._arrays["stream"], at)) for at in (start, start + length))
        found: list[Seen] = []
        for piece in self._arrays["by_start"][first:last].tolist():
            sequence = int(np.searchsorted(packing.first, piece, side="right")) - 1
            tokens = int(packing.lengths[piece])
            for step, rank in self.order.seen_at(sequence):
                found.append(Seen(step=step, rank=rank, sequence=sequence, tokens=tokens))
        return sorted(found, key=lambda one: (one.step, one.rank, one.sequence))

    def batch(self, step: int, rank: int) -> Batch:
        """Return what a rank saw in a step.

        Raises:
            UsageError: there was no such step or rank.
        """
        order = self.order
        if not 0 <= step < order.steps or not 0 <= rank < order.ranks:
            raise UsageError(
                "training had no such step or rank",
                expected=f"a step from 0 to {order.steps - 1}, a rank from 0 to {order.ranks - 1}",
                found=f"step {step}, rank {rank}",
            )
        numbers = order.sequences_at(step, rank)
        stream = TokenStream(self.tokens, order.shards, order.dtype)
        rows = self.packing.rows(numbers, stream, read_tokens_info(self.tokens).eos_id)
        return Batch(
            step=step,
            rank=rank,
            sha256=hashlib.sha256(rows.tokens.tobytes()).hexdigest(),
            recorded=self.recorded(step, rank),
            pieces=tuple(self._pieces(numbers, rank)),
        )

    def recorded(self, step: int, rank: int) -> str | None:
        """Return the hash of a batch that the trainer wrote down when it ran, None where there is none."""
        path = self.folder / STEPS_NAME
        if not path.is_file():
            raise InputError("the trainer's record of its batches is missing", where=str(path))
        table = pq.read_table(path, filters=[("step", "=", step), ("rank", "=", rank)])
        return str(table["batch_sha256"][0].as_py()) if table.num_rows else None

    def _pieces(self, numbers: Sequence[int], rank: int) -> list[Piece]:
        packing, found = self.packing, []
        bases = np.array(list(self.bases.values()))
        names = list(self.bases)
        for row, number in enumerate(numbers):
            for piece in range(int(packing.first[number]), int(packing.first[number + 1])):
                start, length = int(packing.starts[piece]), int(packing.lengths[piece])
                # The last shard that begins there: empty ones before it begin at the same place.
                shard = names[int(np.searchsorted(bases, start, side="right")) - 1]
                offset = start - self.bases[shard]
                entry = self._entry(shard, offset)
                found.append(
                    Piece(
                        rank=rank,
                        row=row,
                        sequence=number,
                        doc_id=entry["doc_id"],
                        url=entry["url"],
                        shard=shard,
                        offset=offset,
                        within=offset - entry["offset"],
                        tokens=length,
                        of=entry["length"],
                        epoch=entry["epoch"],
                    )
                )
        return found

    def _entry(self, shard: str, offset: int) -> dict[str, Any]:
        """Return the row of a shard's index whose range holds a token."""
        if shard not in self._begins:
            with pq.ParquetFile(self.tokens / index_name(shard)) as index:
                column = index.schema_arrow.names.index("offset")
                groups = range(index.num_row_groups)
                statistics = [index.metadata.row_group(i).column(column).statistics for i in groups]
            assert all(statistics), "tokenize writes an index with its statistics"
            self._begins[shard] = [each.min for each in statistics if each]
        group = bisect_right(self._begins[shard], offset) - 1
        if (shard, group) not in self._entries:
            with pq.ParquetFile(self.tokens / index_name(shard)) as index:
                self._entries[shard, group] = index.read_row_group(group)
        table = self._entries[shard, group]
        at = int(np.searchsorted(table["offset"].to_numpy(), offset, side="right")) - 1
        row: dict[str, Any] = table.slice(at, 1).to_pylist()[0]
        return row


def open_training(data: Path) -> Training | None:
    """Return the training run of a workspace, None where there is none."""
    return Training(data) if (data / "train" / MANIFEST_NAME).is_file() else None


def weights_sha256(data: Path) -> str:
    """Return the hash of the weights that training made."""
    return str(json.loads((data / "train" / METRICS_NAME).read_bytes())["weights_sha256"])
