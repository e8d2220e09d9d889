"""The trainer's peak memory on the processor, beside what the plan says of it.

    python -m tests.bench.bench_memory                 # all configurations: half an hour on two cores
    python -m tests.bench.bench_memory --only 3 17     # some of them
    python -m tests.bench.bench_memory --write         # keeps them in training/plan/measured.json

Each configuration trains two steps, writes a checkpoint and hands its weights over, as `train` has its ranks do it
(training/train/loop.py), each rank in a process of its own that says at its end what it had resident at most.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.contracts.durable_files import write_json
from tasks.contracts.workspace import ROOT, child_environment

MEASURED = ROOT / "training/plan/measured.json"
PEAK_NAME = "peak.json"
COUNT = 60
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


def configurations() -> list[dict[str, Any]]:
    """Return settings of the stage train, and `vocabulary`: each way on one rank and on two, in sizes drawn."""
    drawn = random.Random(14)
    made: list[dict[str, Any]] = []
    while len(made) < COUNT:
        strategy, precision = WAYS[len(made) % len(WAYS)]
        ranks = 1 + len(made) // len(WAYS) % 2
        one = _draw(drawn, strategy, precision, ranks)
        if one is not None:
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
    """Train a configuration in fresh processes; return what each phase had resident at most, in bytes.

    Returns:
        `steps`: of the first rank up to its last step; `peak`: of the rank that had most, to its end.
    """
    from tests.bench.bench_train import make_tokens
    from training.train import stage
    from training.train.packing import read_packing
    from training.train.ranks import held_lock

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        given = {key: value for key, value in settings.items() if key != "vocabulary"}
        rest = {"max_steps": STEPS, "warmup_steps": 0, "checkpoint_every_steps": 1, "device": "cpu"}
        params = stage.Params.model_validate({**given, **rest})
        tokens = params.seq_len * params.batch_size * (STEPS + 1)
        info = make_tokens(folder, tokens, vocabulary=int(settings["vocabulary"]))
        packing = read_packing(folder, info.shards, params.seq_len)
        order = stage.make_order(params, info, packing.sequences, "0" * 64)
        places = {one: folder / one for one in ("work", "packing", "meeting", "progress", "lock", "offload")}
        config = stage._loop_config(params, info, order, tokens=folder, device="cpu").model_copy(update=places)
        packing.save(config.packing)
        (folder / "work").mkdir()
        write_json(folder / "config.json", config.model_dump(mode="json"))
        with held_lock(config.lock):
            ranks = [_start(folder, rank, params.num_ranks, config.threads) for rank in range(params.num_ranks)]
            said = [process.communicate()[1] for process in ranks]
        if any(process.returncode for process in ranks):
            raise RuntimeError("\n".join(said)[-4000:])
        peaks = [json.loads((folder / f"{PEAK_NAME}-{rank}").read_bytes()) for rank in range(params.num_ranks)]
        rows = [json.loads(line) for line in config.progress.read_text().splitlines()]
    return {"steps": max(row["peak_memory_mib"] for row in rows) * 2**20, "peak": max(peaks)}


def _start(folder: Path, rank: int, ranks: int, threads: int) -> subprocess.Popen[str]:
    environment = {"RANK": f"{rank}", "LOCAL_RANK": f"{rank}", "WORLD_SIZE": f"{ranks}", "MASTER_ADDR": "127.0.0.1"}
    environment |= {"MASTER_PORT": "0", "DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    environment |= {"OMP_NUM_THREADS": f"{threads}", "OMP_WAIT_POLICY": "PASSIVE", "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, "-m", "tests.bench.bench_memory", "--rank", str(folder)]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=child_environment(environment),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def be_a_rank(folder: Path) -> None:
    """Run one rank as `train` does, then write what it had resident at most."""
    from training.train import loop

    sys.argv = [sys.argv[0], str(folder / "config.json")]
    loop.main()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIB
    (folder / f"{PEAK_NAME}-{os.environ['RANK']}").write_text(f"{peak}")


def main() -> None:
    """Measure, and print each row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=int, nargs="*")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--rank", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.rank:
        be_a_rank(asked.rank)
        return
    for number, settings in enumerate(configurations()):
        if asked.only is None or number in asked.only:
            print(number, json.dumps(settings), json.dumps(measure(settings)), flush=True)


if __name__ == "__main__":
    main()
