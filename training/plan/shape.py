"""What of a model decides its memory and its speed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Checkpointing = Literal["none", "selective", "full"]
RECOMPUTED: dict[Checkpointing, float] = {"none": 0.0, "selective": 0.5, "full": 1.0}
"""How much of a layer's forward pass is computed again in the backward pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A decoder: widths and counts, without its weights.

    Attributes:
        inner: width inside the block between attentions.
        gated: whether that block has a third matrix (SwiGLU).
        tied: whether input and output embedding are one matrix.
        extra: weights beside the matrices: norms, biases, learned positions.
    """

    layers: int
    width: int
    heads: int
    kv_heads: int
    inner: int
    vocabulary: int
    gated: bool = True
    tied: bool = False
    extra: int = 0

    @property
    def layer_weights(self) -> int:
        """Weights in a layer's matrices."""
        kv = self.width * self.kv_heads // self.heads
        return 2 * self.width * (self.width + kv) + (3 if self.gated else 2) * self.width * self.inner

    @property
    def head_weights(self) -> int:
        """Weights of the output embedding."""
        return self.width * self.vocabulary

    @property
    def weights(self) -> int:
        """All weights, tied embeddings once."""
        return self.layers * self.layer_weights + self.head_weights * (1 if self.tied else 2) + self.extra

    def model_operations(self, seq_len: int) -> float:
        """Return floating-point operations a token of forward and backward pass, without recomputation.

        6 for each weight that is multiplied, and 12 × layers × width × seq_len for attention, of which a causal kernel
        skips half and reaches about half the speed (Kaplan et al. 2020, arXiv 2001.08361; PaLM, arXiv 2204.02311).
        """
        return self.layers * self._layer_operations(seq_len) + 6.0 * self.head_weights

    def operations(self, seq_len: int, checkpointing: Checkpointing) -> float:
        """Return floating-point operations a token as they are executed, recomputation included."""
        again = RECOMPUTED[checkpointing] / 3
        return self.layers * self._layer_operations(seq_len) * (1 + again) + 6.0 * self.head_weights

    def _layer_operations(self, seq_len: int) -> float:
        return 6.0 * self.layer_weights + 12.0 * self.width * seq_len
