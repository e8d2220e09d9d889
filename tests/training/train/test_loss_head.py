"""The loss and the gradients that the output layer makes are PyTorch's, for every family, whatever the pieces."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional
from transformers import Gemma2Config, Gemma2ForCausalLM

from training.train.loss_head import loss_head
from training.train.model import ModelSize, build_model, cast_parameters, families, model_config
from training.train.packing import IGNORED

VOCABULARY, TOKENS = 40, 8
Gradients = dict[str, torch.Tensor]


def small(family: str, *, tied: bool, precision: torch.dtype = torch.float32) -> torch.nn.Module:
    size = ModelSize(family=family, layers=1, hidden_size=16, heads=2, tie_embeddings=tied)
    config = model_config(size, vocab_size=VOCABULARY, seq_len=TOKENS, eos_id=0)
    made: torch.nn.Module = cast_parameters(build_model(config, seed=1), precision)
    return made


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    drawn = torch.Generator().manual_seed(2)
    tokens, targets = (torch.randint(0, VOCABULARY, (3, TOKENS), generator=drawn) for _ in range(2))
    targets[0, 2], targets[2, 3:] = IGNORED, IGNORED
    return tokens, targets


def gradients(model: torch.nn.Module, minimised: torch.Tensor) -> Gradients:
    torch.autograd.backward(minimised * 0.5)
    return {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


def by_pytorch(model: torch.nn.Module, z_loss: float) -> tuple[float, float, Gradients]:
    tokens, targets = batch()
    logits = model(input_ids=tokens).logits.flatten(0, 1).float()
    loss = functional.cross_entropy(logits, targets.flatten(), ignore_index=IGNORED, reduction="sum")
    minimised = loss + z_loss * logits[targets.flatten() != IGNORED].logsumexp(-1).square().sum()
    return minimised.item(), loss.item(), gradients(model, minimised)


def by_head(model: torch.nn.Module, z_loss: float, pieces: int | None) -> tuple[float, float, Gradients]:
    tokens, targets = batch()
    head = loss_head(model.get_output_embeddings(), pieces)  # type: ignore[operator]
    minimised, loss = head.of(model, targets, z_loss, input_ids=tokens)
    return minimised.item(), loss.item(), gradients(model, minimised)


@pytest.mark.parametrize("pieces", [None, 1, 7, 1000])
@pytest.mark.parametrize("z_loss", [0.0, 0.05])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", families())
def test_loss_and_gradients_are_those_of_pytorch(family: str, tied: bool, z_loss: float, pieces: int | None) -> None:
    minimised, loss, made = by_head(small(family, tied=tied), z_loss, pieces)
    expected_minimised, expected_loss, expected = by_pytorch(small(family, tied=tied), z_loss)
    assert (minimised, loss) == pytest.approx((expected_minimised, expected_loss), rel=1e-6)
    assert made.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(made[name], gradient, msg=name)


def test_in_bf16_the_output_layers_gradient_is_added_up_in_float32() -> None:
    exact = by_pytorch(small("llama", tied=False), 0.0)[2]["lm_head.weight"]
    in_bf16 = by_head(small("llama", tied=False, precision=torch.bfloat16), 0.0, 1)[2]["lm_head.weight"]
    assert in_bf16.dtype == torch.bfloat16
    assert float((in_bf16.float() - exact).norm() / exact.norm()) < 0.02


def test_where_nothing_is_learnt_no_gradient_is_made_and_without_targets_the_layer_gives_logits() -> None:
    model = small("llama", tied=True)
    tokens, targets = batch()
    expected = model(input_ids=tokens).logits
    head = loss_head(model.get_output_embeddings())  # type: ignore[operator]
    with torch.no_grad():
        minimised, loss = head.of(model, targets, 0.0, input_ids=tokens)
    assert not minimised.requires_grad
    assert float(loss) == pytest.approx(by_pytorch(model, 0.0)[1], rel=1e-6)
    assert torch.equal(model(input_ids=tokens).logits, expected)


def test_an_output_layer_that_gives_more_than_a_product_is_refused() -> None:
    with pytest.raises(AssertionError, match="output layer"):
        loss_head(torch.nn.Linear(4, 4, bias=True))


def test_a_model_that_caps_its_logits_is_refused() -> None:
    config = Gemma2Config(vocab_size=VOCABULARY, hidden_size=16, intermediate_size=16, num_hidden_layers=1, head_dim=8)
    model = Gemma2ForCausalLM(config)
    tokens, targets = batch()
    head = loss_head(model.get_output_embeddings())
    with pytest.raises(AssertionError, match="caps or scales"):
        head.of(model, targets, 0.0, input_ids=tokens)
