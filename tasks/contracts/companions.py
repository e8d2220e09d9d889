"""A process beside a run that serves whoever connects to its socket: the one way in which a run keeps such processes.

It takes nothing but the standard library, as a stage's own process loads it before all else.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any


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
    with tempfile.TemporaryDirectory(prefix="headwater-") as folder:
        address = str(Path(folder) / "socket")
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
