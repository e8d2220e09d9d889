"""Batches are read ahead on another thread, and are those that would be read in turn."""

from collections.abc import Sequence

import numpy as np
import pytest

from tests.training.train.test_order import make_order, pack_lengths
from training.train.batches import batches, read_batch
from training.train.packing import TokenStream


class Ids(TokenStream):
    def __init__(self, ids: Sequence[int], breaks_at: int | None = None) -> None:
        self.dtype = np.dtype("<u2")
        self._ids, self._breaks_at = np.array(ids, self.dtype), breaks_at

    def read(self, start: int, stop: int) -> np.ndarray:
        if self._breaks_at is not None and start <= self._breaks_at < stop:
            raise OSError("the disk is gone")
        return self._ids[start:stop]


LENGTHS = [3] * 49 + [2]


def test_batches_come_in_order_from_any_step() -> None:
    order, stream = make_order(), Ids(range(150))
    packing = pack_lengths(LENGTHS, order.seq_len)
    for first in (0, 3):
        for rank in range(order.ranks):
            ahead = list(batches(first, rank, order, packing, stream, 0))
            in_turn = [read_batch(step, rank, order, packing, stream, 0) for step in range(first, order.steps)]
            assert [(one.step, one.sha256, one.targets) for one in ahead] == [
                (one.step, one.sha256, one.targets) for one in in_turn
            ]


def test_an_error_of_the_reading_thread_is_the_trainers() -> None:
    order = make_order()
    packing = pack_lengths(LENGTHS, order.seq_len)
    with pytest.raises(OSError, match="the disk is gone"):
        list(batches(0, 0, order, packing, Ids(range(150), breaks_at=77), 0))
