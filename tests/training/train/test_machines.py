"""Ranks on several machines, and ranks that are lost: two machines are two launchers here, which share a folder."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tasks.contracts.errors import HeadwaterError
from tasks.contracts.files import METRICS_NAME, STEPS_NAME
from tasks.contracts.manifest import manifest_hash
from tasks.contracts.workspace import ROOT
from tests.training.train.token_folders import make_tokens
from training.train.hyperparameters import Params
from training.train.launch import Launch, on_other_machines

TRAIN = """
import json, logging, sys
from pathlib import Path
from training.train.hyperparameters import Params
from training.train.stage import run
logging.basicConfig(level=logging.INFO, format="%(message)s")
params = Params.model_validate(json.loads(sys.argv[2]))
run(params=params, inputs={n: Path(n) for n in ("tokenize", "tokenizer")}, output=Path(sys.argv[1]))
"""
SMALL = {
    "model": {"layers": 1, "hidden_size": 16, "heads": 2, "kv_heads": 1},
    "seq_len": 16,
    "batch_size": 4,
    "threads": 1,
    "validate_every": 20,
    "validation_sequences": 4,
    "checkpoint_every_steps": 2,
    "max_steps": 10,
    "warmup_steps": 2,
}
SRUN = """#!/bin/sh
# Starts the command once a machine, as srun does in an allocation of two.
while [ "${1#--}" != "$1" ]; do shift; done
SLURM_NODEID=0 "$@" & first=$!
SLURM_NODEID=1 "$@" & second=$!
wait $first && wait $second
"""


def start(root: Path, name: str, **settings: Any) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HEADWATER_STATE": str(root / f"state-{name}")}
    return subprocess.Popen(
        [sys.executable, "-c", TRAIN, name, json.dumps(SMALL | settings)],
        cwd=root,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )


def ranks_of(root: Path, name: str) -> list[psutil.Process]:
    """The ranks of a run, without their launchers."""
    found = []
    for process in psutil.process_iter():
        try:
            command = process.cmdline()
        except psutil.Error:
            continue
        is_rank = "training.train.loop" in command and "torch.distributed.run" not in command
        if is_rank and str(root / f"state-{name}") in command[-1]:
            found.append(process)
    return found


def figures(folder: Path) -> tuple[str, bytes]:
    """What does not depend on where the ranks are: the weights, and what each step saw."""
    weights: str = json.loads((folder / METRICS_NAME).read_bytes())["weights_sha256"]
    return weights, (folder / STEPS_NAME).read_bytes()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("machines")
    make_tokens(root)
    run = start(root, "whole", num_ranks=2)
    _, said = run.communicate()
    assert run.returncode == 0, said
    yield root
    shutil.rmtree(root)


@pytest.mark.e2e
def test_a_rank_that_is_lost_starts_again_with_all_from_the_last_checkpoint(root: Path) -> None:
    run = start(root, "lost", num_ranks=2)
    while run.poll() is None and not list((root / "state-lost").glob("train/*/checkpoints/step-*")):
        time.sleep(0.02)
    (*_, victim) = ranks_of(root, "lost")
    victim.send_signal(signal.SIGKILL)
    _, said = run.communicate()
    assert run.returncode == 0, said
    assert "a rank was lost" in said
    assert "all start again from step-" in said
    assert manifest_hash(root / "lost") == manifest_hash(root / "whole")


@pytest.mark.e2e
def test_a_rank_that_fails_by_itself_ends_the_run_at_once(root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(root, other, ignore=shutil.ignore_patterns("state-*", "whole"))
    size = (other / "tokenize/part-00000.bin").stat().st_size
    (other / "tokenize/part-00000.bin").write_bytes(b"\xff" * size)  # ids that no vocabulary here has
    run = start(other, "own", num_ranks=2)
    _, said = run.communicate()
    assert run.returncode != 0
    assert "IndexError: index out of range" in said
    assert "all start again" not in said


@pytest.mark.e2e
def test_two_machines_train_as_two_ranks_do_by_the_command_that_is_printed(root: Path) -> None:
    run = start(root, "two", nodes=2, num_ranks=1)
    assert run.stderr is not None
    said = ""
    while "On each: " not in (line := run.stderr.readline()):
        assert line, said
        said += line
    command = line.partition("On each: ")[2].strip()
    other = subprocess.run(["sh", "-c", command], capture_output=True, text=True, cwd=root, check=False)
    _, rest = run.communicate()
    assert (run.returncode, other.returncode) == (0, 0), rest + other.stderr
    assert figures(root / "two") == figures(root / "whole")


@pytest.mark.e2e
def test_slurm_starts_the_ranks_of_all_machines(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "bin").mkdir()
    (root / "bin/srun").write_text(SRUN)
    (root / "bin/srun").chmod(0o755)
    monkeypatch.setenv("PATH", f"{root / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "2")
    run = start(root, "slurm", nodes=2, num_ranks=1, launcher="slurm", interface="lo")
    _, said = run.communicate()
    assert run.returncode == 0, said
    assert figures(root / "slurm") == figures(root / "whole")


HOSTS = "node0 slots=8  # the first\n\nnode1 slots=8\n"
CONFIG = Path("/workspace/key-of-the-run/config.json")
COMMANDS: dict[str, tuple[Launch, list[str]]] = {
    "one machine": (Launch(launcher="torchrun", ranks=2), ["--nproc-per-node=2", "--local-addr=127.0.0.1"]),
    "several, by a host": (
        Launch(launcher="torchrun", ranks=8, nodes=4, rendezvous="node0:29501", restarts=3),
        [
            "--nnodes=4",
            "--nproc-per-node=8",
            "--rdzv-endpoint=node0:29501",
            "--max-restarts=3",
            "--rdzv-id=key-of-the-run",
        ],
    ),
    "several, by a file": (
        Launch(launcher="torchrun", ranks=8, nodes=4),
        ["--nnodes=4", "--rdzv-conf=store_type=file", "--max-restarts=0"],
    ),
    "deepspeed": (
        Launch(launcher="deepspeed", ranks=8, nodes=2, hostfile=Path("/etc/hosts.train")),
        ["--hostfile", "/etc/hosts.train", "--num_nodes", "2", "--num_accelerators", "8"],
    ),
    "slurm": (
        Launch(launcher="slurm", ranks=4, nodes=16),
        ["srun", "--nodes=16", "--ntasks=16", "--nnodes=16", "--nproc-per-node=4"],
    ),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_says_machines_ranks_and_where_they_meet(name: str) -> None:
    launch, expected = COMMANDS[name]
    command = launch.command(CONFIG)
    assert [part for part in expected if part not in command] == []
    assert command[-1] == str(CONFIG)


def test_a_command_for_other_machines_is_one_line_for_a_shell(tmp_path: Path) -> None:
    line = on_other_machines(["echo", "a b", "$HOME"], {"X": "1 2"}, tmp_path)
    assert subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True).stdout == "a b $HOME\n"


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a meeting place without port": ({"nodes": 2, "rendezvous": "node0"}, "host:port"),
    "a port that is none": ({"nodes": 2, "rendezvous": "node0:99999"}, "host:port"),
    "a meeting place of one machine": ({"rendezvous": "node0:29500"}, "train.nodes is 1"),
    "a hostfile of one machine": ({"hostfile": "hosts"}, "train.nodes is 1"),
    "no hostfile": ({"nodes": 2, "launcher": "deepspeed"}, "train.hostfile"),
    "a hostfile that is not there": ({"nodes": 2, "launcher": "deepspeed", "hostfile": "gone"}, "cannot be read"),
    "a line that is none": ({"nodes": 2, "launcher": "deepspeed", "hostfile": "torn"}, "torn, line 2"),
    "a machine twice": ({"nodes": 2, "launcher": "deepspeed", "hostfile": "twice"}, "stands twice"),
    "too few machines": ({"nodes": 3, "launcher": "deepspeed", "hostfile": "hosts"}, "3 machines"),
    "too few slots": ({"nodes": 2, "launcher": "deepspeed", "hostfile": "hosts", "num_ranks": 16}, "16 slots"),
    "no allocation": ({"nodes": 2, "launcher": "slurm"}, "allocation"),
    "a batch that machines cannot share": ({"nodes": 3, "batch_size": 8}, "multiple of nodes"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_keeps_the_ranks_from_starting_is_said_before_any_work(
    name: str, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    for file, content in {"hosts": HOSTS, "torn": "node0 slots=8\nnode1\n", "twice": "a slots=1\na slots=1\n"}.items():
        Path(file).write_text(content)
    settings, expected = WRONG[name]
    settings = {"batch_size": 96, **settings}
    faults: list[HeadwaterError] = list(Params.model_validate(settings).faults())
    assert len(faults) == 1, [str(fault) for fault in faults]
    assert expected in str(faults[0])


def test_a_hostfile_that_is_right_has_no_faults(workspace: Path) -> None:
    Path("hosts").write_text(HOSTS)
    assert not list(Params(nodes=2, num_ranks=8, batch_size=16, launcher="deepspeed", hostfile="hosts").faults())
