"""Runs a command and measures all of it: wall time, processor time and memory, every process it starts included.

Processes that outlive their parent (Ray's workers, datatrove's pools) are adopted by this one, so their processor
time counts too.
"""

from __future__ import annotations

import ctypes
import os
import resource
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

PR_SET_CHILD_SUBREAPER = 36
"""prctl(2): the process adopts its orphaned descendants."""
SAMPLE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Cost:
    """What a command took.

    Attributes:
        wall: seconds.
        cpu: processor seconds, user and system, of all its processes.
        peak: bytes of memory (proportional set size: shared pages count once) of all its processes together, sampled.
    """

    wall: float
    cpu: float
    peak: int


def measure(command: Sequence[str], *, folder: Path, environment: Mapping[str, str], log: Path) -> Cost:
    """Run `command` in `folder` to its end.

    Raises:
        RuntimeError: it ended with another exit code than 0; the end of its log is in the message.
    """
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    before, started, peak = _children_seconds(), time.monotonic(), 0
    with log.open("wb") as stream:
        process = subprocess.Popen(command, cwd=folder, env=dict(environment), stdout=stream, stderr=stream)
        while process.poll() is None:
            peak = max(peak, _memory())
            time.sleep(SAMPLE_SECONDS)
    wall = time.monotonic() - started
    _end_orphans()
    if process.returncode:
        raise RuntimeError(f"{command} gave {process.returncode}:\n{log.read_text(errors='replace')[-3000:]}")
    return Cost(wall=wall, cpu=_children_seconds() - before, peak=peak)


def _children_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _memory() -> int:
    total = 0
    for process in psutil.Process().children(recursive=True):
        try:
            total += process.memory_full_info().pss
        except psutil.Error:
            continue
    return total


def _end_orphans() -> None:
    """Wait for what the command left behind, so that its time is counted; what does not end by itself is ended."""
    _, living = psutil.wait_procs(psutil.Process().children(recursive=True), timeout=10)
    for process in living:
        process.terminate()
    psutil.wait_procs(living, timeout=10)
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                return
        except ChildProcessError:
            return
