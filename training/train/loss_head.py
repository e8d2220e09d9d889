"""The loss, a piece of the text at a time: the logits of all tokens over a large vocabulary are never there at once.

The logits of 8 sequences of 1,024 tokens over 128,256 entries take 4.2 GB in float32, and as much again for their
gradient; a piece of them is thrown away after its part of the loss is known, and made again in the backward pass, a
third more of this layer's work. As in Liger Kernel (Hsu et al. 2024, arXiv:2410.10989), without a kernel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from training.train.packing import IGNORED

if TYPE_CHECKING:
    import torch


def summed_loss(logits_nv: torch.Tensor, targets_n: torch.Tensor, z_loss: float) -> tuple[torch.Tensor, Any]:
    """Return the cross-entropy summed over the targets, and the z-loss that is added to it in training.

    The z-loss holds the logits' log-partition near 0 (Chowdhery et al. 2022, arXiv:2204.02311, section 5).
    """
    from torch.nn import functional

    logits_nv = logits_nv.float()
    loss = functional.cross_entropy(logits_nv, targets_n, ignore_index=IGNORED, reduction="sum")
    if not z_loss:
        return loss, 0.0
    log_z = logits_nv[targets_n != IGNORED].logsumexp(-1)
    return loss, z_loss * log_z.square().sum()


def loss_in_pieces(head: Any, piece_tokens: int) -> PiecewiseLoss:
    """Let a model's output layer give the loss in place of logits, while it is told the targets.

    The layer keeps its place, its weight and its name, so that whatever shares weights out or ties them to the input
    embedding works as before.

    Args:
        head: the output layer, a linear one without a bias.
        piece_tokens: tokens whose logits are there at once.
    """
    import torch
    from torch.utils.checkpoint import checkpoint

    told = PiecewiseLoss()

    class Head(type(head)):  # type: ignore[misc]
        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            if told.targets is None:
                logits: torch.Tensor = super().forward(hidden)
                return logits
            hidden_nd, targets_n = hidden.flatten(0, -2), told.targets.flatten()
            total = torch.zeros(2, device=hidden.device)
            for first in range(0, len(targets_n), piece_tokens):
                piece = slice(first, first + piece_tokens)
                total = total + checkpoint(self._piece, hidden_nd[piece], targets_n[piece], use_reentrant=False)
            return total

        def _piece(self, hidden_nd: torch.Tensor, targets_n: torch.Tensor) -> torch.Tensor:
            loss, penalty = summed_loss(super().forward(hidden_nd), targets_n, told.z_loss)
            return torch.stack([loss, loss.new_tensor(0.0) if isinstance(penalty, float) else penalty])

    head.__class__ = Head
    return told


class PiecewiseLoss:
    """What an output layer is told: the targets of the next pass, and the weight of the z-loss."""

    def __init__(self) -> None:
        self.targets: torch.Tensor | None = None
        self.z_loss = 0.0

    def of(self, model: Any, targets_bs: torch.Tensor, z_loss: float, **inputs: Any) -> tuple[Any, Any]:
        """Return what `summed_loss` gives for a pass of the model."""
        self.targets, self.z_loss = targets_bs, z_loss
        try:
            loss, penalty = model(**inputs).logits
        finally:
            self.targets = None
        return loss, penalty
