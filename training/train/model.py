"""The model, of the family and in the size that params.yaml names; a family is a file in training/train/families/.

PyTorch is loaded only where it is needed, so that checking params stays quick.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import pkgutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, field_validator, model_validator

from tasks.contracts.base import FrozenModel
from tasks.contracts.durable_files import write_json
from tasks.contracts.errors import did_you_mean
from tasks.contracts.files import GENERATION_CONFIG_NAME, MODEL_CONFIG_NAME, TOKENIZER_CONFIG_NAME, TOKENIZER_NAME

if TYPE_CHECKING:
    import torch

FIRST_FAMILY = "llama"
"""It was there before families had names, so manifests leave it unsaid."""
ROUND_TO = 64
"""Widths are multiples of this, which matrix units like."""


class ModelSize(FrozenModel, allow_inf_nan=False):
    """What model it is and how large, as it stands in train's section of params.yaml under `model`."""

    family: str = Field(FIRST_FAMILY, exclude_if=lambda name: bool(name == FIRST_FAMILY))
    """A file of training/train/families/, named as transformers names the model's type."""
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

    @field_validator("family")
    @classmethod
    def _is_there(cls, name: str) -> str:
        if name not in families():
            hint = did_you_mean(name, families())
            raise ValueError(f"there is no such family; there is {', '.join(families())}{hint and f' ({hint})'}")
        return name

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


def families() -> list[str]:
    """Return the names of the model families that there are."""
    return sorted(module.name for module in pkgutil.iter_modules([str(Path(__file__).parent / "families")]))


def family(name: str) -> ModuleType:
    """Return the module of a family: its `config` of a size, its `model` of a config, and that class's name, MODEL."""
    return importlib.import_module(f"training.train.families.{name}")


def model_config(size: ModelSize, *, vocab_size: int, seq_len: int, eos_id: int) -> Any:
    """Return transformers' config of a model of this family and size."""
    return family(size.family).config(size, vocab_size=vocab_size, seq_len=seq_len, eos_id=eos_id)


def build_model(config: Any, *, seed: int) -> Any:
    """Return a freshly initialised model; the same seed gives the same weights on every rank."""
    import torch

    torch.manual_seed(seed)
    return family(config.model_type).model(config)


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
    described = config.to_diff_dict() | {"architectures": [family(config.model_type).MODEL], "use_cache": True}
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
