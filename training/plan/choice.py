"""All ways to train a model on a machine, which of them fit, and which one to take."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

from training.plan.machine import PROCESSOR, Machine
from training.plan.memory import Memory, memory
from training.plan.resident import resident_bytes
from training.plan.shape import Checkpointing, Shape
from training.plan.speed import Run, step_time
from training.plan.strategies import STRATEGIES

TOKENS_A_WEIGHT = 20
"""Tokens for each weight that a compute-optimal run sees (Hoffmann et al. 2022, arXiv 2203.15556)."""
STEP_TOKENS = 2**19
"""Tokens of a step where nothing else is asked for."""
AS_FAST = 0.97
"""Of two ways of which the slower reaches this much of the faster one, the simpler is taken."""
SECONDS_A_DAY = 86_400
RESIDENT_MARGIN = 1.25
"""By so much more than a processor's run is reckoned to take there must be: none that was measured took as much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is to be trained, and on what.

    Attributes:
        batch: sequences of a step, over all ranks.
        tokens: to train on.
    """

    shape: Shape
    machine: Machine
    seq_len: int
    batch: int
    tokens: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """One way to fulfil a wish: with the largest micro-batch that fits, or with one sequence where none does.

    Attributes:
        lacks: what is too small for it ("device memory", "host memory", "disk"); empty where it fits.
        kilowatt_hours: of the devices at their power limit, without host and cooling.
        dollars: to rent the devices; None where no price is known.
    """

    run: Run
    memory: Memory
    lacks: tuple[str, ...]
    tokens_per_second: float
    days: float
    kilowatt_hours: float
    dollars: float | None

    @property
    def fits(self) -> bool:
        """Whether device, host and disk have room for it."""
        return not self.lacks


def default_batch(seq_len: int, ranks: int) -> int:
    """Return the sequences of a step of about half a million tokens, shared out evenly.

    >>> default_batch(2048, 8), default_batch(2048, 3), default_batch(10**6, 4)
    (256, 255, 4)
    """
    return max(1, STEP_TOKENS // seq_len // ranks) * ranks


def estimates(wish: Wish) -> list[Estimate]:
    """Return an estimate for every way that makes a difference on this machine, simpler ones first."""
    return [_estimate(wish, micro) for micro in _ways(wish)]


def recommend(found: Sequence[Estimate]) -> Estimate | None:
    """Return the way to take, which DeepSpeed and so `train` can go; None where none fits.

    The fastest, or a simpler one that is as fast. What changes what is learnt (Adam's moments in 8 bits, gradients that
    are applied late) is taken only where nothing else fits.
    """
    fitting = [one for one in found if one.fits and one.run.strategy.deepspeed]
    exact = [one for one in fitting if one.run.moment_bits == 32 and one.run.strategy.exact]
    if not (candidates := exact or fitting):
        return None
    fastest = max(one.tokens_per_second for one in candidates)
    return next(one for one in candidates if one.tokens_per_second >= AS_FAST * fastest)


def nearest(found: Sequence[Estimate]) -> Estimate:
    """Return the way whose scarcest memory is the least too small; a device's cannot be bought, the host's can."""

    def shortage(one: Estimate) -> tuple[bool, float]:
        both = rooms(one.run).values()
        return "device memory" in one.lacks, max(wanted / max(there, 1.0) for wanted, there in both)

    return min(found, key=shortage)


def _ways(wish: Wish) -> Iterator[list[Run]]:
    """Yield for each way its runs, by falling micro-batch."""
    machine = wish.machine
    each = max(1, wish.batch // machine.ranks)
    sizes = [size for size in range(each, 0, -1) if each % size == 0]
    checkpointings: tuple[Checkpointing, ...] = ("none", "full")
    bits: tuple[Literal[32, 8], ...] = (32, 8)
    for strategy, moment_bits, checkpointing in product(STRATEGIES, bits, checkpointings):
        if not strategy.applies(ranks=machine.ranks, host_link=machine.device.host_link):
            continue
        if moment_bits == 8 and strategy.optimizer != "device":
            continue
        yield [
            Run(
                shape=wish.shape,
                machine=machine,
                strategy=strategy,
                seq_len=wish.seq_len,
                micro_batch=size,
                accumulation=each // size,
                checkpointing=checkpointing,
                moment_bits=moment_bits,
            )
            for size in sizes
        ]


def _estimate(wish: Wish, runs: Sequence[Run]) -> Estimate:
    run = next((run for run in runs if not lacks(run)), runs[-1])
    speed = run.tokens / step_time(run).total
    seconds = wish.tokens / speed
    device, hours = run.machine.device, seconds / 3600 * run.machine.ranks
    return Estimate(
        run=run,
        memory=memory(run),
        lacks=lacks(run),
        tokens_per_second=speed,
        days=seconds / SECONDS_A_DAY,
        kilowatt_hours=hours * device.watts / 1000,
        dollars=None if device.price is None else hours * device.price,
    )


def lacks(run: Run) -> tuple[str, ...]:
    """Return what is too small for a run."""
    return tuple(name for name, (wanted, there) in rooms(run).items() if wanted > there)


def rooms(run: Run) -> dict[str, tuple[float, float]]:
    """Return for each kind of memory what is wanted of it and what is there."""
    needed, machine = memory(run), run.machine
    if machine.device is PROCESSOR:
        wanted = RESIDENT_MARGIN * resident_bytes(run) * machine.devices
        return {"memory": (wanted, machine.host_memory), "disk": (needed.nvme, machine.nvme)}
    return {
        "device memory": (needed.device, machine.device.memory),
        "host memory": (needed.host, machine.host_memory),
        "disk": (needed.nvme, machine.nvme),
    }
