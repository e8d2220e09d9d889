"""Training on one GPU: tokens a second, MFU and peak memory, with each technique and without, beside what is planned.

    python -m tests.bench.bench_gpu --models 125m 350m 1.3b --steps 30

Each row is the stage train as it is, in processes of its own, on random tokens. Tokens a second are those of the second
half of the steps, by the trainer's own clock. `--device cpu --models tiny` tries the script where there is no GPU.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tasks.contracts.durable_files import write_json
from tasks.contracts.manifest import Counts, commit_manifest
from tasks.contracts.workspace import ROOT, child_environment
from tests.bench.bench_recipe import TRAIN
from tests.bench.bench_train import VOCABULARY, make_tokens
from training.plan.memory import memory
from training.plan.resident import resident_bytes
from training.plan.speed import tokens_per_second
from training.train.hyperparameters import Params

TECHNIQUES: dict[str, dict[str, Any]] = {
    "as it is": {},
    "activation checkpointing": {"activation_checkpointing": True},
    "loss in pieces": {"loss_piece_tokens": 1024},
    "AdamW in 8 bits": {"optimizer": "adamw-8bit"},
    "documents masked": {"mask_documents": True},
    "optimizer on the host": {"strategy": "zero-2-offload"},
    "all on the host": {"strategy": "zero-3-offload", "activation_checkpointing": True},
}
"""Settings of the stage train that differ from the first row's."""
COLUMNS = ("tokens/s", "planned", "MFU", "peak MiB", "planned")


def main() -> None:
    """Print a row for each model and technique."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=["125m", "350m", "1.3b"])
    parser.add_argument("--techniques", nargs="*", default=list(TECHNIQUES), choices=TECHNIQUES)
    parser.add_argument("--device", choices=["gpu", "cpu"], default="gpu")
    parser.add_argument("--sequence", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=30)
    asked = parser.parse_args()
    print(f"{'model':8s} {'technique':26s}", *(f"{name:>10s}" for name in COLUMNS))
    for model in asked.models:
        for name in asked.techniques:
            settings = {
                "model": model, "seq_len": asked.sequence, "batch_size": asked.batch, "max_steps": asked.steps,
                "warmup_steps": asked.steps // 2, "validate_every": asked.steps, "device": asked.device,
                "checkpoint_every_seconds": 1e6, "checkpoint_every_steps": asked.steps + 1, **TECHNIQUES[name],
            }  # fmt: skip
            print(f"{model:8s} {name:26s} {measure(settings)}", flush=True)


def measure(settings: dict[str, Any]) -> str:
    """Return the figures of one run; why there are none, where it did not come to its end."""
    params = Params.model_validate(settings | {"vocabulary": VOCABULARY})
    if faults := list(params.faults()):
        return str(faults[0]).partition("\n")[0]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in ("tokenize", "tokenizer"):
            (root / name).mkdir()
        info = make_tokens(root / "tokenize", params.seq_len * params.batch_size * (params.max_steps or 1) * 2)
        (root / "tokenize/validation.bin").touch()
        write_json(root / "tokenize/tokens.json", info.model_dump(mode="json"))
        write_json(root / "tokenizer/tokenizer_config.json", {})
        for name in ("tokenize", "tokenizer"):
            none = Counts(in_=0, out=0)
            commit_manifest(root / name, stage=name, unit="tokens", params={}, inputs={}, counts=none)
        command = [sys.executable, "-c", TRAIN, str(root), str(root / "train"), json.dumps(settings)]
        environment = child_environment({"HEADWATER_STATE": folder})
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            return "failed: " + done.stderr.strip().splitlines()[-1][:100]
        rows = [json.loads(line) for line in (root / "train/progress.jsonl").read_text().splitlines()]
    half, last = rows[len(rows) // 2], rows[-1]
    tokens = (last["step"] - half["step"]) * params.batch_size * params.seq_len
    speed = tokens / (last["elapsed"] - half["elapsed"])
    run = params.planned(params.chosen_strategy())
    planned = resident_bytes(run) if params.device == "cpu" else memory(run).device
    mfu = "" if last["mfu"] is None else f"{last['mfu']:.1%}"
    expected = f"{tokens_per_second(run):,.0f}" if params.device == "gpu" else ""
    peak = max(row["peak_memory_mib"] for row in rows)
    told = (f"{speed:,.0f}", expected, mfu, f"{peak:,d}", f"{planned / 2**20:,.0f}")
    return " ".join(f"{one:>10s}" for one in told)


if __name__ == "__main__":
    main()
