"""A process that has loaded what a run's commands load, and forks for each of them: they start in no time.

DVC takes a second of a processor to load and a stage's own process another one, which fourteen stages would each pay
again. `warm_process` starts one (`python -m flows.workspace.warm FD MODULE …`) beside a run; `start` has a function
called in a fork of it, with the environment, folder and streams of whoever asks. Where there is none, or the code has
changed since it was started, the answer is None and the caller starts the command as usual: the same code runs either
way. A stage's own process imports this before it asks, so it takes nothing but the standard library.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.contracts.companions import companion

VARIABLE = "HEADWATER_WARM"
"""Where the commands of a run find its warm process."""
ROOT = Path(__file__).resolve().parents[2]
CODE = ("flows", "tasks", "training")
ASK_SECONDS = 60.0
"""How long the process may take to answer: it may be loading a module on a busy machine."""
STOPS = (signal.SIGINT, signal.SIGTERM)
LOST = 1
"""Exit code of a command whose warm process was killed."""

at_work: set[int] = set()
"""Processes that were forked for this one and have not ended."""


class Call:
    """A function that is called in a fork of the warm process."""

    def __init__(self, pid: int, line: socket.socket) -> None:
        self.pid = pid
        self._line = line
        at_work.add(pid)

    def wait(self) -> int:
        """Return the exit code, negative where a signal ended it."""
        try:
            with self._line, self._line.makefile("rb") as stream:
                told = stream.readline()
            return int(json.loads(told)["code"]) if told else LOST
        finally:
            at_work.discard(self.pid)

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)


def start(
    function: str, arguments: Sequence[str], *, environment: Mapping[str, str], streams: Sequence[int] = (0, 1, 2)
) -> Call | None:
    """Have `function(arguments)` called in a fork of the warm process; None where it must be started as usual.

    Args:
        function: "module:name"; what it returns is the exit code, None being 0.
        environment: all of it; also says where the warm process is.
        streams: what shall be its standard input, output and error.
    """
    address = environment.get(VARIABLE)
    if not address:
        return None
    line = socket.socket(socket.AF_UNIX)
    asked = {
        "function": function,
        "arguments": [*arguments],
        "environment": dict(environment),
        "folder": str(Path.cwd()),
    }
    try:
        line.settimeout(ASK_SECONDS)
        line.connect(address)
        socket.send_fds(line, [b" "], [*streams])
        line.sendall(json.dumps(asked).encode() + b"\n")
        pid = json.loads(_line_of(line))["pid"]
        line.settimeout(None)
    except (OSError, ValueError):
        pid = None
    if pid is None:
        line.close()
        return None
    return Call(pid, line)


def call_and_exit(function: str, arguments: Sequence[str]) -> None:
    """Have a function called for this process, and exit as it does; return where it must be called here.

    Ctrl-C reaches both, as they are of one group, and the other one answers it.
    """
    call = start(function, arguments, environment=os.environ)
    if call is None:
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, _: call.send_signal(number))
    code = call.wait()
    if code < 0:  # end likewise, so that whoever waits says so
        with contextlib.suppress(OSError):  # of signals that cannot be caught
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)


@contextlib.contextmanager
def warm_process(modules: Sequence[str], environment: Mapping[str, str]) -> Iterator[None]:
    """Keep a warm process with these modules while the block runs. What is at work then ends in its own time."""

    def wait(process: subprocess.Popen[bytes]) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0 if at_work else 5)

    at_once = {**environment, "PYTHONUNBUFFERED": "1"}
    with companion(__name__, *modules, variable=VARIABLE, environment=at_once, wait=wait):
        yield


def _line_of(line: socket.socket) -> bytes:
    """Read up to a line feed and not a byte further."""
    read = b""
    while not read.endswith(b"\n"):
        more = line.recv(1)
        if not more:
            raise ConnectionError("the warm process is gone")
        read += more
    return read


class _Server:
    """Answers in between the imports, so that what needs few modules need not wait for all."""

    def __init__(self, listener: socket.socket, modules: Sequence[str]) -> None:
        self._code = _code()
        self._listener = listener
        self._modules = [*modules]
        self._lines: dict[int, socket.socket] = {}
        self._interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)  # ignored already in a shell's background job
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it ends with what it forked, which is asked to end likewise
        self._woken, wake = socket.socketpair()
        self._wake = wake
        for end in (self._woken, wake):
            end.setblocking(False)
        signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._selector = selectors.DefaultSelector()
        for source in (listener, self._woken, sys.stdin):
            self._selector.register(source, selectors.EVENT_READ)

    def serve(self) -> int:
        """Fork for whoever asks, until the standard input ends and nothing is at work; return a fork's exit code."""
        begun = True
        while begun or self._lines:
            ready = {key.fileobj for key, _ in self._selector.select(0 if self._modules else None)}
            if sys.stdin in ready:
                self._selector.unregister(sys.stdin)
                self._modules.clear()
                begun = False
            if self._woken in ready:
                self._woken.recv(4096)
                self._tell_ended()
            if self._listener in ready:
                function = self._fork()
                if function is not None:
                    return function
            elif self._modules:
                with contextlib.suppress(ImportError):  # an optional part that is not installed
                    importlib.import_module(self._modules.pop(0))
        return 0

    def _tell_ended(self) -> None:
        for pid in [*self._lines]:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                _tell(self._lines.pop(pid), code=os.waitstatus_to_exitcode(status))

    def _fork(self) -> int | None:
        """Answer one request; in the fork, return its exit code."""
        line, _ = self._listener.accept()
        with contextlib.ExitStack() as stack:
            try:
                line.settimeout(ASK_SECONDS)
                streams = socket.recv_fds(line, 1, 3)[1]
                for stream in streams:
                    stack.callback(os.close, stream)
                asked = json.loads(_line_of_many(line))
            except (OSError, ValueError):
                line.close()
                return None
            if _code() != self._code:
                _tell(line, pid=None)
                return None
            gc.freeze()  # no fork need take apart, at its end, what was loaded here: half a second
            # Ignored here, one that came to the fork before it answers them itself would be lost; blocked, it waits.
            signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
            pid = os.fork()
            if pid == 0:
                for number, stream in enumerate(streams):
                    os.dup2(stream, number)
                self._forget(line)
                stack.close()
                signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
                return _called(asked)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
        self._lines[pid] = line
        with contextlib.suppress(OSError):
            line.sendall(json.dumps({"pid": pid}).encode() + b"\n")
        return None

    def _forget(self, line: socket.socket) -> None:
        """Leave a fork none of the server's lines, handlers and wake-up calls."""
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, self._interrupt)
        self._selector.close()
        for one in (line, *self._lines.values(), self._listener, self._woken, self._wake):
            one.close()
        self._lines.clear()


def _tell(line: socket.socket, **told: Any) -> None:
    with line, contextlib.suppress(OSError):
        line.sendall(json.dumps(told).encode() + b"\n")


def _line_of_many(line: socket.socket) -> bytes:
    """Read a line of which nothing follows: who asks says one and waits."""
    with line.makefile("rb") as stream:
        return stream.readline()


def _called(asked: Mapping[str, Any]) -> int:
    """Call what was asked for, in a fork; return its exit code."""
    os.environ.clear()
    os.environ |= asked["environment"]
    os.chdir(asked["folder"])
    sys.argv = [sys.argv[0], *asked["arguments"]]
    module, _, name = asked["function"].partition(":")
    try:
        return int(getattr(importlib.import_module(module), name)(asked["arguments"]) or 0)
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else int(done.code is not None)
    except BaseException:  # noqa: BLE001 - as Python does it
        traceback.print_exc()
        return 1


def _code() -> frozenset[tuple[str, int, int]]:
    """Return a mark of the code that lies here, which any change of any file of it changes."""
    listed = []
    for package in CODE:
        for path in (ROOT / package).rglob("*.*"):
            if path.suffix != ".pyc":
                with contextlib.suppress(OSError):
                    status = path.stat()
                    listed.append((str(path), status.st_ctime_ns, status.st_size))
    return frozenset(listed)


if __name__ == "__main__":
    sys.exit(_Server(socket.socket(fileno=int(sys.argv[1])), sys.argv[2:]).serve())
