"""GPT-2: learned positions, GELU, LayerNorm, biases (Radford et al. 2019).

Without the dropout of the paper, which trained for many passes: with one pass over the text it only costs. Its GELU is
PyTorch's own, the same function as "gelu_new" in one kernel, which keeps a fifth of the memory for the backward pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from training.train.family import Family

if TYPE_CHECKING:
    from training.train.model import ModelSize

FAMILY = Family(
    title="GPT-2",
    parts="learned positions, GELU, LayerNorm, biases",
    paper="Radford et al. 2019, Language Models are Unsupervised Multitask Learners",
    settings=frozenset(
        {"layers", "hidden_size", "intermediate_size", "heads", "tie_embeddings", "residual_projections"}
    ),
    residual=("attn.c_proj.weight", "mlp.c_proj.weight"),
    scales_residual=True,
    gated=False,
    biases=True,
    learned_positions=True,
    norm_vectors=2,
)


def config(size: ModelSize, *, vocab_size: int, seq_len: int, eos_id: int) -> Any:
    """Return the GPT2Config of a size."""
    from transformers.models.gpt2.configuration_gpt2 import GPT2Config

    return GPT2Config(
        vocab_size=vocab_size,
        n_positions=seq_len,
        n_embd=size.hidden_size,
        n_layer=size.layers,
        n_head=size.heads,
        n_inner=size.inner_width(),
        activation_function="gelu_pytorch_tanh",
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        tie_word_embeddings=size.tie_embeddings,
        use_cache=False,
        bos_token_id=None,
        eos_token_id=eos_id,
        pad_token_id=None,
    )
