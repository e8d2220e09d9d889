"""The batches of a rank, step by step: read, and hashed, on a thread of their own while the step before is computed."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from queue import Queue

from training.train.order import Order
from training.train.packing import IGNORED, Packing, Rows, TokenStream

AHEAD_STEPS = 2


@dataclass(frozen=True, slots=True)
class Batch:
    """What a rank sees in a step.

    Attributes:
        sha256: of the tokens, as `steps.parquet` records it.
        targets: how many tokens are to be predicted.
    """

    step: int
    rows: Rows
    sha256: str
    targets: int


def read_batch(step: int, rank: int, order: Order, packing: Packing, stream: TokenStream, eos_id: int) -> Batch:
    """Return the batch of a step."""
    rows = packing.rows(order.sequences_at(step, rank), stream, eos_id)
    digest = hashlib.sha256(rows.tokens.tobytes()).hexdigest()
    return Batch(step, rows, digest, int((rows.targets != IGNORED).sum()))


def batches(
    first_step: int, rank: int, order: Order, packing: Packing, stream: TokenStream, eos_id: int
) -> Iterator[Batch]:
    """Yield the batches from a step to the last one; an error of the reading thread is raised here."""
    ready: Queue[Batch | BaseException] = Queue(AHEAD_STEPS)

    def read() -> None:
        try:
            for step in range(first_step, order.steps):
                ready.put(read_batch(step, rank, order, packing, stream, eos_id))
        except BaseException as error:  # noqa: BLE001 - it is the trainer's to raise
            ready.put(error)

    threading.Thread(target=read, name="batches", daemon=True).start()
    for _ in range(first_step, order.steps):
        batch = ready.get()
        if isinstance(batch, BaseException):
            raise batch
        yield batch
