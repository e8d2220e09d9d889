"""Published measurements of training speed, and how far the estimate is from them.

Models of every other size are for fitting, the rest for the error that is stated: a size that was fitted says little
about how wrong another one is.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.plan.machine import Machine, devices
from training.plan.shape import Shape
from training.plan.speed import FITTED, Constants, Run, Stack, tokens_per_second
from training.plan.strategies import BY_NAME

PUBLISHED = Path(__file__).parent / "published.json"
DEVICES_PER_NODE = 8
FITTED_ON = frozenset(
    {
        *("MPT-125m", "MPT-760m", "MPT-3b", "MPT-13b", "MPT-70b"),
        *("Qwen2.5-0.5B", "Qwen2.5-3B", "Qwen2.5-14B"),
        *("GPT-2-350M", "Llama-2-70B", "Llama-3-8B"),
    }
)
"""Models whose rows the constants are fitted to; the error is that of all others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One measurement: what was run, by which software, and tokens a second over all devices."""

    source: str
    url: str
    model: str
    stack: Stack
    run: Run
    measured: float

    @property
    def held_out(self) -> bool:
        """Whether the constants know nothing of its model."""
        return self.model not in FITTED_ON

    def error(self, constants: Constants = FITTED) -> float:
        """Return the estimate over the measurement, less 1."""
        return tokens_per_second(self.run, self.stack, constants) / self.measured - 1


def published() -> list[Row]:
    """Return every row of published.json."""
    said = json.loads(PUBLISHED.read_bytes())
    shapes = {name: Shape(**numbers) for name, numbers in said["models"].items()}
    return [
        _row(dict(zip(said["columns"], row, strict=True)), source, shapes)
        for source in said["sources"]
        for row in source["rows"]
    ]


def _row(said: dict[str, Any], source: dict[str, Any], shapes: dict[str, Shape]) -> Row:
    ranks = said["devices"]
    machine = Machine(
        device=devices()[said["device"]],
        devices=min(ranks, DEVICES_PER_NODE),
        nodes=max(1, ranks // DEVICES_PER_NODE),
    )
    run = Run(
        shape=shapes[said["model"]],
        machine=machine,
        strategy=BY_NAME[said["strategy"]],
        seq_len=said["seq_len"],
        micro_batch=said["micro_batch"],
        accumulation=said["accumulation"],
        checkpointing=said["checkpointing"],
    )
    return Row(
        source=source["name"],
        url=source["url"],
        model=said["model"],
        stack=source["stack"],
        run=run,
        measured=said["tokens_per_second"],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Error:
    """How wrong the estimate is: the median over rows of how far it is off, and the 90th percentile."""

    rows: int
    median: float
    worst_tenth: float


def error(rows: Iterable[Row], constants: Constants = FITTED) -> Error:
    """Return the error over some rows."""
    off = sorted(abs(row.error(constants)) for row in rows)
    return Error(rows=len(off), median=statistics.median(off), worst_tenth=off[int(0.9 * (len(off) - 1))])


def errors_by_source(rows: Iterable[Row], constants: Constants = FITTED) -> Iterator[tuple[str, Error]]:
    """Yield each source's name and its error."""
    by_source: dict[str, list[Row]] = {}
    for row in rows:
        by_source.setdefault(row.source, []).append(row)
    for source, some in by_source.items():
        yield source, error(some, constants)
