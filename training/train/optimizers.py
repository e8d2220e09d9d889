"""The optimizer that params.yaml names: torch's AdamW, bitsandbytes' with its moments in 8 bits, or torch's Muon on the
matrices and AdamW on the rest."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch

Optimizer = Literal["adamw", "adamw-8bit", "muon"]
EPSILON = 1e-8
MUON_MOMENTUM = 0.95
NOT_HIDDEN = ("embed", "lm_head", "wte", "wpe")
"""What the names of matrices hold that are no hidden layers: Muon is not meant for them (Jordan et al. 2024)."""


def make_optimizer(
    named: Iterable[tuple[str, torch.nn.Parameter]],
    *,
    optimizer: Optimizer,
    learning_rate: float,
    betas: tuple[float, float],
    weight_decay: float,
    fused: bool = False,
) -> torch.optim.Optimizer:
    """Return an optimizer of a model's parameters; weight decay is on matrices only, never on norms.

    Muon (Jordan et al. 2024) orthogonalises each step of a hidden layer's matrix; its step is made as long as one of
    AdamW would be (Liu et al. 2025, arXiv:2502.16982), so that the same learning rate and weight decay serve both.

    Args:
        named: the model's `named_parameters()`.
        fused: one kernel for the whole of AdamW's step; a fourth of its time on a processor.
    """
    import torch

    listed = list(named)
    hidden = [p for name, p in listed if p.dim() == 2 and not any(part in name for part in NOT_HIDDEN)]
    by_muon = {id(p) for p in hidden} if optimizer == "muon" else set()
    rest = [p for _, p in listed if id(p) not in by_muon]
    groups = [
        {"params": [p for p in rest if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in rest if p.dim() < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if optimizer == "adamw-8bit":
        return _adamw_8bit()(groups, lr=learning_rate, betas=betas, eps=EPSILON)
    adamw = torch.optim.AdamW(groups, lr=learning_rate, betas=betas, eps=EPSILON, fused=fused or None)
    if optimizer == "adamw":
        return adamw
    from training.train.muon import MuonOnProcessor

    make = MuonOnProcessor if all(p.device.type == "cpu" for p in hidden) else torch.optim.Muon
    muon = make(
        hidden,
        lr=learning_rate,
        weight_decay=weight_decay,
        momentum=MUON_MOMENTUM,
        adjust_lr_fn="match_rms_adamw",
    )
    return _together(muon, adamw)


def _adamw_8bit() -> Callable[..., torch.optim.Optimizer]:
    """Return bitsandbytes' AdamW, with moments of 8 bits in blocks of 256 (Dettmers et al. 2022, arXiv 2110.02861).

    On a processor with bf16 instructions it asks a hub for a kernel of 4-bit products when it is imported, where the
    package `kernels` is there. None is used here, so it finds no such package, and does not warn that it does not.
    """
    hub, warned = sys.modules.get("kernels"), logging.getLogger("bitsandbytes.backends.cpu.ops")
    sys.modules["kernels"], warned.disabled = None, True  # type: ignore[assignment]
    try:
        from bitsandbytes.optim.adamw import AdamW8bit
    finally:
        warned.disabled = False
        sys.modules.pop("kernels")
        if hub is not None:
            sys.modules["kernels"] = hub
    made: Callable[..., torch.optim.Optimizer] = AdamW8bit
    return made


def _together(*optimizers: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Return one optimizer that steps several, each with its own groups."""
    import torch

    class Together(torch.optim.Optimizer):
        def __init__(self) -> None:
            super().__init__([group for one in optimizers for group in one.param_groups], {})
            # The groups are the same objects: a learning rate that is set here is set there.
            self.param_groups = [group for one in optimizers for group in one.param_groups]

        def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
            assert closure is None, "a step is not evaluated again"
            for one in optimizers:
                one.step()

        def state_dict(self) -> dict[str, Any]:
            return {"optimizers": [one.state_dict() for one in optimizers]}

        def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
            for one, state in zip(optimizers, state_dict["optimizers"], strict=True):
                one.load_state_dict(state)
            self.param_groups = [group for one in optimizers for group in one.param_groups]

    return Together()
