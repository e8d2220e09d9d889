"""Training checkpoints: whole or absent, checked after loading, the last ones kept.

The engine writes each rank's part into a folder with a name of its own; when every rank is done, rank 0 flushes
it to the disk, adds `complete.json` and renames the folder. So a folder named `step-…` is a finished checkpoint,
and a torn one is never looked at. What a step leaves behind besides weights (its loss, the hash of its batch) is a
line in `steps-rank-….jsonl` and `losses.jsonl` beside the checkpoints, flushed before the checkpoint is committed
and cut back to it on resume.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
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


def share_sha256(engine: Any) -> str:
    """Return a hash of the weights that this rank holds: its share of those that are shared out, else all."""
    import torch

    digest = hashlib.sha256()
    for name, parameter in engine.module.named_parameters():
        share = getattr(parameter, "ds_tensor", None)
        on_disk = share is not None and share.numel() != share.ds_numel
        with _gathered(parameter) if on_disk else nullcontext():
            held = parameter if share is None or on_disk else share
            digest.update(f"{name} {held.dtype} {list(held.shape)}\n".encode())
            digest.update(held.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_checkpoint(engine: Any, folder: Path, step: int, *, keep: int) -> None:
    """Write the state after `step` steps and commit it; called by every rank at the same step.

    Args:
        keep: how many of the last checkpoints stay.
    """
    import torch.distributed as distributed

    name = f"{PREFIX}{step:08d}"
    unfinished = f"unfinished-{name}"
    first = engine.global_rank == 0
    if first:
        shutil.rmtree(folder / unfinished, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
    distributed.barrier()
    with disk_full_is_clear(folder):
        engine.save_checkpoint(str(folder), tag=unfinished, client_state={"steps_done": step}, save_latest=False)
        share: JsonValue = {"sha256": share_sha256(engine)}
        write_json(folder / unfinished / share_name(engine.global_rank), share)
    distributed.barrier()
    if first:
        for path in sorted((folder / unfinished).rglob("*")):
            sync_file(path) if path.is_file() else sync_folder(path)
        described: JsonValue = {"steps_done": step}
        write_json(folder / unfinished / COMPLETE, described)
        (folder / unfinished).rename(folder / name)
        sync_folder(folder)
        for old in finished_checkpoints(folder)[:-keep]:
            shutil.rmtree(old)
    distributed.barrier()


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
        share_sha256(engine),
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
