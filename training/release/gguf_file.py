"""A model as one GGUF file, which llama.cpp and what is built on it read.

Written by the package `gguf`, which knows the names of tensors and keys; what of our families has to be turned is
turned here. As llama.cpp has it: matrices in the precision asked for, vectors (norms, biases) in float32; and in Llama
the rows of queries and keys in the order of RoPE on neighbours, where Hugging Face's turns the two halves of a head.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from tasks.contracts.errors import InputError
from tasks.contracts.files import GENERATION_CONFIG_NAME, TOKENIZER_NAME
from tasks.contracts.manifest import manifest_hash
from tasks.contracts.release import LINEAGE_NAME

ARCHITECTURES: Final = ("gpt2", "llama", "qwen3")
"""`model_type` of the families that can be written."""
RELEASE_KEY: Final = "headwater.release_manifest_sha256"
CHAT_TEMPLATE_NAME: Final = "chat_template.jinja"
_TRANSPOSED: Final = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")


def write_gguf(path: Path, release: Path, weights: Mapping[str, Any], *, precision: str) -> None:
    """Write a release's model and tokenizer.

    Args:
        weights: its tensors by name, in float32.
        precision: fp32 or bf16.

    Raises:
        InputError: its architecture is none that can be written, or has a tensor that GGUF has no name for.
    """
    from transformers import AutoConfig

    # Not config.json itself, which leaves out what is the architecture's default.
    config = AutoConfig.from_pretrained(release, local_files_only=True, trust_remote_code=False).to_dict()
    kind = config["model_type"]
    if kind not in ARCHITECTURES:
        raise InputError(
            "a model of this architecture cannot be written as GGUF",
            where=str(release),
            expected=", ".join(ARCHITECTURES),
            found=str(kind),
            fix="--format hf",
        )
    import gguf

    architecture = {name: key for key, name in gguf.MODEL_ARCH_NAMES.items()}[kind]
    layers = int(config["n_layer"] if kind == "gpt2" else config["num_hidden_layers"])
    names = gguf.get_tensor_name_map(architecture, layers)
    bf16 = precision == "bf16"
    writer = gguf.GGUFWriter(path, kind)
    lineage = json.loads((release / LINEAGE_NAME).read_bytes())
    writer.add_name(str(lineage["name"]))
    writer.add_string(RELEASE_KEY, manifest_hash(release))
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16 if bf16 else gguf.LlamaFileType.ALL_F32)
    _add_shape(writer, config, layers)
    _add_tokenizer(writer, release, _vocabulary(config))
    for name, values in _tensors(config, weights):
        known = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if known is None:
            raise InputError("GGUF has no name for a tensor", where=str(release), found=name, fix="--format hf")
        if bf16 and values.ndim > 1:
            kept = gguf.GGMLQuantizationType.BF16
            writer.add_tensor(known, gguf.quants.quantize(values, kept), raw_dtype=kept)
        else:
            writer.add_tensor(known, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _vocabulary(config: Mapping[str, Any]) -> int:
    return int(config["vocab_size"])


def _add_shape(writer: Any, config: Mapping[str, Any], layers: int) -> None:
    writer.add_block_count(layers)
    writer.add_vocab_size(_vocabulary(config))
    if config["model_type"] == "gpt2":
        writer.add_context_length(config["n_positions"])
        writer.add_embedding_length(config["n_embd"])
        writer.add_feed_forward_length(config.get("n_inner") or 4 * config["n_embd"])
        writer.add_head_count(config["n_head"])
        writer.add_layer_norm_eps(config.get("layer_norm_epsilon", 1e-5))
        return
    heads = config["num_attention_heads"]
    head = config.get("head_dim") or config["hidden_size"] // heads
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base(float(config["rope_parameters"]["rope_theta"]))
    writer.add_layer_norm_rms_eps(config.get("rms_norm_eps", 1e-6))


def _add_tokenizer(writer: Any, release: Path, vocabulary: int) -> None:
    """Add the vocabulary and the merges of a byte-level BPE tokenizer, and which ids begin, end and pad a text."""
    import gguf

    described = json.loads((release / TOKENIZER_NAME).read_bytes())
    special = {one["id"]: one["content"] for one in described["added_tokens"]}
    tokens = {number: token for token, number in described["model"]["vocab"].items()} | special
    ids = range(vocabulary)
    types = gguf.TokenType
    writer.add_tokenizer_model("gpt2")
    # The nearest that llama.cpp has: the same but for combining marks, which it does not count as letters.
    by_threes = "{1,3}" in json.dumps(described["pre_tokenizer"])
    writer.add_tokenizer_pre("llama-bpe" if by_threes else "gpt-2")
    writer.add_token_list([tokens.get(number, f"[unused {number}]") for number in ids])
    writer.add_token_types(
        [types.CONTROL if n in special else types.NORMAL if n in tokens else types.UNUSED for n in ids]
    )
    merges = described["model"]["merges"]
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    configured = json.loads((release / GENERATION_CONFIG_NAME).read_bytes())
    for kind in ("bos", "eos", "pad"):
        if (number := configured.get(f"{kind}_token_id")) is not None:
            getattr(writer, f"add_{kind}_token_id")(number)
    writer.add_add_bos_token(False)
    if (release / CHAT_TEMPLATE_NAME).is_file():
        writer.add_chat_template((release / CHAT_TEMPLATE_NAME).read_text(encoding="utf-8"))


def _tensors(config: Mapping[str, Any], weights: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield each tensor as GGUF has it."""
    import numpy as np

    kind = config["model_type"]
    for name, tensor in sorted(weights.items()):
        if name == "lm_head.weight" and config.get("tie_word_embeddings"):
            continue
        values = tensor.float().numpy()
        if kind == "gpt2" and name.endswith(_TRANSPOSED):
            values = values.T
        if kind == "llama" and name.endswith(("q_proj.weight", "k_proj.weight")):
            heads = config["num_attention_heads" if "q_proj" in name else "num_key_value_heads"]
            halves = values.reshape(heads, 2, -1, values.shape[1])
            values = np.stack([halves[:, 0], halves[:, 1]], axis=2).reshape(values.shape)
        yield name, np.ascontiguousarray(values)
