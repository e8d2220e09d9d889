"""Runs a function once for each of some jobs: by Ray on a cluster or where there is much to do.

What takes fresh processes anyway gains nothing from a Ray session on the same machine, which takes seconds to start.
"""

from __future__ import annotations

import multiprocessing
import pickle
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

from tasks.engine.session import (
    brief_seconds,
    local_processors,
    open_session,
    session_is_given,
    session_is_near,
    session_is_open,
)

Result = TypeVar("Result")
LOST_WORKERS = 2  # that one job may cost before the run ends: an input that kills its worker would kill each


def available() -> int:
    """Return how many processors the cluster has, or how many of this machine may be used."""
    if not (session_is_given() and open_session()):
        return local_processors()
    import ray

    return int(ray.cluster_resources().get("CPU", 1))


def run_in_processes(
    function: Callable[[Any], Result],
    jobs: Sequence[Any],
    *,
    watch: Callable[[], None] = lambda: None,
    every_seconds: float = 3.0,
) -> list[Result]:
    """Return `function(job)` of every job, in their order; an error in one is raised here.

    Args:
        function: importable (a module-level function).
        watch: called every few seconds while the jobs run, to log progress.
    """
    if session_is_given() and open_session():
        import ray

        remote = ray.remote(max_calls=1, num_cpus=1, max_retries=0)(_carry)
        waiting = references = [remote.remote(function, job) for job in jobs]
        last = time.monotonic()
        while waiting:
            # A short wait, so that Ctrl-C in this process ends the crawl at once.
            _, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=0.5)
            last = _watched(watch, last, every_seconds)
        return [_opened(ray.get(reference)) for reference in references]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=max(1, len(jobs)), mp_context=context, max_tasks_per_child=1) as pool:
        futures = [pool.submit(function, job) for job in jobs]
        last = time.monotonic()
        while not all(future.done() for future in futures):
            time.sleep(0.1)
            last = _watched(watch, last, every_seconds)
        return [future.result() for future in futures]


def spread(function: Callable[[Any], Result], jobs: Sequence[Any]) -> list[Result]:
    """Return `function(job)` of every job, in their order: one after the other, by Ray where much is left and it may.

    The first error ends it. A job whose worker is lost is done again, so it must leave nothing half done.
    """
    begun, here = time.monotonic(), list[Result]()
    while len(here) < len(jobs) and _is_brief(len(jobs) - len(here), len(here), time.monotonic() - begun):
        here.append(function(jobs[len(here)]))
    left = jobs[len(here) :]
    if not left or not open_session():
        return [*here, *map(function, left)]
    import ray

    remote = ray.remote(num_cpus=1, max_retries=LOST_WORKERS)(_carry)
    waiting = references = [remote.remote(function, job) for job in left]
    try:
        while waiting:
            finished, waiting = ray.wait(waiting, num_returns=1, timeout=0.5)
            for reference in finished:
                _opened(ray.get(reference))
        return [*here, *(_opened(ray.get(reference)) for reference in references)]
    finally:
        for reference in waiting:
            ray.cancel(reference)


def _is_brief(left: int, made: int, spent: float) -> bool:
    """Return whether the next job is done here: the last one, or where all that is left ends sooner than Ray starts."""
    if left < 2 or session_is_open():
        return left < 2
    if not made:
        return not session_is_given()
    return spent / made * left < brief_seconds() or not session_is_near()


def _watched(watch: Callable[[], None], last: float, every_seconds: float) -> float:
    if time.monotonic() - last < every_seconds:
        return last
    watch()
    return time.monotonic()


def _carry(function: Callable[[Any], Any], job: Any) -> tuple[Any, bytes]:
    """Run a job in a Ray worker; its error travels as a value, without Ray's wrapping."""
    try:
        return function(job), b""
    except Exception as error:  # noqa: BLE001 - raised again by _opened
        try:
            return None, pickle.dumps(error)
        except Exception:  # noqa: BLE001 - any class may fail to pickle in its own way
            return None, pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))


def _opened(carried: tuple[Any, bytes]) -> Any:
    result, error = carried
    if error:
        raise pickle.loads(error)
    return result
