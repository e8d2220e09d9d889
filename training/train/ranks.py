"""Start the ranks of a training run, watch them, and end them all together.

torchrun or deepspeed starts one process a rank. A lock file ties them to this process: it is held here, each rank
waits for it in a thread, and the system hands it over the moment this process ends. So no rank is left behind,
also after `kill -9` of this one.

Launcher and ranks meet in files of this run's folder. A torch store over TCP listens on every interface, whatever
address it is given, and obeys whoever connects.
"""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Literal

from tasks.contracts.errors import TrainingError
from tasks.contracts.workspace import ROOT, child_environment

logger = logging.getLogger(__name__)

Launcher = Literal["torchrun", "deepspeed"]

POLL_SECONDS = 0.2
GRACE_SECONDS = 60
"""Time for the step under way and for saving its state, before the ranks are ended by force."""
LOG_LINES = 40
LOOPBACK = "127.0.0.1"


@contextmanager
def held_lock(path: Path) -> Iterator[None]:
    """Hold a fresh lock file for as long as the block runs and this process lives."""
    path.unlink(missing_ok=True)
    with path.open("wb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def launch_command(launcher: Launcher, num_ranks: int, config: Path) -> list[str]:
    """Return the command that starts `num_ranks` ranks on this machine."""
    if launcher == "torchrun":
        store = config.with_name(f"torchrun-{os.getpid()}")
        store.unlink(missing_ok=True)
        meeting = ["--rdzv-backend=c10d", f"--rdzv-endpoint={store}", "--rdzv-conf=store_type=file"]
        meeting.append(f"--local-addr={LOOPBACK}")
        # torchrun makes a folder for logs, used or not; by default in /tmp, where it stays.
        own = [f"--nproc-per-node={num_ranks}", "--max-restarts=0", f"--log-dir={config.parent}"]
        return [sys.executable, "-m", "torch.distributed.run", *meeting, *own, "-m", "training.train.loop", str(config)]
    port = str(_free_port())
    start = ["-m", "deepspeed.launcher.runner", "--hostfile", os.devnull, "--num_accelerators", str(num_ranks)]
    meeting = ["--master_addr", LOOPBACK, "--master_port", port]
    return [sys.executable, *start, *meeting, "--module", "training.train.loop", str(config)]


def run_ranks(command: list[str], *, environment: Mapping[str, str], log: Path, watch: Callable[[], None]) -> None:
    """Run the command to its end, calling `watch` now and then; on any way out every process of it is gone.

    Raises:
        TrainingError: it exited with another code than 0, with the end of the ranks' log.
    """
    with log.open("wb") as stream, sigterm_as_interrupt():
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            # torchrun would else open a store of its own for the ranks, over TCP.
            env=child_environment(
                {
                    **environment,
                    "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
                    "GLOO_SOCKET_IFNAME": "lo",
                    "NCCL_SOCKET_IFNAME": "lo",
                }
            ),
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


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])
