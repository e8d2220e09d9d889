"""The stage train: token shards in, a model in Hugging Face layout out.

This process checks the settings, fixes the data order, starts the ranks (training/train/loop.py) under torchrun or
deepspeed, tells people how it goes, and commits what they made. A run that was cut off goes on from its last
checkpoint, bit for bit as if nothing had happened: its state lies in a folder named by the hash of everything
that decides the result.
"""

from __future__ import annotations

import csv
import importlib.metadata
import io
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pyarrow as pa
from pydantic import Field, JsonValue

from tasks.contracts.base import StageParams, borrowed_from, not_identity
from tasks.contracts.code_hash import code_hash
from tasks.contracts.document import write_rows
from tasks.contracts.durable_files import sha256_json, write_bytes, write_json
from tasks.contracts.errors import CorpusTooSmallError, HeadwaterError, ParamsError, TrainingError, raised
from tasks.contracts.files import (
    LOSS_NAME,
    METRICS_NAME,
    MODEL_CONFIG_NAME,
    MODEL_FOLDER,
    ORDER_NAME,
    SPECIAL_TOKENS_NAME,
    STEPS_NAME,
    SUMMARY_NAME,
    TOKENIZER_CONFIG_NAME,
    TOKENIZER_NAME,
)
from tasks.contracts.manifest import Counts, Manifest, commit_manifest, manifest_hash
from tasks.contracts.tokens import TokensInfo, read_tokens_info
from tasks.contracts.workspace import progress_path, state_folder
from training.device import gpus, need_gpus
from training.gate_policy import policy_sha256, read_policy
from training.train.checkpoint import LOSSES_NAME, RESULT_NAME, finished_checkpoints, read_log
from training.train.loop import LoopConfig
from training.train.model import ModelSetting, ModelSize, name_special_tokens
from training.train.optimizers import Optimizer
from training.train.order import Order
from training.train.packing import read_packing
from training.train.ranks import Launcher, held_lock, launch_command, run_ranks
from training.train.schedule import Schedule
from training.train.strategy import Chosen, Strategy, can_be_resumed, choose

logger = logging.getLogger(__name__)

DOES = "trains the model"
STEPS_SCHEMA = pa.schema(
    [
        pa.field("step", pa.int64(), nullable=False),
        pa.field("rank", pa.int32(), nullable=False),
        pa.field("batch_sha256", pa.string(), nullable=False),
    ]
)
TOKENIZER_FILES = (TOKENIZER_NAME, TOKENIZER_CONFIG_NAME, SPECIAL_TOKENS_NAME)
SAY_EVERY_SECONDS = 3.0
DECIMALS = 6
LIBRARIES = ("torch", "deepspeed", "transformers", "numpy")


class Params(StageParams):
    """Settings of the stage train."""

    seed: int = Field(1, ge=0)
    """Seed of the initial weights and of the data order."""
    model: ModelSetting = ModelSize()
    """The model: the name of a preset (tiny, 30m, 125m, 350m, 1.3b, 2.7b, 7b, 13b, 70b, gpt2 …), or its numbers."""
    seq_len: int = Field(256, ge=8)
    """Tokens in a training sequence; also the longest context of the model."""
    batch_size: int = Field(8, ge=1)
    """Sequences in an optimizer step, over all ranks."""
    gradient_accumulation: int = Field(1, ge=1)
    """Into how many parts each rank splits its share of a step, to fit the memory."""
    epochs: int = Field(1, ge=1)
    """Passes over the token shards (documents that `mix` repeats stand in them more than once)."""
    max_steps: int | None = Field(200, ge=1)
    """Stop after so many optimizer steps; null goes to the end of `epochs` passes, past which no run goes."""
    learning_rate: float = Field(1e-3, gt=0)
    """Peak learning rate, reached after the warm-up."""
    final_learning_rate: float = Field(3e-4, ge=0)
    """Learning rate at the last step, reached by half a cosine."""
    warmup_steps: int = Field(20, ge=0)
    """Steps over which the learning rate rises from 0."""
    weight_decay: float = Field(0.1, ge=0)
    """Weight decay, on matrices only."""
    schedule: Schedule = "cosine"
    """How the learning rate falls: half a cosine, or wsd (stable, then a linear decay over the last steps)."""
    decay_fraction: float = Field(0.2, gt=0, le=1)
    """Of wsd: which part of all steps the decay takes."""
    optimizer: Optimizer = "adamw"
    """adamw, or muon for the hidden layers' matrices with adamw for the rest."""
    z_loss: float = Field(0.0, ge=0, le=1)
    """Weight of the squared log-partition of the logits that is added to the loss (PaLM: 1e-4); 0 adds none."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.95)
    """AdamW's decay rates of its two moments."""
    gradient_clipping: float = Field(1.0, gt=0)
    """Longest gradient (L2 norm over all weights)."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Number format of weights and activations; auto is bf16 on a GPU and fp32 on a CPU.

    Measured on a Xeon with avx512_bf16, one thread, 2.4 M parameters: 3,300 tokens/s in fp32, 2,500 in bf16.
    """
    strategy: Strategy = "auto"
    """What ranks share out (DeepSpeed): ddp nothing, zero-1 optimizer states, zero-2 gradients too, zero-3 weights too;
    zero-2-offload has the optimizer in the host's memory, zero-3-offload all, infinity-optimizer and infinity on its
    disk, where no checkpoints are written (`headwater plan` says what fits). auto takes the cheapest: one rank holds
    all, several share all out."""
    offload_folder: str | None = not_identity(None)
    """Folder on a fast disk for infinity; null takes one under .headwater/."""
    activation_checkpointing: bool = False
    """Whether activations are computed again in the backward pass: less memory, about a third more time."""
    fixed_order: bool = False
    """Whether gradients are added up in one order, so that 1, 2 and 4 ranks of so many threads make the same weights,
    bit for bit. Costs a model pass a sequence, and all gradients sent to each rank."""
    mask_documents: bool = False
    """Whether a token attends to its own document only, in sequences that hold several."""
    num_ranks: int = Field(1, ge=1)
    """Training processes on this machine: one a GPU, or one or two on a CPU."""
    threads: int | None = Field(None, ge=1)
    """Processor threads of a rank; null shares this machine's cores out. Sums depend on it in the last bit."""
    validate_every: int = Field(50, ge=1)
    """Steps between two measurements of the validation loss; the last step is always measured."""
    validation_sequences: int = Field(64, ge=1)
    """How many held-out sequences the validation loss is measured on at most, drawn from all held-out text."""
    device: Literal["auto", "cpu", "gpu"] = not_identity("auto")
    """What the ranks run on: auto takes GPUs where there are some, gpu does not start without one for each rank."""
    busy_wait: bool = not_identity(False)
    """Whether processor threads spin while they wait for each other: about 10 % faster on a machine of one's own, and
    several times slower where another program wants the cores too."""
    launcher: Launcher = not_identity("torchrun")
    """What starts the ranks: torchrun (starts sooner) or deepspeed."""
    checkpoints_kept: int = not_identity(2, ge=1)
    """How many of the last checkpoints stay while training runs."""
    checkpoint_every_steps: int = not_identity(500, ge=1)
    """Steps between two checkpoints."""
    checkpoint_every_seconds: float = not_identity(20.0, gt=0)
    """Seconds after which a checkpoint is due anyway. When one is written never changes the result."""
    policy: dict[str, Any] = borrowed_from("gate", {})
    """The gate's section: its hash goes into this stage's manifest before the first step."""
    tasks: tuple[str, ...] = borrowed_from("evaluate.tasks", ())
    """The tasks that the gate will score: part of its policy."""

    def faults(self) -> Iterator[HeadwaterError]:
        """Yield GPUs that are not there, a batch that cannot be shared out, and settings that cannot be meant."""
        no_gpu = list(raised(self.runs_on))
        yield from no_gpu or raised(self.chosen_strategy)
        yield from raised(self.micro_batch)
        yield from raised(self.can_be_meant)

    def runs_on(self) -> Literal["cpu", "gpu"]:
        """Return what the ranks run on.

        Raises:
            ParamsError: there are fewer GPUs than are asked for.
        """
        if self.device == "cpu" or (self.device == "auto" and not gpus()):
            return "cpu"
        need_gpus(self.num_ranks, "train.device", self.device)
        return "gpu"

    def micro_batch(self) -> int:
        """Return how many sequences a rank puts through the model at once.

        Raises:
            ParamsError: the batch cannot be shared out evenly between the ranks, or not in one order.
        """
        if self.fixed_order:
            for name, number in (("batch_size", self.batch_size), ("num_ranks", self.num_ranks)):
                if number & (number - 1) or self.num_ranks > self.batch_size:
                    raise ParamsError(
                        "gradients cannot be added up in one order",
                        where=f"params.yaml, train.{name}",
                        expected="a power of two, and a batch of no fewer sequences than ranks (train.fixed_order)",
                        found=str(number),
                    )
            return 1
        share = self.num_ranks * self.gradient_accumulation
        if self.batch_size % share:
            raise ParamsError(
                "a step cannot be shared out evenly",
                where="params.yaml, train.batch_size",
                expected=f"a multiple of num_ranks × gradient_accumulation = {share}",
                found=str(self.batch_size),
            )
        return self.batch_size // share

    def chosen_precision(self) -> Literal["fp32", "bf16"]:
        """Return the number format that `auto` stands for on this machine."""
        if self.precision != "auto":
            return self.precision
        return "bf16" if self.runs_on() == "gpu" else "fp32"

    def chosen_strategy(self) -> Chosen:
        """Return the strategy that `auto` stands for.

        Raises:
            ParamsError: the strategy does not go with optimizer and precision.
        """
        return choose(
            self.strategy,
            ranks=self.num_ranks,
            whole_by="fixed_order" if self.fixed_order else "muon" if self.optimizer == "muon" else None,
            precision=self.chosen_precision(),
        )

    def can_be_meant(self) -> None:
        """Raise ParamsError where two settings cannot both be meant."""
        if self.final_learning_rate > self.learning_rate:
            raise ParamsError(
                "the learning rate would rise to its end",
                where="params.yaml, train.final_learning_rate",
                expected=f"at most the peak, train.learning_rate = {self.learning_rate}",
                found=str(self.final_learning_rate),
            )
        if self.max_steps is not None and self.warmup_steps > self.max_steps:
            raise ParamsError(
                "the warm-up is longer than the run",
                where="params.yaml, train.warmup_steps",
                expected=f"at most train.max_steps = {self.max_steps}",
                found=str(self.warmup_steps),
            )

    def in_manifest(self) -> dict[str, JsonValue]:
        """Return the settings with the gate's policy filled in, and its hash."""
        policy = read_policy(self.policy)
        return self.identity() | {
            "strategy": self.chosen_strategy(),
            "policy": policy.identity(),
            "policy_sha256": policy_sha256(policy, self.tasks),
        }


def run(*, params: Params, inputs: Mapping[str, Path], output: Path) -> Manifest:
    """Train the model and write its folder.

    Args:
        inputs: `tokenize` (token shards) and `tokenizer`.

    Raises:
        CorpusTooSmallError: the token shards do not fill one step.
        ParamsError: the batch cannot be shared out evenly between the ranks.
        TrainingError: a rank failed; running again goes on from the last checkpoint.
    """
    info = read_tokens_info(inputs["tokenize"])
    packing = read_packing(inputs["tokenize"], info.shards, params.seq_len)
    order = make_order(params, info, packing.sequences, manifest_hash(inputs["tokenize"]))
    identity = params.in_manifest()
    device = params.runs_on()
    config = _loop_config(params, info, order, tokens=inputs["tokenize"], device=device)
    decided_by = {name: value for name, value in config.model_dump(mode="json").items() if name not in _PLACES}
    key = sha256_json(
        {
            "params": identity,
            "loop": decided_by,
            "code": code_hash("training.train"),
            "libraries": {name: importlib.metadata.version(name) for name in LIBRARIES},
            "inputs": {name: manifest_hash(inputs[name]) for name in ("tokenize", "tokenizer")},
        }
    )
    work = config.work / key
    work.mkdir(parents=True, exist_ok=True)
    places = {
        "lock": work / f"launcher-{os.getpid()}.lock",
        "meeting": work / f"meeting-{os.getpid()}",
        "packing": work / "packing",
        "offload": Path(params.offload_folder or work / "offload").resolve(),
    }
    config = config.model_copy(update={"work": work, **places})
    if not (work / RESULT_NAME).is_file():
        packing.save(config.packing)
        _train(params, config)
    trained = order.tokens_seen(packing)
    _write_output(output, work, config, inputs["tokenizer"], trained)
    manifest = commit_manifest(
        output,
        stage="train",
        unit="tokens",
        params=identity,
        inputs={name: inputs[name] for name in ("tokenize", "tokenizer")},
        counts=Counts(
            in_=info.tokens * params.epochs,
            out=trained,
            dropped={"after_last_step": info.tokens * params.epochs - trained},
        ),
    )
    shutil.rmtree(work)
    return manifest


def make_order(params: Params, info: TokensInfo, sequences: int, tokenize_manifest: str) -> Order:
    """Return the data order that these settings and token shards give.

    Args:
        sequences: how many the token shards are packed into.

    Raises:
        CorpusTooSmallError: the token shards do not fill one step.
        ParamsError: the batch cannot be shared out evenly between the ranks.
    """
    micro_batch = params.micro_batch()
    available = sequences * params.epochs // params.batch_size
    if available < 1:
        raise CorpusTooSmallError(
            "there is too little text to fill one training step",
            where="data/tokenize",
            expected=f"at least {params.batch_size} sequences (train.batch_size) of {params.seq_len} tokens",
            found=f"{sequences} sequences of {info.tokens} tokens",
            fix="lower train.batch_size or train.seq_len, crawl more, or loosen the filters that dropped most",
        )
    return Order(
        seed=params.seed,
        dtype=info.dtype,
        shards=info.shards,
        tokenize_manifest=tokenize_manifest,
        seq_len=params.seq_len,
        sequences=sequences,
        epochs=params.epochs,
        steps=min(available, params.max_steps or available),
        batch_size=params.batch_size,
        micro_batch=micro_batch,
        gradient_accumulation=params.batch_size // params.num_ranks // micro_batch,
        ranks=params.num_ranks,
    )


_PLACES = {"tokens", "work", "progress", "lock", "meeting", "packing", "offload", "order"}
_PLACES |= {"checkpoint_every_steps", "checkpoint_every_seconds", "checkpoints_kept"}
_PLACES |= {"threads"}
"""What in a LoopConfig does not decide the result, or stands in the key already; of the threads that follow from the
machine's cores only the last bit does, and a run that was cut off goes on with others."""


def _loop_config(params: Params, info: TokensInfo, order: Order, *, tokens: Path, device: str) -> LoopConfig:
    same = LoopConfig.model_fields.keys() & Params.model_fields.keys() - {"precision", "threads", "strategy"}
    cores = len(os.sched_getaffinity(0))
    return LoopConfig.model_validate(
        {name: getattr(params, name) for name in same}
        | {
            "tokens": tokens.resolve(),
            "work": state_folder() / "train",
            "progress": progress_path(),
            "lock": Path(os.devnull),
            "meeting": Path(os.devnull),
            "packing": Path(os.devnull),
            "offload": Path(os.devnull),
            "strategy": params.chosen_strategy(),
            "order": order,
            "validation_tokens": info.validation_tokens,
            "vocab_size": info.vocab_size,
            "eos_id": info.eos_id,
            "device": device,
            "precision": params.chosen_precision(),
            "threads": params.threads or (1 if params.fixed_order else max(1, cores // params.num_ranks)),
        }
    )


def _train(params: Params, config: LoopConfig) -> None:
    """Run the ranks until they have written `result.json`."""
    for pattern in ("launcher-*.lock", "meeting-*", "torchrun-*"):
        for old in config.work.glob(pattern):
            old.unlink()
    shutil.rmtree(config.work / "result", ignore_errors=True)
    if finished_checkpoints(config.work / "checkpoints"):
        logger.info("train: an earlier run was cut off; going on from its last checkpoint")
    else:
        write_bytes(config.progress, b"")
    path = config.work / MODEL_CONFIG_NAME
    write_json(path, config.model_dump(mode="json"))
    environment = {
        "OMP_NUM_THREADS": str(config.threads),
        "TORCH_NUM_THREADS": str(config.threads),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "OMP_WAIT_POLICY": "ACTIVE" if params.busy_wait else "PASSIVE",
    }
    if config.device == "cpu":
        environment |= {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    if config.strategy.startswith("infinity"):
        config.offload.mkdir(parents=True, exist_ok=True)
    if not can_be_resumed(config.strategy):
        logger.warning("train: %s writes no checkpoints, which DeepSpeed would restore wrongly", config.strategy)
    order = config.order
    logger.info(
        "train: %d steps of %d tokens, %s over the text, on %d %s rank(s), %s, %s",
        *(order.steps, order.batch_size * order.seq_len, _passes(order), order.ranks),
        *(config.device.upper(), config.strategy, config.precision),
    )
    with held_lock(config.lock):
        run_ranks(
            launch_command(params.launcher, params.num_ranks, path),
            environment=environment,
            log=config.work / "ranks.log",
            watch=_Teller(config.progress),
        )
    if not (config.work / RESULT_NAME).is_file():
        done = [path.name for path in finished_checkpoints(config.work / "checkpoints")]
        raise TrainingError(
            "training was told to stop before its end",
            where=str(config.work / "ranks.log"),
            found=f"saved: {done[-1]} of {order.steps} steps" if done else "nothing saved",
            fix="run again: it goes on from there" if done else "run again",
        )


def _passes(order: Order) -> str:
    passes = order.steps * order.batch_size / order.sequences
    return f"{passes:.0%} of one pass" if passes < 1 else f"{passes:.1f} passes"


class _Teller:
    """Tells people how training goes, every few seconds, from the last line of the progress file."""

    def __init__(self, progress: Path) -> None:
        self._progress = progress
        self._offset = progress.stat().st_size
        self._said = 0.0

    def __call__(self) -> None:
        size = self._progress.stat().st_size
        if size == self._offset or time.monotonic() - self._said < SAY_EVERY_SECONDS:
            return
        with self._progress.open("rb") as stream:
            stream.seek(self._offset)
            lines = [line for line in stream.read().splitlines(keepends=True) if line.endswith(b"\n")]
        if not lines:
            return
        self._offset += sum(map(len, lines))
        self._said = time.monotonic()
        row = json.loads(lines[-1])
        logger.info(
            "train: step %d/%d, loss %.2f, %s tokens/s, %.0f s left",
            *(row["step"] + 1, row["steps"], row["train_loss"]),
            *(f"{row['tokens_per_second']:,}", row["left"]),
        )


def _write_output(output: Path, work: Path, config: LoopConfig, tokenizer: Path, trained: int) -> None:
    """Write everything but the manifest."""
    order, result = config.order, json.loads((work / RESULT_NAME).read_bytes())
    losses = list(read_log(work / LOSSES_NAME))
    batches = [row for rank in range(order.ranks) for row in read_log(work / f"steps-rank-{rank:05d}.jsonl")]
    _check_whole(losses, batches, order)
    shutil.copytree(work / "result" / MODEL_FOLDER, output / MODEL_FOLDER)
    for name in TOKENIZER_FILES:
        if (tokenizer / name).is_file():
            shutil.copyfile(tokenizer / name, output / MODEL_FOLDER / name)
    if (output / MODEL_FOLDER / TOKENIZER_NAME).is_file():
        name_special_tokens(output / MODEL_FOLDER)
    write_bytes(output / LOSS_NAME, _loss_table(losses).encode())
    write_rows(output / STEPS_NAME, sorted(batches, key=lambda row: (row["step"], row["rank"])), STEPS_SCHEMA)
    write_json(output / ORDER_NAME, order.model_dump(mode="json"))
    summary: dict[str, JsonValue] = {name: _rounded(result[name]) for name in ("train_loss", "validation_loss")}
    write_json(output / SUMMARY_NAME, summary)
    write_json(
        output / METRICS_NAME,
        {
            **summary,
            "parameters": result["parameters"],
            "steps": order.steps,
            "tokens_seen": trained,
            "weights_sha256": result["weights_sha256"],
        },
    )


def _check_whole(losses: Sequence[Mapping[str, Any]], batches: Sequence[Mapping[str, Any]], order: Order) -> None:
    """Every step of every rank is recorded exactly once, or the record is worth nothing."""
    steps = [row["step"] for row in losses]
    seen = sorted((row["step"], row["rank"]) for row in batches)
    expected = [(step, rank) for step in range(order.steps) for rank in range(order.ranks)]
    if steps != list(range(order.steps)) or seen != expected:
        raise TrainingError(
            "the record of the steps is not whole",
            expected=f"{order.steps} steps of {order.ranks} rank(s), each once",
            found=f"{len(steps)} losses, {len(seen)} batch hashes",
            fix="run the stage again with `headwater run --force train`",
        )


def _loss_table(losses: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["step", "train_loss", "validation_loss", "learning_rate"])
    for row in losses:
        measured = "" if row["validation_loss"] is None else f"{row['validation_loss']:.{DECIMALS}f}"
        writer.writerow([row["step"], f"{row['train_loss']:.{DECIMALS}f}", measured, f"{row['learning_rate']:.8g}"])
    return text.getvalue()


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, DECIMALS)
