"""Adapters become part of the weights: the merged model is the same function, and a stock model that anyone loads.

lora and dpo: W + (alpha / rank) B A, in float32. qlora was tuned beside weights in NF4, so it is those weights, as
they are taken out of NF4, that the adapters are merged into: the merged model equals what was tuned, and is a float32
model whose layers hold NF4's rounding. Merging into the base's own weights would be another function, and so would be
rounding the sum to NF4 again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tasks.contracts.errors import TrainingError
from training.adapt.tuning import load_base

TOLERANCE: Final = 1e-5
"""How far merged logits may be from unmerged ones, as a part of the largest where that is above 1."""
COMPARED: Final = 8
"""On how many examples they are compared."""


def merged(tuned: Any, base: Path, adapter: Path) -> Any:
    """Return a model in float32 with the adapters in its weights.

    Args:
        tuned: the model that was tuned, with its adapters.
        base: the release's folder.
        adapter: where the adapters were saved.
    """
    import peft

    plain = load_base(base, four_bits=False, device="cpu")
    take_weights_of(tuned.get_base_model(), plain)
    return peft.PeftModel.from_pretrained(plain, adapter).merge_and_unload().eval()


def take_weights_of(quantised: Any, plain: Any) -> None:
    """Give a plain model the weights that a quantised one computes with; nothing changes where none is quantised."""
    import bitsandbytes as bnb
    import torch

    layers = dict(plain.named_modules())
    with torch.no_grad():
        for name, layer in quantised.named_modules():
            inner = getattr(layer, "base_layer", layer)
            if isinstance(inner, bnb.nn.Linear4bit) and not name.endswith("base_layer"):
                weight = bnb.functional.dequantize_4bit(inner.weight.data, inner.weight.quant_state)
                layers[name].weight.copy_(weight.reshape(layers[name].weight.shape).to("cpu", torch.float32))


def difference(one: Any, other: Any, rows: Sequence[Sequence[int]]) -> float:
    """Return how far two models' logits are from each other at most, as a part of the largest where that is above 1."""
    import torch

    worst = 0.0
    with torch.no_grad():
        for row in rows:
            first, second = (
                model(torch.tensor([list(row)], device=model.device)).logits.float().cpu() for model in (one, other)
            )
            worst = max(worst, float((first - second).abs().max() / max(1.0, float(first.abs().max()))))
    return worst


def check_equal(found: float) -> None:
    """Raise TrainingError where the merged model is another function than the one that was tuned."""
    if not found <= TOLERANCE:
        raise TrainingError(
            "the merged model is not what was tuned",
            where="adapt.merge",
            expected=f"logits that differ by at most {TOLERANCE:g}",
            found=f"{found:.3g}",
            fix="adapt.merge=false keeps the adapter apart; please report it with this message",
        )
