"""DeepSpeed's own configuration of a way that was planned."""

from __future__ import annotations

from typing import Any

from training.plan.speed import Run
from training.plan.strategies import zero_config


def deepspeed_config(run: Run, *, nvme_path: str = "/local_nvme") -> dict[str, Any]:
    """Return the JSON that DeepSpeed takes.

    Args:
        nvme_path: folder of the disk that states are swapped to.

    Raises:
        ValueError: the strategy is not DeepSpeed's.
    """
    strategy = run.strategy
    if not strategy.deepspeed:
        raise ValueError(f"{strategy.title} is not DeepSpeed's")
    zero = zero_config(strategy, nvme_path=nvme_path) | {"overlap_comm": run.machine.ranks > 1}
    if strategy.name == "zenflow":
        zero["zenflow"] = {"topk_ratio": 0.1, "update_interval": 4, "full_warm_up_rounds": 0, "overlap_step": True}
    if strategy.name == "superoffload":
        zero["offload_optimizer"] |= {"super_offload": True, "ratio": 0.9, "cpuadam_cores_perc": 0.9}
    config: dict[str, Any] = {
        "train_batch_size": run.micro_batch * run.accumulation * run.machine.ranks,
        "train_micro_batch_size_per_gpu": run.micro_batch,
        "gradient_accumulation_steps": run.accumulation,
        "bf16": {"enabled": True},
        "zero_optimization": zero,
    }
    if "nvme" in (strategy.optimizer, strategy.weights):
        config["aio"] = {"block_size": 1 << 20, "queue_depth": 32, "single_submit": False, "overlap_events": True}
    return config
