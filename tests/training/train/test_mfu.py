"""MFU: by the plan's formula and the device's right peak; where that is not known, the log says why none is told."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from training.plan.machine import devices
from training.train.loop import Trainer
from training.train.model import ModelSize

SEVEN = ModelSize(preset="7b")


def trainer(
    *, device: str = "gpu", precision: str = "bf16", name: str = "NVIDIA H100 80GB HBM3", ranks: int = 8
) -> Any:
    """Return what of a trainer MFU is reckoned from."""
    config = SimpleNamespace(
        device=device, precision=precision, model=SEVEN, vocab_size=32_000, order=SimpleNamespace(seq_len=2048)
    )
    cuda = SimpleNamespace(get_device_name=lambda: name)
    made = SimpleNamespace(config=config, torch=SimpleNamespace(cuda=cuda), ranks=ranks, rank=0)
    made.peak = Trainer._peak(made)  # type: ignore[arg-type]
    return made


def test_it_is_the_models_own_operations_over_the_peak_of_all_devices() -> None:
    # 6 for each of 6,738 M weights but those of the input embedding, and 12 × 32 layers × 4,096 × 2,048 for attention.
    operations = 6 * (6.738e9 - 32_000 * 4096) + 12 * 32 * 4096 * 2048
    assert Trainer._mfu(trainer(), 80_000) == pytest.approx(80_000 * operations / (8 * 989.4e12), rel=1e-3)
    assert Trainer._mfu(trainer(ranks=4), 80_000) == pytest.approx(2 * Trainer._mfu(trainer(), 80_000), rel=1e-3)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"device": "cpu", "precision": "fp32"}, "processor's peak"),
        ({"precision": "fp32"}, "those of bf16"),
        ({"name": "NVIDIA H100 PCIe"}, "NVIDIA H100 PCIe"),
        ({"name": "NVIDIA GeForce RTX 4090 Laptop GPU"}, "Laptop"),
    ],
)
def test_where_the_peak_is_not_known_none_is_told(
    given: dict[str, str], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="training.train.loop"):
        assert Trainer._mfu(trainer(**given), 1000) is None  # type: ignore[arg-type]
    assert why in caplog.text


def test_every_device_has_a_name_that_pytorch_reports_and_none_has_two() -> None:
    names = [name for device in devices().values() for name in device.reports]
    assert len(set(names)) == len(names)
    assert all(device.reports for device in devices().values())
