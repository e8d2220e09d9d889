"""Follows training live: the lines that the trainer appends to its progress file become metrics in MLflow."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path

from mlflow.entities import Metric

logger = logging.getLogger(__name__)

POLL_SECONDS = 1.0


Place = tuple[int, int]
"""A place in a file that may be replaced: its inode and an offset in bytes."""


class TrainingTail(threading.Thread):
    """Reads a growing file of JSON lines and hands its numbers on, a batch a second.

    The file may be missing at first, start over (a new training run) or be replaced; a line that is not yet whole
    waits for its rest. What stood before `start` is an earlier training run's. What `log` cannot take is kept and
    tried again with the next batch.
    """

    def __init__(self, log: Callable[[Iterable[Metric]], None], path: Path, start: Place = (0, 0)) -> None:
        super().__init__(name="training-tail", daemon=True)
        self._log = log
        self._path = path
        self._waiting: list[Metric] = []
        self._ended = threading.Event()
        self._inode, self._offset = start

    def run(self) -> None:
        """Follow until stopped."""
        while not self._ended.wait(POLL_SECONDS):
            self._collect()

    def stop(self) -> None:
        """Read what is left, hand it on, and end."""
        self._ended.set()
        if self.is_alive():
            self.join()
        self._collect()
        if self._waiting:
            logger.warning("%d training metrics did not reach MLflow", len(self._waiting))

    def _collect(self) -> None:
        self._waiting += [metric for line in self._new_lines() for metric in _metrics(line)]
        if not self._waiting:
            return
        try:
            self._log(self._waiting)
            self._waiting = []
        except Exception as error:  # noqa: BLE001 - MLflow raises its own and its transports' errors alike
            logger.warning("training metrics wait for MLflow: %s", error)

    def _new_lines(self) -> list[bytes]:
        try:
            with self._path.open("rb") as stream:
                status = self._path.stat()
                if status.st_ino != self._inode or status.st_size < self._offset:
                    self._inode, self._offset = status.st_ino, 0
                stream.seek(self._offset)
                content = stream.read()
        except OSError:
            return []
        whole = content.rfind(b"\n") + 1
        self._offset += whole
        return content[:whole].splitlines()


def read_metrics(path: Path, started_at: str) -> list[Metric]:
    """Return what a finished training's progress file held, none when it is not there.

    Args:
        started_at: RFC 3339; a line's time is this and its "elapsed", which leaves out the trainer's own start.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return []
    start = datetime.fromisoformat(started_at).timestamp()
    return [metric for line in lines for metric in _metrics(line, start)]


def _metrics(line: bytes, start: float | None = None) -> list[Metric]:
    try:
        row = json.loads(line)
        step = int(row["step"])
    except (ValueError, KeyError, TypeError):
        return []
    seconds = time.time() if start is None else start + float(row.get("elapsed") or 0)
    stamp = int(seconds * 1000)
    return [
        Metric(f"train.{name}", float(value), stamp, step)
        for name, value in row.items()
        if name != "step" and isinstance(value, int | float) and not isinstance(value, bool)
    ]
