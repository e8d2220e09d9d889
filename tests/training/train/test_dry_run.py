"""A step of many ranks with fake tensors: the plan's states are those of the real model, to the byte."""

from __future__ import annotations

from typing import Any

import pytest

from training.plan.machine import Machine, devices
from training.plan.memory import activation_bytes, memory
from training.plan.speed import Run
from training.plan.strategies import BY_NAME
from training.train.dry_run import Tracked, dry_run
from training.train.model import ModelSize

VOCABULARY, SEQ_LEN = 4096, 256


def planned(size: ModelSize, ranks: int, *, checkpointing: bool = False) -> Run:
    return Run(
        shape=size.shape(vocab_size=VOCABULARY, seq_len=SEQ_LEN),
        machine=Machine(device=devices()["h100"], devices=8, nodes=ranks // 8),
        strategy=BY_NAME["fsdp"],
        seq_len=SEQ_LEN,
        micro_batch=2,
        checkpointing="full" if checkpointing else "none",
    )


def tracked(size: ModelSize, ranks: int, *, checkpointing: bool = False) -> Tracked:
    return dry_run(
        size, vocab_size=VOCABULARY, seq_len=SEQ_LEN, micro_batch=2, ranks=ranks, checkpointing=checkpointing
    )


@pytest.mark.parametrize(
    "settings",
    [
        {"layers": 3, "hidden_size": 256, "heads": 4, "kv_heads": 2, "tie_embeddings": False},
        {"layers": 2, "hidden_size": 256, "heads": 4, "kv_heads": 4},
        {"family": "gpt2", "layers": 2, "hidden_size": 256, "heads": 4},
    ],
    ids=["grouped queries", "tied", "gpt2"],
)
def test_the_states_of_64_ranks_are_those_of_the_plan_to_the_byte(settings: dict[str, Any]) -> None:
    size = ModelSize(**settings)
    found = tracked(size, 64)
    assert found.states == memory(planned(size, 64)).states
    share = planned(size, 64).shape.weights // 64
    assert (found.weights, found.gradients, found.optimizer) == (4 * share, 4 * share, 8 * share)


def test_activations_are_near_and_shrink_when_they_are_computed_again() -> None:
    size = ModelSize(layers=6, hidden_size=256, heads=4, kv_heads=4)
    kept, again = (tracked(size, 8, checkpointing=checkpointing) for checkpointing in (False, True))
    assert again.activations < kept.activations
    for found, checkpointing in ((kept, False), (again, True)):
        run = planned(size, 8, checkpointing=checkpointing)
        assert found.activations == pytest.approx(activation_bytes(run), rel=0.25)
        assert found.peak < memory(run).device
