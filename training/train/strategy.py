"""How the state of training is shared out: from a name in params.yaml to DeepSpeed's configuration.

Rajbhandari et al. 2020 (ZeRO, arXiv:1910.02054), Ren et al. 2021 (ZeRO-Offload, arXiv:2101.06840), Rajbhandari et al.
2021 (ZeRO-Infinity, arXiv:2104.07857). All of them compute the same step; they differ in memory, traffic and time.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Literal, get_args

from tasks.contracts.errors import ParamsError
from training.plan.strategies import BY_NAME, zero_config

Chosen = Literal[
    "ddp", "zero-1", "zero-2", "zero-3", "zero-2-offload", "zero-3-offload", "infinity-optimizer", "infinity"
]
Strategy = Literal["auto", Chosen]
"""By the names of training/plan/strategies.py, which says what each shares out and where it lies."""
WITH_LESS: Final[tuple[Chosen, ...]] = ("zero-3-offload", "infinity-optimizer", "infinity")
"""What `auto` takes where the devices' memory is too small, those that need less of the host's last."""
MOST_BUCKET_ELEMENTS: Final = 500_000_000
"""DeepSpeed's own size of a bucket, which a small model never fills."""


def simplest(names: Sequence[Chosen]) -> Chosen:
    """Return the first of some strategies, simpler ones first: what is taken where nothing is known of the memory."""
    return names[0]


def choose(
    strategy: Strategy,
    *,
    ranks: int,
    precision: str,
    whole_by: str | None = None,
    cheapest: Callable[[Sequence[Chosen]], Chosen] = simplest,
) -> Chosen:
    """Return the strategy that is used: of `auto` the cheapest of those that make the step that was asked for.

    Between ranks everything is shared out. One rank holds all: with zero-1 under bf16, which keeps a float32 copy of
    the weights and adds gradients up in float32, as DeepSpeed does without ZeRO only for float32 weights. Where that
    does not fit, it is ZeRO-3 with all on the host, then on the host's disk.

    Args:
        whole_by: the setting for which each rank must hold whole matrices, if there is one.
        cheapest: says which of several strategies to take on this machine.

    Raises:
        ParamsError: the strategy cannot make that step.

    >>> choose("auto", ranks=1, precision="fp32"), choose("auto", ranks=2, precision="fp32")
    ('ddp', 'zero-3')
    >>> choose("auto", ranks=1, precision="bf16"), choose("auto", ranks=2, precision="fp32", whole_by="muon")
    ('zero-1', 'ddp')
    """
    if strategy == "auto":
        first: Chosen = "zero-3" if ranks > 1 else "ddp" if precision == "fp32" else "zero-1"
        strategy = "ddp" if whole_by else cheapest((first, *WITH_LESS))
    if whole_by and strategy != "ddp":
        raise ParamsError(
            f"{whole_by} works on whole matrices, and this strategy cuts them up",
            where="params.yaml, train.strategy",
            expected=f"ddp or auto, with {whole_by}",
            found=strategy,
        )
    if strategy == "ddp" and precision == "bf16":
        raise ParamsError(
            "bf16 without ZeRO would add gradients up in bf16",
            where="params.yaml, train.precision" if whole_by else "params.yaml, train.strategy",
            expected=f"fp32 with {whole_by}" if whole_by else "zero-1 or more under bf16",
            found=f"{strategy}, {precision}",
        )
    return strategy


def as_setting(planned: str) -> Strategy | None:
    """Return what `train.strategy` is to be for a way that `headwater plan` names; None where this trainer has none.

    >>> as_setting("ddp"), as_setting("infinity"), as_setting("zenflow")
    ('zero-1', 'infinity', None)
    """
    if planned == "ddp":  # plans are in bf16
        return "zero-1"
    return next((name for name in get_args(Chosen) if name == planned), None)


def can_be_resumed(strategy: str) -> bool:
    """Return whether a checkpoint gives back what was saved.

    Of optimizer states on a disk DeepSpeed 0.19.8 restores others: twelve steps of the tests' model, stopped after the
    sixth, ended with a loss of 5.6 instead of 4.3. So no checkpoint is written there.
    """
    return BY_NAME[strategy].optimizer != "nvme"


def deepspeed_config(
    strategy: Chosen,
    *,
    batch_size: int,
    micro_batch: int,
    gradient_accumulation: int,
    gradient_clipping: float,
    bf16: bool,
    parameters: int,
    offload_folder: Path | None = None,
    pin_memory: bool = False,
) -> dict[str, Any]:
    """Return DeepSpeed's configuration.

    Args:
        batch_size: sequences a step, over all ranks.
        micro_batch: sequences that one rank puts through the model at once.
        gradient_clipping: longest gradient, as an L2 norm over all weights.
        parameters: of the model; buckets are no larger.
        offload_folder: where what is offloaded to a disk lies.
        pin_memory: whether what is offloaded lies in pinned memory, for a GPU.
    """
    bucket = min(max(parameters, 1), MOST_BUCKET_ELEMENTS)
    zero = zero_config(BY_NAME[strategy], nvme_path=str(offload_folder), pin_memory=pin_memory)
    zero |= {"reduce_bucket_size": bucket, "allgather_bucket_size": bucket}
    if zero["stage"] == 3:
        zero |= {"stage3_prefetch_bucket_size": bucket}
    return {
        "train_batch_size": batch_size,
        "train_micro_batch_size_per_gpu": micro_batch,
        "gradient_accumulation_steps": gradient_accumulation,
        "gradient_clipping": gradient_clipping,
        # Parts of a step are added up in float32: in bf16 the sum of many loses what the last ones add.
        "bf16": {"enabled": bf16},
        **({"data_types": {"grad_accum_dtype": "fp32"}} if bf16 else {}),
        "zero_optimization": zero,
        # The optimizer is torch's own: no compiler is needed, and ZeRO shards it as it shards its own.
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": sys.maxsize,
    }
