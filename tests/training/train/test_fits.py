"""What `auto` takes on a machine, and what is said of a model that does not fit it; every machine here is made up."""

from __future__ import annotations

import subprocess
import sys
from typing import Any, Literal, get_args

import pytest

from tests.conftest import ROOT
from training.plan.machine import PROCESSOR, Machine, devices
from training.plan.resident import FITTED, resident_bytes
from training.train import hyperparameters
from training.train.hyperparameters import Params
from training.train.strategy import Chosen

GB = 1e9
LARGE: dict[str, Any] = {"model": "350m", "seq_len": 1024, "batch_size": 16}


def on(monkeypatch: pytest.MonkeyPatch, *, gpu: str | None = None, host: float = 1e12, nvme: float = 0.0) -> None:
    """Have this machine be another one."""
    device = devices()[gpu] if gpu else PROCESSOR

    def here(**asked: Any) -> Machine:
        return Machine(device=device, devices=asked["ranks"], nodes=asked["nodes"], host_memory=host, nvme=nvme)

    monkeypatch.setattr(hyperparameters, "machine_here", here)
    monkeypatch.setattr(hyperparameters, "gpus", lambda: 8 if gpu else 0)
    monkeypatch.setattr("training.device.gpus", lambda: 8 if gpu else 0)


@pytest.mark.parametrize(
    ("gpu", "ranks", "model", "host", "chosen"),
    [
        (None, 1, "tiny", 25e9, "ddp"),
        (None, 2, "tiny", 25e9, "zero-3"),
        (None, 1, "70b", 25e9, "ddp"),  # faults() refuses it
        ("h100", 1, "1.3b", 1e12, "zero-1"),
        ("h100", 8, "7b", 1e12, "zero-3"),
        ("rtx-4090", 1, "7b", 1e12, "zero-3-offload"),
        ("h200", 1, "70b", 2e12, "zero-3-offload"),
        ("h200", 1, "70b", 0.5e12, "infinity-optimizer"),
        ("h200", 1, "70b", 64e9, "infinity"),
    ],
)
def test_auto_takes_the_cheapest_that_fits(
    gpu: str | None, ranks: int, model: str, host: float, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    on(monkeypatch, gpu=gpu, host=host, nvme=4e12)
    params = Params(model=model, num_ranks=ranks, batch_size=8, activation_checkpointing=True)
    assert params.chosen_strategy() == chosen
    assert params.in_manifest()["strategy"] == chosen


def test_memory_that_changes_nothing_is_in_no_manifest(monkeypatch: pytest.MonkeyPatch) -> None:
    on(monkeypatch, host=25e9)
    small = Params(vocabulary=500).in_manifest()
    on(monkeypatch, host=900e9)
    assert Params(vocabulary=60_000).in_manifest() == small


@pytest.mark.parametrize("strategy", ["auto", "zero-1", "zero-3", "zero-3-offload"])
@pytest.mark.parametrize("gpu", [None, "rtx-4090"])
def test_a_model_that_does_not_fit_is_refused_and_what_is_offered_would_fit(
    strategy: str, gpu: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    on(monkeypatch, gpu=gpu, host=20 * GB)
    params = Params(**LARGE, strategy=strategy)
    (fault,) = params.faults()
    assert "does not fit this machine" in str(fault)
    assert "train.strategy" in str(fault)
    offers = str(fault.fix).removeprefix("under train, ").removesuffix(" would fit").split(", or ")
    for offer in offers:
        changes = dict(one.split(": ") for one in offer.split(", "))
        assert changes, fault.fix
        assert not list(Params.model_validate({**LARGE, "strategy": strategy, **changes}).faults()), offer


def test_where_nothing_would_fit_a_smaller_model_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    on(monkeypatch, host=2 * GB)
    (fault,) = Params(**LARGE).faults()
    assert "smaller train.model" in str(fault.fix)


def test_what_is_offered_goes_with_the_other_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    on(monkeypatch, host=12 * GB)
    (fault,) = Params(**LARGE, optimizer="muon").faults()
    assert "strategy" not in str(fault.fix)


def test_ranks_share_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    fits = {"model": "125m", "batch_size": 8, "strategy": "ddp"}
    on(monkeypatch, host=12 * GB)
    assert not list(Params.model_validate(fits).faults())
    assert len(list(Params.model_validate({**fits, "num_ranks": 4}).faults())) == 1


def test_checking_loads_no_pytorch() -> None:
    asked = "from training.train.hyperparameters import Params; list(Params().faults())"
    program = f"import sys; {asked}; print('torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert said.stdout == "False\n"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", get_args(Chosen))
def test_every_way_to_train_on_a_processor_is_reckoned_with(name: Chosen, precision: Literal["fp32", "bf16"]) -> None:
    params = Params(strategy=name, precision=precision)
    if (name, precision) == ("ddp", "bf16"):
        return  # refused: test_strategies
    small, large = (params.model_copy(update={"vocabulary": size}).planned(name) for size in (1000, 50_000))
    assert FITTED.libraries < resident_bytes(small) < resident_bytes(large)


@pytest.mark.parametrize(("pieces", "mebibytes"), [(None, 2239), (256, 871)])
def test_a_loss_in_pieces_is_reckoned_with(pieces: int | None, mebibytes: int) -> None:
    """What the plan was fitted to; the trainer's own peak over three steps is now 1,639 and 712: it errs to be safe."""
    size = {"layers": 2, "hidden_size": 128, "heads": 4, "kv_heads": 2}
    asked = {"seq_len": 256, "batch_size": 16, "device": "cpu", "vocabulary": 32_768, "loss_piece_tokens": pieces}
    params = Params.model_validate({"model": size, **asked})
    assert resident_bytes(params.planned("ddp")) / 2**20 == pytest.approx(mebibytes, rel=0.1)
