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
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from flows.lineage import records
from flows.lineage.tracking import QUIET
from tasks.contracts.workspace import ROOT, state_folder

logger = logging.getLogger(__name__)

PATIENCE = 600.0
"""Seconds to wait for MLflow at the end of a stage: uploading a release may take a while."""


def progress_path() -> Path:
    """Return the file that training appends {"step", "loss", …} lines to."""
    return state_folder() / "train" / "progress.jsonl"


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
        experiment: str = "headwater",
        model: str = "headwater",
    ) -> None:
        self.ids: records.MlflowIds | None = None
        self.digests: dict[str, str] = {}
        self.shard_hits: int | None = None
        self._stage = stage
        self._opening = {
            "run": run,
            "stage": stage,
            "params": dict(params),
            "inputs": {name: str(folder.resolve()) for name, folder in inputs.items()},
            "output": str(output.resolve()),
            "experiment": experiment,
            "model": model,
            "progress": str(progress_path()),
        }
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> StageMirror:
        try:
            self._child = self._start()
            # Noted here and not by the child, which is ready only after training has begun.
            self._say({**self._opening, "progress_start": _end_of(progress_path())})
        except OSError as error:
            self._give_up(error)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._child is None:
            return
        if error is None:
            ending: dict[str, Any] = {"done": True, "shard_hits": self.shard_hits}
        else:
            status = "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"
            ending = {"done": False, "status": status, "error": f"{type(error).__name__}: {error}"}
        try:
            self._say(ending)
            answer, _ = self._child.communicate(timeout=PATIENCE)
            told = json.loads(answer)
            self.ids = records.MlflowIds.model_validate(told["ids"])
            self.digests = told["digests"]
        except subprocess.TimeoutExpired as late:
            self._child.kill()
            self._child.wait()
            self._give_up(late)
        except (OSError, ValueError, KeyError) as broken:
            self._child.wait()
            self._give_up(broken)

    def _start(self) -> subprocess.Popen[bytes]:
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        with self._log_path().open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "flows.lineage.mirror_process"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**QUIET, **os.environ, "PYTHONPATH": path, "HEADWATER_STATE": str(state_folder())},
                # A Ctrl-C reaches the stage; the child hears of it from there and still closes the run.
                start_new_session=True,
            )

    def _say(self, message: Mapping[str, Any]) -> None:
        assert self._child is not None, "the child is started first"
        stream: IO[bytes] | None = self._child.stdin
        assert stream is not None, "the child is started with a pipe"
        stream.write(json.dumps(message, default=str).encode() + b"\n")
        stream.flush()

    def _give_up(self, error: Exception) -> None:
        self._child = None
        logger.warning(
            "MLflow does not show %s (%s; see %s): the run record and the manifest are complete, "
            "and `headwater lineage sync` rebuilds MLflow from them",
            self._stage,
            type(error).__name__,
            self._log_path(),
        )

    @staticmethod
    def _log_path() -> Path:
        path = state_folder() / "logs" / "mirror.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path
