"""The model: transformers' Llama (RoPE, SwiGLU, RMSNorm, grouped-query attention) in the size that params.yaml names.

PyTorch is loaded only where it is needed, so that checking params stays quick.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, model_validator

from tasks.contracts.base import FrozenModel
from tasks.contracts.durable_files import write_json
from tasks.contracts.files import GENERATION_CONFIG_NAME, MODEL_CONFIG_NAME, TOKENIZER_CONFIG_NAME, TOKENIZER_NAME

if TYPE_CHECKING:
    import torch

ROUND_TO = 64
"""Widths are multiples of this, which matrix units like."""


class ModelSize(FrozenModel, allow_inf_nan=False):
    """How large the model is, as it stands in train's section of params.yaml under `model`."""

    layers: int = Field(2, ge=1)
    """Number of decoder layers."""
    hidden_size: int = Field(192, ge=8)
    """Width of the residual stream."""
    intermediate_size: int | None = Field(None, ge=8)
    """Width inside the SwiGLU block; null is 8/3 of `hidden_size`, rounded up to 64 (Touvron et al. 2023)."""
    heads: int = Field(6, ge=1)
    """Number of query heads."""
    kv_heads: int = Field(2, ge=1)
    """Number of key and value heads (grouped-query attention); divides `heads`."""
    rope_theta: float = Field(10000.0, gt=0)
    """Base of the rotary position frequencies."""
    tie_embeddings: bool = True
    """Whether input and output embedding are one matrix: right for small models."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.hidden_size % self.heads or (self.hidden_size // self.heads) % 2:
            raise ValueError(f"hidden_size {self.hidden_size} must be an even multiple of heads {self.heads}")
        if self.heads % self.kv_heads:
            raise ValueError(f"heads {self.heads} must be a multiple of kv_heads {self.kv_heads}")
        return self

    def inner_width(self) -> int:
        """Return the width inside the SwiGLU block."""
        return self.intermediate_size or -(-8 * self.hidden_size // 3 // ROUND_TO) * ROUND_TO


def model_config(size: ModelSize, *, vocab_size: int, seq_len: int, eos_id: int) -> Any:
    """Return the LlamaConfig of a size."""
    from transformers.models.llama.configuration_llama import LlamaConfig

    return LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=size.hidden_size,
        intermediate_size=size.inner_width(),
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.kv_heads,
        max_position_embeddings=seq_len,
        rope_parameters={"rope_type": "default", "rope_theta": size.rope_theta},
        tie_word_embeddings=size.tie_embeddings,
        use_cache=False,
        bos_token_id=None,
        eos_token_id=eos_id,
        pad_token_id=None,
    )


def build_model(config: Any, *, seed: int) -> Any:
    """Return a freshly initialised LlamaForCausalLM; the same seed gives the same weights on every rank."""
    import torch
    from transformers.models.llama.modeling_llama import LlamaForCausalLM

    torch.manual_seed(seed)
    return LlamaForCausalLM(config)


def parameter_groups(model: Any, weight_decay: float) -> list[dict[str, Any]]:
    """Return the optimizer's groups: weight decay on matrices only, never on norms."""
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]


def weights_sha256(tensors: Iterable[tuple[str, torch.Tensor]]) -> str:
    """Return one hash of a model's weights: over name, type, shape and bytes of each tensor, sorted by name."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(tensors, key=lambda pair: pair[0]):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_model(folder: Path, config: Any, weights: Mapping[str, torch.Tensor]) -> None:
    """Write config.json, generation_config.json and the weights as safetensors (several files above 5 GB)."""
    from huggingface_hub import save_torch_state_dict

    folder.mkdir(parents=True, exist_ok=True)
    write_configs(folder, config, str(next(iter(weights.values())).dtype))
    save_torch_state_dict(dict(weights), folder)
    for path in folder.glob("*.safetensors"):
        # It is written for its owner alone; the other files are as the umask says, and so is a model to be read.
        path.chmod((folder / MODEL_CONFIG_NAME).stat().st_mode)


def write_configs(folder: Path, config: Any, dtype: str) -> None:
    """Write config.json and generation_config.json; `dtype` is the weights', by PyTorch's name."""
    described = config.to_diff_dict() | {"architectures": ["LlamaForCausalLM"], "use_cache": True}
    described["dtype"] = dtype.removeprefix("torch.")
    described.pop("transformers_version", None)
    write_json(folder / MODEL_CONFIG_NAME, described)
    write_json(folder / GENERATION_CONFIG_NAME, {"eos_token_id": config.eos_token_id, "do_sample": False})


def name_special_tokens(folder: Path) -> None:
    """Say in a saved model's configs which ids its tokenizer begins, ends and pads with, and how long a text may be.

    transformers pads a batch by the tokenizer's `pad_token` and masks it; `generate` asks the model's own configs.
    The padding id is no part of the model that is trained, where it would freeze a row of the embedding.

    Args:
        folder: holds config.json, generation_config.json, tokenizer.json and tokenizer_config.json.
    """
    config = json.loads((folder / MODEL_CONFIG_NAME).read_bytes())
    tokenizer = json.loads((folder / TOKENIZER_CONFIG_NAME).read_bytes())
    ids = {
        token["content"]: token["id"] for token in json.loads((folder / TOKENIZER_NAME).read_bytes())["added_tokens"]
    }
    named = {f"{kind}_token_id": ids.get(tokenizer.get(f"{kind}_token")) for kind in ("bos", "eos", "pad")}
    write_json(folder / MODEL_CONFIG_NAME, config | named)
    generation = json.loads((folder / GENERATION_CONFIG_NAME).read_bytes())
    write_json(folder / GENERATION_CONFIG_NAME, generation | named)
    write_json(folder / TOKENIZER_CONFIG_NAME, tokenizer | {"model_max_length": config["max_position_embeddings"]})
