"""Models as published: their sizes, how they begin, and that what is loaded is the function that was trained."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from transformers import AutoModelForCausalLM

from training.train.hyperparameters import Params
from training.train.model import (
    ModelSize,
    build_model,
    cast_parameters,
    families,
    family,
    model_config,
    save_model,
)
from training.train.presets import PRESETS

SMALL: dict[str, dict[str, Any]] = {
    "llama": {"layers": 2, "hidden_size": 32, "heads": 4, "kv_heads": 2},
    "llama untied": {"layers": 2, "hidden_size": 32, "heads": 4, "kv_heads": 4, "tie_embeddings": False},
    "llama qk_norm": {"layers": 2, "hidden_size": 32, "heads": 4, "kv_heads": 2, "qk_norm": True},
    "gpt2": {"family": "gpt2", "layers": 2, "hidden_size": 32, "heads": 4},
}
STOCK = {
    "llama": "LlamaForCausalLM",
    "llama untied": "LlamaForCausalLM",
    "llama qk_norm": "Qwen3ForCausalLM",
    "gpt2": "GPT2LMHeadModel",
}
PUBLISHED = {
    # name: vocabulary, context, parameters, and how exactly they were published
    "30m": (32_000, 1_024, 42e6, 0.5e6),
    "125m": (32_000, 2_048, 124.6e6, 0.05e6),
    "350m": (32_000, 2_048, 345.3e6, 0.1e6),
    "1.3b": (32_000, 4_096, 1.3e9, 0.05e9),
    "2.7b": (32_000, 4_096, 2.7e9, 0.05e9),
    "7b": (32_000, 4_096, 6_738_415_616, 0),
    "13b": (32_000, 4_096, 13_015_864_320, 0),
    "70b": (32_000, 4_096, 68_976_648_192, 0),
    "gpt2": (50_257, 1_024, 124_439_808, 0),
    "gpt2-medium": (50_257, 1_024, 354_823_168, 0),
    "gpt2-large": (50_257, 1_024, 774_030_080, 0),
    "gpt2-xl": (50_257, 1_024, 1_557_611_200, 0),
}
SEQ_LEN = 1_024


def made(settings: dict[str, Any], *, vocab_size: int = 50, seq_len: int = SEQ_LEN, seed: int = 1) -> tuple[Any, Any]:
    size = ModelSize(**settings)
    config = model_config(size, vocab_size=vocab_size, seq_len=seq_len, eos_id=0)
    return config, build_model(config, seed=seed, size=size).eval()


def logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(ids).logits
    return found


def counted(size: ModelSize, *, vocab_size: int, seq_len: int) -> int:
    with torch.device("meta"):
        model = build_model(model_config(size, vocab_size=vocab_size, seq_len=seq_len, eos_id=0), seed=1)
    return sum(weight.numel() for weight in model.parameters())


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_preset_has_the_parameters_of_the_model_that_it_is_the_shape_of(name: str) -> None:
    vocab_size, seq_len, published, tolerance = PUBLISHED[name]
    size = ModelSize(preset=name)
    assert abs(size.shape(vocab_size=vocab_size, seq_len=seq_len).weights - published) <= tolerance
    assert size.shape(vocab_size=vocab_size, seq_len=seq_len).weights == counted(
        size, vocab_size=vocab_size, seq_len=seq_len
    )


def test_every_preset_is_compared_with_what_was_published() -> None:
    assert {*PUBLISHED, "tiny"} == set(PRESETS)
    assert ModelSize(preset="tiny") == Params().model


@pytest.mark.parametrize("settings", SMALL.values(), ids=SMALL)
def test_parameters_are_counted_as_they_are(settings: dict[str, Any]) -> None:
    size = ModelSize(**settings)
    assert size.shape(vocab_size=77, seq_len=40).weights == counted(size, vocab_size=77, seq_len=40)


@pytest.mark.parametrize("name", SMALL)
def test_what_is_saved_is_loaded_by_its_stock_class_with_the_same_logits_to_the_bit(name: str, tmp_path: Path) -> None:
    config, model = made(SMALL[name])
    save_model(tmp_path, config, dict(model.named_parameters()))
    assert json.loads((tmp_path / "config.json").read_bytes())["architectures"] == [STOCK[name]]
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, trust_remote_code=False).eval()
    assert type(loaded).__name__ == STOCK[name]
    ids = torch.randint(0, 50, (2, SEQ_LEN), generator=torch.Generator().manual_seed(2))
    assert torch.equal(logits(loaded, ids), logits(model, ids))
    again = tmp_path / "again"
    save_model(again, loaded.config, dict(loaded.named_parameters()))
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(again).eval(), ids), logits(model, ids))


@pytest.mark.parametrize("name", SMALL)
def test_the_model_that_is_evaluated_is_the_one_that_was_trained_under_bf16_too(name: str, tmp_path: Path) -> None:
    config, model = made(SMALL[name])
    whole = copy.deepcopy(model).to(torch.bfloat16)
    cast_parameters(model, torch.bfloat16)
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
    save_model(tmp_path, config, dict(model.named_parameters()))
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype="auto").eval()  # as lm-eval does for evaluate
    ids = torch.randint(0, 50, (2, SEQ_LEN), generator=torch.Generator().manual_seed(2))
    assert loaded.dtype == torch.bfloat16
    assert torch.equal(logits(loaded, ids), logits(model, ids))
    if "rope_theta" in family(ModelSize(**SMALL[name]).family).settings:
        assert not torch.equal(logits(whole, ids), logits(model, ids)), "this test would not see rounded frequencies"


@pytest.mark.parametrize("name", [name for name in SMALL if name != "gpt2"])
def test_angles_are_right_at_the_end_of_the_context_under_bf16(name: str) -> None:
    _, model = made(SMALL[name] | {"hidden_size": 256})
    cast_parameters(model, torch.bfloat16)
    frequencies = model.model.rotary_emb.inv_freq
    exact = 10_000.0 ** -(torch.arange(0, 64, 2, dtype=torch.float64) / 64)
    assert ((frequencies.double() - exact) * (SEQ_LEN - 1)).abs().max() < 1e-3
    assert ((frequencies.bfloat16().double() - exact) * (SEQ_LEN - 1)).abs().max() > 0.4


@pytest.mark.parametrize("name", SMALL)
def test_norms_compute_in_float32_under_bf16(name: str) -> None:
    _, model = made(SMALL[name])
    cast_parameters(model, torch.bfloat16)
    norms = [module for kind, module in model.named_modules() if "norm" in kind.rsplit(".")[-1] or "ln_" in kind[-5:]]
    assert norms
    for norm in norms:
        (width,) = norm.weight.shape
        given = (torch.randn(64, width, generator=torch.Generator().manual_seed(3)) * 30 + 100).bfloat16()
        with torch.no_grad():
            exact = copy.deepcopy(norm).double()(given.double())
            assert ((norm(given).double() - exact).abs() <= exact.abs() * 2**-7 + 1e-2).all()


def _spread(model: Any, endings: tuple[str, ...]) -> tuple[float, float]:
    """The standard deviation of the projections into the residual stream, and of the other matrices."""
    residual: list[torch.Tensor] = []
    other: list[torch.Tensor] = []
    for name, weight in model.named_parameters():
        if weight.dim() >= 2:
            (residual if name.endswith(endings) else other).append(weight.detach().flatten())
    return float(torch.cat(residual).std()), float(torch.cat(other).std())


@pytest.mark.parametrize("name", [name for name in families() if family(name).residual])
@pytest.mark.parametrize("how", [None, "scaled", "zero"])
def test_a_model_begins_as_it_is_said(name: str, how: str | None) -> None:
    spec = family(name)
    settings = {"family": name, "layers": 8, "hidden_size": 64, "heads": 4, "residual_projections": how}
    _, model = made(settings if name == "gpt2" else settings | {"kv_heads": 4}, vocab_size=1000)
    residual, other = _spread(model, spec.residual)
    assert other == pytest.approx(0.02, rel=0.02)
    scaled = 0.02 / (2 * 8) ** 0.5
    expected = {"zero": 0.0, "scaled": scaled, None: scaled if spec.scales_residual else 0.02}[how]
    assert residual == pytest.approx(expected, rel=0.03)
    matrices = sum(1 for key, weight in model.named_parameters() if key.endswith(spec.residual) and weight.dim() == 2)
    assert matrices == 2 * 8
    for key, weight in model.named_parameters():
        if weight.dim() == 1:
            assert (weight == (1.0 if key.endswith("weight") else 0.0)).all(), key


def test_presets_begin_with_scaled_projections() -> None:
    for name in set(PRESETS) - {"tiny"}:
        size = ModelSize(preset=name)
        assert size.residual_projections == "scaled" or family(size.family).scales_residual, name


WRONG: dict[str, tuple[Any, str]] = {
    "a preset that there is not": ("125mb", r"no such preset; .*did you mean 125m\?"),
    "in a mapping too": ({"preset": "7"}, "no such preset"),
    "a preset with numbers": ({"preset": "125m", "layers": 10}, "preset 125m says layers"),
    "a preset of another family": ({"preset": "125m", "family": "gpt2"}, "preset 125m says family"),
    "a family that there is not": ({"family": "lama"}, r"no such family; .*did you mean llama\?"),
    "grouped queries in GPT-2": ({"family": "gpt2", "kv_heads": 2}, "gpt2 has no kv_heads"),
    "rotary positions in GPT-2": ({"family": "gpt2", "rope_theta": 500.0}, "gpt2 has no rope_theta"),
    "QK-norm in GPT-2": ({"family": "gpt2", "qk_norm": True}, "gpt2 has no qk_norm"),
    "heads that do not divide the width": ({"hidden_size": 100, "heads": 3}, "multiple of heads 3"),
    "a head of odd width, which does not rotate": ({"hidden_size": 9, "heads": 3, "kv_heads": 3}, "even multiple"),
    "groups of queries that are not even": ({"heads": 6, "kv_heads": 4}, "multiple of kv_heads 4"),
    "an unknown way to begin": ({"residual_projections": "small"}, "'scaled' or 'zero'"),
}


@pytest.mark.parametrize(("model", "said"), WRONG.values(), ids=WRONG)
def test_a_model_that_does_not_fit_together_is_refused_before_any_work(model: Any, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Params(model=model)


def test_manifests_name_a_model_as_they_did() -> None:
    assert Params(model={"layers": 2, "hidden_size": 192, "heads": 6, "kv_heads": 2}).identity()["model"] == {
        "layers": 2,
        "hidden_size": 192,
        "intermediate_size": None,
        "heads": 6,
        "kv_heads": 2,
        "rope_theta": 10000.0,
        "tie_embeddings": True,
    }


@pytest.mark.parametrize(
    "name", [*PRESETS, {"preset": "125m", "qk_norm": True, "residual_projections": "zero"}], ids=str
)
def test_what_a_manifest_says_of_a_model_gives_it_again(name: Any) -> None:
    params = Params(model=name)
    said = json.loads(json.dumps(params.identity()["model"]))
    assert "preset" not in said
    assert Params(model=said).model == params.model
