"""The geometry of the report's charts, in the units of their SVG view boxes. Colours and text stay in the template."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

FUNNEL_WIDTH, FUNNEL_HEIGHT = 1120.0, 330.0
_TOP, _TALL, _NODE = 62.0, 190.0, 9.0
_LEAST = 1.5  # a band thinner than this cannot be seen

CHART_WIDTH, CHART_HEIGHT = 1120.0, 360.0
_LEFT, _RIGHT, _UPPER, _LOWER = 52.0, 16.0, 14.0, 34.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FunnelBar:
    """A stage in the funnel: its bar, the band to the next stage, and the ribbon of what is dropped."""

    name: str
    x: float
    y: float
    height: float
    in_: int
    out: int
    band: str | None
    ribbon: str | None
    label_y: float

    @property
    def dropped(self) -> int:
        """How many end here."""
        return self.in_ - self.out


@dataclass(frozen=True, slots=True, kw_only=True)
class Funnel:
    """What goes in on the left comes out on the right, or leaves downwards."""

    width: float
    height: float
    bar: float
    nodes: Sequence[FunnelBar]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One series: its path, its last point and value."""

    name: str
    path: str
    points: Sequence[tuple[float, float]]
    end: tuple[float, float]
    last: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LineChart:
    """Lines over steps, with ticks as (position, label)."""

    width: float
    height: float
    left: float
    right: float
    bottom: float
    x_ticks: Sequence[tuple[float, str]]
    y_ticks: Sequence[tuple[float, str]]
    lines: Sequence[Line]


def funnel(stages: Sequence[tuple[str, int, int]]) -> Funnel:
    """Lay out (name, in, out) of consecutive stages; heights are proportional to the numbers."""
    most = max(max(in_, out) for _, in_, out in stages) or 1
    gap = FUNNEL_WIDTH / len(stages)
    nodes = []
    for index, (name, in_, out) in enumerate(stages):
        x = index * gap
        right, tall = x + _NODE, max(_LEAST, in_ / most * _TALL)
        kept = max(_LEAST, out / most * _TALL) if out else 0.0
        following = stages[index + 1][1] if index + 1 < len(stages) else out
        next_tall = max(_LEAST, following / most * _TALL) if following else 0.0
        reach = x + gap
        middle = (right + reach) / 2
        band = (
            f"M{right:.1f},{_TOP} L{reach:.1f},{_TOP} L{reach:.1f},{_TOP + next_tall:.1f} "
            f"C{middle:.1f},{_TOP + next_tall:.1f} {middle:.1f},{_TOP + kept:.1f} {right:.1f},{_TOP + kept:.1f} Z"
        )
        ribbon, label_y = None, _TOP + tall + 24
        if in_ > out:
            start, end = _TOP + kept, _TOP + tall
            far, sink = right + gap * 0.62, 34.0
            bend = right + gap * 0.3
            ribbon = (
                f"M{right:.1f},{start:.1f} C{bend:.1f},{start:.1f} {bend:.1f},{start + sink:.1f} {far:.1f},"
                f"{start + sink:.1f} L{far:.1f},{end + sink:.1f} C{bend:.1f},{end + sink:.1f} "
                f"{bend:.1f},{end:.1f} {right:.1f},{end:.1f} Z"
            )
            label_y = end + sink + 17
        nodes.append(
            FunnelBar(name=name, x=x, y=_TOP, height=tall, in_=in_, out=out, band=band, ribbon=ribbon, label_y=label_y)
        )
    return Funnel(width=FUNNEL_WIDTH, height=FUNNEL_HEIGHT, bar=_NODE, nodes=nodes)


def loss_chart(rows: Sequence[Mapping[str, float]]) -> LineChart | None:
    """Lay out training and validation loss over steps; None when nothing was measured."""
    series = {
        name: [(row["step"], row[column]) for row in rows if column in row and math.isfinite(row[column])]
        for name, column in (("training", "train_loss"), ("validation", "validation_loss"))
    }
    series = {name: points for name, points in series.items() if points}
    if not series:
        return None
    steps = [x for points in series.values() for x, _ in points]
    values = [y for points in series.values() for _, y in points]
    first, last = min(steps), max(max(steps), min(steps) + 1)
    ticks = _round_ticks(min(values), max(values))
    low, high = ticks[0], ticks[-1]

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - first) / (last - first) * (CHART_WIDTH - _LEFT - _RIGHT)
        up = (y - low) / (high - low) * (CHART_HEIGHT - _UPPER - _LOWER)
        return round(_LEFT + across, 1), round(CHART_HEIGHT - _LOWER - up, 1)

    lines = []
    for name, points in series.items():
        placed = [place(x, y) for x, y in points]
        path = "M" + " L".join(f"{x},{y}" for x, y in placed)
        lines.append(Line(name=name, path=path, points=placed, end=placed[-1], last=points[-1][1]))
    return LineChart(
        width=CHART_WIDTH,
        height=CHART_HEIGHT,
        left=_LEFT,
        right=CHART_WIDTH - _RIGHT,
        bottom=CHART_HEIGHT - _LOWER,
        x_ticks=[(place(x, low)[0], f"{x:,.0f}") for x in _round_ticks(first, last) if first <= x <= last],
        y_ticks=[(place(first, y)[1], f"{y:g}") for y in ticks],
        lines=lines,
    )


def _round_ticks(low: float, high: float) -> list[float]:
    """Return 4 to 8 round numbers that enclose low and high.

    >>> _round_ticks(3.2, 9.1)
    [2, 4, 6, 8, 10]
    """
    span = (high - low) or max(abs(high), 1.0)
    power = 10 ** math.floor(math.log10(span / 4))
    step = next(power * factor for factor in (1, 2, 5, 10) if span / (power * factor) <= 5)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(index * step, 10) for index in range(first, max(last, first + 1) + 1)]
