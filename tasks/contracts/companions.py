"""A process beside a run that serves whoever connects to its socket: the one way in which a run keeps such processes.

It takes nothing but the standard library, as a stage's own process loads it before all else.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

PREFIX = "headwater-run-"
SOCKET_NAME = "socket"
LONGEST_PLACE = 64
"""Bytes of the path of a folder for temporary files: a socket's whole path has 107 at most (unix(7))."""
SHORT_PLACE = Path("/tmp")


@contextlib.contextmanager
def companion(
    module: str,
    *arguments: str,
    variable: str,
    environment: Mapping[str, str],
    stderr: int | IO[Any] = subprocess.DEVNULL,
    own_session: bool = False,
    wait: Callable[[subprocess.Popen[bytes]], object] = subprocess.Popen.wait,
) -> Iterator[None]:
    """Keep `python -m module FD …` while the block runs; FD is a Unix socket that listens, in a folder of our own.

    The socket is there before the process: who connects early waits. The end of its standard input, which comes with
    the block's end or this process's, tells it to end.

    Args:
        variable: the environment variable that says where the socket is, in this process while the block runs.
        environment: the process's own.
        own_session: keeps it out of reach of a Ctrl-C that is meant for others.
        wait: how long its end is waited for.
    """
    with _own_folder() as folder:
        address = str(folder / SOCKET_NAME)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(address)
            listener.listen()
            process = subprocess.Popen(
                [sys.executable, "-m", module, str(listener.fileno()), *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                env=dict(environment),
                pass_fds=[listener.fileno()],
                start_new_session=own_session,
            )
        os.environ[variable] = address
        try:
            yield
        finally:
            del os.environ[variable]
            assert process.stdin is not None, "it is started with a pipe"
            process.stdin.close()
            wait(process)


@contextlib.contextmanager
def _own_folder() -> Iterator[Path]:
    """Give a folder for a socket, whose lock says that this process lives; remove those of processes that were killed.

    It is a temporary one, as a socket's path is to be short and a workspace's may be long.
    """
    place = Path(tempfile.gettempdir())
    if len(os.fsencode(place)) > LONGEST_PLACE:
        place = SHORT_PLACE
    # There is no socket in a folder before its lock is held.
    for left in place.glob(f"{PREFIX}*/{SOCKET_NAME}"):
        with contextlib.suppress(OSError), _locked(left.parent):
            shutil.rmtree(left.parent)
    with tempfile.TemporaryDirectory(prefix=PREFIX, dir=place) as folder, _locked(Path(folder)):
        yield Path(folder)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a folder's lock, which the system lets go of when this process ends, however it does.

    Raises:
        OSError: another process holds it, or the folder is another user's.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
