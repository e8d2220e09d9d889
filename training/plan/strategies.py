"""How a model's states are laid out over devices, hosts and disks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Place = Literal["device", "host", "nvme"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """A way to hold weights, gradients and the optimizer's states.

    Attributes:
        stage: what ranks share out, as DeepSpeed counts: 1 optimizer states, 2 gradients too, 3 weights too.
        optimizer, weights: where they lie.
        exact: whether the weights become what they become without it; else gradients are applied late.
        stall: how much of the work on the host and of its transfers the device waits for; 1 is all of it.
        deepspeed: whether DeepSpeed does it, and so `train`.
        paper: where it is described.
    """

    name: str
    title: str
    stage: Literal[0, 1, 2, 3]
    optimizer: Place = "device"
    weights: Place = "device"
    exact: bool = True
    stall: float = 1.0
    deepspeed: bool = True
    paper: str = "Rajbhandari et al. 2020, arXiv 1910.02054"

    @property
    def offloads(self) -> bool:
        """Whether something lies outside the devices."""
        return "device" not in (self.optimizer, self.weights) or self.optimizer != self.weights

    def applies(self, *, ranks: int, host_link: float) -> bool:
        """Return whether it is another one than a simpler one on this machine."""
        if self.name == "superoffload":
            return host_link >= SUPERCHIP_LINK
        return ranks > 1 or self.stage == 0 or self.offloads


SUPERCHIP_LINK = 200e9
"""Bytes a second between host and device from which SuperOffload is made for (NVLink-C2C)."""

_OFFLOAD = "Ren et al. 2021, arXiv 2101.06840"
_INFINITY = "Rajbhandari et al. 2021, arXiv 2104.07857"

STRATEGIES: tuple[Strategy, ...] = (
    Strategy(name="ddp", title="DDP", stage=0, paper="Li et al. 2020, arXiv 2006.15704"),
    Strategy(name="zero-1", title="ZeRO-1", stage=1),
    Strategy(name="zero-2", title="ZeRO-2", stage=2),
    Strategy(name="fsdp", title="FSDP2", stage=3, deepspeed=False, paper="Zhao et al. 2023, arXiv 2304.11277"),
    Strategy(name="zero-3", title="ZeRO-3", stage=3),
    Strategy(name="zero-2-offload", title="ZeRO-2, Adam on host", stage=2, optimizer="host", paper=_OFFLOAD),
    Strategy(
        name="zenflow",
        title="ZenFlow",
        stage=2,
        optimizer="host",
        exact=False,
        stall=0.15,  # "cuts stalls by over 85 %"
        paper="Lan et al. 2025, arXiv 2505.12242",
    ),
    Strategy(
        name="superoffload",
        title="SuperOffload",
        stage=3,
        optimizer="host",
        stall=0.15,
        paper="Lian et al. 2025, arXiv 2509.21271",
    ),
    Strategy(
        name="zero-3-offload",
        title="ZeRO-3, all on host",
        stage=3,
        optimizer="host",
        weights="host",
        paper=_INFINITY,
    ),
    Strategy(
        name="infinity-optimizer",
        title="Infinity, Adam on NVMe",
        stage=3,
        optimizer="nvme",
        weights="host",
        paper=_INFINITY,
    ),
    Strategy(
        name="infinity", title="Infinity, all on NVMe", stage=3, optimizer="nvme", weights="nvme", paper=_INFINITY
    ),
)
"""Simpler ones first: of two that are as fast, the first is taken."""

BY_NAME = {strategy.name: strategy for strategy in STRATEGIES}


def zero_config(strategy: Strategy, *, nvme_path: str, pin_memory: bool = True) -> dict[str, Any]:
    """Return what DeepSpeed calls `zero_optimization`.

    Args:
        nvme_path: folder of the disk that states are swapped to.
        pin_memory: whether host memory is pinned, for a device that reads it directly.
    """
    places: dict[Place, dict[str, Any]] = {
        "host": {"device": "cpu", "pin_memory": pin_memory},
        "nvme": {"device": "nvme", "nvme_path": nvme_path, "pin_memory": pin_memory, "buffer_count": 5},
    }
    zero: dict[str, Any] = {"stage": strategy.stage}
    if strategy.optimizer != "device":
        zero["offload_optimizer"] = places[strategy.optimizer]
    if strategy.weights != "device":
        zero["offload_param"] = places[strategy.weights]
    return zero
