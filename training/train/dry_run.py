"""A training step of many ranks without devices: what one rank holds, tensor by tensor, beside what the plan reckons.

The model is made of fake tensors, which have a shape and no memory, and sharded by FSDP2 over a process group that only
claims to have the other ranks. PyTorch's tracker counts each tensor as it is made and freed in a forward and a backward
pass and an optimizer step. So the states are those of the real model, whose formulas it holds the plan to; what the
allocator adds, and what a GPU's libraries take, is not in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from training.train.model import ModelSize, build_model, model_config

UNMASKED = "sdpa_unmasked"
ADAM_STEP_BYTES = 4
"""Of a parameter tensor: the count of its steps, which torch's AdamW keeps as a tensor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracked:
    """Bytes of a rank at the peak of a step, by what they are.

    Attributes:
        weights, gradients, optimizer: the rank's share, as they are after a step: gradients come as the rest goes.
        activations: with the logits and with the gradients of both.
        gathered: whole weights and gradients that are gathered or being sent.
        peak: all of it together, at the worst moment.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    gathered: int
    peak: int

    @property
    def states(self) -> int:
        """Weights, gradients and the optimizer's states."""
        return self.weights + self.gradients + self.optimizer


def dry_run(
    size: ModelSize, *, vocab_size: int, seq_len: int, micro_batch: int, ranks: int, checkpointing: bool
) -> Tracked:
    """Do one step of one rank with fake tensors, in bf16 with float32 states, and return what was tracked.

    Args:
        ranks: of the process group; this process is its first.
        checkpointing: whether activations are computed again.
    """
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.distributed._tools.fsdp2_mem_tracker import FSDPMemTracker
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
    from transformers import AttentionInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    config = model_config(size, vocab_size=vocab_size, seq_len=seq_len, eos_id=0)
    with _fake_ranks(ranks):
        mesh = init_device_mesh("cpu", (ranks,))
        with FakeTensorMode():
            model = build_model(config, seed=0)
            # Whether a text needs a mask its tokens say, and fake ones do not: transformers would make one.
            AttentionInterface.register(UNMASKED, sdpa_attention_forward)
            model.set_attn_implementation(UNMASKED)
            if checkpointing:
                model.gradient_checkpointing_enable({"use_reentrant": False})
            mixed = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
            for part in (*_layers(model), model):
                fully_shard(part, mesh=mesh, mp_policy=mixed)
            optimizer = torch.optim.AdamW(model.parameters(), foreach=False)
            # Its states are made by a first step, and so is what DTensor works out once for each operation.
            for weight in model.parameters():
                weight.grad = torch.zeros_like(weight)
            optimizer.step()
            optimizer.zero_grad()
            tokens_bs = torch.zeros(micro_batch, seq_len, dtype=torch.int64)
            tracker = FSDPMemTracker(model, optimizer)
            tracker.track_inputs((tokens_bs,))
            with tracker:
                logits_nv = model(input_ids=tokens_bs).logits.flatten(0, 1).float()
                loss = torch.nn.functional.cross_entropy(logits_nv, tokens_bs.flatten())
                del logits_nv
                torch.autograd.backward(loss)
                optimizer.step()
            after, peak = (_by_name(tracker.get_tracker_snapshot(when)) for when in ("current", "peak"))
    counts = ADAM_STEP_BYTES * sum(1 for _ in model.parameters())
    return Tracked(
        weights=after["Sharded Param"],
        gradients=after["Sharded Grad"],
        optimizer=after["OptState"] - counts,
        activations=peak["Activation"] + peak["Temp"],
        gathered=sum(peak[name] for name in ("Unsharded Param", "Unsharded Grad", "All Gather", "Reduce Scatter")),
        peak=peak["Total"],
    )


@contextmanager
def _fake_ranks(ranks: int) -> Iterator[None]:
    """Have this process be the first of so many, whose collectives do nothing."""
    from torch import distributed
    from torch.testing._internal.distributed.fake_pg import FakeStore

    distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=ranks)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def _layers(model: Any) -> list[Any]:
    """Return a model's decoder layers: the one list of modules in its trunk."""
    import torch

    lists = [list(part) for part in model.modules() if isinstance(part, torch.nn.ModuleList)]
    return max(lists, key=len)


def _by_name(snapshot: dict[Any, dict[Any, int]]) -> dict[str, int]:
    """Return the tracker's figures of the one device by the names of their kinds."""
    (of_device,) = snapshot.values()
    return {str(getattr(kind, "value", kind)): size for kind, size in of_device.items()}
