"""The recipe: how many steps another recipe needs to the held-out loss with which AdamW ends, over seeds.

    python -m tests.bench.bench_recipe data --seeds 5 --steps 200 --recipes adamw muon muon-norm

`data` is a workspace's data/, run until `tokenize`; without it the script is only tried, on random tokens. Every run is
the stage train as it is, with the same tokens, batch, schedule and budget of steps; only what a recipe names differs. A
recipe's curve of held-out losses is read where it crosses the mean of AdamW's last ones. The test is Welch's t-test of
the last losses.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import ttest_ind  # type: ignore[import-untyped]

from tasks.contracts.tokens import read_tokens_info
from tasks.contracts.workspace import ROOT, child_environment
from tests.training.train.token_folders import make_tokens

RECIPES: dict[str, dict[str, Any]] = {
    "adamw": {},
    "adamw-2x": {"learning_rate": 2e-3},
    "adamw-norm": {"qk_norm": True},
    "muon": {"optimizer": "muon"},
    "muon-2x": {"optimizer": "muon", "learning_rate": 2e-3},
    "muon-4x": {"optimizer": "muon", "learning_rate": 4e-3},
    "muon-norm": {"optimizer": "muon", "qk_norm": True, "residual_projections": "zero"},
    "muon-norm-2x": {"optimizer": "muon", "learning_rate": 2e-3, "qk_norm": True, "residual_projections": "zero"},
    "muon-norm-4x": {"optimizer": "muon", "learning_rate": 4e-3, "qk_norm": True, "residual_projections": "zero"},
}
"""Settings of the stage train, or of its model, that differ from the asked ones."""
OF_MODEL = {"qk_norm", "residual_projections"}
TRAIN = """
import json, sys
from pathlib import Path
from training.train.hyperparameters import Params
from training.train.stage import run
data = Path(sys.argv[1])
run(params=Params.model_validate(json.loads(sys.argv[3])), output=Path(sys.argv[2]),
    inputs={name: data / name for name in ("tokenize", "tokenizer")})
"""


def main() -> None:
    """Print a row a run, then the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--sequence", type=int, default=256)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--recipes", nargs="*", default=["adamw", "muon", "muon-norm"], choices=RECIPES)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if asked.data is None:
            make_tokens(Path(folder))
            asked.data = Path(folder)
        compare(asked)


def compare(asked: argparse.Namespace) -> None:
    """Train every recipe with every seed, and print what came of it."""
    info = read_tokens_info(asked.data / "tokenize")
    per_byte = info.validation_tokens / info.validation_bytes / math.log(2)
    curves: dict[str, list[dict[int, float]]] = {name: [] for name in asked.recipes}
    for seed in range(1, asked.seeds + 1):
        for name in asked.recipes:
            curve, seconds = train(asked, RECIPES[name], seed)
            curves[name].append({step: loss * per_byte for step, loss in curve.items()})
            last = curves[name][-1][max(curve)]
            print(f"seed {seed}  {name:14s} {last:.4f} bits a byte held out, {seconds:.0f} s", flush=True)
    table(curves)


def train(asked: argparse.Namespace, recipe: dict[str, Any], seed: int) -> tuple[dict[int, float], float]:
    """Return the held-out losses of a run by step, and the seconds that its steps took."""
    size = {"layers": asked.layers, "hidden_size": asked.width, "heads": asked.width // 32, "kv_heads": 2}
    settings: dict[str, Any] = {
        "seed": seed, "seq_len": asked.sequence, "batch_size": asked.batch, "max_steps": asked.steps, "epochs": 100,
        "warmup_steps": asked.steps // 10, "validate_every": max(1, asked.steps // 20), "threads": asked.threads,
        "device": "cpu", "model": size | {name: value for name, value in recipe.items() if name in OF_MODEL},
    }  # fmt: skip
    settings |= {name: value for name, value in recipe.items() if name not in OF_MODEL}
    settings["final_learning_rate"] = 0.3 * settings.get("learning_rate", 1e-3)
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "train")
        command = [sys.executable, "-c", TRAIN, str(asked.data.resolve()), str(output), json.dumps(settings)]
        environment = child_environment({"HEADWATER_STATE": folder, "OMP_NUM_THREADS": str(asked.threads)})
        subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
        rows = list(csv.DictReader((output / "loss.csv").open()))
        progress = [json.loads(line) for line in Path(folder, "train/progress.jsonl").read_text().splitlines()]
    return {int(row["step"]) + 1: float(row["validation_loss"]) for row in rows if row["validation_loss"]}, progress[
        -1
    ]["elapsed"]


def table(curves: dict[str, list[dict[int, float]]]) -> None:
    """Print, for each recipe, its last losses and the steps it needs to those of the first."""
    first = next(iter(curves))
    goal = float(np.mean([curve[max(curve)] for curve in curves[first]]))
    print(f"\n{'recipe':14s} {'bits a byte':>12s} {'spread':>8s} {'steps to the first':>20s} {'p':>9s}")
    for name, runs in curves.items():
        last = np.array([curve[max(curve)] for curve in runs])
        ratios = [crossing(curve, goal) for curve in runs]
        reached = [ratio for ratio in ratios if ratio is not None]
        steps = f"{np.mean(reached):.3f} ({len(reached)} of {len(runs)})" if reached else f"never (0 of {len(runs)})"
        others = np.array([curve[max(curve)] for curve in curves[first]])
        p = "" if name == first or len(runs) < 2 else f"{ttest_ind(last, others, equal_var=False).pvalue:.2g}"
        print(f"{name:14s} {last.mean():12.4f} {last.std(ddof=min(1, len(last) - 1)):8.4f} {steps:>20s} {p:>9s}")


def crossing(curve: dict[int, float], goal: float) -> float | None:
    """Return at which part of all steps a curve first comes to a loss, between two measurements on a line.

    >>> crossing({10: 3.0, 20: 2.0, 40: 1.0}, 2.5)
    0.375
    """
    steps = sorted(curve)
    for before, after in itertools.pairwise(steps):
        if curve[after] <= goal < curve[before]:
            part = (curve[before] - goal) / (curve[before] - curve[after])
            return float((before + part * (after - before)) / steps[-1])
    return None


if __name__ == "__main__":
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    main()
