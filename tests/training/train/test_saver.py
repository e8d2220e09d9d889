"""A checkpoint that is written in the background holds what was there when it was begun, or is not there at all."""

import json
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tasks.contracts.errors import HeadwaterError
from training.train import checkpoint
from training.train.checkpoint import Saver, finished_checkpoints


def write(state_dict: Any, path: str) -> None:
    torch.save(state_dict, path)


class Engine:
    """What a Saver asks of DeepSpeed's engine."""

    global_rank = 0

    def __init__(self) -> None:
        self.module = torch.nn.Linear(3, 2)
        self.checkpoint_engine = SimpleNamespace(save=write)

    def save_checkpoint(self, folder: str, *, tag: str, client_state: dict[str, int], save_latest: bool) -> None:
        assert not save_latest
        (Path(folder) / tag).mkdir()
        # DeepSpeed says it either way.
        self.checkpoint_engine.save(client_state, f"{folder}/{tag}/where.pt")
        self.checkpoint_engine.save(state_dict=self.module.state_dict(), path=f"{folder}/{tag}/state.pt")

    def change(self) -> None:
        with torch.no_grad():
            for weight in self.module.parameters():
                weight.add_(1)


@pytest.fixture(autouse=True)
def one_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.distributed.barrier", lambda: None)


def saved(folder: Path, step: int) -> tuple[dict[str, Any], str]:
    place = folder / f"step-{step:08d}"
    told = json.loads((place / checkpoint.share_name(0)).read_bytes())
    return torch.load(place / "state.pt", weights_only=True), told["sha256"]


def sha256(engine: Engine) -> str:
    return checkpoint._sha256(checkpoint._shares(engine))


@pytest.mark.parametrize("background", [False, True])
def test_a_checkpoint_holds_what_was_there_when_it_was_begun(tmp_path: Path, background: bool) -> None:
    engine, folder = Engine(), tmp_path / "checkpoints"
    saver = Saver(engine, folder, keep=2, background=background)
    expected = {}
    for step in (1, 2, 3):
        expected[step] = {name: value.clone() for name, value in engine.module.state_dict().items()}, sha256(engine)
        saver.save(step)
        engine.change()
    saver.finish()
    assert [path.name for path in finished_checkpoints(folder)] == ["step-00000002", "step-00000003"]
    for step in (2, 3):
        state, told = saved(folder, step)
        weights, hashed = expected[step]
        assert told == hashed
        assert all(torch.equal(state[name], weights[name]) for name in weights)
    assert engine.checkpoint_engine.save is write


def test_training_goes_on_while_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    goes_on = threading.Event()
    write = checkpoint._write

    def slowly(*given: Any) -> None:
        assert goes_on.wait(60)
        write(*given)

    monkeypatch.setattr(checkpoint, "_write", slowly)
    saver = Saver(Engine(), tmp_path, keep=1, background=True)
    saver.save(7)
    assert saver.is_open
    assert saver.is_writing
    assert not finished_checkpoints(tmp_path)
    goes_on.set()
    saver.finish()
    assert not saver.is_open
    assert not saver.is_writing
    assert [path.name for path in finished_checkpoints(tmp_path)] == ["step-00000007"]


def test_what_a_run_that_was_killed_had_not_finished_does_not_stay(tmp_path: Path) -> None:
    (tmp_path / f"{checkpoint.UNFINISHED}step-00000003").mkdir()
    Saver(Engine(), tmp_path, keep=1, background=False).save(7)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000007"]


def test_a_disk_that_is_full_is_said_and_leaves_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    saver = Saver(Engine(), tmp_path, keep=1, background=True)
    monkeypatch.setattr(checkpoint, "sync_file", full)
    saver.save(7)
    with pytest.raises(HeadwaterError, match="full"):
        saver.finish()
    assert not finished_checkpoints(tmp_path)
