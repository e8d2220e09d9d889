"""MFU: by the plan's formula and the device's right peak; where that is not known, the log says why none is told."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from training.plan.machine import devices
from training.train.model import ModelSize
from training.train.progress_lines import peak_flops, utilisation

SEVEN = ModelSize(preset="7b")


def config(*, device: str = "gpu", precision: str = "bf16", ranks: int = 8) -> Any:
    """Return what of a run's config MFU is reckoned from."""
    order = SimpleNamespace(seq_len=2048, ranks=ranks)
    return SimpleNamespace(device=device, precision=precision, model=SEVEN, vocab_size=32_000, order=order)


@pytest.fixture(autouse=True)
def device(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    named = getattr(request, "param", "NVIDIA H100 80GB HBM3")
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: named)


def test_it_is_the_models_own_operations_over_the_peak_of_all_devices() -> None:
    # 6 for each of 6,738 M weights but those of the input embedding, and 12 × 32 layers × 4,096 × 2,048 for attention.
    operations = 6 * (6.738e9 - 32_000 * 4096) + 12 * 32 * 4096 * 2048
    peak, of_four = peak_flops(config()), peak_flops(config(ranks=4))
    assert peak is not None
    assert of_four is not None
    assert (peak, of_four) == pytest.approx((8 * 989.4e12, 4 * 989.4e12))
    assert utilisation(config(), 80_000, peak) == pytest.approx(80_000 * operations / peak, rel=1e-3)
    assert utilisation(config(), 80_000, of_four) == pytest.approx(2 * utilisation(config(), 80_000, peak), rel=1e-3)


@pytest.mark.parametrize(
    ("given", "device", "why"),
    [
        ({"device": "cpu", "precision": "fp32"}, "", "processor's peak"),
        ({"precision": "fp32"}, "", "those of bf16"),
        ({}, "NVIDIA H100 PCIe", "NVIDIA H100 PCIe"),
        ({}, "NVIDIA GeForce RTX 4090 Laptop GPU", "Laptop"),
    ],
    indirect=["device"],
)
def test_where_the_peak_is_not_known_none_is_told(
    given: dict[str, Any], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="training.train.progress_lines"):
        assert peak_flops(config(**given)) is None
    assert why in caplog.text


def test_every_device_has_a_name_that_pytorch_reports_and_none_has_two() -> None:
    names = [name for device in devices().values() for name in device.reports]
    assert len(set(names)) == len(names)
    assert all(device.reports for device in devices().values())
