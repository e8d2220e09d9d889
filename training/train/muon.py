"""torch's Muon, whose orthogonal steps are computed in float32: what a processor without bf16 instructions is fast at.

torch computes them in bfloat16, which such a processor emulates at a fifteenth of the speed. Which instructions there
are must not decide what comes out, so on processors it is float32 always (docs/decisions/0026).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic iteration by which Newton and Schulz's method comes near an orthogonal matrix (Jordan et al. 2024)."""
ITERATIONS = 5
EPSILON = 1e-7
AS_ADAMW = 0.2
"""Root mean square of a step of AdamW, with which one of Muon is made as long (Liu et al. 2025, arXiv:2502.16982)."""


class MuonOnProcessor(torch.optim.Muon):
    """The same groups, settings and state as torch's, with `match_rms_adamw` and Nesterov's momentum."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move each matrix that has a gradient."""
        assert closure is None, "a step is not evaluated again"
        for group in self.param_groups:
            rate, momentum = group["lr"], group["momentum"]
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                state = self.state[matrix]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(matrix.grad)
                average = state["momentum_buffer"].lerp_(matrix.grad, 1 - momentum)
                update = orthogonal(matrix.grad.lerp(average, momentum))
                matrix.mul_(1 - rate * group["weight_decay"])
                matrix.add_(update, alpha=-rate * AS_ADAMW * math.sqrt(max(matrix.shape)))


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """Return a matrix with the same singular vectors, whose singular values are near 1, but for those nearly zero.

    Args:
        matrix: shape (rows, columns), computed with in float32 and returned in it.
    """
    a, b, c = COEFFICIENTS
    wide = matrix.float()
    wide = wide.T if matrix.shape[0] > matrix.shape[1] else wide
    near = wide / wide.norm().clamp(min=EPSILON)
    for _ in range(ITERATIONS):
        gram = near @ near.T
        near = torch.addmm(near, torch.addmm(gram, gram, gram, beta=b, alpha=c), near, beta=a)
    found: torch.Tensor = near.T if matrix.shape[0] > matrix.shape[1] else near
    return found
