"""The model, of the family and in the size that params.yaml names; a family is a file in training/train/families/.

PyTorch is loaded only where it is needed, so that checking params stays quick.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import json
import pkgutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from tasks.contracts.base import FrozenModel
from tasks.contracts.durable_files import write_json
from tasks.contracts.errors import InputError, did_you_mean
from tasks.contracts.files import GENERATION_CONFIG_NAME, MODEL_CONFIG_NAME, TOKENIZER_CONFIG_NAME, TOKENIZER_NAME
from tasks.contracts.release import context_of
from training.plan.shape import Shape
from training.train import presets
from training.train.family import ALL_SETTINGS, Family

if TYPE_CHECKING:
    import torch

FIRST_FAMILY = "llama"
"""It was there before families had names, so manifests leave it unsaid."""
ROUND_TO = 64
"""Widths are multiples of this, which matrix units like."""


class ModelSize(FrozenModel, allow_inf_nan=False):
    """What model it is and how large, as it stands in train's section of params.yaml under `model`."""

    preset: presets.Name | None = Field(None, exclude=True)
    """A size by name (training/train/presets.py), in place of family, layers, widths and heads."""
    family: str = Field(FIRST_FAMILY, exclude_if=lambda name: bool(name == FIRST_FAMILY))
    """A file of training/train/families/."""
    layers: int = Field(2, ge=1)
    """Number of decoder layers."""
    hidden_size: int = Field(192, ge=8)
    """Width of the residual stream."""
    intermediate_size: int | None = Field(None, ge=8)
    """Width inside the block between attentions; null is 8/3 of `hidden_size`, rounded up to 64, where the block is
    SwiGLU (Touvron et al. 2023), and 4 times it where it is not."""
    heads: int = Field(6, ge=1)
    """Number of query heads."""
    kv_heads: int = Field(2, ge=1)
    """Number of key and value heads (grouped-query attention); divides `heads`."""
    rope_theta: float = Field(10000.0, gt=0)
    """Base of the rotary position frequencies."""
    tie_embeddings: bool = True
    """Whether input and output embedding are one matrix: right for small models."""
    qk_norm: bool = Field(False, exclude_if=lambda on: not on)
    """Whether each head's queries and keys go through an RMSNorm, which keeps large learning rates stable."""
    residual_projections: Literal["scaled", "zero"] | None = Field(None, exclude_if=lambda how: how is None)
    """How the projections into the residual stream begin: scaled is divided by √(2 × layers) (Radford et al. 2019),
    zero lets each layer begin as nothing; null is the family's own."""

    @model_validator(mode="before")
    @classmethod
    def _with_preset(cls, given: Any) -> Any:
        """Fill in the numbers of a preset, which manifests hold instead of its name."""
        if not isinstance(given, Mapping) or given.get("preset") is None:
            return given
        name = given["preset"]
        if str(name) not in presets.PRESETS:
            hint = did_you_mean(str(name), presets.PRESETS)
            raise ValueError(
                f"there is no such preset; there is {', '.join(presets.PRESETS)}{f' ({hint})' if hint else ''}"
            )
        numbers = presets.PRESETS[name]
        if twice := [key for key in given if key in presets.SHAPE]:
            raise ValueError(f"preset {name} says {', '.join(twice)}: leave that out, or give all numbers instead")
        return {**numbers, **{key: value for key, value in given.items() if key != "preset"}}

    @field_validator("family")
    @classmethod
    def _is_there(cls, name: str) -> str:
        if name not in families():
            hint = did_you_mean(name, families())
            raise ValueError(f"there is no such family; there is {', '.join(families())}{f' ({hint})' if hint else ''}")
        return name

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        settings = family(self.family).settings
        if strange := sorted(self.model_fields_set - settings - {"family", "preset"}):
            raise ValueError(f"{self.family} has no {', '.join(strange)}; it has {', '.join(sorted(settings))}")
        if self.hidden_size % self.heads:
            raise ValueError(f"hidden_size {self.hidden_size} must be a multiple of heads {self.heads}")
        if "rope_theta" in settings and (self.hidden_size // self.heads) % 2:
            raise ValueError(f"hidden_size {self.hidden_size} must be an even multiple of heads {self.heads}")
        if "kv_heads" in settings and self.heads % self.kv_heads:
            raise ValueError(f"heads {self.heads} must be a multiple of kv_heads {self.kv_heads}")
        return self

    @model_serializer(mode="wrap")
    def _without_strange(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what the family does not have."""
        strange = ALL_SETTINGS - family(self.family).settings
        return {name: value for name, value in dump(self).items() if name not in strange}

    def inner_width(self) -> int:
        """Return the width inside the block between attentions."""
        if not family(self.family).gated:
            return self.intermediate_size or 4 * self.hidden_size
        return self.intermediate_size or -(-8 * self.hidden_size // 3 // ROUND_TO) * ROUND_TO

    def shape(self, *, vocab_size: int, seq_len: int) -> Shape:
        """Return what of the model decides its memory and its speed."""
        spec, width, inner = family(self.family), self.hidden_size, self.inner_width()
        kv_heads = self.kv_heads if "kv_heads" in spec.settings else self.heads
        head = width // self.heads
        biases = 2 * width + 2 * kv_heads * head + inner + width if spec.biases else 0
        norms = 2 * spec.norm_vectors * width + (2 * head if self.qk_norm else 0)
        positions = seq_len * width if spec.learned_positions else 0
        return Shape(
            layers=self.layers,
            width=width,
            heads=self.heads,
            kv_heads=kv_heads,
            inner=inner,
            vocabulary=vocab_size,
            gated=spec.gated,
            tied=self.tie_embeddings,
            extra=self.layers * (biases + norms) + spec.norm_vectors * width + positions,
        )


class _NameOrNumbers:
    """Annotates the setting `model`, so that forms offer the names of presets beside the numbers."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(_by_name, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"anyOf": [{"type": "string", "enum": [*presets.PRESETS]}, handler(schema)]}


def _by_name(given: Any) -> Any:
    """Return the setting as a mapping where it is the name of a preset."""
    return {"preset": given} if isinstance(given, str) else given


ModelSetting = Annotated[ModelSize, _NameOrNumbers()]
"""The setting `train.model`: the name of a preset, or numbers."""


@functools.cache
def families() -> list[str]:
    """Return the names of the model families that there are."""
    return sorted(module.name for module in pkgutil.iter_modules([str(Path(__file__).parent / "families")]))


@functools.cache
def family(name: str) -> Family:
    """Return what a family says of itself.

    Raises:
        ValueError: its file says nothing.
    """
    said = getattr(_module(name), "FAMILY", None)
    if not isinstance(said, Family):
        raise ValueError(f"training/train/families/{name}.py has no FAMILY: CONTRIBUTING.md, Add a model family")
    return said


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"training.train.families.{name}")


def model_config(size: ModelSize, *, vocab_size: int, seq_len: int, eos_id: int) -> Any:
    """Return transformers' config of a model of this family and size."""
    return _module(size.family).config(size, vocab_size=vocab_size, seq_len=seq_len, eos_id=eos_id)


def architecture(config: Any) -> str:
    """Return the name of transformers' class for a config."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return str(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[config.model_type])


def build_model(config: Any, *, seed: int, size: ModelSize | None = None) -> Any:
    """Return a freshly initialised model; the same seed gives the same weights on every rank.

    Args:
        size: what `config` was made of; without it the weights begin as transformers has them.
    """
    import torch
    import transformers

    torch.manual_seed(seed)
    model = getattr(transformers, architecture(config))(config)
    if size is not None and size.residual_projections is not None:
        _begin_residual(model, size)
    return model


def _begin_residual(model: Any, size: ModelSize) -> None:
    """Scale the projections into the residual stream by 1/√(2 × layers), or make them zero.

    A family whose own initialisation scales them already, as GPT-2's, stays as it is.
    """
    import torch

    spec = family(size.family)
    factor = 0.0 if size.residual_projections == "zero" else (2 * size.layers) ** -0.5
    if factor and spec.scales_residual:
        return
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(spec.residual):
                weight.mul_(factor)


def cast_parameters(model: Any, dtype: torch.dtype) -> Any:
    """Cast the weights in place and return the model; buffers keep their type.

    `Module.to` casts buffers too, and RoPE's frequencies rounded to bfloat16 turn the angle by 0.45 rad at a distance
    of 1,023. A model that is loaded has them in float32, so it would be another function than the one that was trained.
    Norms compute in float32 whatever their weights are.
    """
    for weight in model.parameters():
        weight.data = weight.data.to(dtype)
    return model


def weights_sha256(tensors: Iterable[tuple[str, torch.Tensor]]) -> str:
    """Return one hash of a model's weights: over name, type, shape and bytes of each tensor, sorted by name."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(tensors, key=lambda pair: pair[0]):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def load_weights(model: Any, folder: Path, sha256: str | None) -> None:
    """Put the weights of a release into a model of its shape, in the model's number format.

    Args:
        sha256: what `weights_sha256` gave when they were released.

    Raises:
        InputError: they are others, or those of another model.
    """
    import torch
    from safetensors.torch import load_file

    tensors = {name: one for path in sorted(folder.glob("*.safetensors")) for name, one in load_file(path).items()}
    if (found := weights_sha256(tensors.items())) != sha256:
        raise InputError(
            "the weights of the release that training is to go on from are not those that it was released with",
            where=str(folder),
            expected=f"weights_sha256 {sha256}",
            found=found,
            fix="get the release again; `headwater verify FOLDER` checks all of it",
        )
    own = dict(model.named_parameters())
    wanted, given = ({name: list(one.shape) for name, one in them.items()} for them in (own, tensors))
    if wanted != given:
        differing = sorted(name for name in {*wanted, *given} if wanted.get(name) != given.get(name))
        raise InputError(
            "the weights of the release that training is to go on from are those of another model",
            where=str(folder),
            expected=", ".join(f"{name} {wanted.get(name, 'absent')}" for name in differing[:3]),
            found=", ".join(f"{name} {given.get(name, 'absent')}" for name in differing[:3]),
        )
    with torch.no_grad():
        for name, weight in own.items():
            weight.copy_(tensors[name])


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
    described = config.to_diff_dict() | {"architectures": [architecture(config)], "use_cache": True}
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
    write_json(folder / TOKENIZER_CONFIG_NAME, tokenizer | {"model_max_length": context_of(config)})
