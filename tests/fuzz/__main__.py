"""Fuzz the readers of outside input: python -m tests.fuzz [--reader NAME] [--count N] [--seed N]."""

from __future__ import annotations

import argparse
import logging
import sys

from tests.fuzz import READERS
from tests.fuzz.harness import run


def main() -> int:
    """Run one reader, or all, and return 1 where something was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reader", choices=sorted(READERS))
    parser.add_argument("--count", type=int, default=20_000, help="executions of each reader")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    names = [arguments.reader] if arguments.reader else sorted(READERS)
    outcomes = [run(name, READERS[name], count=arguments.count, seed=arguments.seed) for name in names]
    return 1 if any(outcome.findings for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
