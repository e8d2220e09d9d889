"""What differs in the scores of two releases: each metric, with the interval of the difference where items allow it.

Two releases that were scored on the same items are compared item by item, with the gate's own statistics: far smaller
differences show than by comparing two averages. On other items, two figures say little about which release is better.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flows.proof.release_files import ReleaseFiles
from tasks.contracts.files import RESULTS_NAME, SAMPLES_FOLDER
from tasks.contracts.release import EVALUATION_FOLDER, GATE_NAME
from training.gate.intervals import Estimate, bootstrap_ratio
from training.gate_policy import Policy

RESULTS = f"{EVALUATION_FOLDER}/{RESULTS_NAME}"
BITS = "bits_per_byte"
LOWER_IS_BETTER = (BITS, "byte_perplexity", "word_perplexity", "perplexity")
HIGHER_IS_BETTER = ("acc", "exact_match", "f1", "mcc", "bleu", "rouge", "pass@")
# Every figure is written with six decimals. A mean of items that is further than this from the metric is not it.
ROUNDED = 1e-5

Items = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreChange:
    """One metric of one task.

    Attributes:
        a, b: its value; None where a release was not scored so.
        low, high: the interval of b - a; None where it cannot be had.
        better: "a" or "b" where the interval is on one side of 0, "unclear" where it is not, None where that or the
            metric's direction is not known.
        same_items: whether both were scored on the same items; None where only one was scored on the task.
        items: how many items each was scored on, and how many of them are the same by name.
    """

    task: str
    metric: str
    a: float | None
    b: float | None
    low: float | None = None
    high: float | None = None
    better: str | None = None
    same_items: bool | None = None
    items: tuple[int | None, int | None, int | None] = (None, None, None)

    @property
    def difference(self) -> float | None:
        """What b is above a."""
        return None if self.a is None or self.b is None else round(self.b - self.a, 6)

    @property
    def same(self) -> bool:
        """Whether both have the same value, on the same items."""
        return self.a == self.b and bool(self.same_items)


@dataclass(frozen=True, slots=True, kw_only=True)
class GateFigure:
    """What one rule of the gate found of a release."""

    verdict: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    threshold: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GateChange:
    """One rule of the gate; None where a release was not judged by it."""

    rule: str
    a: GateFigure | None
    b: GateFigure | None

    @property
    def same(self) -> bool:
        """Whether the gate found the same of both."""
        return self.a == self.b


def compare_scores(a: ReleaseFiles, b: ReleaseFiles) -> tuple[ScoreChange, ...]:
    """Return every metric of every task that a release was scored on.

    Raises:
        InputError: a file of the evaluation is missing or damaged.
    """
    found: list[ScoreChange] = []
    results = [release.read(RESULTS, _results) or ({}, {}) for release in (a, b)]
    for task in sorted({*results[0][0], *results[1][0]}):
        figures = [tasks.get(task, {}) for tasks, _ in results]
        metrics = sorted({name for one in figures for name, value in one.items() if isinstance(value, float)})
        if not all(figures):
            found += [_change(task, metric, figures, {}) for metric in metrics]
            continue
        same = figures[0]["items_sha256"] == figures[1]["items_sha256"] and results[0][1] == results[1][1]
        items = [
            release.read(f"{EVALUATION_FOLDER}/{SAMPLES_FOLDER}/{task}.jsonl", _by_item) or {} for release in (a, b)
        ]
        shared = len(items[0].keys() & items[1].keys())
        facts = {"same_items": same, "items": (figures[0]["items"], figures[1]["items"], shared)}
        for metric in metrics:
            paired = _paired(metric, figures, items) if same else None
            found.append(_change(task, metric, figures, facts, paired))
    return tuple(found)


def compare_gates(a: ReleaseFiles, b: ReleaseFiles) -> tuple[GateChange, ...]:
    """Return what each rule of the gate found.

    Raises:
        InputError: a gate's report is missing or damaged.
    """
    reports = [release.read(GATE_NAME, _gate_rules) or {} for release in (a, b)]
    return tuple(
        GateChange(rule=rule, a=reports[0].get(rule), b=reports[1].get(rule))
        for rule in dict.fromkeys([*reports[0], *reports[1]])
    )


def _results(value: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what each task's figures are, and the settings that decide which items were scored, and how."""
    return dict(value["tasks"]), {name: value["settings"].get(name) for name in ("limit", "num_fewshot")}


def _by_item(rows: Any) -> dict[str, dict[str, Any]]:
    return {row["item_id"]: row for row in rows}


def _gate_rules(value: Any) -> dict[str, GateFigure]:
    names = ("verdict", "value", "low", "high", "threshold")
    return {rule["rule"]: GateFigure(**{name: rule.get(name) for name in names}) for rule in value["rules"]}


def _change(
    task: str, metric: str, figures: Sequence[Any], facts: Mapping[str, Any], paired: Estimate | None = None
) -> ScoreChange:
    low, high = (None, None) if paired is None else (round(paired.low, 6), round(paired.high, 6))
    return ScoreChange(
        task=task,
        metric=metric,
        a=figures[0].get(metric),
        b=figures[1].get(metric),
        low=low,
        high=high,
        better=_better(metric, low, high),
        **facts,
    )


def _better(metric: str, low: float | None, high: float | None) -> str | None:
    lower = metric in LOWER_IS_BETTER
    if low is None or high is None or not (lower or metric.startswith(HIGHER_IS_BETTER)):
        return None
    if low <= 0 <= high:
        return "unclear"
    return "b" if (high < 0) == lower else "a"


def _paired(metric: str, figures: Sequence[Any], items: Sequence[Items]) -> Estimate | None:
    """Return b - a over paired items; None where the metric is no mean of what was kept of each item."""
    if None in (figures[0].get(metric), figures[1].get(metric)) or not items[0] or items[0].keys() != items[1].keys():
        return None
    pairs = [(row, items[1][name]) for name, row in sorted(items[0].items())]
    needed = ("nats", "bytes") if metric == BITS else (metric,)
    if not all(isinstance(one.get(name), int | float) for pair in pairs for one in pair for name in needed):
        return None
    if metric == BITS:
        above = [(other["nats"] - row["nats"]) / math.log(2) for row, other in pairs]
        below = [float(row["bytes"]) for row, _ in pairs]
    else:
        above, below = [other[metric] - row[metric] for row, other in pairs], [1.0] * len(pairs)
    if not any(above):
        return Estimate(value=0.0, low=0.0, high=0.0)
    policy = Policy()
    found = bootstrap_ratio(
        above, below, confidence=policy.confidence, samples=policy.bootstrap_samples, seed=policy.seed
    )
    return found if abs(found.value - (figures[1][metric] - figures[0][metric])) <= ROUNDED else None
