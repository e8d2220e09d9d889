"""What a run needs of memory on a device, on a node's host and on its disks.

States as Rajbhandari et al. 2020 count them, activations as Korthikanti et al. 2022 (arXiv 2205.05198) without the
attention matrix, which the kernels that `train` uses never write, and without dropout.
"""

from __future__ import annotations

from dataclasses import dataclass

from training.plan.machine import GIB
from training.plan.shape import RECOMPUTED, Shape
from training.plan.speed import Run

LIVE_WEIGHTS = 10**9
"""Weights that ZeRO-3 keeps gathered at most (`stage3_max_live_parameters`)."""
BUCKET_BYTES = 2 * 2 * 5 * 10**8
"""Two buckets of 500 million bf16 gradients that ZeRO sends (`reduce_bucket_size`)."""
LOGIT_BYTES = 12
"""Of one logit, in float32: its logarithm and both gradients; what comes before is gone by then."""
CONTEXT_BYTES = 1.5 * GIB
"""CUDA context, library workspaces and communicators."""
FRAGMENTATION = 1.05
PINNED_BYTES = 4 * GIB
"""Of the host for each rank: pinned buffers beside the states, and the process itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes of one device, and of one node's host and disks.

    Attributes:
        states: weights, gradients and optimizer states of a device.
        activations: of a micro-batch, the logits included.
        buffers: gathered weights, buckets, context and fragmentation.
    """

    states: float
    activations: float
    buffers: float
    host: float
    nvme: float

    @property
    def device(self) -> float:
        """All that lies on a device at the worst moment."""
        return self.states + self.activations + self.buffers


def memory(run: Run) -> Memory:
    """Return what a run needs."""
    states, activations, working = _states(run), activation_bytes(run), working_bytes(run)
    buffers = working + (FRAGMENTATION - 1) * (states + activations + working) + CONTEXT_BYTES
    host, nvme = _outside(run)
    return Memory(states=states, activations=activations, buffers=buffers, host=host, nvme=nvme)


def activation_bytes(run: Run) -> float:
    """Return the bytes of a micro-batch that the backward pass needs, on a device."""
    shape, tokens = run.shape, run.micro_batch * run.seq_len
    layer = layer_activation_bytes(shape, run.precision)
    kept = 1 - RECOMPUTED[run.checkpointing]
    boundaries = (4.0 if run.precision == "fp32" else 2.0) * shape.width if kept < 1 else 0.0
    # A layer that is computed again, and the gradients of it, have the room of the head, whose turn is over by then.
    gradients = (2.0 if run.precision == "bf16" else 4.0) * (2 * shape.width + (3 if shape.gated else 2) * shape.inner)
    at_work = max(layer + gradients, _head(run)) if kept < 1 else _head(run)
    return tokens * (shape.layers * (kept * layer + boundaries) + at_work)


def layer_activation_bytes(shape: Shape, precision: str = "bf16") -> float:
    """Return the bytes that a layer keeps for a token.

    Per unit of width, queries and attention's output are 2 each, keys and values 4 by their share of the heads. A
    LayerNorm keeps its input and output, 2 each; transformers' RMSNorm its input in float32, its normal form and its
    output, 8. Per unit of inner width, each of the activations is 2: four of SwiGLU, two of GELU. That is in bf16; in
    float32 all are twice as large but what RMSNorm has in float32 there too, of which its input need not be copied.
    """
    norms, inner = (16.0, 8.0) if shape.gated else (8.0, 4.0)
    in_bf16 = shape.width * (norms + 4.0 + 4.0 * shape.kv_heads / shape.heads) + inner * shape.inner
    if precision == "bf16":
        return in_bf16
    return 2.0 * in_bf16 - (8.0 * shape.width if shape.gated else 0.0)


def logit_bytes(run: Run) -> float:
    """Return the bytes that the logits, and what the loss makes of them, take for a token of a micro-batch."""
    tokens = run.micro_batch * run.seq_len
    return LOGIT_BYTES * run.shape.vocabulary * min(run.piece_tokens or tokens, tokens) / tokens


def _head(run: Run) -> float:
    return logit_bytes(run) + 8.0 * run.shape.width


def _states(run: Run) -> float:
    """Return the bytes of weights, gradients and optimizer states on a device."""
    strategy, weights, ranks = run.strategy, float(run.shape.weights), run.machine.ranks
    sharded = weights / ranks
    if strategy.name == "fsdp":
        return (4 + 4 + 2 * run.moment_bits / 8) * sharded  # float32 weights, which are their own copy, and gradients
    found, extra = 0.0, 2.0 if run.precision == "fp32" else 0.0  # of a weight and of its gradient
    if strategy.weights == "device":
        found += (2 + extra) * (sharded if strategy.stage == 3 else weights)
    if strategy.optimizer == "device":
        moments = 4 + 2 * run.moment_bits / 8
        # Sharded gradients are turned into float32 for the update; DDP accumulates in float32.
        found += {0: 4 * weights, 1: 2 * weights + 4 * sharded}.get(strategy.stage, 6 * sharded)
        found += moments * (weights if strategy.stage == 0 else sharded)
    return found


def working_bytes(run: Run) -> float:
    """Return the bytes of what is on a device for a moment: gathered weights, and gradients that are being sent."""
    strategy, shape, ranks = run.strategy, run.shape, run.machine.ranks
    if strategy.name == "fsdp":
        # Two layers and all that is in none are there in bf16, the gradients of one of them in float32.
        outside = shape.weights - shape.layers * shape.layer_weights
        return 2.0 * (2 * shape.layer_weights + outside) + 4.0 * max(shape.layer_weights, outside)
    found = 0.0
    if strategy.stage == 3 and (ranks > 1 or strategy.weights != "device"):
        live = max(LIVE_WEIGHTS, 2 * shape.layer_weights + shape.head_weights)
        found += 2.0 * min(live, shape.weights)
    if strategy.stage >= 2:
        found += min(BUCKET_BYTES, 4.0 * shape.weights)
    return found


def _outside(run: Run) -> tuple[float, float]:
    """Return the bytes on a node's host and on its disks."""
    strategy, machine = run.strategy, run.machine
    of_node = run.shape.weights / machine.nodes
    states, weights = 16 * of_node, 2 * of_node  # float32 copy, gradient and two moments; bf16 weights
    host = float(PINNED_BYTES * machine.devices)
    host += (states if strategy.optimizer == "host" else 0) + (weights if strategy.weights == "host" else 0)
    nvme = (states if strategy.optimizer == "nvme" else 0.0) + (weights if strategy.weights == "nvme" else 0.0)
    return host, nvme
