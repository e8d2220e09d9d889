"""What a model family says of itself: one record, which settings, papers, the plan and the checks read.

A family is a file of training/train/families/ that holds such a record as `FAMILY`, and a function `config` that makes
transformers' config of a size. It names architectures that transformers and vLLM have, so that what is released
loads anywhere without code of ours.
"""

from __future__ import annotations

from dataclasses import dataclass

ALL_SETTINGS = frozenset(
    {"layers", "hidden_size", "intermediate_size", "heads", "kv_heads", "rope_theta", "tie_embeddings"}
)
"""Settings of a size that every family with rotary positions and grouped-query attention takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A model family.

    Attributes:
        title: as the papers of a release name it.
        parts: its parts that differ between families.
        paper: where it is described.
        settings: settings of a size that it takes; another one is refused.
        residual: how the names of the weights end that write into the residual stream; none where it does not offer
            `residual_projections`.
        scales_residual: whether those are scaled by 1/√(2 × layers) as it is.
        gated: whether the block between attentions has a third matrix, which gates it (SwiGLU).
        biases: whether linear layers add a bias.
        learned_positions: whether positions are an embedding.
        norm_vectors: vectors of a norm: 1 (RMSNorm) or 2 (LayerNorm).
    """

    title: str
    parts: str
    paper: str
    settings: frozenset[str] = ALL_SETTINGS
    residual: tuple[str, ...] = ()
    scales_residual: bool = False
    gated: bool = True
    biases: bool = False
    learned_positions: bool = False
    norm_vectors: int = 1

    def begins(self, residual_projections: str | None) -> str:
        """Return in words what the weights begin as; `residual_projections` is the setting of that name."""
        scaled = residual_projections == "scaled" or (residual_projections is None and self.scales_residual)
        residual = "; those into the residual stream divided by √(2 × layers)" if scaled else ""
        if residual_projections == "zero":
            residual = "; those into the residual stream 0"
        return f"matrices normal, standard deviation 0.02{residual}; norms 1{', biases 0' if self.biases else ''}"
