"""Tells whether work grows in proportion to its input: the same shape eight times as long, timed against itself."""

import gc
import time
from collections.abc import Callable
from typing import TypeVar

Text = TypeVar("Text", str, bytes)

TIMES = 8
# Linear work takes 8 times as long, n log n about 10 times, quadratic 64 times.
MOST_GROWTH = 26.0
# What takes no longer than this is too quick to say how it grows, and holds nobody up.
FLOOR_SECONDS = 0.03
# A reader that is not linear may never end: after this long the answer is known.
CEILING_SECONDS = 5.0


def growth(work: Callable[[Text], object], shape: Callable[[int], Text], size: int, tries: int = 3) -> float:
    """Return how many times longer eight times the input takes; 0.0 where the long one is too quick to tell.

    The least of some tries counts, since a busy machine only ever makes one slower.
    """
    long = seconds(work, shape(TIMES * size), tries)
    return 0.0 if long < FLOOR_SECONDS else long / seconds(work, shape(size), tries)


def seconds(work: Callable[[Text], object], given: Text, tries: int) -> float:
    """Return the least processor time that some tries took, without what Python tidies meanwhile, as in timeit."""
    least = float("inf")
    tidies = gc.isenabled()
    gc.disable()
    for _ in range(tries):
        start = time.process_time()
        work(given)
        least = min(least, time.process_time() - start)
        if least < FLOOR_SECONDS / 10 or least > CEILING_SECONDS:
            break
    if tidies:
        gc.enable()
    return max(least, 1e-7)
