"""What a rank of `train` has resident on a processor at most, where the host's memory holds all of a run.

The bytes that DeepSpeed and torch's AdamW hold for a weight were measured phase by phase: what is kept while a
micro-batch goes through the model, beside its activations, and what the update takes at its height, when the
activations are gone. AdamW takes two temporary copies of what it updates, which under ZeRO is one flat tensor.
"""

from __future__ import annotations

from dataclasses import dataclass

from training.plan.memory import layer_activation_bytes, logit_bytes
from training.plan.shape import RECOMPUTED
from training.plan.speed import Run

ON_DISK_BYTES = 12
"""Of a weight, what ZeRO-Infinity has on a disk: a float32 copy and two moments. Reckoned, not measured."""


@dataclass(frozen=True, slots=True)
class Residence:
    """What is fitted to runs that were measured (tests/bench/fit_memory.py).

    Attributes:
        libraries: bytes of a rank of a small model: Python, PyTorch, DeepSpeed, transformers, what threads work in.
        share: of what one shape's phases show, on others.
    """

    libraries: float
    share: float


FITTED = Residence(libraries=590e6, share=0.955)


@dataclass(frozen=True, slots=True)
class Held:
    """Bytes a weight, of all weights and of a rank's share of them: while activations are there, and at the update."""

    kept: tuple[float, float]
    update: tuple[float, float]

    def at(self, ranks: int) -> tuple[float, float]:
        """Return both for so many ranks."""
        return self.kept[0] + self.kept[1] / ranks, self.update[0] + self.update[1] / ranks


HELD = {
    ("ddp", "fp32"): Held((13.8, 0.5), (21.3, 0.1)),
    ("zero-1", "fp32"): Held((3.3, 18.3), (10.0, 27.5)),
    ("zero-1", "bf16"): Held((11.7, 9.7), (15.6, 15.0)),
    ("zero-2", "fp32"): Held((5.9, 12.5), (6.1, 29.4)),
    ("zero-2", "bf16"): Held((5.9, 12.0), (8.9, 21.7)),
    ("zero-3", "fp32"): Held((13.0, 17.9), (18.1, 24.8)),
    ("zero-3", "bf16"): Held((9.9, 16.4), (6.0, 36.0)),
    ("zero-2-offload", "fp32"): Held((7.3, 20.1), (11.8, 28.3)),
    ("zero-2-offload", "bf16"): Held((7.7, 15.7), (4.4, 35.5)),
    ("zero-3-offload", "fp32"): Held((13.5, 21.1), (22.3, 20.4)),
    ("zero-3-offload", "bf16"): Held((12.0, 16.8), (10.3, 33.0)),
}
"""By strategy and precision, of tests/bench/memory_by_phase.py on one rank and on two: more ranks are not measured."""


def resident_bytes(run: Run, constants: Residence = FITTED) -> float:
    """Return the bytes of one rank's process, at its height."""
    weights, ranks = float(run.shape.weights), run.machine.ranks
    on_disk = run.strategy.optimizer == "nvme"
    held = HELD["zero-3-offload" if on_disk else run.strategy.name, run.precision]
    kept, update = (each * weights - (ON_DISK_BYTES * weights / ranks if on_disk else 0) for each in held.at(ranks))
    return constants.libraries + constants.share * max(kept + _activation_bytes(run), update)


def _activation_bytes(run: Run) -> float:
    """Return the bytes of a micro-batch, the logits included, as its backward pass begins."""
    shape, tokens = run.shape, run.micro_batch * run.seq_len
    layer, kept = layer_activation_bytes(shape, run.precision), 1 - RECOMPUTED[run.checkpointing]
    boundary = (4.0 if run.precision == "fp32" else 2.0) * shape.width if kept < 1 else 0.0
    head = logit_bytes(run)
    return tokens * (shape.layers * (kept * layer + boundary) + (max(layer, head) if kept < 1 else head))
