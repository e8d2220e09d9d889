"""Fits the constants of `headwater plan` to half of the published rows, and prints the error on the other half.

Run: python -m tests.bench.fit_plan
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

from training.plan.machine import devices
from training.plan.published import Row, error, errors_by_source, published
from training.plan.speed import Constants, Stack

MOVED = range(100, 401, 20)
EXPOSED = (0.0, 0.1, 0.2, 0.3, 0.4)
STREAMING = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
STACKS: tuple[Stack, ...] = ("pytorch", "cuda", "deepspeed")
ROUNDS = 12


def fit(rows: list[Row]) -> Constants:
    """Return the constants of least absolute error in logarithms: a grid over two, median steps over the others."""
    made = min((_shares(rows, float(m), x) for m, x in product(MOVED, EXPOSED)), key=lambda one: _loss(rows, one))
    streaming = (replace(made, exposed_streaming=x) for x in STREAMING)
    return min(streaming, key=lambda one: _loss(rows, one))


def _loss(rows: list[Row], constants: Constants) -> float:
    return sum(abs(math.log1p(row.error(constants))) for row in rows) / len(rows)


def _shares(rows: list[Row], moved: float, exposed: float) -> Constants:
    kinds = sorted({device.kind for device in devices().values()})
    made = Constants(
        share=dict.fromkeys(kinds, 0.6),
        software=dict.fromkeys(STACKS, 1.0),
        moved=moved,
        exposed=exposed,
        exposed_streaming=0.5,
    )
    for _ in range(ROUNDS):
        for kind in kinds:
            of_kind = [row for row in rows if row.run.machine.device.kind == kind]
            made = replace(made, share={**made.share, kind: made.share[kind] * _step(of_kind, made)})
        for stack in STACKS:
            if stack != "cuda":
                of_stack = [row for row in rows if row.stack == stack]
                made = replace(made, software={**made.software, stack: made.software[stack] * _step(of_stack, made)})
    return made


def _step(rows: list[Row], constants: Constants) -> float:
    """Return by what a share is to be multiplied, for the median row to be right."""
    off = sorted(1 / (1 + row.error(constants)) for row in rows)
    return off[len(off) // 2] if off else 1.0


def main() -> None:
    """Fit and print."""
    rows = published()
    constants = fit([row for row in rows if not row.held_out])
    print({kind: round(share, 3) for kind, share in constants.share.items()})
    print({stack: round(factor, 3) for stack, factor in constants.software.items()})
    print(f"moved {constants.moved}, exposed {constants.exposed}, exposed_streaming {constants.exposed_streaming}")
    for name, some in (("fitted", [r for r in rows if not r.held_out]), ("held out", [r for r in rows if r.held_out])):
        whole = error(some, constants)
        print(f"{name}: {whole.rows} rows, median {whole.median:.1%}, 90 % within {whole.worst_tenth:.1%}")
        for source, one in errors_by_source(some, constants):
            print(f"  {source:20} {one.rows:4} rows, median {one.median:.1%}, 90 % within {one.worst_tenth:.1%}")
    print("each source, by constants that are fitted to all others:")
    for name in dict.fromkeys(row.source for row in rows):
        others = fit([row for row in rows if row.source != name])
        one = error([row for row in rows if row.source == name], others)
        print(f"  {name:20} {one.rows:4} rows, median {one.median:.1%}, 90 % within {one.worst_tenth:.1%}")


if __name__ == "__main__":
    main()
