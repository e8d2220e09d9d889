from __future__ import annotations

from typing import Any

import pytest

from training.adapt.tuning_settings import Params

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"batch_size": 8, "micro_batch": 3}, "adapt.micro_batch"),
    ({"method": "full", "merge": False}, "adapt.merge"),
    ({"learning_rate": 0.5}, "adapt.learning_rate"),
    ({"targets": ("q_proj", "q_proj")}, "adapt.targets"),
    ({"device": "gpu"}, "adapt.device"),
]


@pytest.mark.parametrize(("settings", "where"), WRONG)
def test_settings_that_cannot_be_meant_are_told(
    settings: dict[str, Any], where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    (fault,) = Params(**settings).faults()
    assert where in str(fault.where)
    assert fault.expected
    assert fault.found


def test_the_defaults_can_be_meant() -> None:
    for method in ("full", "lora", "qlora", "dpo"):
        assert list(Params(method=method).faults()) == []


def test_what_does_not_decide_the_weights_is_not_in_the_manifest() -> None:
    one = Params(base="a", name="x", merge=False, device="cpu").in_manifest()
    assert one == Params(base="b").in_manifest()
    assert one != Params(seed=2).in_manifest()
    assert one["policy_sha256"]
