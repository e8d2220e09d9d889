"""What `headwater plan` is asked about: a model by name, size, numbers or folder, and amounts with their units."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from flows.workspace.assignments import read_value
from tasks.contracts.errors import UsageError, did_you_mean
from tasks.contracts.files import MODEL_CONFIG_NAME
from training.plan.shape import Shape
from training.train.model import ModelSize
from training.train.presets import PRESETS

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGTkmgt]?i?)[Bb]?")
_WEIGHTS = re.compile(r"(\d+(?:\.\d+)?)([mb])")
HEAD = 128
"""Width of a head of a model of a size that has no name."""
GROUPS = 8
"""Its key and value heads."""


def amount(text: str, option: str) -> float:
    """Return bytes, or tokens, of a number with its unit.

    Raises:
        UsageError: it is no such number.

    >>> amount("1TB", "--nvme"), amount("512 GiB", "--host-memory"), amount("20b", "--tokens")
    (1000000000000.0, 549755813888.0, 20000000000.0)
    """
    billions = re.fullmatch(r"(\d+(?:\.\d+)?)[bB]", text.strip())
    if billions and option == "--tokens":
        return float(billions[1]) * 10**9
    found = _AMOUNT.fullmatch(text.strip())
    if found is None:
        raise UsageError(
            f"{option} is no amount", expected="a number with its unit, as 512GB, 1.5TB or 100G", found=text
        )
    unit = found[2][:1].upper() + found[2][1:]
    return float(found[1]) * _UNITS[unit]


def shape_of(model: str, *, vocab_size: int, seq_len: int) -> Shape:
    """Return the shape of a model that a person names: a preset, a size (120b), numbers, or a folder with config.json.

    Raises:
        UsageError: it is none of these.
    """
    if (config := Path(model) / MODEL_CONFIG_NAME).is_file():
        return _of_config(json.loads(config.read_bytes()), str(config))
    if model not in PRESETS and (size := _WEIGHTS.fullmatch(model.lower())):
        weights = float(size[1]) * {"m": 10**6, "b": 10**9}[size[2]]
        return _of_weights(weights, vocab_size=vocab_size)
    given: Any = {"preset": model} if model in PRESETS else read_value(model)
    if not isinstance(given, Mapping):
        raise UsageError(
            "there is no such model",
            expected=f"{', '.join(PRESETS)}, a size as 120b, numbers as {{layers: 24, …}}, or a model's folder",
            found=model,
            fix=did_you_mean(model, PRESETS),
        )
    try:
        return ModelSize.model_validate(given).shape(vocab_size=vocab_size, seq_len=seq_len)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, one['loc']))} {one['msg']}".strip() for one in error.errors())
        raise UsageError("the model cannot be", found=wrong, fix="`headwater params show train`") from error


def size_of(shape: Shape) -> ModelSize:
    """Return a model of the families here that has a shape."""
    return ModelSize(
        family="llama" if shape.gated else "gpt2",
        layers=shape.layers,
        hidden_size=shape.width,
        intermediate_size=shape.inner,
        heads=shape.heads,
        tie_embeddings=shape.tied,
        **({"kv_heads": shape.kv_heads} if shape.gated else {}),
    )


def _of_weights(weights: float, *, vocab_size: int) -> Shape:
    """Return a Llama of about so many weights, with the proportions of the nearest preset of the family."""
    named = [ModelSize(preset=name) for name in PRESETS if not name.startswith("gpt2")]
    shapes = [size.shape(vocab_size=vocab_size, seq_len=1) for size in named]
    near = min(shapes, key=lambda one: max(one.weights, weights) / min(one.weights, weights))
    groups = GROUPS if near.kv_heads < near.heads else 1
    step = HEAD * groups if weights > 10**9 else HEAD
    width = max(step, round(near.width * (weights / near.weights) ** (1 / 3) / step) * step)
    heads = width // HEAD
    one = Shape(
        layers=1,
        width=width,
        heads=heads,
        kv_heads=groups if groups > 1 and heads % groups == 0 else heads,
        inner=round(width * near.inner / near.width / 64) * 64,
        vocabulary=vocab_size,
        tied=near.tied,
    )
    layers = max(1, round((weights - (one.weights - one.layer_weights)) / one.layer_weights))
    return Shape(**{name: getattr(one, name) for name in Shape.__slots__} | {"layers": layers})


def _of_config(config: Mapping[str, Any], where: str) -> Shape:
    """Return the shape of a model in Hugging Face layout."""
    try:
        heads = int(config.get("num_attention_heads") or config["n_head"])
        width = int(config.get("hidden_size") or config["n_embd"])
        gpt2 = config.get("model_type") == "gpt2"
        return Shape(
            layers=int(config.get("num_hidden_layers") or config["n_layer"]),
            width=width,
            heads=heads,
            kv_heads=int(config.get("num_key_value_heads") or heads),
            inner=int(config.get("intermediate_size") or config.get("n_inner") or 4 * width),
            vocabulary=int(config["vocab_size"]),
            gated=not gpt2,
            tied=bool(config.get("tie_word_embeddings", gpt2)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(
            "the config is not one of a decoder of Llama's or GPT-2's kind", where=where, found=f"{error!r}"
        ) from error
