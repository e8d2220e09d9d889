"""A real run on two ranks, once undisturbed, once killed and taken up again, by either launcher: the same bytes."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tasks.contracts.manifest import manifest_hash
from tasks.contracts.workspace import ROOT
from tests.training.train.token_folders import make_tokens

TRAIN = """
import sys
from pathlib import Path
from training.train.hyperparameters import Params
from training.train.stage import run
size = {"layers": 1, "hidden_size": 16, "heads": 2, "kv_heads": 1}
params = Params(model=size, seq_len=16, batch_size=4, num_ranks=2, validate_every=20, validation_sequences=4,
                launcher=sys.argv[2], checkpoint_every_steps=int(sys.argv[3]))
run(params=params, inputs={n: Path(n) for n in ("tokenize", "tokenizer")}, output=Path(sys.argv[1]))
"""


def start(root: Path, output: str, state: str, launcher: str = "torchrun", every: int = 5) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HEADWATER_STATE": str(root / state)}
    return subprocess.Popen([sys.executable, "-c", TRAIN, output, launcher, str(every)], cwd=root, env=environment)


def processes_with(text: str) -> list[bytes]:
    return subprocess.run(["pgrep", "-f", text], capture_output=True, check=False).stdout.split()


def finish(process: subprocess.Popen[bytes]) -> set[str]:
    """Wait for a run to end well; return the addresses at which it and its ranks listened meanwhile."""
    addresses = set()
    while process.poll() is None:
        with suppress(psutil.NoSuchProcess):
            owner = psutil.Process(process.pid)
            for part in (owner, *owner.children(recursive=True)):
                lines = part.net_connections("inet")
                addresses |= {line.laddr.ip for line in lines if line.status == psutil.CONN_LISTEN}
        time.sleep(0.2)
    assert process.returncode == 0
    return addresses


@pytest.mark.e2e
def test_a_run_that_was_killed_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    make_tokens(tmp_path)
    assert finish(start(tmp_path, "undisturbed", "state-1", launcher="deepspeed")) == {"127.0.0.1"}
    first = start(tmp_path, "killed", "state-2")
    while first.poll() is None and not list((tmp_path / "state-2").glob("train/*/checkpoints/step-*")):
        time.sleep(0.05)
    assert first.poll() is None, "it ended before it could be killed"
    first.send_signal(signal.SIGKILL)
    first.wait()
    deadline = time.monotonic() + 60
    while processes_with(str(tmp_path / "state-2")):
        assert time.monotonic() < deadline, "a rank outlived the process that started it"
        time.sleep(0.2)
    assert finish(start(tmp_path, "killed", "state-2")) == {"127.0.0.1"}
    assert manifest_hash(tmp_path / "undisturbed") == manifest_hash(tmp_path / "killed")
    assert not list((tmp_path / "state-2" / "train").glob("*/checkpoints"))


@pytest.mark.e2e
def test_a_run_that_is_told_to_stop_saves_first_and_leaves_no_rank(tmp_path: Path) -> None:
    make_tokens(tmp_path)
    # No checkpoint is due before the end: the one that is found was asked for.
    run = start(tmp_path, "told", "state", every=1000)
    progress = tmp_path / "state/train/progress.jsonl"
    while run.poll() is None and not (progress.exists() and progress.stat().st_size):
        time.sleep(0.05)
    run.send_signal(signal.SIGTERM)
    assert run.wait() != 0
    assert not processes_with(str(tmp_path / "state"))
    (checkpoint,) = (tmp_path / "state").glob("train/*/checkpoints/step-*")
    assert int(checkpoint.name.rpartition("-")[2]) < 40
    assert finish(start(tmp_path, "told", "state", every=1000)) == {"127.0.0.1"}
    assert len((tmp_path / "told/loss.csv").read_text().splitlines()) == 41
