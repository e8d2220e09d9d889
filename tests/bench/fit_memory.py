"""Fits the constants of training/plan/resident.py to half of what was measured, and prints the error on the other half.

Run: python -m tests.bench.fit_memory
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from itertools import product

from tests.training.plan.measured import Measured, resident
from training.plan.resident import FITTED, Residence

LIBRARIES = [megabytes * 10**6 for megabytes in range(480, 721, 10)]
SHARES = [thousandths / 1000 for thousandths in range(850, 1051, 5)]


def fit(rows: Sequence[Measured]) -> Residence:
    """Return the constants of least absolute error, on a grid."""
    all_of_them = (Residence(libraries=libraries, share=share) for libraries, share in product(LIBRARIES, SHARES))
    return min(all_of_them, key=lambda one: sum(abs(row.error(one)) for row in rows))


def main() -> None:
    """Fit and print."""
    rows = resident()
    halves = {"fitted": [row for row in rows if not row.held_out], "held out": [row for row in rows if row.held_out]}
    constants = fit(halves["fitted"])
    print(f"fitted now: {constants}; in use: {FITTED}")
    for name, some in halves.items():
        off = [row.error(constants) for row in some]
        above = statistics.median(abs(row.error_above(constants)) for row in some)
        print(
            f"{name}: {len(some)} rows, median {statistics.median(map(abs, off)):.1%}, within 5 %: "
            f"{sum(abs(one) <= 0.05 for one in off)}, within 10 %: {sum(abs(one) <= 0.1 for one in off)}, "
            f"from {min(off):+.1%} to {max(off):+.1%}; of what is above the libraries, median {above:.1%}"
        )


if __name__ == "__main__":
    main()
