"""Runs to ask the plan about."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from training.plan.machine import Device, Machine, devices
from training.plan.shape import Shape
from training.plan.speed import Run
from training.plan.strategies import BY_NAME

SEVEN = Shape(layers=32, width=4096, heads=32, kv_heads=32, inner=11008, vocabulary=32_000)
THIRTEEN = Shape(layers=40, width=5120, heads=40, kv_heads=40, inner=13824, vocabulary=32_000)
SMALL = Shape(layers=12, width=768, heads=12, kv_heads=12, inner=3072, vocabulary=32_000, gated=False, tied=True)
SEVENTY = Shape(layers=80, width=8192, heads=64, kv_heads=8, inner=28672, vocabulary=32_000)


def machine(device: str = "h100", **given: Any) -> Machine:
    return Machine(**{"device": devices()[device], "host_memory": 1e12, **given})


def with_memory(device: str, gigabytes: float) -> Device:
    return replace(devices()[device], memory=gigabytes * 1e9)


def run(strategy: str = "ddp", shape: Shape = SEVEN, on: Machine | None = None, **given: Any) -> Run:
    settings = {"seq_len": 2048, "micro_batch": 1, **given}
    return Run(shape=shape, machine=on or machine(), strategy=BY_NAME[strategy], **settings)
