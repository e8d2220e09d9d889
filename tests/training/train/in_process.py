"""Run the stage train on one rank in one process, as often as wanted: `python -m ...in_process ROOT`.

Reads ROOT/tokenize, ROOT/tokenizer and, from standard input, one JSON object a run: `name`, perhaps `stop`, a step
after which it is told to stop, `cores`, how many this machine is to have, and `overflows`, whether its gradients are
infinite; settings of the stage beside them. Writes ROOT/NAME, with the state under ROOT/state; prints one
JSON line a run.
"""

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

from tasks.contracts.errors import TrainingError
from tasks.contracts.manifest import manifest_hash
from tasks.contracts.workspace import ROOT, child_environment
from training.train import stage
from training.train.hyperparameters import Params

SMALL: dict[str, Any] = {
    "model": {"layers": 1, "hidden_size": 16, "heads": 2, "kv_heads": 1},
    "seq_len": 16,
    "batch_size": 4,
    "max_steps": 12,
    "warmup_steps": 2,
    "learning_rate": 0.02,
    "validate_every": 6,
    "validation_sequences": 4,
}


def run_here(asked: dict[str, Any], root: Path) -> dict[str, Any]:
    from training.train.loop import Trainer
    from training.train.loop_config import LoopConfig

    name, stop, cores = asked.pop("name"), asked.pop("stop", None), asked.pop("cores", 1)
    factor = math.inf if asked.pop("overflows", False) else 1.0
    went_on_from: list[int] = []

    class Stopping(Trainer):
        def _loss(self, *given: Any) -> tuple[Any, Any]:
            minimised, loss = super()._loss(*given)
            return minimised * factor, loss

        def _report(self, row: dict[str, Any], started: float) -> None:
            super()._report(row, started)
            if row["step"] == stop:
                self.stop_after_step()

    def in_this_process(
        command: list[str], *, environment: Mapping[str, str], log: Path, watch: Callable[[], None]
    ) -> None:
        os.environ.update(environment)
        trainer = Stopping(LoopConfig.model_validate_json(Path(command[-1]).read_bytes()))
        went_on_from.append(trainer.first_step)
        trainer.run()
        watch()

    inputs = {one: root / one for one in ("tokenize", "tokenizer")}
    params = Params.model_validate(SMALL | asked)
    with patch.object(stage, "run_ranks", in_this_process), patch("os.sched_getaffinity", lambda _: range(cores)):
        try:
            stage.run(params=params, inputs=inputs, output=root / name)
        except (TrainingError, FloatingPointError) as error:
            return {"name": name, "from": went_on_from, "said": str(error)}
    return {"name": name, "from": went_on_from, "manifest": manifest_hash(root / name)}


def main() -> None:
    root = Path(sys.argv[1])
    alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    os.environ.update(alone | {"HEADWATER_STATE": str(root / "state")})
    sys.modules["mlflow"] = None  # type: ignore[assignment]
    for line in sys.stdin:
        sys.stdout.write(json.dumps(run_here(json.loads(line), root)) + "\n")


def in_another_process(root: Path, runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Make the runs, one after the other, in a process of their own; return what each gave."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.training.train.in_process", str(root)],
        input="".join(json.dumps(one) + "\n" for one in runs),
        capture_output=True,
        text=True,
        env=child_environment(),
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


if __name__ == "__main__":
    main()
