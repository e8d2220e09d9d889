"""The learning rate of each step."""

from __future__ import annotations

import math
from typing import Literal

Schedule = Literal["cosine", "wsd"]


def learning_rate(
    step: int,
    *,
    peak: float,
    final: float,
    warmup: int,
    steps: int,
    schedule: Schedule = "cosine",
    decay_fraction: float = 0.2,
) -> float:
    """Return the learning rate of a step, after a linear warm-up.

    Args:
        schedule: half a cosine from `peak` down to `final` (Loshchilov and Hutter 2017, arXiv:1608.03983), or `peak`
            until a linear decay (warm-up, stable, decay: Hu et al. 2024, arXiv:2404.06395, and Hägele et al. 2024,
            arXiv:2405.18392).
        decay_fraction: which part of all steps the linear decay takes.

    >>> [round(learning_rate(s, peak=1.0, final=0.1, warmup=2, steps=5), 3) for s in range(5)]
    [0.5, 1.0, 1.0, 0.55, 0.1]
    >>> wsd = {"peak": 1.0, "final": 0.2, "warmup": 2, "steps": 8, "schedule": "wsd", "decay_fraction": 0.5}
    >>> [round(learning_rate(s, **wsd), 3) for s in range(8)]
    [0.5, 1.0, 1.0, 1.0, 0.8, 0.6, 0.4, 0.2]
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    if schedule == "cosine":
        fraction = (step - warmup) / max(1, steps - 1 - warmup)
        return final + (peak - final) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, fraction)))
    decay = max(1, min(round(steps * decay_fraction), steps - warmup))
    return peak + (final - peak) * max(0, step + 1 - (steps - decay)) / decay
