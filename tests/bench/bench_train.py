"""Training: tokens a second of the trainer beside a plain PyTorch loop and a minimal one, in turns in one process.

    python -m tests.bench.bench_train --layers 2 --width 192 --strategies ddp zero-3

The plain loop takes the same transformers model, torch's AdamW and clipping, and batches that lie ready in memory. The
minimal one has a Llama of its own in forty lines (no transformers). What the trainer does besides (reading and hashing
batches, logging, the agreement of ranks) is its own cost, and so is DeepSpeed. The losses show that all make the same
steps.

Of the ratios to the better of the two, one is of the best turns, one the median of all turns, and one of processor
time, which other work on the machine changes least. After that a run of the whole stage, as users start it, says how
long it took outside its steps: to start processes, load PyTorch, build the model, write it and end.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from tasks.contracts.tokens import TokenRange, TokenShard, TokensInfo, write_index
from tasks.contracts.workspace import progress_path
from tests.training.train import token_folders
from training.train import stage
from training.train.batches import read_batch
from training.train.hyperparameters import Params
from training.train.model import build_model
from training.train.optimizers import make_optimizer
from training.train.packing import IGNORED, read_packing

VOCABULARY = 4096
STEPS_A_TURN = 5


def main() -> None:
    """Print tokens a second and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--sequence", type=int, default=256)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--turns", type=int, default=8)
    parser.add_argument("--strategies", nargs="*", default=["ddp", "zero-3"])
    asked = parser.parse_args()
    alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    os.environ.update(alone | {"DS_ACCELERATOR": "cpu"})
    sys.modules["mlflow"] = None  # type: ignore[assignment]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HEADWATER_STATE"] = folder
        run(asked, Path(folder))
        for strategy in asked.strategies:
            clock, busy = outside_steps(strategy, Path(folder) / f"outside-{strategy}")
            print(f"{strategy}: {clock:.1f} s outside the steps, {busy:.1f} s of processor time in all")


def run(asked: argparse.Namespace, folder: Path) -> None:
    """Time every loop in turns."""
    steps = (asked.turns + 1) * STEPS_A_TURN
    info = make_tokens(folder, asked.sequence * asked.batch * steps)
    packing = read_packing(folder, info.shards, asked.sequence)
    size = {"layers": asked.layers, "hidden_size": asked.width, "heads": asked.width // 32, "kv_heads": 2}
    loops: dict[str, Iterator[float]] = {}
    for strategy in asked.strategies:
        params = Params.model_validate(
            {"model": size, "seq_len": asked.sequence, "batch_size": asked.batch, "strategy": strategy,
             "max_steps": steps, "validate_every": steps * 2, "device": "cpu"}
        )  # fmt: skip
        loops[strategy] = trainer_loop(params, info, packing, folder)
    loops["plain"] = plain_loop(params, info, packing, folder, lambda config: build_model(config, seed=params.seed))
    loops["minimal"] = plain_loop(params, info, packing, folder, lambda config: Minimal(config, params.seed))
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    busy: dict[str, list[float]] = {name: [] for name in loops}
    losses: dict[str, float] = {}
    for turn in range(asked.turns + 1):
        for name, loop in loops.items():
            started, began = time.perf_counter(), time.process_time()
            for _ in range(STEPS_A_TURN):
                losses[name] = next(loop)
            if turn:  # the first is for warming up
                seconds[name].append((time.perf_counter() - started) / STEPS_A_TURN)
                busy[name].append((time.process_time() - began) / STEPS_A_TURN)
    tokens = asked.batch * asked.sequence
    best = min(min(seconds["plain"]), min(seconds["minimal"]))
    threads, load = torch.get_num_threads(), os.getloadavg()[0]
    print(f"{asked.layers} layers of {asked.width}, {tokens} tokens a step, {threads} threads, load {load}")
    titles = ("tokens/s", "median", "of best", "median", "processor", "last loss")
    print(f"{'loop':10s}", *(f"{title:>9s}" for title in titles))
    for name, taken in seconds.items():
        speeds = f"{tokens / min(taken):9,.0f} {tokens / statistics.median(taken):9,.0f}"
        ratios = f"{best / min(taken):9.3f} {in_turns(seconds, name):9.3f} {in_turns(busy, name):9.3f}"
        print(f"{name:10s}", speeds, ratios, f"{losses[name]:9.6f}")


def in_turns(taken: dict[str, list[float]], name: str) -> float:
    """Return how fast a loop is beside the better of the two it is held against, each by the median over the turns."""
    peers = (zip(taken[peer], taken[name], strict=True) for peer in ("plain", "minimal"))
    return min(statistics.median(theirs / own for theirs, own in turns) for turns in peers)


def outside_steps(strategy: str, folder: Path) -> tuple[float, float]:
    """Run the stage as users do; return its seconds outside the steps, and those of processor time of its processes."""
    folder.mkdir()
    token_folders.make_tokens(folder)
    small = {"seq_len": 16, "batch_size": 4, "max_steps": 4, "warmup_steps": 0, "device": "cpu", "strategy": strategy}
    inputs = {name: folder / name for name in ("tokenize", "tokenizer")}
    os.environ["HEADWATER_STATE"] = str(folder / "state")
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    stage.run(params=Params.model_validate(small), inputs=inputs, output=folder / "train")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    told = json.loads(progress_path().read_text().splitlines()[-1])
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.monotonic() - started - told["elapsed"], busy


def make_tokens(folder: Path, tokens: int, vocabulary: int = VOCABULARY) -> TokensInfo:
    """Write one token shard of documents of 40 to 900 tokens."""
    random = np.random.default_rng(1)
    lengths = random.integers(40, 900, tokens // 300 + 100)
    ids = (random.zipf(1.3, int(lengths.sum())) % vocabulary).astype("<u2")
    ids.tofile(folder / "part-00000.bin")
    starts = np.cumsum(lengths) - lengths
    ranges = (
        TokenRange(doc_id=str(start), url="", epoch=1, offset=int(start), length=int(length), bytes=1)
        for start, length in zip(starts, lengths, strict=True)
    )
    write_index(folder / "part-00000.parquet", ranges)
    return TokensInfo(
        dtype="uint16",
        vocab_size=vocabulary,
        eos_id=0,
        tokens=len(ids),
        shards=(TokenShard(name="part-00000.bin", tokens=len(ids)),),
        documents=len(lengths),
        bytes=len(ids),
        validation_tokens=0,
        validation_bytes=0,
    )


def trainer_loop(params: Params, info: TokensInfo, packing: Any, folder: Path) -> Iterator[float]:
    """Yield the losses of the trainer as it is, a step each."""
    from training.train import loop
    from training.train.batches import batches

    work = folder / params.strategy
    work.mkdir()
    order = stage.make_order(params, info, packing.sequences, "0" * 64)
    config = stage._loop_config(params, info, order, tokens=folder, device="cpu").model_copy(
        update={"work": work, "packing": work / "packing", "meeting": folder / "meeting", "progress": work / "progress"}
    )
    packing.save(config.packing)
    trainer = loop.Trainer(config)
    started = time.monotonic()
    for batch in batches(0, 0, order, trainer.packing, trainer.stream, config.eos_id):
        value = trainer._step(batch)
        trainer._report(
            {"step": batch.step, "train_loss": value, "validation_loss": None, "learning_rate": 0.0}, started
        )
        yield value


def plain_loop(
    params: Params, info: TokensInfo, packing: Any, folder: Path, build: Callable[[Any], Any]
) -> Iterator[float]:
    """Yield the losses of a loop as one would write it by hand."""
    from training.train.model import model_config
    from training.train.packing import TokenStream

    order = stage.make_order(params, info, packing.sequences, "0" * 64)
    stream = TokenStream(folder, info.shards, info.dtype)
    config = model_config(params.model, vocab_size=info.vocab_size, seq_len=params.seq_len, eos_id=info.eos_id)
    model = build(config)
    optimizer = make_optimizer(
        model.named_parameters(),
        optimizer="adamw",
        learning_rate=params.learning_rate,
        betas=params.betas,
        weight_decay=params.weight_decay,
    )
    rows = [read_batch(step, 0, order, packing, stream, info.eos_id).rows for step in range(order.steps)]
    ready = [(torch.from_numpy(r.tokens.astype(np.int64)), torch.from_numpy(r.targets)) for r in rows]
    for tokens, targets in ready:
        answer = model(tokens[:, :-1])
        logits = getattr(answer, "logits", answer).flatten(0, 1)
        loss = functional.cross_entropy(logits, targets.flatten(), ignore_index=IGNORED)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), params.gradient_clipping)
        optimizer.step()
        optimizer.zero_grad()
        yield float(loss)


class Minimal(torch.nn.Module):
    """Llama without transformers: the same function and the same first weights, taken from transformers' model."""

    def __init__(self, config: Any, seed: int) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.layers = (
            config.num_attention_heads,
            config.num_key_value_heads,
            config.num_hidden_layers,
        )
        weights = build_model(config, seed=seed).state_dict()
        names = {name.removeprefix("model.").replace(".", "_"): value for name, value in weights.items()}
        self.w = torch.nn.ParameterDict(
            {n: torch.nn.Parameter(v.clone()) for n, v in names.items() if "lm_head" not in n}
        )
        width = config.hidden_size // self.heads
        angles = torch.outer(
            torch.arange(config.max_position_embeddings).float(),
            1.0 / config.rope_parameters["rope_theta"] ** (torch.arange(0, width, 2).float() / width),
        )
        self.cos, self.sin = torch.cat([angles, angles], -1).cos(), torch.cat([angles, angles], -1).sin()

    def forward(self, tokens_bs: torch.Tensor) -> torch.Tensor:
        """Return logits (b, s, v)."""
        x, w, size = functional.embedding(tokens_bs, self.w["embed_tokens_weight"]), self.w, tokens_bs.shape[1]
        for i in range(self.layers):
            at = f"layers_{i}_"
            h = functional.rms_norm(x, x.shape[-1:], w[f"{at}input_layernorm_weight"], 1e-6)
            q, k, v = (
                functional.linear(h, w[f"{at}self_attn_{n}_proj_weight"])
                .view(len(x), size, self.heads if n == "q" else self.kv_heads, -1)
                .transpose(1, 2)
                for n in "qkv"
            )
            q, k = self._rotated(q, size), self._rotated(k, size)
            a = functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
            x = x + functional.linear(a.transpose(1, 2).flatten(2), w[f"{at}self_attn_o_proj_weight"])
            h = functional.rms_norm(x, x.shape[-1:], w[f"{at}post_attention_layernorm_weight"], 1e-6)
            gate, up = (functional.linear(h, w[f"{at}mlp_{n}_proj_weight"]) for n in ("gate", "up"))
            x = x + functional.linear(functional.silu(gate) * up, w[f"{at}mlp_down_proj_weight"])
        return functional.linear(functional.rms_norm(x, x.shape[-1:], w["norm_weight"], 1e-6), w["embed_tokens_weight"])

    def _rotated(self, x: torch.Tensor, size: int) -> torch.Tensor:
        half = x.shape[-1] // 2
        return x * self.cos[:size] + torch.cat([-x[..., half:], x[..., :half]], -1) * self.sin[:size]


if __name__ == "__main__":
    main()
