"""What a run needs of memory, against published counts and against what autograd really keeps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.training.plan.runs import SEVEN, SEVENTY, SMALL, machine, run
from training.plan.machine import GIB
from training.plan.memory import activation_bytes, layer_activation_bytes, memory
from training.plan.shape import Shape
from training.plan.strategies import STRATEGIES
from training.train.model import ModelSize, build_model, cast_parameters, model_config

SHAPES = st.sampled_from([SMALL, SEVEN, SEVENTY])


def of_weights(weights: float) -> Shape:
    return Shape(layers=0, width=8, heads=1, kv_heads=1, inner=8, vocabulary=0, extra=round(weights))


@pytest.mark.parametrize(
    ("strategy", "gigabytes", "float32_gradients"),
    # Rajbhandari et al. 2020, figure 1: 7.5 billion weights on 64 devices.
    [("ddp", 120.0, 2 * 7.5), ("zero-1", 31.4, 4 * 7.5 / 64), ("zero-2", 16.6, 4 * 7.5 / 64), ("zero-3", 1.9, 0.47)],
)
def test_states_are_those_of_the_paper_and_gradients_in_float32(
    strategy: str, gigabytes: float, float32_gradients: float
) -> None:
    planned = memory(run(strategy, of_weights(7.5e9), machine(devices=8, nodes=8)))
    assert planned.states / 1e9 == pytest.approx(gigabytes + float32_gradients, rel=0.02)


def test_more_devices_take_from_each_what_torchtitan_saw() -> None:
    """Llama 3.1 8B with FSDP: 77.0 GiB on 8 devices, 62.0 on 128 (torchtitan, benchmarks/llama3_h100_202412)."""
    shape = Shape(layers=32, width=4096, heads=32, kv_heads=8, inner=14336, vocabulary=128_256)
    few, many = (memory(run("fsdp", shape, machine(devices=8, nodes=nodes), micro_batch=2)) for nodes in (1, 16))
    assert (few.states - many.states) / GIB == pytest.approx(77.0 - 62.0, rel=0.15)


def kept_for_backward(settings: dict[str, Any], *, tokens: int) -> int:
    """Return the bytes that autograd keeps of a model's forward pass beside its weights."""
    size = ModelSize(**settings)
    config = model_config(size, vocab_size=64, seq_len=tokens, eos_id=0)
    model = cast_parameters(build_model(config, seed=1), torch.bfloat16).train()
    weights = {weight.data_ptr() for weight in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights and tensor.numel() >= tokens:
            kept[storage.data_ptr()] = storage.nbytes()
            held.append(tensor)
        return tensor

    held: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(torch.zeros(1, tokens, dtype=torch.int64))
    return sum(kept.values())


@pytest.mark.parametrize(
    "settings",
    [
        {"hidden_size": 256, "heads": 4, "kv_heads": 4},
        {"hidden_size": 256, "heads": 4, "kv_heads": 1},
        {"family": "gpt2", "hidden_size": 256, "heads": 4},
    ],
    ids=["llama", "grouped queries", "gpt2"],
)
def test_a_layer_keeps_what_autograd_keeps(settings: dict[str, Any]) -> None:
    tokens = 512
    two, four = (kept_for_backward(settings | {"layers": layers}, tokens=tokens) for layers in (2, 4))
    shape = ModelSize(**settings, layers=1).shape(vocab_size=64, seq_len=tokens)
    assert (four - two) / 2 / tokens == pytest.approx(layer_activation_bytes(shape), rel=0.15)


@given(shape=SHAPES, micro=st.integers(1, 64), seq_len=st.integers(8, 8192))
def test_activations_grow_with_the_tokens_and_shrink_with_checkpointing(shape: Shape, micro: int, seq_len: int) -> None:
    one = run("ddp", shape, micro_batch=micro, seq_len=seq_len)
    assert activation_bytes(one) == pytest.approx(micro * activation_bytes(run("ddp", shape, seq_len=seq_len)))
    full = run("ddp", shape, micro_batch=micro, seq_len=seq_len, checkpointing="full")
    assert activation_bytes(full) < activation_bytes(one)


@given(shape=SHAPES, nodes=st.integers(1, 8), devices=st.integers(2, 8))
def test_who_shares_more_holds_less(shape: Shape, nodes: int, devices: int) -> None:
    on = machine(devices=devices, nodes=nodes)
    held = [memory(run(name, shape, on)).states for name in ("ddp", "zero-1", "zero-2", "zero-3")]
    assert held == sorted(held, reverse=True)
    for strategy in STRATEGIES:
        exact, small = (memory(run(strategy.name, shape, on, moment_bits=bits)).states for bits in (32, 8))
        assert small < exact if strategy.optimizer == "device" else small == exact


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda one: one.name)
def test_every_state_lies_somewhere(strategy: Any) -> None:
    planned = memory(run(strategy.name, SEVENTY))
    outside = planned.host + planned.nvme - 4 * GIB
    everything = (planned.states + outside) / SEVENTY.weights
    assert 16 <= everything <= 20
    assert (outside > 0) is strategy.offloads
