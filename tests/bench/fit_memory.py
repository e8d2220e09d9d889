"""Fits the constants of training/plan/resident.py to half of what was measured, and prints the error on the other half.

Run: python -m tests.bench.fit_memory
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple

import numpy as np
from scipy.optimize import least_squares  # type: ignore[import-untyped]

from tests.training.plan.measured import Measured, resident
from training.plan.resident import FITTED, Constants, resident_bytes

USUAL = 0.03
"""Above this part of a row it counts less: an outlier is not to decide."""
UNITS = (1e9, 1e8, 1.0)


def fit(rows: Sequence[Measured]) -> Constants:
    """Return the constants of least error."""

    def off(scaled: np.ndarray) -> list[float]:
        constants = Constants(*(float(one) * unit for one, unit in zip(scaled, UNITS, strict=True)))
        return [resident_bytes(row.run, constants) / row.peak - 1 for row in rows]

    found = least_squares(off, [0.5, 0.5, 1.0], diff_step=1e-2, loss="soft_l1", f_scale=USUAL)
    return Constants(*(float(one) * unit for one, unit in zip(found.x, UNITS, strict=True)))


def main() -> None:
    """Fit and print."""
    rows = resident()
    halves = {"fitted": [row for row in rows if not row.held_out], "held out": [row for row in rows if row.held_out]}
    constants = fit(halves["fitted"])
    print([round(one, 3) for one in astuple(constants)])
    for name, some in halves.items():
        off = [row.error(constants) for row in some]
        print(
            f"{name}: {len(some)} rows, median {np.median(np.abs(off)):.1%}, within 5 %: "
            f"{np.mean(np.abs(off) <= 0.05):.0%}, from {min(off):+.1%} to {max(off):+.1%}; "
            f"of what is above the libraries {np.median(np.abs([row.error_above(constants) for row in some])):.1%}"
        )
    print(f"in use: {[round(one, 3) for one in astuple(FITTED)]}")


if __name__ == "__main__":
    main()
