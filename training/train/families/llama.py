"""Llama: RoPE, SwiGLU, RMSNorm, grouped-query attention (Touvron et al. 2023, arXiv 2307.09288).

With `qk_norm` it is the architecture that transformers and vLLM know as Qwen3, which differs in that alone. A soft cap
of the logits is not offered: no architecture that both have is a Llama with one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from training.train.family import ALL_SETTINGS, Family

if TYPE_CHECKING:
    from training.train.model import ModelSize

FAMILY = Family(
    title="Llama",
    parts="RoPE, SwiGLU, RMSNorm, grouped-query attention",
    paper="Touvron et al. 2023, arXiv 2307.09288",
    settings=ALL_SETTINGS | {"qk_norm", "residual_projections"},
    residual=("self_attn.o_proj.weight", "mlp.down_proj.weight"),
)


def config(size: ModelSize, *, vocab_size: int, seq_len: int, eos_id: int) -> Any:
    """Return the LlamaConfig of a size; a Qwen3Config with `qk_norm`."""
    from transformers.models.llama.configuration_llama import LlamaConfig
    from transformers.models.qwen3.configuration_qwen3 import Qwen3Config

    shape: dict[str, Any] = {
        "vocab_size": vocab_size,
        "hidden_size": size.hidden_size,
        "intermediate_size": size.inner_width(),
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.kv_heads,
        "max_position_embeddings": seq_len,
        "rope_parameters": {"rope_type": "default", "rope_theta": size.rope_theta},
        "tie_word_embeddings": size.tie_embeddings,
        "use_cache": False,
        "bos_token_id": None,
        "eos_token_id": eos_id,
        "pad_token_id": None,
    }
    if size.qk_norm:
        return Qwen3Config(**shape, head_dim=size.hidden_size // size.heads)
    return LlamaConfig(**shape)
