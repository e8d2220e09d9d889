"""What each rank runs: `python -m training.train.loop CONFIG.json`, started by torchrun or deepspeed (see ranks.py).

The rank and the number of ranks come from the environment, as both launchers set it.
"""

from __future__ import annotations

import fcntl
import json
import logging
import math
import os
import shutil
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import JsonValue

from tasks.contracts.durable_files import atomic_folder, write_json
from tasks.contracts.files import MODEL_FOLDER, SAMPLES_NAME, VALIDATION_NAME
from tasks.contracts.tokens import TokenShard
from training.plan.strategies import BY_NAME
from training.train.batches import Batch, batches
from training.train.checkpoint import (
    BEST_FOLDER,
    BEST_NAME,
    LOSSES_NAME,
    RESULT_NAME,
    Saver,
    StepLog,
    finished_checkpoints,
    gather_weights,
    load_checkpoint,
    read_log,
)
from training.train.fixed_order import TreeSum, over_ranks, visiting_order
from training.train.loop_config import LoopConfig
from training.train.loss_head import loss_head
from training.train.model import (
    build_model,
    cast_parameters,
    load_weights,
    model_config,
    save_model,
    weights_sha256,
)
from training.train.optimizers import make_optimizer
from training.train.order import permute
from training.train.packing import IGNORED, Packing, TokenStream, read_packing
from training.train.progress_lines import Progress
from training.train.ranks import failure_name, is_lost_connection
from training.train.samples import Sampler
from training.train.schedule import learning_rate
from training.train.step_engine import join_ranks, make_engine
from training.train.strategy import can_be_resumed

logger = logging.getLogger(__name__)

VALIDATION_SEED = 20
"""Of the draw of held-out sequences: the same for every run on the same held-out text."""


def end_with_launcher(lock: Path) -> None:
    """End this process as soon as the launching process is gone, however it went (also by kill -9).

    The launching process holds `lock`; the system lets go of it when that process ends, and not before.
    """

    def wait() -> None:
        with lock.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH)
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


class Trainer:
    """One rank's training run: build or resume, step, validate, save, hand over the weights."""

    def __init__(self, config: LoopConfig) -> None:
        import torch

        self.config = config
        self.torch = torch
        torch.set_num_threads(config.threads)
        torch.use_deterministic_algorithms(True, warn_only=True)
        # It would fill every buffer, and so touch all of those that DeepSpeed sets aside; nothing reads them before.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        join_ranks(config)
        self.rank, self.ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()
        order = config.order
        assert self.ranks == order.ranks, f"{self.ranks} ranks started, {order.ranks} asked for"
        self.model_config = model_config(
            config.model, vocab_size=config.vocab_size, seq_len=config.context, eos_id=config.eos_id
        )
        model = build_model(self.model_config, seed=config.seed, size=config.model)
        if config.start_from is not None:
            load_weights(model, config.start_from, config.start_sha256)
        self.loss_head = loss_head(model.get_output_embeddings(), config.loss_piece_tokens)
        if config.activation_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": True})
        self.parameters = sum(p.numel() for p in model.parameters())
        if config.precision == "bf16":
            model = cast_parameters(model, torch.bfloat16)
        self.optimizer = make_optimizer(
            model.named_parameters(),
            optimizer=config.optimizer,
            learning_rate=config.learning_rate,
            betas=config.betas,
            weight_decay=config.weight_decay,
            fused=config.device == "cpu" or not BY_NAME[config.strategy].offloads,
        )
        self.engine = make_engine(config, model, self.optimizer)
        # DeepSpeed's own forward pass asks for its own backward pass, which adds up as it likes.
        self.model = self.engine.module if config.fixed_order else self.engine
        self.weights = [weight for weight in self.engine.module.parameters() if weight.requires_grad]
        self.gradient_norm: float | None = None
        self.engine.clip_fp32_gradients = self._clip
        self.stream = TokenStream(config.tokens, order.shards, order.dtype)
        self.packing = Packing.load(config.packing, order.seq_len)
        assert self.packing.sequences == order.sequences, f"{self.packing.sequences} sequences, not {order.sequences}"
        self.held_out, self.held_out_stream = self._read_held_out()
        self.sampler = None
        if config.sample_prompts:
            self.sampler = Sampler(
                config.tokenizer, config.sample_prompts, tokens=config.sample_tokens, context=order.seq_len
            )
        self.told_to_stop = False
        self.checkpoints = config.work / "checkpoints"
        self.saver = Saver(
            self.engine, self.checkpoints, keep=config.checkpoints_kept, background=config.save_in_background
        )
        self.first_step = self._resume()
        self.progress = Progress(config, first_step=self.first_step) if self.rank == 0 else None
        self.batch_log = StepLog(config.work / f"steps-rank-{self.rank:05d}.jsonl", self.first_step)
        self.losses = StepLog(config.work / LOSSES_NAME, self.first_step) if self.rank == 0 else None
        self.samples = StepLog(config.work / SAMPLES_NAME, self.first_step) if self.rank == 0 else None
        measured = [row for row in read_log(config.work / LOSSES_NAME) if row["step"] < self.first_step]
        self.lowest = min((row["validation_loss"] for row in measured if row["validation_loss"]), default=math.inf)

    def _read_held_out(self) -> tuple[Packing, TokenStream]:
        config = self.config
        shards = (TokenShard(name=VALIDATION_NAME, tokens=config.validation_tokens),)
        stream = TokenStream(config.tokens, shards, config.order.dtype)
        there = shards if config.validation_tokens else ()
        return read_packing(config.tokens, there, config.order.seq_len), stream

    def _resume(self) -> int:
        """Load the newest finished checkpoint; return the step to go on from."""
        finished = finished_checkpoints(self.checkpoints)
        if not finished:
            return 0
        done = load_checkpoint(self.engine, finished[-1])
        if self.rank == 0:
            logger.info("train: going on after step %d", done)
        return done

    def run(self) -> bool:
        """Train to the last step and write the result to `work/result` (rank 0).

        Returns:
            Whether it came to its end; False where it was told to stop, and saved its state first.
        """
        config, order = self.config, self.config.order
        started = saved = time.monotonic()
        for batch in batches(self.first_step, self.rank, order, self.packing, self.stream, config.eos_id):
            step = batch.step
            rate = learning_rate(
                step,
                peak=config.learning_rate,
                final=config.final_learning_rate,
                warmup=config.warmup_steps,
                steps=order.steps,
                schedule=config.schedule,
                decay_fraction=config.decay_fraction,
            )
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            loss = self._step(batch)
            # By a gradient that is none the weights are lost too, and the loss of the last step is that before it.
            for name, number in (("loss", loss), ("gradient's norm", self.gradient_norm)):
                if number is not None and not math.isfinite(number):
                    raise FloatingPointError(f"the {name} of step {step} is {number}: lower train.learning_rate")
            done = step + 1
            validate = done == order.steps or done % config.validate_every == 0
            validation = self._validate() if validate else None
            if validate:
                self._write_samples(step)
            if validation is not None and config.release_best and validation < self.lowest:
                self.lowest = validation
                self._keep_best(step)
            if self.losses is not None:
                row = {"step": step, "train_loss": loss, "validation_loss": validation, "learning_rate": rate}
                self.losses.append(row)
                self._report(row, started)
            if done == order.steps:
                break
            due = done % config.checkpoint_every_steps == 0
            due = due or time.monotonic() - saved >= config.checkpoint_every_seconds
            due, stop, writing = self._agree(due, self.told_to_stop, self.saver.is_writing)
            if self.saver.is_open and not writing:
                self.saver.finish()
            if (due or stop) and can_be_resumed(config.strategy):
                began = time.monotonic()
                self._save(done)
                saved = time.monotonic()
                if self.progress is not None:
                    self.progress.checkpoint_seconds = saved - began
            if stop:
                self.saver.finish()
                return False
        self.saver.finish()
        self._hand_over()
        return True

    def stop_after_step(self, *_: object) -> None:
        """Save after the step that is under way, and end: what SIGTERM asks for."""
        self.told_to_stop = True

    def _step(self, batch: Batch) -> float:
        """Do one optimizer step and return its loss in nats a token: the mean over the targets of all ranks.

        Each part counts by its targets, so that neither micro-batches nor ranks change what is minimised.
        """
        torch, order = self.torch, self.config.order
        self.batch_log.append({"step": batch.step, "rank": self.rank, "batch_sha256": batch.sha256})
        device = self.engine.device
        tokens, targets, positions = (
            torch.from_numpy(array.astype(np.int64)).to(device, non_blocking=True)
            for array in (batch.rows.tokens, batch.rows.targets, batch.rows.positions)
        )
        count = self._sum(torch.tensor(float(batch.targets), dtype=torch.float64, device=device))
        # DeepSpeed takes the mean over ranks and parts.
        scale = self.ranks * order.gradient_accumulation / max(count, 1.0)
        total = torch.zeros((), dtype=torch.float64, device=device)
        fixed, sums = self.config.fixed_order, TreeSum()
        for first in visiting_order(len(tokens)) if fixed else range(0, len(tokens), order.micro_batch):
            part = slice(first, first + order.micro_batch)
            positions_bs = positions[part] if self.config.mask_documents else None
            minimised, loss = self._loss(tokens[part, :-1], targets[part], positions_bs)
            total += loss.double()
            if fixed:
                sums.add(list(torch.autograd.grad(minimised / max(count, 1.0), self.weights)))
            else:
                self.engine.backward(minimised * scale)
                self.engine.step()
        if fixed:
            for weight, gradient in zip(self.weights, over_ranks(sums.total(), self.ranks), strict=True):
                weight.grad = gradient
            self._clip()
            self.optimizer.step()
            self.optimizer.zero_grad()
        return self._sum(total) / max(count, 1.0)

    def _clip(self) -> None:
        """Clip the gradient as DeepSpeed does without ZeRO, which does not keep its norm."""
        weights, longest = self.engine.module.parameters(), self.config.gradient_clipping
        self.gradient_norm = float(self.torch.nn.utils.clip_grad_norm_(weights, longest))

    def _sum(self, number: Any) -> float:
        """Return the sum of a number over all ranks."""
        if self.ranks > 1:
            self.torch.distributed.all_reduce(number)
        return float(number)

    def _loss(self, tokens_bs: Any, targets_bs: Any, positions_bs: Any = None) -> tuple[Any, Any]:
        """Return what is minimised, and the cross-entropy, both summed over the targets.

        Positions that begin anew keep attention within a document.
        """
        inputs = {"input_ids": tokens_bs, "position_ids": positions_bs}
        return self.loss_head.of(self.model, targets_bs, self.config.z_loss, **inputs)

    def _validate(self) -> float | None:
        """Return the mean loss a target of a fixed sample of the held-out sequences; None where there are none.

        The sequences are packed and masked as those of training are, and drawn from all of the held-out text. Each
        rank measures some of them; one that has none left measures its last one again and does not count it.
        """
        torch, config, order = self.torch, self.config, self.config.order
        if not self.held_out.sequences:
            return None
        number = min(self.held_out.sequences, config.validation_sequences)
        drawn = permute(np.arange(number, dtype=np.uint64), self.held_out.sequences, VALIDATION_SEED, 0).astype(int)
        total = torch.zeros((), dtype=torch.float64, device=self.engine.device)
        counted = torch.zeros((), dtype=torch.float64, device=self.engine.device)
        self.engine.eval()
        with torch.no_grad():
            for first in range(0, number, order.micro_batch * self.ranks):
                own = drawn[first + self.rank : first + order.micro_batch * self.ranks : self.ranks].tolist()
                rows = self.held_out.rows(own or [int(drawn[0])], self.held_out_stream, config.eos_id)
                tokens, targets, positions = (
                    torch.from_numpy(array.astype(np.int64)).to(self.engine.device)
                    for array in (rows.tokens, rows.targets, rows.positions)
                )
                _, loss = self._loss(tokens[:, :-1], targets, positions if config.mask_documents else None)
                if own:
                    total += loss.double()
                    counted += (targets != IGNORED).sum()
        self.engine.train()
        targets_seen = self._sum(counted)
        return self._sum(total) / targets_seen if targets_seen else None

    def _write_samples(self, step: int) -> None:
        """Let the model go on from the prompts, and write down what it says."""
        if self.sampler is None:
            return
        torch = self.torch

        def next_token(ids: list[int]) -> int:
            tokens_bs = torch.tensor([ids], device=self.engine.device)
            return int(self.model(input_ids=tokens_bs).logits[0, -1].float().argmax())

        self.engine.eval()
        with torch.no_grad():
            written = self.sampler(next_token)
        self.engine.train()
        if self.samples is not None:
            for row in written:
                self.samples.append({"step": step, **row})

    def _keep_best(self, step: int) -> None:
        """Write the weights as they are now, in the place of those that were best before."""
        weights = gather_weights(self.engine)
        if self.losses is not None:
            with atomic_folder(self.config.work / BEST_FOLDER) as folder:
                save_model(folder, self.model_config, weights)
                write_json(folder / BEST_NAME, {"step": step, "weights_sha256": weights_sha256(weights.items())})

    def _agree(self, *answers: bool) -> list[bool]:
        """Return for each question whether any rank says yes, the same on every rank."""
        if self.ranks == 1:
            return list(answers)
        said = self.torch.tensor([int(answer) for answer in answers], device=self.engine.device)
        self.torch.distributed.all_reduce(said, self.torch.distributed.ReduceOp.MAX)
        return [bool(one) for one in said.tolist()]

    def _save(self, done: int) -> None:
        self.batch_log.flush()
        if self.losses is not None:
            self.losses.flush()
        if self.samples is not None:
            self.samples.flush()
        self.saver.save(done)

    def _report(self, row: dict[str, Any], started: float) -> None:
        assert self.progress is not None, "rank 0 tells"
        norm = self.gradient_norm if self.gradient_norm is not None else self.engine.get_global_grad_norm()
        self.progress.tell(row, elapsed=time.monotonic() - started, gradient_norm=norm)

    def _hand_over(self) -> None:
        """Write weights and figures where stage.py finds them; `result.json` last."""
        best = self.config.release_best and self.lowest < math.inf
        weights = {} if best else gather_weights(self.engine)
        self.batch_log.flush()
        self.torch.distributed.barrier()
        if self.losses is None:
            return
        self.losses.flush()
        result = self.config.work / "result"
        rows = list(read_log(self.config.work / LOSSES_NAME))
        said = rows[-1]
        if best:
            kept = self.config.work / BEST_FOLDER
            described = json.loads((kept / BEST_NAME).read_bytes())
            said = next(row for row in rows if row["validation_loss"] == self.lowest)
            assert described["step"] == said["step"], f"kept: step {described['step']}; lowest: step {said['step']}"
            shutil.copytree(kept, result / MODEL_FOLDER, ignore=shutil.ignore_patterns(BEST_NAME))
            sha256 = described["weights_sha256"]
        else:
            save_model(result / MODEL_FOLDER, self.model_config, weights)
            sha256 = weights_sha256(weights.items())
        write_json(
            self.config.work / RESULT_NAME,
            {
                "parameters": self.parameters,
                "weights_sha256": sha256,
                "train_loss": said["train_loss"],
                "validation_loss": said["validation_loss"],
                "step": said["step"],
            },
        )


def main() -> None:
    """Run one rank."""
    config = LoopConfig.model_validate_json(Path(sys.argv[-1]).read_bytes())
    if socket.gethostname() == config.launched_on:
        end_with_launcher(config.lock)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("training").setLevel(logging.INFO)
    logging.getLogger("__main__").setLevel(logging.INFO)
    # What is not used here would be imported where it is installed, for seconds: MLflow by DeepSpeed's autotuner, scipy
    # by transformers' losses for pictures.
    for unused in ("mlflow", "scipy"):
        sys.modules[unused] = None  # type: ignore[assignment]
    try:
        trainer = Trainer(config)
        signal.signal(signal.SIGTERM, trainer.stop_after_step)
        trainer.run()
    except Exception as error:
        if not is_lost_connection(error):
            said: JsonValue = {"error": type(error).__name__, "message": str(error)}
            write_json(config.work / failure_name(int(os.environ["RANK"])), said)
        raise
    trainer.torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
