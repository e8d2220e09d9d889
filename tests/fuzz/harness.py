"""Runs a reader of outside input over mutated inputs, by seed: what crashes, hangs or loses something is a finding.

A batch is decided by (seed, number) alone, so a finding names both, and its input is saved as a file to make a case of.
"""

from __future__ import annotations

import faulthandler
import hashlib
import json
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tasks.contracts.workspace import state_folder

SECONDS_A_BYTE = 20e-6  # processor time: some hundred times what a reader takes, and nothing like a quadratic one
SECONDS_AT_LEAST = 1.0
MOST_FINDINGS = 20


class Wrong(Exception):
    """What a reader did to an input that it must not do.

    Attributes:
        content: the input.
    """

    def __init__(self, problem: str, content: bytes) -> None:
        super().__init__(problem)
        self.content = content


class HangError(BaseException):
    """Raised into a reader that takes too long; no `except Exception` holds it."""


Batch = Callable[[Random, Path], int]
"""Makes inputs, reads them, raises Wrong; returns how many there were. The folder is empty and its own."""


@dataclass(slots=True)
class Outcome:
    """What a run of one reader came to."""

    executions: int = 0
    batches: int = 0
    seconds: float = 0.0
    findings: int = 0


@contextmanager
def bounded(size: int) -> Iterator[None]:
    """Bound the processor time of a block by the bytes that it reads.

    Raises:
        HangError: it took more.
    """

    def ended(*_: object) -> None:
        raise HangError

    before = signal.signal(signal.SIGVTALRM, ended)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS_AT_LEAST + size * SECONDS_A_BYTE)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


@contextmanager
def checked(content: bytes) -> Iterator[None]:
    """Turn whatever a reader raises, and a hang, into a finding that holds the input.

    Raises:
        Wrong: it crashed or took too long.
    """
    try:
        with bounded(len(content)):
            yield
    except Wrong:
        raise
    except HangError as error:
        raise Wrong(
            f"more than {SECONDS_AT_LEAST + len(content) * SECONDS_A_BYTE:.1f} s of processor time", content
        ) from error
    except Exception as error:
        raise Wrong(f"{type(error).__name__}: {error}\n{traceback.format_exc(limit=-3)}", content) from error


def run(name: str, batch: Batch, *, count: int, seed: int, folder: Path | None = None) -> Outcome:
    """Run a reader until `count` executions are done, and say what was found.

    Args:
        folder: where findings are saved; `.headwater/fuzz` without it.
    """
    folder = folder or state_folder() / "fuzz"
    folder.mkdir(parents=True, exist_ok=True)
    outcome = Outcome()
    started = time.monotonic()
    shown = started
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    while outcome.executions < count and outcome.findings < MOST_FINDINGS:
        # A loop inside C is seen by nobody else: the traceback then says where, this file says at which batch.
        (folder / f"{name}.running").write_text(json.dumps({"seed": seed, "batch": outcome.batches}))
        faulthandler.dump_traceback_later(600, exit=True)
        with tempfile.TemporaryDirectory(dir=memory) as place:
            try:
                outcome.executions += batch(Random(f"{name}/{seed}/{outcome.batches}"), Path(place))
            except Wrong as error:
                outcome.findings += 1
                outcome.executions += 1
                path = folder / f"{name}-{hashlib.sha256(error.content).hexdigest()[:16]}.bin"
                path.write_bytes(error.content)
                sys.stdout.write(f"{name}: seed {seed}, batch {outcome.batches}: {error}\n  saved as {path}\n")
        outcome.batches += 1
        outcome.seconds = time.monotonic() - started
        if time.monotonic() - shown > 30:
            shown = time.monotonic()
            sys.stdout.write(f"{name}: {outcome.executions:,} executions, {outcome.seconds:.0f} s\n")
            sys.stdout.flush()
    faulthandler.cancel_dump_traceback_later()
    (folder / f"{name}.running").unlink()
    rate = outcome.executions / max(outcome.seconds, 1e-9)
    sys.stdout.write(
        f"{name}: {outcome.executions:,} executions in {outcome.seconds:.0f} s, {rate:,.0f} a second, "
        f"{outcome.findings} findings\n"
    )
    return outcome
