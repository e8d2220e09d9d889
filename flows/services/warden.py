"""The warden: ends services with all that they started, when the process that started them asks for it or dies.

`python flows/services/warden.py SECONDS`, with the process ids of the services on the standard input, a line each. It
waits until that ends: the pipe is closed by whoever holds it, or by the kernel. Run as a file, it imports psutil and
nothing of this project, so that it is there at once.

Whole process trees are ended: a worker's flow runs, and MLflow's own children, are in sessions of their own. The last
service started goes first, so that a worker still finds the server to which it reports the end of its runs.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterable
from contextlib import suppress

import psutil


def main() -> None:
    """Wait for the end of the standard input, then end what it named."""
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)
    roots = [int(line) for line in sys.stdin]
    for root in reversed(roots):
        end_tree(root, float(sys.argv[1]) / len(roots))


def end_tree(root: int, seconds: float) -> None:
    """End a process and all that it started: asked first, killed after so many seconds."""
    try:
        process = psutil.Process(root)
        tree = [process, *process.children(recursive=True)]
    except psutil.Error:
        return
    for one in tree:
        with suppress(psutil.Error):
            one.terminate()
    end = time.monotonic() + seconds
    while any(map(lives, tree)) and time.monotonic() < end:
        time.sleep(0.1)
    for one in living(tree):
        with suppress(psutil.Error):
            one.kill()


def living(tree: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Return those that have not ended."""
    return [one for one in tree if lives(one)]


def lives(process: psutil.Process) -> bool:
    """Return whether a process runs. A zombie has ended: its parent waits for the warden, and asks for it later."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


if __name__ == "__main__":
    main()
