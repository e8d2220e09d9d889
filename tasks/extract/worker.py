"""A child process that extracts pages and may be killed: a page that hangs, crashes or eats memory costs only itself.

The child answers page by page, so the first unanswered page is the one that killed it. It is started as a plain
program, not by multiprocessing: that would import the parent's main module (Ray's, for one) first.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import resource
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

from tasks.contracts.base import Drop
from tasks.contracts.errors import ToolMissingError
from tasks.contracts.workspace import ROOT
from tasks.extract.page import Extracted, Settings
from tasks.extract.records import Page

MEBIBYTE = 1024 * 1024
START_SECONDS = 120.0
EXTRACT_PAGE = "tasks.extract.page:extract_page"
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one page may use: seconds, and MiB of the child's address space."""

    seconds: float
    memory_mebibytes: int


class Extractor:
    """Owns one child process at a time and replaces it when a page killed it.

    Args:
        function: "module:name" of what the child calls with each page and the settings.
    """

    def __init__(self, settings: Settings, limits: Limits, function: str = EXTRACT_PAGE) -> None:
        self._settings = settings
        self._limits = limits
        self._function = function
        self._child: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self.children_started = 0

    def __enter__(self) -> Extractor:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop()

    def extract(self, pages: Sequence[Page]) -> Iterator[Extracted | Drop]:
        """Yield, for each page in order, what it gave or why it gave nothing.

        A page at which a child dies that had served others before is tried once more in a fresh child, so that a
        neighbour's leak is not blamed on it.
        """
        position, alone = 0, False
        while position < len(pages):
            batch = pages[position : position + 1] if alone else pages[position:]
            answered = 0
            failure: Drop | None = None
            for answer in self._answers(batch, fresh=alone):
                if isinstance(answer, Drop) and answer.rule in ("timeout", "crashed", "out_of_memory"):
                    failure = answer
                    break
                answered += 1
                yield answer
            position += answered
            if failure is not None and (alone or len(pages) == 1):
                yield failure
                position, alone = position + 1, False
            else:
                alone = failure is not None

    def _answers(self, batch: Sequence[Page], *, fresh: bool) -> Iterator[Extracted | Drop]:
        """Yield the child's answers; a Drop that names its death is the last one."""
        if fresh:
            self._stop()
        connection = self._start()
        try:
            connection.send(list(batch))
            for _ in batch:
                if not connection.poll(self._limits.seconds):
                    self._stop()
                    yield Drop(
                        rule="timeout", threshold=self._limits.seconds, detail="the parser did not answer in time"
                    )
                    return
                answer: Extracted | Drop = connection.recv()
                if isinstance(answer, Drop) and answer.rule == "out_of_memory":
                    self._stop()
                yield answer
        except (EOFError, OSError):
            code = self._stop()
            if code == -signal.SIGALRM:
                yield Drop(rule="timeout", threshold=self._limits.seconds, detail="the parser did not answer in time")
            else:
                yield Drop(rule="crashed", detail=_ended(code))

    def _start(self) -> Connection:
        if self._connection is not None:
            return self._connection
        ours, theirs = Pipe()
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        # One thread each: shards are the parallelism, and every thread's stack counts against the memory limit.
        threads = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
        self._child = subprocess.Popen(
            [sys.executable, "-c", f"from tasks.extract.worker import serve; serve({theirs.fileno()})"],
            pass_fds=[theirs.fileno()],
            env={**os.environ, **threads, "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        theirs.close()
        self.children_started += 1
        try:
            ours.send((self._settings, self._limits, self._function))
            ready = ours.recv() if ours.poll(START_SECONDS) else "no answer"
        except (EOFError, OSError):
            ready = "it ended"
        self._connection = ours
        if ready is not True:
            code = self._stop()
            raise ToolMissingError(
                "the extraction process cannot start",
                where=self._function,
                found=f"{ready} ({_ended(code)})",
                fix="`headwater doctor` says what is missing; extract.memory_mebibytes may be too small",
            )
        return ours

    def _stop(self) -> int | None:
        """End the child, if any, and return its exit code."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._child is None:
            return None
        child, self._child = self._child, None
        # A child that ended by itself has a code of its own; one that hangs is killed.
        with contextlib.suppress(subprocess.TimeoutExpired):
            return child.wait(timeout=0.2)
        child.kill()
        return child.wait()


def _ended(code: int | None) -> str:
    if code is not None and code < 0:
        return f"the parser's process was ended by {signal.Signals(-code).name}"
    return f"the parser's process ended with exit code {code}"


def serve(descriptor: int) -> None:
    """Be the child: answer each page of each batch until the parent closes the connection."""
    connection = Connection(descriptor)
    settings, limits, name = connection.recv()
    try:
        function = _load(name)
    except Exception:  # noqa: BLE001 - whatever it is, the parent reports it
        connection.send(traceback.format_exc(limit=-1).strip())
        return
    connection.send(True)
    logging.disable(logging.CRITICAL)
    size = limits.memory_mebibytes * MEBIBYTE
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while True:
        try:
            batch = connection.recv()
        except EOFError:
            return
        except MemoryError:
            os._exit(1)
        for page in batch:
            # Ends this process also when its parent is gone and nobody waits for the answer.
            signal.setitimer(signal.ITIMER_REAL, limits.seconds + 5)
            answer = _answer(function, page, settings)
            signal.setitimer(signal.ITIMER_REAL, 0)
            try:
                connection.send(answer)
            except (BrokenPipeError, ConnectionResetError):
                return


def _answer(function: Callable[[Page, Settings], Extracted], page: Page, settings: Settings) -> Extracted | Drop:
    try:
        return function(page, settings)
    except MemoryError:
        return Drop(rule="out_of_memory", detail="the page needs more memory than extract.memory_mebibytes")
    except Exception as error:  # noqa: BLE001 - one bad page becomes a ledger row, whatever a parser raises
        return Drop(rule="parse_error", detail=f"{type(error).__name__}: {error}"[:200])


def _load(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)
