"""DeepSpeed's own configuration of a way that was planned."""

from __future__ import annotations

from typing import Any

from training.plan.speed import Run


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
    zero: dict[str, Any] = {"stage": strategy.stage, "overlap_comm": run.machine.ranks > 1}
    if strategy.optimizer != "device":
        zero["offload_optimizer"] = _place(strategy.optimizer, nvme_path)
    if strategy.weights != "device":
        zero["offload_param"] = _place(strategy.weights, nvme_path)
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


def _place(place: str, nvme_path: str) -> dict[str, Any]:
    if place == "nvme":
        return {"device": "nvme", "nvme_path": nvme_path, "pin_memory": True, "buffer_count": 5}
    return {"device": "cpu", "pin_memory": True}
