"""How long a training step takes: arithmetic and memory traffic on the device, and what links and hosts add.

A roofline (Williams et al. 2009): a token costs its floating-point operations at a share of the device's peak, plus
the bytes that norms, activations and loss move at the device's bandwidth. The share depends on the kind of device and
on the software; both are fitted to half of the published rows (published.json), and the other half says how wrong the
estimate is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from training.plan.machine import Machine
from training.plan.shape import RECOMPUTED, Checkpointing, Shape
from training.plan.strategies import Strategy

Stack = Literal["pytorch", "cuda", "deepspeed"]
"""Software: PyTorch with FSDP or DDP, hand-written CUDA (llm.c, llmq), transformers under DeepSpeed, as `train`."""

LINK_SHARE = 0.8
"""How much of a link's stated bandwidth collectives and copies reach."""
HOST_ADAM_BYTES = 30
"""Bytes that Adam moves in the host's memory for a weight: three float32 states read and written, gradient, weight."""
DEVICE_ADAM_BYTES = {32: 30, 8: 18}
"""The same on the device, by the bits of its two moments."""
STATE_BYTES = 12
"""Float32 copy of a weight and its two moments, which ZeRO-Infinity reads and writes in each step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Constants:
    """What is fitted to published rows.

    Attributes:
        share: of the peak that matrix products reach, by kind of device, with hand-written kernels.
        software: how fast a stack is beside those.
        moved: bytes that a layer moves for a token beside its matrix products, for each unit of width.
        exposed: how much of the shorter of arithmetic and communication the longer one does not hide.
        exposed_streaming: the same where weights come from the host.
    """

    share: Mapping[str, float]
    software: Mapping[Stack, float]
    moved: float
    exposed: float
    exposed_streaming: float


FITTED = Constants(
    share={
        "ampere": 0.671,
        "hopper": 0.516,
        "l40s": 0.590,
        "rtx-4090": 1.006,  # above 1: it clocks higher than its data sheet says
        "rtx-5090": 1.038,
        "rtx-pro-6000": 0.809,
    },
    software={"pytorch": 0.942, "cuda": 1.0, "deepspeed": 1.004},
    moved=240.0,
    exposed=0.1,
    exposed_streaming=1.0,
)
"""Of tests/bench/fit_plan.py; a test fits them again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One way to train a shape on a machine.

    Attributes:
        micro_batch: sequences that a rank puts through the model at once.
        accumulation: micro-batches in a step.
        moment_bits: of Adam's two moments on the device.
        precision: of weights and activations.
        optimizer: Adam, or Muon on the hidden matrices, which keeps one moment of them.
        piece_tokens: tokens whose logits are there at once; None for all of a micro-batch.
    """

    shape: Shape
    machine: Machine
    strategy: Strategy
    seq_len: int
    micro_batch: int
    accumulation: int = 1
    checkpointing: Checkpointing = "none"
    moment_bits: Literal[32, 8] = 32
    precision: Literal["bf16", "fp32"] = "bf16"
    optimizer: Literal["adam", "muon"] = "adam"
    piece_tokens: int | None = None

    @property
    def tokens(self) -> int:
        """Tokens of a step, over all ranks."""
        return self.seq_len * self.micro_batch * self.accumulation * self.machine.ranks


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTime:
    """Seconds of a step: the device's own work, links between devices, host and disk, and all of it together."""

    device: float
    links: float
    host: float
    total: float


def tokens_per_second(run: Run, stack: Stack = "deepspeed", constants: Constants = FITTED) -> float:
    """Return the expected tokens a second over all ranks."""
    return run.tokens / step_time(run, stack, constants).total


def step_time(run: Run, stack: Stack = "deepspeed", constants: Constants = FITTED) -> StepTime:
    """Return the expected time of an optimizer step."""
    device = run.accumulation * _pass_seconds(run, stack, constants) + _update_seconds(run)
    links = _link_seconds(run)
    streamed, stalled = _host_seconds(run)
    beside = links + streamed
    exposed = constants.exposed if run.strategy.weights == "device" else constants.exposed_streaming
    total = max(device, beside) + exposed * min(device, beside) + stalled
    return StepTime(device=device, links=links, host=streamed + stalled, total=total)


def model_flops_utilisation(shape: Shape, *, seq_len: int, tokens_per_second: float, peak: float) -> float:
    """Return what share of the peak goes into the model's own operations (MFU; PaLM, arXiv 2204.02311, appendix B).

    Tokens a second times the operations of a token's forward and backward pass, 6 for each weight that is multiplied
    and 12 × layers × width × seq_len for attention, over the peak. What is computed again does not count.

    Args:
        tokens_per_second: over all devices.
        peak: bf16 operations a second of all devices, dense, by their data sheet.
    """
    return shape.model_operations(seq_len) * tokens_per_second / peak


def _pass_seconds(run: Run, stack: Stack, constants: Constants) -> float:
    """Return the seconds of one micro-batch's forward and backward pass on a device."""
    shape, device = run.shape, run.machine.device
    reached = device.flops * constants.share[device.kind] * constants.software[stack]
    arithmetic = shape.operations(run.seq_len, run.checkpointing) / reached
    again = 1 + RECOMPUTED[run.checkpointing] / 3
    layers = shape.layers * constants.moved * shape.width * again
    logits = 14.0 * shape.vocabulary  # bf16 and float32, forward and backward
    return run.micro_batch * run.seq_len * (arithmetic + (layers + logits) / device.bandwidth)


def _update_seconds(run: Run) -> float:
    """Return the seconds of Adam on a device; 0 where the host does it."""
    if run.strategy.optimizer != "device":
        return 0.0
    share = run.shape.weights / (run.machine.ranks if run.strategy.stage >= 1 else 1)
    return DEVICE_ADAM_BYTES[run.moment_bits] * share / run.machine.device.bandwidth


def _link_seconds(run: Run) -> float:
    """Return the seconds in which a step's gradients and weights go between ranks.

    Every rank sends (P−1)/P of the weights for each gathering or scattering of them. Between nodes, all devices' shares
    of the network carry one ring.
    """
    machine, ranks = run.machine, run.machine.ranks
    if ranks == 1:
        return 0.0
    slowest = machine.device.link
    if machine.nodes > 1:
        slowest = min(slowest, machine.device.network * machine.devices)
    once = 2.0 * run.shape.weights * (ranks - 1) / ranks / (slowest * LINK_SHARE)
    if run.strategy.stage == 3:
        return 3 * once * run.accumulation
    if run.strategy.stage == 2:
        return once * (run.accumulation + 1)
    return 2 * once


def _host_seconds(run: Run) -> tuple[float, float]:
    """Return the seconds of what is streamed beside the passes, and of what a step waits for at its end."""
    machine, strategy = run.machine, run.strategy
    share = run.shape.weights / machine.ranks
    over_link = 2.0 * share / (machine.device.host_link * LINK_SHARE)
    of_node = run.shape.weights / machine.nodes
    streamed, stalled = 0.0, 0.0
    if strategy.optimizer != "device":
        streamed += over_link * run.accumulation  # gradients
        update = HOST_ADAM_BYTES * of_node / machine.host_bandwidth
        if strategy.optimizer == "nvme":
            update = max(update, 2.0 * STATE_BYTES * of_node / machine.nvme_bandwidth)
        stalled += strategy.stall * (update + over_link)
    if strategy.weights != "device":
        streamed += 2 * over_link * run.accumulation  # forward and backward
    if strategy.weights == "nvme":
        streamed += 4.0 * of_node / machine.nvme_bandwidth * run.accumulation
    return streamed, stalled
