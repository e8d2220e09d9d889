"""The stage train: token shards in, a model in Hugging Face layout out.

This process checks the settings, fixes the data order, starts the ranks (training/train/loop.py) under torchrun or
deepspeed, tells people how it goes, and commits what they made. A run that was cut off goes on from its last
checkpoint, bit for bit as if nothing had happened: its state lies in a folder named by the hash of everything
that decides the result.
"""

from __future__ import annotations

import importlib.metadata
import json
import logging
import os
import shutil
import socket
import time
from collections.abc import Mapping
from pathlib import Path

from tasks.contracts.base_release import checked_file, copy_lineage
from tasks.contracts.code_hash import code_hash
from tasks.contracts.durable_files import sha256_file, sha256_json, write_bytes, write_json
from tasks.contracts.errors import CorpusTooSmallError, InputError, TrainingError
from tasks.contracts.files import MODEL_CONFIG_NAME, TOKENIZER_NAME
from tasks.contracts.manifest import Counts, Manifest, commit_manifest, manifest_hash
from tasks.contracts.release import BASE_FOLDER
from tasks.contracts.tokens import TokensInfo, read_tokens_info
from tasks.contracts.workspace import ROOT, progress_path, state_folder
from training.train.artifacts import write_output
from training.train.checkpoint import RESULT_NAME, finished_checkpoints
from training.train.hyperparameters import Params
from training.train.launch import on_other_machines
from training.train.loop_config import LoopConfig
from training.train.order import Order
from training.train.packing import read_packing
from training.train.ranks import LOG_NAME, held_lock, run_ranks, run_until_done
from training.train.strategy import can_be_resumed

logger = logging.getLogger(__name__)

DOES = "trains the model"
SAY_EVERY_SECONDS = 3.0
LIBRARIES = ("torch", "deepspeed", "transformers", "numpy")


def run(*, params: Params, inputs: Mapping[str, Path], output: Path) -> Manifest:
    """Train the model and write its folder.

    Args:
        inputs: `tokenize` (token shards) and `tokenizer`.

    Raises:
        CorpusTooSmallError: the token shards do not fill one step.
        InputError: the release to go on from cannot be read, or has another tokenizer.
        ParamsError: the batch cannot be shared out evenly between the ranks.
        TrainingError: a rank failed; running again goes on from the last checkpoint.
    """
    info = read_tokens_info(inputs["tokenize"])
    packing = read_packing(inputs["tokenize"], info.shards, params.seq_len)
    order = make_order(params, info, packing.sequences, manifest_hash(inputs["tokenize"]))
    identity, base = params.in_manifest(), params.base()
    if base is not None and params.start_from is not None:
        check_tokenizer(inputs["tokenizer"], Path(params.start_from))
    device = params.runs_on()
    config = _loop_config(params, info, order, tokens=inputs["tokenize"], device=device)
    if base is not None and params.start_from is not None:
        start = {"start_from": Path(params.start_from).resolve(), "start_sha256": base.weights_sha256}
        config = config.model_copy(update={**start, "context": max(base.context, params.seq_len)})
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
    config = config.model_copy(update={"work": work, "tokenizer": inputs["tokenizer"].resolve(), **places})
    if not (work / RESULT_NAME).is_file():
        packing.save(config.packing)
        _train(params, config)
    trained = order.tokens_seen(packing)
    write_output(output, work, order, inputs["tokenizer"], trained)
    if params.start_from is not None:
        copy_lineage(Path(params.start_from), output / BASE_FOLDER)
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


def check_tokenizer(tokenizer: Path, release: Path) -> None:
    """Raise InputError unless the text was encoded with the tokenizer of the release that training goes on from."""
    own, theirs = sha256_file(tokenizer / TOKENIZER_NAME), sha256_file(checked_file(release, TOKENIZER_NAME))
    if own != theirs:
        raise InputError(
            "the text was encoded with another tokenizer than that of the release to go on from",
            where=str(tokenizer / TOKENIZER_NAME),
            expected=f"SHA-256 {theirs}, as {release / TOKENIZER_NAME}",
            found=own,
            fix="`headwater run` takes the release's tokenizer and encodes the text again",
        )


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
        gradient_accumulation=params.batch_size // params.ranks() // micro_batch,
        ranks=params.ranks(),
    )


_PLACES = {"tokens", "work", "progress", "lock", "meeting", "packing", "offload", "order"}
_PLACES |= {"checkpoint_every_steps", "checkpoint_every_seconds", "checkpoints_kept", "save_in_background"}
_PLACES |= {"threads", "launched_on", "start_from", "tokenizer"}
"""What in a LoopConfig does not decide the result, or stands in the key already; of the threads that follow from the
machine's cores only the last bit does, and a run that was cut off goes on with others."""


def _loop_config(params: Params, info: TokensInfo, order: Order, *, tokens: Path, device: str) -> LoopConfig:
    same = LoopConfig.model_fields.keys() & Params.model_fields.keys() - {
        "precision",
        "threads",
        "strategy",
        "start_from",
    }
    cores = len(os.sched_getaffinity(0))
    return LoopConfig.model_validate(
        {name: getattr(params, name) for name in same}
        | {
            "tokens": tokens.resolve(),
            "context": params.seq_len,
            "tokenizer": Path(os.devnull),
            "work": state_folder() / "train",
            "progress": progress_path(),
            "lock": Path(os.devnull),
            "launched_on": socket.gethostname(),
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
    for old in config.work.glob("launcher-*.lock"):
        old.unlink()
    shutil.rmtree(config.work / "result", ignore_errors=True)
    if finished_checkpoints(config.work / "checkpoints"):
        logger.info("train: an earlier run was cut off; going on from its last checkpoint")
    else:
        write_bytes(config.progress, b"")
    path = config.work / MODEL_CONFIG_NAME
    write_json(path, config.model_dump(mode="json"))
    environment = {
        **params.launch().environment(),
        "OMP_NUM_THREADS": str(config.threads),
        "TORCH_NUM_THREADS": str(config.threads),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "OMP_WAIT_POLICY": "ACTIVE" if params.busy_wait else "PASSIVE",
    }
    # torchrun would else open a store of its own for the ranks, over TCP.
    environment["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    interface = params.interface if params.nodes > 1 else "lo"
    if interface is not None:
        environment |= {"GLOO_SOCKET_IFNAME": interface, "NCCL_SOCKET_IFNAME": interface}
    if config.device == "cpu":
        environment |= {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    if config.strategy.startswith("infinity"):
        config.offload.mkdir(parents=True, exist_ok=True)
    if not can_be_resumed(config.strategy):
        logger.warning("train: %s writes no checkpoints, which DeepSpeed would restore wrongly", config.strategy)
    order = config.order
    logger.info(
        "train: %d steps of %d tokens, %s over the text, on %d %s rank(s)%s, %s, %s",
        *(order.steps, order.batch_size * order.seq_len, _passes(order), order.ranks),
        *(config.device.upper(), f" of {params.nodes} machines" if params.nodes > 1 else ""),
        *(config.strategy, config.precision),
    )
    teller = _Teller(config.progress)

    def start() -> None:
        for pattern in ("meeting-*", "torchrun-*"):
            for old in config.work.glob(pattern):
                old.unlink()
        launch = params.launch()
        command = launch.command(path)
        if launch.by_hand:
            logger.info(
                "train: waiting for %d machine(s) more. On each: %s",
                *(params.nodes - 1, on_other_machines(command, environment, ROOT)),
            )
        run_ranks(command, environment=environment, log=config.work / LOG_NAME, watch=teller)

    with held_lock(config.lock):
        run_until_done(start, work=config.work, restarts=0 if params.launch().by_hand else params.restarts)
    if not (config.work / RESULT_NAME).is_file():
        done = [path.name for path in finished_checkpoints(config.work / "checkpoints")]
        raise TrainingError(
            "training was told to stop before its end",
            where=str(config.work / LOG_NAME),
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
        spikes = sum(json.loads(line).get("spike", False) for line in lines)
        logger.info(
            "train: step %d/%d, loss %.2f%s, %s tokens/s%s, %.0f s left",
            *(row["step"] + 1, row["steps"], row["train_loss"], f" ({spikes} spikes)" if spikes else ""),
            *(f"{row['tokens_per_second']:,}", "" if row["mfu"] is None else f", MFU {row['mfu']:.1%}", row["left"]),
        )
