"""Sizes by name: each the shape of a model that was published with its number of parameters.

The vocabulary is the tokenizer's own, so a model has the parameters that its name says at about the published
vocabulary, and fewer at a smaller one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

Name = Literal[
    "tiny", "30m", "125m", "350m", "1.3b", "2.7b", "7b", "13b", "70b", "gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl"
]

SHAPE: Final = ("family", "layers", "hidden_size", "intermediate_size", "heads", "kv_heads")
"""What a preset says for good; the other settings of a size may stand beside its name."""


def _llama(
    layers: int, hidden_size: int, heads: int, kv_heads: int, intermediate_size: int, *, tied: bool = False
) -> Mapping[str, object]:
    return {
        "family": "llama",
        "layers": layers,
        "hidden_size": hidden_size,
        "heads": heads,
        "kv_heads": kv_heads,
        "intermediate_size": intermediate_size,
        "tie_embeddings": tied,
        "residual_projections": "scaled",
    }


def _gpt2(layers: int, hidden_size: int, heads: int) -> Mapping[str, object]:
    return {"family": "gpt2", "layers": layers, "hidden_size": hidden_size, "heads": heads, "tie_embeddings": True}


PRESETS: Final[Mapping[Name, Mapping[str, object]]] = {
    # Ours: what params.yaml trains in a minute on two cores.
    "tiny": {},
    # stories42M of karpathy/llama2.c, 42 M at a vocabulary of 32,000 and 30 M at 8,192.
    "30m": _llama(8, 512, 8, 8, 1376, tied=True),
    # MobileLLM-125M and -350M (Liu et al. 2024, arXiv 2402.14905).
    "125m": _llama(30, 576, 9, 3, 1536, tied=True),
    "350m": _llama(32, 960, 15, 5, 2560, tied=True),
    # Sheared-LLaMA-1.3B and -2.7B (Xia et al. 2023, arXiv 2310.06694).
    "1.3b": _llama(24, 2048, 16, 16, 5504),
    "2.7b": _llama(32, 2560, 20, 20, 6912),
    # Llama 2 (Touvron et al. 2023, arXiv 2307.09288).
    "7b": _llama(32, 4096, 32, 32, 11008),
    "13b": _llama(40, 5120, 40, 40, 13824),
    "70b": _llama(80, 8192, 64, 8, 28672),
    # GPT-2 (Radford et al. 2019), as released.
    "gpt2": _gpt2(12, 768, 12),
    "gpt2-medium": _gpt2(24, 1024, 16),
    "gpt2-large": _gpt2(36, 1280, 20),
    "gpt2-xl": _gpt2(48, 1600, 25),
}
