"""Training checkpoints: whole or absent, checked after loading, the last ones kept.

The engine makes each rank's part, which goes into a folder with a name of its own; when every rank is done, rank 0
flushes it to the disk, adds `complete.json` and renames the folder. So a folder named `step-…` is a finished
checkpoint, and a torn one is never looked at. What a step leaves behind besides weights (its loss, the hash of its
batch) is a line in `steps-rank-….jsonl` and `losses.jsonl` beside the checkpoints, flushed before the checkpoint is
committed and cut back to it on resume.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import JsonValue

from tasks.contracts.durable_files import disk_full_is_clear, sync_file, sync_folder, write_bytes, write_json
from tasks.contracts.errors import TrainingError

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

COMPLETE = "complete.json"
LOSSES_NAME = "losses.jsonl"
BEST_FOLDER = "best"
"""The weights with the lowest validation loss so far, where they are asked for."""
BEST_NAME = "best.json"
RESULT_NAME = "result.json"
"""The last file that the ranks write: with it, training is done."""
PREFIX = "step-"
UNFINISHED = "unfinished-"


def share_name(rank: int) -> str:
    """Return the name of the file that says what a rank's share of the weights hashes to."""
    return f"share-rank-{rank:05d}.json"


class StepLog:
    """One JSON line a step, appended as training goes and cut back to the checkpoint on resume."""

    def __init__(self, path: Path, first_step: int) -> None:
        """Open the log for appending from `first_step`; later lines, left by a run that was killed, are removed."""
        kept = b"".join(json.dumps(row).encode() + b"\n" for row in read_log(path) if row["step"] < first_step)
        write_bytes(path, kept)
        self._stream = path.open("ab")

    def append(self, row: Mapping[str, JsonValue]) -> None:
        self._stream.write(json.dumps(dict(row)).encode() + b"\n")
        self._stream.flush()

    def flush(self) -> None:
        """Flush to the disk: what the log holds now survives a power cut."""
        self._stream.flush()
        os.fsync(self._stream.fileno())


def read_log(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a log, up to a last line that a crash cut short."""
    if not path.exists():
        return
    for line in path.read_bytes().splitlines(keepends=True):
        if not line.endswith(b"\n"):
            return
        yield json.loads(line)


def finished_checkpoints(folder: Path) -> list[Path]:
    """Return the finished checkpoints of a folder, oldest first."""
    return sorted(path for path in folder.glob(f"{PREFIX}*") if (path / COMPLETE).is_file())


def gather_weights(engine: Any) -> dict[str, torch.Tensor]:
    """Return every weight in full, on the CPU; on rank 0 only (the others get an empty dict).

    One tensor at a time is gathered, so that the accelerator never holds more than one beside its share.
    """
    weights: dict[str, torch.Tensor] = {}
    first = engine.global_rank == 0
    for name, parameter in engine.module.named_parameters():
        with _gathered(parameter) if hasattr(parameter, "ds_id") else nullcontext():
            if first:
                weights[name] = parameter.detach().cpu().clone()
    return weights


def _gathered(parameter: torch.Tensor) -> AbstractContextManager[None]:
    """Hold a weight that ranks share out in full."""
    import deepspeed

    held: AbstractContextManager[None] = deepspeed.zero.GatheredParameters([parameter])
    return held


def _shares(engine: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the names and values of the weights that this rank holds: its share of those that are shared out."""

    for name, parameter in engine.module.named_parameters():
        share = getattr(parameter, "ds_tensor", None)
        on_disk = share is not None and share.numel() != share.ds_numel
        with _gathered(parameter) if on_disk else nullcontext():
            yield name, (parameter if share is None or on_disk else share).detach()


def _sha256(weights: Iterable[tuple[str, torch.Tensor]]) -> str:
    import torch

    digest = hashlib.sha256()
    for name, held in weights:
        digest.update(f"{name} {held.dtype} {list(held.shape)}\n".encode())
        digest.update(held.cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class Saver:
    """Writes checkpoints; every rank has one, and calls it at the same steps.

    In the background, training stands still only while the state is copied to this machine's memory, which takes as
    much of it as the files; a thread writes it to the disk, and the checkpoint is there when every rank's thread is
    done and `finish` is called.

    Args:
        keep: how many of the last checkpoints stay.
    """

    def __init__(self, engine: Any, folder: Path, *, keep: int, background: bool) -> None:
        self._engine, self._folder, self._keep = engine, folder, keep
        self._first = engine.global_rank == 0
        self._writer = ThreadPoolExecutor(1) if background else None
        self._step = 0
        self._writing: Future[None] | None = None

    @property
    def is_writing(self) -> bool:
        """Whether this rank's thread is not done with the checkpoint that was begun last."""
        return self._writing is not None and not self._writing.done()

    @property
    def is_open(self) -> bool:
        """Whether a checkpoint was begun and not finished: on every rank or on none."""
        return self._writing is not None

    def save(self, step: int) -> None:
        """Write the state after `step` steps, or begin to."""
        import torch.distributed as distributed

        self.finish()
        unfinished = self._folder / _unfinished(step)
        if self._first:
            # None is being written now: what is there a run left that was killed, or whose disk was full.
            for left in self._folder.glob(f"{UNFINISHED}*"):
                shutil.rmtree(left, ignore_errors=True)
            self._folder.mkdir(parents=True, exist_ok=True)
        distributed.barrier()
        share = unfinished / share_name(self._engine.global_rank)
        self._step = step
        if self._writer is None:
            with disk_full_is_clear(self._folder):
                self._ask_engine(unfinished)
                write_json(share, {"sha256": _sha256(_shares(self._engine))})
            self._commit()
            return
        with disk_full_is_clear(self._folder), _held_back(self._engine) as files:
            self._ask_engine(unfinished)
        weights = [(name, held.to("cpu", copy=True)) for name, held in _shares(self._engine)]
        self._writing = self._writer.submit(_write, files, weights, share)

    def _ask_engine(self, unfinished: Path) -> None:
        state = {"steps_done": self._step}
        self._engine.save_checkpoint(str(self._folder), tag=unfinished.name, client_state=state, save_latest=False)

    def finish(self) -> None:
        """Wait for the checkpoint that was begun, if there is one, and commit it.

        Raises:
            HeadwaterError: the disk is full; other errors of writing come through too.
        """
        if self._writing is not None:
            self._writing.result()
            self._writing = None
            self._commit()

    def _commit(self) -> None:
        import torch.distributed as distributed

        distributed.barrier()
        if self._first:
            unfinished = self._folder / _unfinished(self._step)
            for path in sorted(unfinished.rglob("*")):
                sync_file(path) if path.is_file() else sync_folder(path)
            described: JsonValue = {"steps_done": self._step}
            write_json(unfinished / COMPLETE, described)
            unfinished.rename(self._folder / f"{PREFIX}{self._step:08d}")
            sync_folder(self._folder)
            for old in finished_checkpoints(self._folder)[: -self._keep]:
                shutil.rmtree(old)
        distributed.barrier()


def _unfinished(step: int) -> str:
    return f"{UNFINISHED}{PREFIX}{step:08d}"


@contextmanager
def _held_back(engine: Any) -> Iterator[dict[Path, memoryview]]:
    """Give the files that the engine would write in the block: their bytes by their paths."""
    import torch

    files: dict[Path, memoryview] = {}
    writer = engine.checkpoint_engine

    def hold(state_dict: Any, path: str) -> None:
        held = io.BytesIO()
        torch.save(state_dict, held)
        files[Path(path)] = held.getbuffer()

    own, writer.save = writer.save, hold
    try:
        yield files
    finally:
        writer.save = own


def _write(files: Mapping[Path, memoryview], weights: Iterable[tuple[str, torch.Tensor]], share: Path) -> None:
    for path, content in files.items():
        with disk_full_is_clear(path):
            path.write_bytes(content)
            sync_file(path)
    with disk_full_is_clear(share):
        write_json(share, {"sha256": _sha256(weights)})


def load_checkpoint(engine: Any, checkpoint: Path) -> int:
    """Load a finished checkpoint into the engine and return how many steps it has behind it.

    Raises:
        TrainingError: what was loaded is not what was saved (compared by the weights' hash; DeepSpeed issue 8499).
    """
    described = json.loads((checkpoint / COMPLETE).read_bytes())
    path, client_state = engine.load_checkpoint(str(checkpoint.parent), tag=checkpoint.name)
    if path is None or client_state["steps_done"] != described["steps_done"]:
        raise TrainingError("a checkpoint could not be loaded", where=str(checkpoint), fix="remove that folder")
    saved, loaded = (
        json.loads((checkpoint / share_name(engine.global_rank)).read_bytes())["sha256"],
        _sha256(_shares(engine)),
    )
    if loaded != saved:
        raise TrainingError(
            "a checkpoint's weights are not the ones that were saved",
            where=str(checkpoint),
            expected=saved,
            found=loaded,
            fix="remove that folder: training then goes on from the checkpoint before it",
        )
    return int(described["steps_done"])
