"""The loss and its gradient in one pass over the output layer, a piece of the text at a time.

PyTorch's own way keeps the logits of all tokens for the backward pass and goes over them some eight times. Here a piece
of them is made, turned into its part of the loss and into the gradients of the layer's input and weight while the
processor still has it at hand, and thrown away: no more than a piece of the logits is ever there, and nothing is
computed twice. The logits of 8 sequences of 1,024 tokens over 128,256 entries take 4.2 GB in float32. As in Liger
Kernel (Hsu et al. 2024, arXiv:2410.10989), without a kernel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from training.train.packing import IGNORED

if TYPE_CHECKING:
    import torch


def loss_head(head: Any, piece_tokens: int | None = None) -> LossHead:
    """Let a model's output layer give the loss in place of logits, while it is told the targets.

    The layer keeps its place, its weight and its name, so that whatever shares weights out or ties them to the input
    embedding works as before.

    Args:
        head: the output layer, a linear one without a bias, whose outputs are the logits.
        piece_tokens: tokens whose logits are there at once; None for all.
    """
    import torch

    assert isinstance(head, torch.nn.Linear), f"not made for the output layer {head}"
    assert head.bias is None, f"not made for the bias of the output layer {head}"
    told = LossHead()

    class SummedLoss(torch.autograd.Function):
        """What is minimised, and the loss; the gradient is that of the first."""

        @staticmethod
        def forward(
            ctx: Any, hidden_nd: torch.Tensor, weight_vd: torch.Tensor, targets_n: torch.Tensor, learns: bool
        ) -> torch.Tensor:
            sums = hidden_nd.new_zeros(2, dtype=torch.float32)
            by_hidden_nd = torch.empty_like(hidden_nd) if learns else None
            # In float32, or the sum of many pieces would lose what the last ones add.
            by_weight_vd = torch.zeros_like(weight_vd, dtype=torch.float32) if learns else None
            tokens = piece_tokens or len(targets_n)
            for first in range(0, len(targets_n), tokens):
                part = slice(first, first + tokens)
                x_nd = hidden_nd[part]
                part_sums, by_logits_nv = _of_piece(x_nd @ weight_vd.T, targets_n[part], told.z_loss)
                sums += part_sums
                if by_hidden_nd is not None and by_weight_vd is not None:
                    by_logits_nv = by_logits_nv.to(weight_vd.dtype)
                    torch.mm(by_logits_nv, weight_vd, out=by_hidden_nd[part])
                    by_weight_vd += by_logits_nv.T @ x_nd
            ctx.gradients = by_hidden_nd, None if by_weight_vd is None else by_weight_vd.to(weight_vd.dtype)
            return sums

        @staticmethod
        def backward(ctx: Any, *by_sums: Any) -> Any:
            by_hidden_nd, by_weight_vd = ctx.gradients
            ctx.gradients = None  # they are used up
            factor = by_sums[0][0]
            return by_hidden_nd.mul_(factor), by_weight_vd.mul_(factor), None, None

    class Head(type(head)):  # type: ignore[misc]
        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            if told.targets is None:
                logits: torch.Tensor = super().forward(hidden)
                return logits
            asked = hidden.flatten(0, -2), self.weight, told.targets.flatten(), torch.is_grad_enabled()
            sums: torch.Tensor = SummedLoss.apply(*asked)
            told.made = sums.detach()
            return sums

    head.__class__ = Head
    return told


def _of_piece(logits_nv: torch.Tensor, targets_n: torch.Tensor, z_loss: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what is minimised and the loss, summed over the targets, and the gradient of the first by the logits.

    Both in float32, whatever the logits are.
    """
    import torch

    logits_nv = logits_nv.float()
    counted_n1 = (targets_n != IGNORED).unsqueeze(1)
    targets_n1 = targets_n.clamp(min=0).unsqueeze(1)
    target_logits_n1 = logits_nv.gather(1, targets_n1)
    log_probabilities_nv = logits_nv.log_softmax(1)
    told_n1 = log_probabilities_nv.gather(1, targets_n1)
    loss = -(told_n1 * counted_n1).sum()
    log_z_n1 = (target_logits_n1 - told_n1) * counted_n1
    by_log_z_n1 = counted_n1 * (1 + 2 * z_loss * log_z_n1)
    by_logits_nv = log_probabilities_nv.exp_().mul_(by_log_z_n1)
    by_logits_nv.scatter_(1, targets_n1, told_n1.exp() * by_log_z_n1 - counted_n1.float())
    return torch.stack([loss + z_loss * log_z_n1.square().sum(), loss]), by_logits_nv


class LossHead:
    """What an output layer is told: the targets of the next pass, and the weight of the z-loss."""

    def __init__(self) -> None:
        self.targets: torch.Tensor | None = None
        self.z_loss = 0.0
        self.made: torch.Tensor | None = None
        self._is_compared = False

    def of(self, model: Any, targets_bs: torch.Tensor, z_loss: float, **inputs: Any) -> tuple[Any, Any]:
        """Return what is minimised in a pass of the model, and the cross-entropy, both summed over the targets.

        The first is the second and the z-loss, which holds the logits' log-partition near 0 (Chowdhery et al. 2022,
        arXiv:2204.02311, section 5). It can be differentiated once.
        """
        import torch

        self.targets, self.z_loss = targets_bs, z_loss
        try:
            sums = model(**inputs).logits
        finally:
            self.targets = None
        if not self._is_compared:  # in the first pass only: a GPU would be waited for
            unchanged = self.made is not None and torch.allclose(sums, self.made, rtol=0, atol=0, equal_nan=True)
            assert unchanged, "not made for a model that caps or scales what its output layer gives"
            self._is_compared = True
        minimised, loss = sums
        return minimised, loss.detach()
