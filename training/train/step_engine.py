"""What is around a training step: DeepSpeed's engine, or next to nothing where one rank holds everything in place.

DeepSpeed shares out and offloads. Where there is nothing to share out its engine copies all gradients into a buffer and
back, and is itself loaded and set up first, which takes longer than a small run's steps.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training.train.loop_config import LoopConfig
from training.train.strategy import deepspeed_config

STATE_NAME = "state.pt"


def join_ranks(config: LoopConfig) -> None:
    """Have this rank find the others, if it has not; the environment says which one it is."""
    import torch

    if config.alone:
        # Groups that are made later ask the store, so it is no file, which goes with its run.
        if not torch.distributed.is_initialized():
            store = torch.distributed.HashStore()  # type: ignore[attr-defined]
            torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
        return
    where: dict[str, Any] = {
        # Launchers agree on a port at each start, and so on a file of its own.
        "init_method": f"{config.meeting.as_uri()}-{os.environ['MASTER_PORT']}",
        "rank": int(os.environ["RANK"]),
        "world_size": int(os.environ["WORLD_SIZE"]),
    }
    import deepspeed

    # DeepSpeed's shared-memory kernel for the CPU serves inference only, and would be compiled first (45 s, g++).
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(dist_backend="gloo" if config.device == "cpu" else "nccl", verbose=False, **where)


def make_engine(config: LoopConfig, model: Any, optimizer: Any) -> Any:
    """Return what is around the steps of this run: DeepSpeed's engine, or a WholeEngine, which answers to its names."""
    order = config.order
    if config.alone:
        return WholeEngine(model, optimizer, device=config.device, parts=order.gradient_accumulation)
    import deepspeed

    described = deepspeed_config(
        config.strategy,
        batch_size=order.batch_size,
        micro_batch=order.micro_batch,
        gradient_accumulation=order.gradient_accumulation,
        gradient_clipping=config.gradient_clipping,
        bf16=config.precision == "bf16",
        parameters=sum(weight.numel() for weight in model.parameters()),
        offload_folder=config.offload,
        pin_memory=config.device == "gpu",
    )
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=described)
    return engine


class FileWriter:
    """Writes a state to a file; has the name and the place that DeepSpeed's has."""

    def save(self, state_dict: Any, path: str) -> None:
        import torch

        torch.save(state_dict, path)


class WholeEngine:
    """Steps of one rank that holds weights, gradients and states in place, in float32.

    Args:
        device: "cpu" or "gpu".
        parts: into how many backward passes a step is split.
    """

    global_rank = 0

    def __init__(self, model: Any, optimizer: Any, *, device: str, parts: int) -> None:
        import torch

        self.device = torch.device("cpu" if device == "cpu" else f"cuda:{os.environ['LOCAL_RANK']}")
        if device == "gpu":
            torch.cuda.set_device(self.device)
        self.module = model.to(self.device)
        self._optimizer = optimizer
        self._parts, self._done = parts, 0
        self.checkpoint_engine = FileWriter()

    def __call__(self, **inputs: Any) -> Any:
        """Return what the model says."""
        return self.module(**inputs)

    def train(self) -> None:
        self.module.train()

    def eval(self) -> None:
        self.module.eval()

    def backward(self, minimised: Any) -> None:
        """Add the gradient of a part to those of the others; a step is their mean."""
        import torch

        torch.autograd.backward(minimised / self._parts)

    def step(self) -> None:
        """Change the weights after the last part of a step."""
        self._done += 1
        if self._done % self._parts == 0:
            self.clip_fp32_gradients()
            self._optimizer.step()
            self._optimizer.zero_grad()

    def clip_fp32_gradients(self) -> None:
        """What is done with the gradient before a step; the trainer puts its own in this place."""

    def save_checkpoint(self, folder: str, *, tag: str, client_state: Mapping[str, int], save_latest: bool) -> None:
        """Write weights and states into the folder `tag` of a folder."""
        assert not save_latest, "which checkpoint is the last one their names say"
        path = Path(folder, tag)
        path.mkdir(parents=True, exist_ok=True)
        state = {"weights": self.module.state_dict(), "optimizer": self._optimizer.state_dict()}
        self.checkpoint_engine.save({**state, "client_state": dict(client_state)}, str(path / STATE_NAME))

    def load_checkpoint(self, folder: str, *, tag: str) -> tuple[Path | None, dict[str, int]]:
        """Take what `save_checkpoint` wrote; return where it stood, and what was said of it."""
        import torch

        path = Path(folder, tag, STATE_NAME)
        if not path.is_file():
            return None, {}
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.module.load_state_dict(state["weights"])
        self._optimizer.load_state_dict(state["optimizer"])
        return path, state["client_state"]
