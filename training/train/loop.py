"""What each rank runs: `python -m training.train.loop CONFIG.json`, started by torchrun or deepspeed (see ranks.py).

The rank and the number of ranks come from the environment, as both launchers set it.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import math
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tasks.contracts.base import FrozenModel
from tasks.contracts.durable_files import write_json
from tasks.contracts.files import MODEL_FOLDER, VALIDATION_NAME
from training.train.checkpoint import (
    LOSSES_NAME,
    RESULT_NAME,
    StepLog,
    finished_checkpoints,
    gather_weights,
    load_checkpoint,
    read_log,
    save_checkpoint,
)
from training.train.model import (
    ModelSize,
    build_model,
    cast_parameters,
    model_config,
    parameter_groups,
    save_model,
    weights_sha256,
)
from training.train.order import IGNORED, Order, TokenStream, count_sequences, read_packing

logger = logging.getLogger(__name__)

GRACE_SECONDS = 20


class LoopConfig(FrozenModel):
    """What launch.py tells the ranks."""

    tokens: Path
    """The folder that `tokenize` wrote."""
    work: Path
    """Folder of this run's half-done state."""
    progress: Path
    """File that gets one JSON line a step, for people and MLflow."""
    lock: Path
    """File that the launching process holds locked as long as it lives."""
    meeting: Path
    """File in which the ranks find each other, new for each launch."""
    order: Order
    validation_tokens: int
    vocab_size: int
    eos_id: int
    model: ModelSize
    device: Literal["cpu", "gpu"]
    precision: Literal["fp32", "bf16"]
    threads: int
    seed: int
    zero_stage: int
    activation_checkpointing: bool
    mask_documents: bool
    learning_rate: float
    final_learning_rate: float
    warmup_steps: int
    weight_decay: float
    betas: tuple[float, float]
    gradient_clipping: float
    validate_every: int
    validation_sequences: int
    checkpoint_every_steps: int
    checkpoint_every_seconds: float


def learning_rate(step: int, *, peak: float, final: float, warmup: int, steps: int) -> float:
    """Return the learning rate of a step: linear warm-up, then half a cosine down to `final`.

    >>> [round(learning_rate(s, peak=1.0, final=0.1, warmup=2, steps=5), 3) for s in range(5)]
    [0.5, 1.0, 1.0, 0.55, 0.1]
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    fraction = (step - warmup) / max(1, steps - 1 - warmup)
    return final + (peak - final) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, fraction)))


def end_with_launcher(lock: Path) -> None:
    """End this process as soon as the launching process is gone, however it went (also by kill -9).

    The launching process holds `lock`; the system lets go of it when that process ends, and not before.
    """

    def wait() -> None:
        with lock.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH)
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def deepspeed_config(config: LoopConfig) -> dict[str, Any]:
    """Return DeepSpeed's own configuration for this run."""
    order = config.order
    return {
        "train_batch_size": order.batch_size,
        "train_micro_batch_size_per_gpu": order.micro_batch,
        "gradient_accumulation_steps": order.gradient_accumulation,
        "gradient_clipping": config.gradient_clipping,
        "bf16": {"enabled": config.precision == "bf16"},
        "zero_optimization": {"stage": config.zero_stage},
        # The optimizer is torch's own AdamW: no compiler is needed, and ZeRO shards it as it shards its own.
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": sys.maxsize,
    }


class Trainer:
    """One rank's training run: build or resume, step, validate, save, hand over the weights."""

    def __init__(self, config: LoopConfig) -> None:
        import deepspeed
        import torch

        self.config = config
        self.torch = torch
        torch.set_num_threads(config.threads)
        torch.use_deterministic_algorithms(True, warn_only=True)
        # DeepSpeed's shared-memory kernel for the CPU serves inference only, and would be compiled first (45 s, g++).
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        deepspeed.init_distributed(
            dist_backend="gloo" if config.device == "cpu" else "nccl",
            verbose=False,
            init_method=config.meeting.as_uri(),
            rank=int(os.environ["RANK"]),
            world_size=int(os.environ["WORLD_SIZE"]),
        )
        self.rank, self.ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()
        order = config.order
        assert self.ranks == order.ranks, f"{self.ranks} ranks started, {order.ranks} asked for"
        self.model_config = model_config(
            config.model, vocab_size=config.vocab_size, seq_len=order.seq_len, eos_id=config.eos_id
        )
        model = build_model(self.model_config, seed=config.seed, size=config.model)
        if config.activation_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": True})
        self.parameters = sum(p.numel() for p in model.parameters())
        if config.precision == "bf16":
            model = cast_parameters(model, torch.bfloat16)
        groups = parameter_groups(model, config.weight_decay)
        self.optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, eps=1e-8)
        self.engine, *_ = deepspeed.initialize(model=model, optimizer=self.optimizer, config=deepspeed_config(config))
        self.stream = TokenStream(config.tokens, order.shards, order.dtype)
        self.packing = read_packing(config.tokens, order.shards, order.seq_len)
        assert self.packing.sequences == order.sequences, f"{self.packing.sequences} sequences, not {order.sequences}"
        self.checkpoints = config.work / "checkpoints"
        self.first_step = self._resume()
        self.batches = StepLog(config.work / f"steps-rank-{self.rank:05d}.jsonl", self.first_step)
        self.losses = StepLog(config.work / LOSSES_NAME, self.first_step) if self.rank == 0 else None

    def _resume(self) -> int:
        """Load the newest finished checkpoint; return the step to go on from."""
        finished = finished_checkpoints(self.checkpoints)
        if not finished:
            return 0
        done = load_checkpoint(self.engine, finished[-1])
        if self.rank == 0:
            logger.info("train: going on after step %d", done)
        return done

    def run(self) -> None:
        """Train to the last step and write the result to `work/result` (rank 0)."""
        config, order = self.config, self.config.order
        started = saved = time.monotonic()
        for step in range(self.first_step, order.steps):
            rate = learning_rate(
                step,
                peak=config.learning_rate,
                final=config.final_learning_rate,
                warmup=config.warmup_steps,
                steps=order.steps,
            )
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            loss = self._step(step)
            if not math.isfinite(loss):
                raise FloatingPointError(f"the loss of step {step} is {loss}: lower train.learning_rate")
            done = step + 1
            validate = done == order.steps or done % config.validate_every == 0
            validation = self._validate() if validate else None
            if self.losses is not None:
                row = {"step": step, "train_loss": loss, "validation_loss": validation, "learning_rate": rate}
                self.losses.append(row)
                self._report(row, started)
            due = time.monotonic() - saved >= config.checkpoint_every_seconds
            if done < order.steps and (done % config.checkpoint_every_steps == 0 or self._agree(due)):
                self._save(done)
                saved = time.monotonic()
        self._hand_over()

    def _step(self, step: int) -> float:
        """Do one optimizer step and return its loss, the mean over all ranks, in nats a token."""
        torch, order = self.torch, self.config.order
        rows = self.packing.rows(order.sequences_at(step, self.rank), self.stream, self.config.eos_id)
        digest = hashlib.sha256(rows.tokens.tobytes()).hexdigest()
        self.batches.append({"step": step, "rank": self.rank, "batch_sha256": digest})
        device = self.engine.device
        tokens, targets, positions = (
            torch.from_numpy(array.astype(np.int64)).to(device) for array in (rows.tokens, rows.targets, rows.positions)
        )
        total = torch.zeros((), dtype=torch.float64, device=device)
        for first in range(0, len(tokens), order.micro_batch):
            part = slice(first, first + order.micro_batch)
            positions_bs = positions[part] if self.config.mask_documents else None
            loss = self._loss(tokens[part, :-1], targets[part], positions_bs)
            self.engine.backward(loss)
            self.engine.step()
            total += loss.detach().double()
        torch.distributed.all_reduce(total)
        return float(total) / (order.gradient_accumulation * self.ranks)

    def _loss(self, tokens_bs: Any, targets_bs: Any, positions_bs: Any = None) -> Any:
        """Return the mean cross-entropy of the targets; positions that begin anew keep attention within a document."""
        logits_bsv = self.engine(input_ids=tokens_bs, position_ids=positions_bs).logits
        return self.torch.nn.functional.cross_entropy(
            logits_bsv.flatten(0, 1).float(), targets_bs.flatten().contiguous(), ignore_index=IGNORED
        )

    def _validate(self) -> float | None:
        """Return the mean loss on the first held-out sequences, the same number on each rank; None if too few."""
        torch, config, order = self.torch, self.config, self.config.order
        available = count_sequences(config.validation_tokens, order.seq_len)
        each = min(available, config.validation_sequences) // self.ranks
        if each == 0:
            return None
        path, little = config.tokens / VALIDATION_NAME, np.dtype(order.dtype).newbyteorder("<")
        held_out = np.memmap(path, dtype=little, mode="r")
        wanted = range(self.rank * each, (self.rank + 1) * each)
        size = order.seq_len
        batch = np.stack([held_out[i * size : (i + 1) * size + 1] for i in wanted]).astype(np.int64)
        total = torch.zeros((), dtype=torch.float64, device=self.engine.device)
        self.engine.eval()
        with torch.no_grad():
            for part in torch.from_numpy(batch).to(self.engine.device).split(order.micro_batch):
                total += self._loss(part[:, :-1], part[:, 1:]).double() * len(part)
        self.engine.train()
        torch.distributed.all_reduce(total)
        return float(total) / (each * self.ranks)

    def _agree(self, due: bool) -> bool:
        """Return rank 0's answer on every rank, so that all save at the same step."""
        answer = self.torch.tensor([int(due)], device=self.engine.device)
        self.torch.distributed.broadcast(answer, src=0)
        return bool(answer.item())

    def _save(self, done: int) -> None:
        self.batches.flush()
        if self.losses is not None:
            self.losses.flush()
        save_checkpoint(self.engine, self.checkpoints, done)

    def _report(self, row: dict[str, Any], started: float) -> None:
        order, elapsed = self.config.order, time.monotonic() - started
        done = row["step"] + 1
        speed = (done - self.first_step) * order.batch_size * order.seq_len / elapsed
        left = (order.steps - done) * order.batch_size * order.seq_len / speed
        times = {"tokens_per_second": round(speed), "elapsed": round(elapsed, 2), "left": round(left, 1)}
        with self.config.progress.open("a") as stream:
            stream.write(_json_line(row | {"steps": order.steps} | times))

    def _hand_over(self) -> None:
        """Write weights and figures where launch.py finds them; `result.json` last."""
        weights = gather_weights(self.engine)
        self.batches.flush()
        self.torch.distributed.barrier()
        if self.losses is None:
            return
        self.losses.flush()
        result = self.config.work / "result"
        save_model(result / MODEL_FOLDER, self.model_config, weights)
        last = list(read_log(self.config.work / LOSSES_NAME))[-1]
        write_json(
            self.config.work / RESULT_NAME,
            {
                "parameters": self.parameters,
                "weights_sha256": weights_sha256(weights.items()),
                "train_loss": last["train_loss"],
                "validation_loss": last["validation_loss"],
            },
        )


def _json_line(row: dict[str, Any]) -> str:
    import json

    return json.dumps(row) + "\n"


def main() -> None:
    """Run one rank."""
    config = LoopConfig.model_validate_json(Path(sys.argv[-1]).read_bytes())
    end_with_launcher(config.lock)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("training").setLevel(logging.INFO)
    logging.getLogger("__main__").setLevel(logging.INFO)
    # DeepSpeed's autotuner, which is not used here, imports MLflow where it is installed: 2 of the 5 seconds.
    sys.modules["mlflow"] = None  # type: ignore[assignment]
    trainer = Trainer(config)
    trainer.run()
    trainer.torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
