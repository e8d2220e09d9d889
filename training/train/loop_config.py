"""What the launching process tells the ranks: the settings, checked and worked out, and where everything lies."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from tasks.contracts.base import FrozenModel
from training.train.model import ModelSize
from training.train.optimizers import Optimizer
from training.train.order import Order
from training.train.schedule import Schedule
from training.train.strategy import Chosen


class LoopConfig(FrozenModel):
    """What stage.py writes for the ranks, as JSON."""

    tokens: Path
    """The folder that `tokenize` wrote."""
    work: Path
    """Folder of this run's half-done state."""
    progress: Path
    """File that gets one JSON line a step, for people and MLflow."""
    lock: Path
    """File that the launching process holds locked as long as it lives."""
    launched_on: str
    """Name of the machine of that process; ranks elsewhere end with their own launcher."""
    meeting: Path
    """Begins the name of the file in which the ranks find each other, new for each launch."""
    order: Order
    validation_tokens: int
    vocab_size: int
    eos_id: int
    model: ModelSize
    context: int
    """Tokens of the longest context that the model's config names."""
    start_from: Path | None = None
    """Folder of a release whose weights are those to begin with."""
    start_sha256: str | None = None
    """Hash of those weights."""
    device: Literal["cpu", "gpu"]
    precision: Literal["fp32", "bf16"]
    threads: int
    seed: int
    strategy: Chosen
    offload: Path
    """Folder for what is offloaded to a disk."""
    packing: Path
    """Folder of the packing, computed once for all ranks."""
    optimizer: Optimizer
    activation_checkpointing: bool
    mask_documents: bool
    learning_rate: float
    final_learning_rate: float
    warmup_steps: int
    schedule: Schedule
    decay_fraction: float
    z_loss: float
    loss_piece_tokens: int | None
    fixed_order: bool
    weight_decay: float
    betas: tuple[float, float]
    gradient_clipping: float
    release_best: bool
    tokenizer: Path
    """The folder of the tokenizer, for the samples."""
    sample_prompts: tuple[str, ...]
    sample_tokens: int
    validate_every: int
    validation_sequences: int
    checkpoints_kept: int
    checkpoint_every_steps: int
    checkpoint_every_seconds: float
    save_in_background: bool

    @property
    def alone(self) -> bool:
        """Whether there is one rank, which holds everything in place: nothing is shared out, nothing offloaded."""
        return self.order.ranks == 1 and self.strategy == "ddp"
