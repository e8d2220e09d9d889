"""Llama: RoPE, SwiGLU, RMSNorm, grouped-query attention (Touvron et al. 2023, arXiv 2307.09288)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from training.train.model import ModelSize

MODEL = "LlamaForCausalLM"


def config(size: ModelSize, *, vocab_size: int, seq_len: int, eos_id: int) -> Any:
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


def model(config: Any) -> Any:
    """Return a model of this config, freshly initialised."""
    from transformers.models.llama.modeling_llama import LlamaForCausalLM

    return LlamaForCausalLM(config)
