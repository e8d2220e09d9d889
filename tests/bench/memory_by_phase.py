"""What a rank of `train` holds on a processor in each phase of a step, in bytes a weight: for resident.py's table.

    python -m tests.bench.memory_by_phase zero-3 fp32            # on one rank
    python -m tests.bench.memory_by_phase zero-3 fp32 --ranks 2

The model is large and its batch small, so that nearly all of it is weights, gradients and states. Linux says what was
resident at most since it was last asked, and forgets it when it is told to.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tasks.contracts.workspace import ROOT, child_environment

MODEL = {"layers": 4, "hidden_size": 1024, "heads": 16, "kv_heads": 16, "tie_embeddings": True}
VOCABULARY, SEQ_LEN, STEPS = 8192, 64, 2
LIBRARIES_BYTES = 502e6
"""A rank of a model of no size: what the table's figures are above."""


def main() -> None:
    """Start the ranks; the first prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("strategy")
    parser.add_argument("precision", choices=("fp32", "bf16"))
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.folder:
        be_a_rank(asked.strategy, asked.precision, asked.ranks, asked.folder)
        return
    with tempfile.TemporaryDirectory() as folder:
        base = {"WORLD_SIZE": f"{asked.ranks}", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "DS_ACCELERATOR": "cpu"}
        base |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "GLOO_SOCKET_IFNAME": "lo"}
        command = [sys.executable, "-m", "tests.bench.memory_by_phase", *sys.argv[1:], "--folder", folder]
        ranks = [
            subprocess.Popen(command, cwd=ROOT, env=child_environment({**base, "RANK": f"{n}", "LOCAL_RANK": f"{n}"}))
            for n in range(asked.ranks)
        ]
        sys.exit(max(rank.wait() for rank in ranks))


def be_a_rank(strategy: str, precision: str, ranks: int, folder: Path) -> None:
    """Train two steps, and tell what each phase had."""
    sys.modules["mlflow"] = None  # type: ignore[assignment]
    import deepspeed

    from tests.bench.bench_train import make_tokens
    from training.train import loop, stage
    from training.train.batches import batches
    from training.train.hyperparameters import Params
    from training.train.packing import read_packing

    rank = int(os.environ["RANK"])
    own = folder / str(rank)
    own.mkdir()
    params = Params.model_validate(
        {"model": MODEL, "seq_len": SEQ_LEN, "batch_size": ranks, "num_ranks": ranks, "strategy": strategy,
         "precision": precision, "max_steps": STEPS, "warmup_steps": 0, "device": "cpu"}
    )  # fmt: skip
    weights = params.model.shape(vocab_size=VOCABULARY, seq_len=SEQ_LEN).weights
    info = make_tokens(own, SEQ_LEN * ranks * (STEPS + 2), vocabulary=VOCABULARY)
    packing = read_packing(own, info.shards, SEQ_LEN)
    order = stage.make_order(params, info, packing.sequences, "0" * 64)
    places = {name: own / name for name in ("work", "packing", "progress", "lock", "offload")}
    config = stage._loop_config(params, info, order, tokens=own, device="cpu")
    config = config.model_copy(update={**places, "meeting": folder / "meeting"})
    packing.save(config.packing)
    config.work.mkdir()

    def tell(phase: str) -> None:
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        now, most = (int(status[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))
        Path("/proc/self/clear_refs").write_text("5")
        if rank == 0:
            held = ((each - LIBRARIES_BYTES) / weights for each in (now, most))
            print(f"{phase:9s} now {next(held):6.2f}  most {next(held):6.2f}", flush=True)

    def then_tell(function: Callable[..., Any], phase: str) -> Callable[..., Any]:
        def told(*given: Any, **named: Any) -> Any:
            answer = function(*given, **named)
            tell(phase)
            return answer

        return told

    deepspeed.initialize = then_tell(deepspeed.initialize, "begun")
    trainer = loop.Trainer(config)
    trainer._loss = then_tell(trainer._loss, "forward")  # type: ignore[method-assign]
    trainer.engine.backward = then_tell(trainer.engine.backward, "backward")
    trainer.engine.step = then_tell(trainer.engine.step, "update")
    for batch in batches(0, rank, order, trainer.packing, trainer.stream, config.eos_id):
        trainer._step(batch)


if __name__ == "__main__":
    main()
