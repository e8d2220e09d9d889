"""Mirrors a stage into MLflow while it runs, from a process of its own.

MLflow takes seconds to import and can hang, so it never runs inside a stage: a child process opens the run while
the stage is already at work, follows training live, and closes the run at the end. Whatever goes wrong there is one
warning, never a failed stage: the manifests and run records are the truth, and `headwater lineage sync` makes MLflow
from them again.
"""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from flows.history import run_records
from flows.services.tracking import QUIET
from flows.workspace.extras import UI, how_to_install, lacking
from tasks.contracts.companions import companion
from tasks.contracts.durable_files import write_bytes
from tasks.contracts.workspace import child_environment, progress_path, state_folder

logger = logging.getLogger(__name__)

SERVER_VARIABLE = "HEADWATER_MIRROR"
"""Where a stage finds the mirror server of its run; empty where there is none, as MLflow is not installed."""

WITHOUT_MLFLOW = (
    "MLflow is not installed, and shows nothing of this: the run records and manifests are complete. "
    f"{how_to_install(UI)}, then `headwater lineage sync`, shows it later"
)

MIRROR_TIMEOUT_SECONDS = 600.0
"""Seconds to wait for MLflow at the end of a stage: uploading a release may take a while."""


def kept_progress_path(run: str, started_at: str) -> Path:
    """Return where the progress of one training is kept beside its run record: the next training overwrites it."""
    return run_records.runs_folder() / run / f"train-{re.sub(r'[^0-9]', '', started_at)[:17]}.progress.jsonl"


def _keep_progress(kept: Path, start: tuple[int, int]) -> None:
    inode, offset = _end_of(progress_path())
    with suppress(OSError), progress_path().open("rb") as stream:
        if inode == start[0] and offset >= start[1]:
            stream.seek(start[1])
        write_bytes(kept, stream.read())


def _end_of(path: Path) -> tuple[int, int]:
    """Return a file's inode and size, zeros when it is missing."""
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_ino, status.st_size


class StageMirror:
    """Mirrors one stage: `with StageMirror(...) as mirror: run(...)`.

    After the block, `ids` and `digests` hold what the run record should say; both stay empty when MLflow failed.

    Args:
        run: the pipeline run's name, shared by its stages.
        params: the stage's settings.
        inputs: input name → finished stage folder.
        output: the stage's folder, complete when the block ends without an error.
        started_at: as the run record will say it; now, when left out.
        experiment: MLflow's experiment.
        model: the registered model's name, used by the stage `release`.
    """

    def __init__(
        self,
        *,
        run: str,
        stage: str,
        params: Mapping[str, Any],
        inputs: Mapping[str, Path],
        output: Path,
        started_at: str | None = None,
        experiment: str = "headwater",
        model: str = "headwater",
    ) -> None:
        self.ids: run_records.MlflowIds | None = None
        self.digests: dict[str, str] = {}
        self.shard_hits: int | None = None
        started_at = started_at or run_records.now()
        self._stage = stage
        self._opening = {
            "run": run,
            "stage": stage,
            "params": dict(params),
            "inputs": {name: str(folder.resolve()) for name, folder in inputs.items()},
            "output": str(output.resolve()),
            "started_at": started_at,
            "experiment": experiment,
            "model": model,
            "progress": str(progress_path()),
        }
        self._line: socket.socket | None = None
        self._progress = kept_progress_path(run, started_at) if stage == "train" else None
        self._progress_start = (0, 0)

    def __enter__(self) -> StageMirror:
        # Noted here and not by the child, which is ready only after training has begun.
        self._progress_start = _end_of(progress_path())
        if lacking(UI):
            if os.environ.get(SERVER_VARIABLE) is None:
                logger.info(WITHOUT_MLFLOW)
            return self
        try:
            self._line = self._connect()
            self._say({**self._opening, "progress_start": self._progress_start})
        except OSError as error:
            self._give_up(type(error).__name__)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._progress is not None:
            _keep_progress(self._progress, self._progress_start)
        if self._line is None:
            return
        if error is None:
            ending: dict[str, Any] = {"done": True, "shard_hits": self.shard_hits}
        else:
            status = "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"
            failure = run_records.failure(error)
            ending = {"done": False, "status": status, "error": f"{failure.type}: {failure.message}"}
        try:
            with suppress(OSError):  # one that gave up early has answered already, and listens no more
                self._say(ending)
            told = json.loads(self._answer())
            if "failed" in told:
                self._give_up(told["failed"])
                return
            self.ids = run_records.MlflowIds.model_validate(told["ids"])
            self.digests = told["digests"]
        except (OSError, ValueError, KeyError) as broken:
            self._give_up(type(broken).__name__)
        finally:
            self._line.close()

    def _connect(self) -> socket.socket:
        """Return a line to a process that mirrors one stage: the run's own mirror server forks one, else a new one."""
        address = os.environ.get(SERVER_VARIABLE)
        if address:
            line = socket.socket(socket.AF_UNIX)
            try:
                line.connect(address)
            except OSError:
                line.close()
                raise
            return line
        line, other_end = socket.socketpair()
        with other_end, log_path().open("ab") as log:
            subprocess.Popen(
                [sys.executable, "-m", "flows.mlflow.mirror_process"],
                stdin=other_end.fileno(),
                stdout=other_end.fileno(),
                stderr=log,
                env=child_environment(defaults=QUIET),
                start_new_session=True,
            )
        return line

    def _say(self, message: Mapping[str, Any]) -> None:
        assert self._line is not None, "the line is opened first"
        self._line.sendall(json.dumps(message, default=str).encode() + b"\n")

    def _answer(self) -> bytes:
        assert self._line is not None, "the line is opened first"
        self._line.settimeout(MIRROR_TIMEOUT_SECONDS)
        with self._line.makefile("rb") as stream:
            return stream.readline()

    def _give_up(self, why: str) -> None:
        logger.warning(
            "MLflow does not show %s (%s; see %s): the run record and the manifest are complete, "
            "and `headwater lineage sync` rebuilds MLflow from them",
            self._stage,
            why,
            log_path(),
        )


@contextmanager
def mirror_server() -> Iterator[None]:
    """Keep one process that loads MLflow for the first stage while the block runs; each stage's mirror is a fork of it.

    Loading MLflow takes seconds of a processor, which fourteen stages would each pay again.
    """
    if lacking(UI):
        logger.info(WITHOUT_MLFLOW)
        os.environ[SERVER_VARIABLE] = ""
        try:
            yield
        finally:
            del os.environ[SERVER_VARIABLE]
        return
    with (
        log_path().open("ab") as log,
        companion(
            "flows.mlflow.mirror_server",
            variable=SERVER_VARIABLE,
            environment=child_environment(defaults=QUIET),
            stderr=log,
            own_session=True,
        ),
    ):
        yield


def log_path() -> Path:
    """Return where the mirror's own messages go."""
    path = state_folder() / "logs" / "mirror.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
