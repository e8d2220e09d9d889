"""A child process that extracts pages and may be killed: a page that hangs, crashes or eats memory costs only itself.

The child says in shared memory which page it works on, so that the one that killed it is known, and sends its answers
several at a time. It is started as a plain program, not by multiprocessing: that would import the parent's main module
(Ray's, for one) first.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import logging
import mmap
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

from tasks.contracts.base import Drop
from tasks.contracts.errors import ToolMissingError
from tasks.contracts.workspace import child_environment
from tasks.extract.warc_pages import Page
from tasks.extract.worker_messages import Extracted, Settings

MEBIBYTE = 1024 * 1024
START_SECONDS = 120.0
SEND_EVERY_SECONDS = 0.25
GRACE_SECONDS = 5.0
CELL_BYTES = 8
EXTRACT_PAGE = "tasks.extract.page_extractor:extract_page"
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
        # Memory that the child shares: it writes there which page it works on, and says nothing until some are done.
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed with this object
        self._file.truncate(CELL_BYTES)
        self._cell = mmap.mmap(self._file.fileno(), CELL_BYTES)
        self.children_started = 0

    def __enter__(self) -> Extractor:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the child."""
        self._stop()
        self._cell.close()
        self._file.close()

    def extract(self, pages: Sequence[Page]) -> Iterator[Extracted | Drop]:
        """Yield, for each page in order, what it gave or why it gave nothing.

        A page at which a child dies that had served others before is tried once more in a fresh child, so that a
        neighbour's leak is not blamed on it.
        """
        position = 0
        suspect: int | None = None
        while position < len(pages):
            alone = position == suspect
            end = position + 1 if alone else (suspect if suspect is not None else len(pages))
            if alone:
                self._stop()
            fresh = self._child is None
            answers, failure = self._answers(pages[position:end])
            yield from answers
            at = position + (max(self._page_at_work(), len(answers)) if failure else 0)
            position += len(answers)
            if failure is None:
                suspect = None if alone else suspect
            elif at == position and (alone or fresh) and not answers:
                yield failure
                position, suspect = position + 1, None
            else:
                suspect = at

    def _answers(self, batch: Sequence[Page]) -> tuple[list[Extracted | Drop], Drop | None]:
        """Return the child's answers, and how it died if it did: at the page `_page_at_work`."""
        answers: list[Extracted | Drop] = []
        connection = self._start()
        try:
            connection.send(list(batch))
            while len(answers) < len(batch):
                # The child ends itself at a page's limit; one that cannot is ended here.
                if not connection.poll(self._limits.seconds + SEND_EVERY_SECONDS + GRACE_SECONDS):
                    self._stop()
                    return answers, self._timeout()
                answers += connection.recv()
                last = answers[-1]
                if isinstance(last, Drop) and last.rule == "out_of_memory":
                    self._stop()
                    return answers[:-1], last
        except (EOFError, OSError):
            code = self._stop()
            if code == -signal.SIGALRM:
                return answers, self._timeout()
            return answers, Drop(rule="crashed", detail=_ended(code))
        return answers, None

    def _timeout(self) -> Drop:
        return Drop(rule="timeout", threshold=self._limits.seconds, detail="the parser did not answer in time")

    def _page_at_work(self) -> int:
        """Return the index, in the last batch sent, of the page that the child had begun last."""
        return int.from_bytes(self._cell[:CELL_BYTES], "little")

    def _start(self) -> Connection:
        if self._connection is not None:
            return self._connection
        ours, theirs = Pipe()
        # One thread each: shards are the parallelism, and every thread's stack counts against the memory limit.
        threads = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
        self._child = subprocess.Popen(
            [
                *(sys.executable, "-c"),
                f"from tasks.extract.worker import serve; serve({theirs.fileno()}, {self._file.fileno()})",
            ],
            pass_fds=[theirs.fileno(), self._file.fileno()],
            env=child_environment(threads),
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


_shared: dict[tuple[int, Settings, Limits], Extractor] = {}


def shared_extractor(settings: Settings, limits: Limits) -> Extractor:
    """Return this process's extractor for these settings; its child lives on, since a start costs two seconds.

    Extraction is a pure function of the page, so it does not matter to the output which pages a child saw before.
    """
    key = (os.getpid(), settings, limits)
    if key not in _shared:
        close_shared()
        _shared[key] = Extractor(settings, limits)
    return _shared[key]


@atexit.register
def close_shared() -> None:
    """End this process's child, if it has one."""
    for key in [key for key in _shared if key[0] == os.getpid()]:
        _shared.pop(key).close()


def serve(descriptor: int, cell_descriptor: int) -> None:
    """Be the child: answer each page of each batch until the parent closes the connection."""
    connection = Connection(descriptor)
    cell = mmap.mmap(cell_descriptor, CELL_BYTES)
    settings, limits, name = connection.recv()
    try:
        function = _load(name)
        # What loads on first use loads here, so that no page's time is spent on it.
        getattr(function, "prepare", lambda: None)()
    except Exception:  # noqa: BLE001 - whatever it is, the parent reports it
        connection.send(traceback.format_exc(limit=-1).strip())
        return
    connection.send(True)
    logging.disable(logging.CRITICAL)
    # The default action ends this process wherever it hangs, also inside C, and when its parent is gone.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
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
        try:
            _serve_batch(batch, connection, cell, limits, lambda page: _answer(function, page, settings))
        except (BrokenPipeError, ConnectionResetError):
            return


def _serve_batch(
    batch: Sequence[Page],
    connection: Connection,
    cell: mmap.mmap,
    limits: Limits,
    answer: Callable[[Page], Extracted | Drop],
) -> None:
    """Answer the pages of one batch, several at a time: a message and a switch between processes cost time too."""
    answers: list[Extracted | Drop] = []
    sent = time.monotonic()
    for index, page in enumerate(batch):
        cell[:CELL_BYTES] = index.to_bytes(CELL_BYTES, "little")
        signal.setitimer(signal.ITIMER_REAL, limits.seconds)
        answers.append(answer(page))
        signal.setitimer(signal.ITIMER_REAL, 0)
        last = answers[-1]
        starved = isinstance(last, Drop) and last.rule == "out_of_memory"
        if starved or index == len(batch) - 1 or time.monotonic() - sent > SEND_EVERY_SECONDS:
            connection.send(answers)
            answers = []
            sent = time.monotonic()
        if starved:
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
