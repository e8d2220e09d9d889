"""A real run on two ranks, once undisturbed, once killed and taken up again, by either launcher: the same bytes."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest

from tasks.contracts.durable_files import write_json
from tasks.contracts.manifest import Counts, commit_manifest, manifest_hash
from tasks.contracts.tokens import TokenRange, TokenShard, TokensInfo, write_index
from tasks.contracts.workspace import ROOT

TRAIN = """
import sys
from pathlib import Path
from training.train.stage import Params, run
size = {"layers": 1, "hidden_size": 16, "heads": 2, "kv_heads": 1}
params = Params(model=size, seq_len=16, batch_size=4, num_ranks=2, checkpoint_every_steps=5, validate_every=20,
                validation_sequences=4, launcher=sys.argv[2])
run(params=params, inputs={n: Path(n) for n in ("tokenize", "tokenizer")}, output=Path(sys.argv[1]))
"""


def make_tokens(root: Path) -> None:
    tokenize, tokenizer = root / "tokenize", root / "tokenizer"
    tokenize.mkdir()
    tokenizer.mkdir()
    ids = np.random.Generator(np.random.PCG64(1)).integers(0, 300, 16 * 4 * 40 + 1).astype("<u2")
    ids.tofile(tokenize / "part-00000.bin")
    ends = [*range(23, len(ids), 23), len(ids)]
    write_index(
        tokenize / "part-00000.parquet",
        (
            TokenRange(doc_id=str(start), url="", epoch=1, offset=start, length=end - start, bytes=1)
            for start, end in zip([0, *ends], ends, strict=False)
        ),
    )
    ids[:200].tofile(tokenize / "validation.bin")
    info = TokensInfo(
        dtype="uint16",
        vocab_size=300,
        eos_id=0,
        tokens=len(ids),
        shards=(TokenShard(name="part-00000.bin", tokens=len(ids)),),
        documents=1,
        bytes=len(ids),
        validation_tokens=200,
        validation_bytes=200,
    )
    write_json(tokenize / "tokens.json", info.model_dump(mode="json"))
    write_json(tokenizer / "tokenizer_config.json", {})
    for folder in (tokenize, tokenizer):
        none = Counts(in_=0, out=0)
        commit_manifest(folder, stage=folder.name, unit="tokens", params={}, inputs={}, counts=none)


def start(root: Path, output: str, state: str, launcher: str = "torchrun") -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HEADWATER_STATE": str(root / state)}
    return subprocess.Popen([sys.executable, "-c", TRAIN, output, launcher], cwd=root, env=environment)


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
