"""Gradients added up in one order: 1, 2 and 4 ranks end with the same weights, bit for bit.

A sum of floating-point numbers depends on its order. Here each sequence's gradient is computed by itself, and those of
a step are added in a binary tree over the sequences' places in the step: place p with place p + n/2, then p with
p + n/4, and so on. A rank has the places p of one remainder modulo the number of ranks, so that it adds the tree's
lower levels by itself, and the upper ones are the same additions on every rank. The price is a model pass a sequence,
and all of the model's gradients sent to each rank: measured in docs/benchmarks.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    Gradients = list[torch.Tensor]


def visiting_order(number: int) -> list[int]:
    """Return in which order a rank visits its sequences, so that few sums are held at once: bits reversed.

    Args:
        number: of its sequences, a power of two.

    >>> visiting_order(8)
    [0, 4, 2, 6, 1, 5, 3, 7]
    """
    order = [0]
    while len(order) < number:
        step = number // (2 * len(order))
        order += [place + step for place in order]
    return order


class TreeSum:
    """The sum of a rank's gradients, which come in the order of `visiting_order`; holds one sum a level of the tree."""

    def __init__(self) -> None:
        self._sums: list[tuple[int, Gradients]] = []

    def add(self, gradients: Gradients) -> None:
        """Add one sequence's gradients, which are used up."""
        size = 1
        while self._sums and self._sums[-1][0] == size:
            _, earlier = self._sums.pop()
            for left, right in zip(earlier, gradients, strict=True):
                left += right
            gradients, size = earlier, 2 * size
        self._sums.append((size, gradients))

    def total(self) -> Gradients:
        """Return the sum of all."""
        ((_, gradients),) = self._sums
        return gradients


def over_ranks(gradients: Sequence[torch.Tensor], ranks: int) -> Gradients:
    """Return the sum over all ranks, by the upper levels of the tree: the same on each."""
    import torch

    if ranks == 1:
        return list(gradients)
    totals = []
    for gradient in gradients:
        parts = [torch.empty_like(gradient) for _ in range(ranks)]
        torch.distributed.all_gather(parts, gradient)
        while len(parts) > 1:
            half = len(parts) // 2
            parts = [left + right for left, right in zip(parts[:half], parts[half:], strict=True)]
        totals.append(parts[0])
    return totals
