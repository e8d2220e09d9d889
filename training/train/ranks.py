"""Watch the ranks of a training run, start them again when one is lost, and end them all together.

torchrun or deepspeed (launch.py) starts one process a rank. A lock file ties them to this process: it is held here,
each rank waits for it in a thread, and the system hands it over the moment this process ends. So no rank is left
behind, also after `kill -9` of this one.

Launcher and ranks meet in files of this run's folder. A torch store over TCP listens on every interface, whatever
address it is given, and obeys whoever connects.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from tasks.contracts.errors import TrainingError
from tasks.contracts.workspace import ROOT, child_environment
from training.train.checkpoint import finished_checkpoints

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.2
GRACE_SECONDS = 60
"""Time for the step under way and for saving its state, before the ranks are ended by force."""
LOG_LINES = 40
LOG_NAME = "ranks.log"
FAILURES = "failed-rank-*.json"


@contextmanager
def held_lock(path: Path) -> Iterator[None]:
    """Hold a fresh lock file for as long as the block runs and this process lives."""
    path.unlink(missing_ok=True)
    with path.open("wb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def failure_name(rank: int) -> str:
    """Return the name of the file in which a rank says why it ended."""
    return FAILURES.replace("*", f"{rank:05d}")


def is_lost_connection(error: BaseException) -> bool:
    """Return whether an error says only that another rank is gone.

    Gloo raises a RuntimeError without a class of its own, NCCL a DistBackendError.
    """
    names = {kind.__name__ for kind in type(error).__mro__}
    return "DistError" in names or (
        type(error) is RuntimeError and re.search(r"gloo|Connection", str(error)) is not None
    )


def run_until_done(start: Callable[[], None], *, work: Path, restarts: int) -> None:
    """Start the ranks, and again from their last checkpoint where one was lost: killed, or with its machine.

    A rank that raised an error of its own would raise it again, so that ends the run.

    Args:
        start: starts them and waits for their end.
        work: where they say why they failed, and where their checkpoints are.
        restarts: how often in a row without a new checkpoint.

    Raises:
        TrainingError: of the last start.
    """
    left, reached = restarts, _newest(work)
    while True:
        for old in work.glob(FAILURES):
            old.unlink()
        try:
            return start()
        except TrainingError as error:
            left, before, reached = left - 1, reached, _newest(work)
            if reached != before:
                left = restarts - 1
            if said := _failures(work):
                raise TrainingError(
                    "a training rank failed",
                    where=str(work / LOG_NAME),
                    found="; ".join(dict.fromkeys(said)),
                    fix="mend that, then run again: training goes on from its last checkpoint",
                ) from error
            if left < 0:
                raise
            logger.warning(
                "train: a rank was lost (%s); all start again from %s, %d more time(s) without a new one",
                *((error.found or "").partition(";")[0], reached or "the beginning", left),
            )


def _failures(work: Path) -> list[str]:
    rows = [json.loads(path.read_bytes()) for path in sorted(work.glob(FAILURES))]
    return [f"{row['error']}: {row['message']}" for row in rows]


def _newest(work: Path) -> str | None:
    return next((path.name for path in reversed(finished_checkpoints(work / "checkpoints"))), None)


def run_ranks(command: list[str], *, environment: Mapping[str, str], log: Path, watch: Callable[[], None]) -> None:
    """Run the command to its end, calling `watch` now and then; on any way out every process of it is gone.

    Raises:
        TrainingError: it exited with another code than 0, with the end of the ranks' log.
    """
    with log.open("wb") as stream, sigterm_as_interrupt():
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=child_environment(environment),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            while (code := process.poll()) is None:
                watch()
                time.sleep(POLL_SECONDS)
            watch()
        finally:
            end_group(process)
    if code:
        tail = log.read_text(errors="replace").splitlines()[-LOG_LINES:]
        raise TrainingError(
            "a training rank ended before the last step",
            where=str(log),
            expected="exit code 0",
            found=f"exit code {code}; the end of the ranks' log:\n    " + "\n    ".join(tail),
            fix="mend what the log says (out of memory: lower train.batch_size or train.model), then run again: "
            "training goes on from its last checkpoint",
        )


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process that leads a group, and the group: first asked, then forced."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_SECONDS)
            if number == signal.SIGTERM:
                continue


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Let SIGTERM unwind the stack as Ctrl-C does, so that the ranks are ended on the way."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
