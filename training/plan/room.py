"""What a run of `train` needs of the machine that is there, what of it is too small, and what would fit instead."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from training.plan.choice import AS_FAST, lacks, rooms
from training.plan.machine import GIGA, PROCESSOR, Device, Machine, device_that_reports, devices
from training.plan.speed import Run, tokens_per_second
from training.plan.strategies import BY_NAME

CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
WAYS_SHOWN = 3
UNKNOWN_AS = "a100-80gb"
"""Whose speeds rank the strategies of a GPU without a data sheet here; its memory is asked of the GPU itself."""


def host_memory() -> float:
    """Return the bytes that processes of this machine may have: its own, or the limit of this container."""
    total = float(psutil.virtual_memory().total)
    said = CGROUP_LIMIT.read_text().strip() if CGROUP_LIMIT.is_file() else "max"
    return min(total, float(said)) if said.isdigit() else total


def machine_here(*, gpu: bool, ranks: int, nodes: int, disk: Path) -> Machine:
    """Return this machine, and others like it.

    Args:
        gpu: whether training is on its GPUs, which PyTorch is asked about.
        ranks: processes on each machine.
        disk: a folder on the disk that states may lie on.
    """
    there = next(folder for folder in (disk, *disk.parents) if folder.is_dir())
    free = float(psutil.disk_usage(str(there)).free)
    device = _gpu() if gpu else PROCESSOR
    return Machine(device=device, devices=ranks, nodes=nodes, host_memory=host_memory(), nvme=free)


def _gpu() -> Device:
    import torch

    said = torch.cuda.get_device_properties(0)
    known = device_that_reports(said.name) or replace(devices()[UNKNOWN_AS], title=str(said.name))
    return replace(known, memory=float(said.total_memory))


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortage:
    """What is too small for a run: a kind of memory, and what is wanted of it and there, in bytes."""

    memory: str
    wanted: float
    there: float

    def __str__(self) -> str:
        return f"{self.wanted / GIGA:,.1f} GB of {self.memory}, and {self.there / GIGA:,.1f} GB are there"


def shortage(run: Run) -> Shortage | None:
    """Return what is too small for a run, by far at first; None where it fits."""
    short = [Shortage(memory=name, wanted=wanted, there=there) for name, (wanted, there) in rooms(run).items()]
    short = [one for one in short if one.wanted > one.there]
    return max(short, key=lambda one: one.wanted / max(one.there, 1.0), default=None)


def cheapest(run: Run, names: Sequence[str]) -> str:
    """Return which of some strategies to run by: the fastest that fits, or a simpler one that is as fast.

    The simplest where none fits. Machines without a data sheet for speeds take the simplest that fits.

    Args:
        names: of strategies, simpler ones first.
    """
    ways = [replace(run, strategy=BY_NAME[name]) for name in names]
    fitting = [way for way in ways if not lacks(way)]
    if not fitting or run.machine.device is PROCESSOR:
        return (fitting or ways)[0].strategy.name
    speeds = {way.strategy.name: tokens_per_second(way) for way in fitting}
    return next(name for name, speed in speeds.items() if speed >= AS_FAST * max(speeds.values()))


def ways_out(run: Run, allowed: Callable[[str], bool]) -> list[str]:
    """Return settings of `train` by which a run that does not fit would, at most three, those that change least first.

    Args:
        allowed: whether a strategy goes with the other settings.
    """
    others = [replace(run, strategy=one) for name, one in BY_NAME.items() if one != run.strategy and allowed(name)]
    changed = [way for way in _recomputed_or_in_parts(run) if not lacks(way)][:1]
    found = [_as_settings(way, run) for way in (*changed, *(other for other in others if not lacks(other)))]
    if not found:
        both = (next((way for way in _recomputed_or_in_parts(other) if not lacks(way)), None) for other in others)
        found = [_as_settings(way, run) for way in both if way is not None]
    return found[:WAYS_SHOWN]


def _recomputed_or_in_parts(run: Run) -> Iterator[Run]:
    """Yield the run with less of it at once: activations computed again, smaller micro-batches, then both."""
    each = run.micro_batch * run.accumulation
    smaller = [
        replace(run, micro_batch=each // parts, accumulation=parts)
        for parts in range(run.accumulation + 1, each + 1)
        if each % parts == 0
    ]
    if run.checkpointing == "none":
        yield replace(run, checkpointing="full")
    yield from smaller
    if run.checkpointing == "none":
        yield from (replace(one, checkpointing="full") for one in smaller)


def _as_settings(way: Run, run: Run) -> str:
    """Return what is another setting of `train` than a run has."""
    said = [f"strategy: {way.strategy.name}"] if way.strategy != run.strategy else []
    said += [f"gradient_accumulation: {way.accumulation}"] if way.accumulation != run.accumulation else []
    said += ["activation_checkpointing: true"] if way.checkpointing != run.checkpointing else []
    return ", ".join(said)
