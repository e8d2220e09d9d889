"""Confidence intervals: Wilson's for a rate, the paired bootstrap for a difference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A figure with its two-sided confidence interval."""

    value: float
    low: float
    high: float


def wilson(successes: int, trials: int, confidence: float) -> Estimate:
    """Return a rate with Wilson's score interval (Wilson 1927), which holds also for few trials.

    >>> e = wilson(50, 100, 0.95)
    >>> round(e.low, 3), e.value, round(e.high, 3)
    (0.404, 0.5, 0.596)
    """
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    rate = successes / trials
    centre = (rate + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials)) / (1 + z * z / trials)
    return Estimate(value=rate, low=max(0.0, centre - half), high=min(1.0, centre + half))


def power(trials: int, rate: float, above: float, confidence: float) -> float:
    """Return how likely so many trials at a rate show, by the lower end of Wilson's interval, that it is above another.

    >>> round(power(63, 0.35, 0.25, 0.95), 2), round(power(400, 0.35, 0.25, 0.95), 2)
    (0.45, 0.99)
    """
    fewest = next((k for k in range(trials + 1) if wilson(k, trials, confidence).low > above), trials + 1)
    return math.fsum(
        math.exp(
            math.lgamma(trials + 1) - math.lgamma(k + 1) - math.lgamma(trials - k + 1)
            + k * math.log(rate) + (trials - k) * math.log1p(-rate)
        )
        for k in range(fewest, trials + 1)
    )  # fmt: skip


def trials_for(wanted: float, rate: float, above: float, confidence: float) -> int:
    """Return the fewest trials, in steps of ten, with that power.

    >>> trials_for(0.8, 0.35, 0.25, 0.95)
    150
    """
    return next(n for n in range(10, 1_000_000, 10) if power(n, rate, above, confidence) >= wanted)


def bootstrap_ratio(
    above: Sequence[float], below: Sequence[float], *, confidence: float, samples: int, seed: int
) -> Estimate:
    """Return sum(above) / sum(below) with a percentile bootstrap interval over items (Efron 1979).

    With differences of paired scores in `above`, this is the paired bootstrap: an item is drawn with both scores.

    Args:
        above: one number an item, such as the difference of two models' bits on it.
        below: its weight, such as its bytes; all ones for a plain mean.
        samples: how many times as many items as there are get drawn, with replacement.
    """
    top, bottom = np.asarray(above, dtype=np.float64), np.asarray(below, dtype=np.float64)
    generator = np.random.Generator(np.random.PCG64(seed))
    ratios = np.empty(samples)
    for index in range(samples):
        drawn = generator.integers(0, len(top), len(top))
        ratios[index] = top[drawn].sum() / bottom[drawn].sum()
    tail = (1 - confidence) / 2
    low, high = np.quantile(ratios, [tail, 1 - tail])
    return Estimate(value=float(top.sum() / bottom.sum()), low=float(low), high=float(high))
