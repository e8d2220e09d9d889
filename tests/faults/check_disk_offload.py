"""States on a disk: `python -m pytest tests/faults/check_disk_offload.py`, part of `make faults`.

DeepSpeed compiles a kernel against libaio first (Debian's libaio-dev), some minutes on two cores, and keeps it.
"""

import csv
from pathlib import Path
from typing import Any

import pytest

from tests.training.train.in_process import in_another_process
from tests.training.train.token_folders import make_tokens


def losses(folder: Path) -> list[float]:
    with (folder / "loss.csv").open() as stream:
        return [float(row["train_loss"]) for row in csv.DictReader(stream)]


def test_states_on_a_disk_learn_the_same_and_leave_no_checkpoint(tmp_path: Path) -> None:
    make_tokens(tmp_path)
    runs: list[dict[str, Any]] = [{"name": "ddp"}]
    for name in ("infinity-optimizer", "infinity"):
        runs += [{"name": name, "strategy": name}, {"name": f"{name}-cut", "strategy": name, "stop": 4}]
        runs += [{"name": f"{name}-again", "strategy": name}]
    results = {one["name"]: one for one in in_another_process(tmp_path, runs)}
    for name in ("infinity-optimizer", "infinity"):
        assert losses(tmp_path / name) == pytest.approx(losses(tmp_path / "ddp"), abs=1e-5)
        assert "nothing saved" in results[f"{name}-cut"]["said"]
        assert results[f"{name}-again"]["from"] == [0]
        assert results[f"{name}-again"]["manifest"] == results[name]["manifest"]
