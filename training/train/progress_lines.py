"""What a run tells people while it trains: a JSON line a step, which the log, MLflow and `dvc plots` are fed from."""

from __future__ import annotations

import json
import logging
import math
import resource
import statistics
from collections import deque
from collections.abc import Mapping
from typing import Any

from training.plan.machine import device_that_reports
from training.plan.speed import model_flops_utilisation
from training.train.loop_config import LoopConfig

logger = logging.getLogger(__name__)

RECENT_STEPS = 128
FEW_STEPS = 16
"""So many losses, and no fewer, say what is usual."""
SPIKE_RATIO = 1.25
"""A loss so many times the median of the last ones is a spike."""


class Progress:
    """Writes the lines of a run; rank 0 has one."""

    def __init__(self, config: LoopConfig, *, first_step: int) -> None:
        self._config = config
        self._first_step = first_step
        self._peak = peak_flops(config)
        self._recent: deque[float] = deque(maxlen=RECENT_STEPS)
        self.checkpoint_seconds: float | None = None
        """What the last checkpoint took, until a line has told it."""

    def tell(self, row: Mapping[str, Any], *, elapsed: float, gradient_norm: float | None) -> None:
        """Write the line of a step.

        Args:
            row: the step's number, losses and learning rate.
            elapsed: seconds since the first step of this start began.
        """
        order, done = self._config.order, row["step"] + 1
        speed = (done - self._first_step) * order.batch_size * order.seq_len / elapsed
        told = {
            **row,
            "steps": order.steps,
            "tokens_per_second": round(speed),
            "elapsed": round(elapsed, 2),
            "left": round((order.steps - done) * order.batch_size * order.seq_len / speed, 1),
            "mfu": None if self._peak is None else utilisation(self._config, speed, self._peak),
            **({} if self.checkpoint_seconds is None else {"checkpoint_seconds": self.checkpoint_seconds}),
            "gradient_norm": None if gradient_norm is None else round(float(gradient_norm), 4),
            "spike": self._stands_out(row["train_loss"]),
            "peak_memory_mib": round(self._memory_mib()),
        }
        self.checkpoint_seconds = None
        with self._config.progress.open("a") as stream:
            stream.write(json.dumps(told) + "\n")

    def _stands_out(self, loss: float) -> bool:
        usual = statistics.median(self._recent) if len(self._recent) >= FEW_STEPS else math.inf
        self._recent.append(loss)
        return loss > usual * SPIKE_RATIO

    def _memory_mib(self) -> float:
        if self._config.device == "cpu":
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        import torch

        return torch.cuda.max_memory_allocated() / 2**20


def peak_flops(config: LoopConfig) -> float | None:
    """Return the bf16 operations a second of all devices; None, and why in the log, where they are not known."""
    if config.device == "cpu":
        missing = "a processor's peak depends on its clock and its instructions"
    elif config.precision != "bf16":
        missing = "the peaks that are known are those of bf16"
    else:
        import torch

        name = torch.cuda.get_device_name()
        if (device := device_that_reports(name)) is not None:
            return device.flops * config.order.ranks
        missing = f"the peak of {name} is not known (training/plan/devices.json)"
    logger.info("train: no MFU is told: %s", missing)
    return None


def utilisation(config: LoopConfig, speed: float, peak: float) -> float:
    """Return what share of the devices' peak the model's own operations reach.

    Args:
        speed: tokens a second.
    """
    seq_len = config.order.seq_len
    shape = config.model.shape(vocab_size=config.vocab_size, seq_len=seq_len)
    return round(model_flops_utilisation(shape, seq_len=seq_len, tokens_per_second=speed, peak=peak), 4)
