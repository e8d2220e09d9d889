"""The trainer's memory, beside what the plan says of it.

    python -m tests.bench.bench_memory resident            # on this processor: an hour on two cores
    python -m tests.bench.bench_memory resident --only 3 17
    python -m tests.bench.bench_memory tracked             # of FSDP2 on 2 to 64 ranks, by fake tensors: ten minutes

`resident`: each configuration trains two steps, writes a checkpoint and hands its weights over, as `train` has ranks
do it (training/train/loop.py), each rank in a process of its own that says at its end what it had resident at most.
`--write FILE` keeps the rows, as tests/training/plan/resident.json and tracked.json have them.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tasks.contracts.durable_files import write_json
from tasks.contracts.workspace import ROOT, child_environment

PEAK_NAME = "peak.json"
COUNTS = {"resident": 60, "tracked": 150}
STEPS = 2
KIB = 1024
ENOUGH_BYTES, MOST_BYTES = 0.6e9, 3.5e9
"""What a configuration is to need beside the libraries, by a rough count of all of its states and activations."""
MOST_OPERATIONS = 2.5e11
WAYS = (
    *(("ddp", "fp32"), ("zero-1", "fp32"), ("zero-1", "bf16"), ("zero-2", "fp32"), ("zero-2", "bf16")),
    *(("zero-3", "fp32"), ("zero-3", "bf16"), ("zero-2-offload", "bf16"), ("zero-3-offload", "fp32")),
    *(("zero-2-offload", "fp32"), ("zero-3-offload", "bf16"), ("ddp", "fp32")),
)


def resident_configurations() -> list[dict[str, Any]]:
    """Return settings of the stage train: each way on one rank and on two, in sizes that are drawn."""
    drawn = random.Random(14)
    made: list[dict[str, Any]] = []
    while len(made) < COUNTS["resident"]:
        strategy, precision = WAYS[len(made) % len(WAYS)]
        ranks = 1 + len(made) // len(WAYS) % 2
        if (one := _draw(drawn, strategy, precision, ranks)) is not None:
            made.append(one)
    return made


def _draw(drawn: random.Random, strategy: str, precision: str, ranks: int) -> dict[str, Any] | None:
    """Return a configuration, or None where what was drawn is too small, too large or too slow to be measured."""
    width, layers = drawn.choice((256, 384, 512, 768, 1024, 1280)), drawn.choice((2, 3, 4, 6, 8, 12))
    vocabulary, seq_len = drawn.choice((2048, 4096, 8192, 16384, 32768, 50304)), drawn.choice((64, 128, 256, 512, 1024))
    micro_batch, accumulation = drawn.choice((1, 2, 4, 8)), drawn.choice((1, 1, 1, 2))
    checkpointing, gpt2 = drawn.random() < 0.3, drawn.random() < 0.15
    heads = width // 64
    model: dict[str, Any] = {"layers": layers, "hidden_size": width, "heads": heads}
    model |= {"tie_embeddings": drawn.random() < 0.7}
    model |= {"family": "gpt2"} if gpt2 else {"kv_heads": drawn.choice([n for n in (1, 2, 4, heads) if heads % n == 0])}
    tokens = seq_len * micro_batch
    weights = 12 * layers * width**2 + width * vocabulary
    needed = 14 * weights + tokens * (4.0 * vocabulary * 3 + (0 if checkpointing else 90.0) * layers * width)
    operations = 6.0 * weights * tokens * accumulation
    if not ENOUGH_BYTES < needed < MOST_BYTES / ranks**0.5 or operations > MOST_OPERATIONS:
        return None
    return {
        "model": model,
        "vocabulary": vocabulary,
        "seq_len": seq_len,
        "batch_size": micro_batch * accumulation * ranks,
        "gradient_accumulation": accumulation,
        "num_ranks": ranks,
        "strategy": strategy,
        "precision": precision,
        "activation_checkpointing": checkpointing,
        "optimizer": "muon" if strategy == "ddp" and drawn.random() < 0.4 else "adamw",
    }


def measure(settings: Mapping[str, Any]) -> dict[str, int]:
    """Train a configuration in fresh processes; return `peak`, what the rank that had most had resident, in bytes."""
    from tests.bench.bench_train import make_tokens
    from training.train import stage
    from training.train.hyperparameters import Params
    from training.train.packing import read_packing
    from training.train.ranks import held_lock

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rest = {"max_steps": STEPS, "warmup_steps": 0, "checkpoint_every_steps": 1, "device": "cpu"}
        params = Params.model_validate({**settings, **rest})
        info = make_tokens(folder, params.seq_len * params.batch_size * (STEPS + 1), vocabulary=params.vocabulary)
        packing = read_packing(folder, info.shards, params.seq_len)
        order = stage.make_order(params, info, packing.sequences, "0" * 64)
        places = {one: folder / one for one in ("work", "packing", "meeting", "progress", "lock", "offload")}
        config = stage._loop_config(params, info, order, tokens=folder, device="cpu").model_copy(update=places)
        packing.save(config.packing)
        config.work.mkdir()
        write_json(folder / "config.json", config.model_dump(mode="json"))
        with held_lock(config.lock):
            ranks = [_start(folder, rank, params.num_ranks, config.threads) for rank in range(params.num_ranks)]
            said = [process.communicate()[1] for process in ranks]
        if any(process.returncode for process in ranks):
            raise RuntimeError("\n".join(said)[-4000:])
        return {
            "peak": max(int((folder / f"{PEAK_NAME}-{rank}").read_text()) for rank in range(params.num_ranks)),
        }


def _start(folder: Path, rank: int, ranks: int, threads: int) -> subprocess.Popen[str]:
    environment = {"RANK": f"{rank}", "LOCAL_RANK": f"{rank}", "WORLD_SIZE": f"{ranks}", "MASTER_ADDR": "127.0.0.1"}
    environment |= {"MASTER_PORT": "0", "DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    environment |= {"OMP_NUM_THREADS": f"{threads}", "OMP_WAIT_POLICY": "PASSIVE", "GLOO_SOCKET_IFNAME": "lo"}
    return subprocess.Popen(
        [sys.executable, "-m", "tests.bench.bench_memory", "rank", str(folder)],
        cwd=ROOT,
        env=child_environment(environment),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def be_a_rank(folder: Path) -> None:
    """Run one rank as `train` does, then write what it had resident at most."""
    from training.train import loop

    os.fsync = os.fstat  # type: ignore[assignment] # no power is cut
    sys.argv = [sys.argv[0], str(folder / "config.json")]
    loop.main()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIB
    (folder / f"{PEAK_NAME}-{os.environ['RANK']}").write_text(f"{peak}")


def tracked_configurations() -> list[dict[str, Any]]:
    """Return models and batches for FSDP2 on several ranks, drawn."""
    drawn = random.Random(15)
    made = []
    for _ in range(COUNTS["tracked"]):
        width, layers = drawn.choice((256, 384, 512, 768, 1024, 1536, 2048)), drawn.choice((2, 3, 4, 6, 8))
        heads = width // 64
        gpt2 = drawn.random() < 0.2
        model: dict[str, Any] = {"layers": layers, "hidden_size": width, "heads": heads}
        model |= {"tie_embeddings": drawn.random() < 0.5}
        grouped = [number for number in (1, 2, 4, heads) if heads % number == 0]
        model |= {"family": "gpt2"} if gpt2 else {"kv_heads": drawn.choice(grouped)}
        made.append(
            {
                "model": model,
                "vocabulary": drawn.choice((2048, 8192, 32000, 50304, 128256)),
                "seq_len": drawn.choice((256, 512, 1024, 2048, 4096)),
                "micro_batch": drawn.choice((1, 2, 4)),
                "ranks": drawn.choice((2, 4, 8, 16, 64)),
                "activation_checkpointing": drawn.random() < 0.4,
            }
        )
    return made


def track(settings: Mapping[str, Any]) -> dict[str, int]:
    """Do a step with fake tensors; return what a rank held, in bytes."""
    from training.train.dry_run import dry_run
    from training.train.model import ModelSize

    tracked = dry_run(
        ModelSize.model_validate(settings["model"]),
        vocab_size=settings["vocabulary"],
        seq_len=settings["seq_len"],
        micro_batch=settings["micro_batch"],
        ranks=settings["ranks"],
        checkpointing=settings["activation_checkpointing"],
    )
    figures = asdict(tracked)
    return {"states": tracked.states, **{name: figures[name] for name in ("activations", "gathered", "peak")}}


def main() -> None:
    """Measure, and print each row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("resident", "tracked", "rank"))
    parser.add_argument("folder", type=Path, nargs="?", help=argparse.SUPPRESS)
    parser.add_argument("--only", type=int, nargs="*", help="numbers of configurations")
    parser.add_argument("--write", type=Path, help="file that keeps the rows")
    asked = parser.parse_args()
    if asked.what == "rank":
        be_a_rank(asked.folder)
        return
    configurations, do = KINDS[asked.what]
    rows = []
    for number, settings in enumerate(configurations()):
        if asked.only is None or number in asked.only:
            rows.append(settings | do(settings))
            print(number, json.dumps(rows[-1]), flush=True)
    if asked.write:
        today, machine = datetime.datetime.now(datetime.UTC).date().isoformat(), platform.machine()
        kept: dict[str, Any] = {"date": today, "machine": f"{machine}, {os.cpu_count()} cores", "rows": rows}
        write_json(asked.write, kept)


KINDS: dict[str, tuple[Callable[[], list[dict[str, Any]]], Callable[[Mapping[str, Any]], dict[str, int]]]] = {
    "resident": (resident_configurations, measure),
    "tracked": (tracked_configurations, track),
}


if __name__ == "__main__":
    main()
