"""A stage on a disk that is really full: a clear error, nothing half-written, and a rerun that goes on."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.contracts.document import write_documents
from tasks.contracts.manifest import Counts, commit_manifest, manifest_hash
from tasks.contracts.workspace import ROOT
from tasks.mix.stage import Params, run
from tests.corpus import document

# Runs the stage where space ends in the second shard, then again with space, and tells what it saw.
RUN = """
import json, resource, shutil, sys
from pathlib import Path
from tasks.contracts.errors import DiskFullError
from tasks.mix.stage import Params, run

how, source = sys.argv[1], Path(sys.argv[2])
ballast = Path("ballast")


def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def files():
    return {str(path): path.stat().st_ino for path in Path().rglob("*") if path.is_file() and path != ballast}


def go():
    return run(params=Params(), inputs={"decontaminate": source}, output=Path("out"))


limit(200_000) if how == "limit" else ballast.write_bytes(bytes(700_000))
try:
    go()
    error = None
except DiskFullError as caught:
    error = str(caught)
before = files()
unfinished = [str(path) for path in Path().rglob("*.tmp")]
limit(resource.RLIM_INFINITY) if how == "limit" else ballast.unlink()
shutil.rmtree("out", ignore_errors=True)
go()
print(json.dumps({"error": error, "before": before, "unfinished": unfinished, "after": files()}))
"""


def small_disk(how: str, folder: Path, *command: str, megabytes: int = 1) -> list[str]:
    """Return a command that runs another one in `folder`, which for "disk" is a small file system."""
    if how == "limit":
        return list(command)
    # In a mount namespace of its own: nobody else sees it, and it goes away with the process.
    mounting = f'mount -t tmpfs -o size={megabytes}m tmpfs "{folder}" && cd "{folder}" && exec "$@"'
    return ["unshare", "--map-root-user", "--mount", "sh", "-c", mounting, "sh", *command]


# Every kind of writer of ours writes three megabytes, and what it raises is told as a person reads it.
WRITERS = """
import gzip, io, json, os, shutil, sqlite3, sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.numpy
import sqlalchemy
import torch

from tasks.contracts.disk import disk_full_is_clear
from tasks.contracts.errors import DiskFullError
from tasks.contracts.durable_files import write_bytes

source = Path(sys.argv[1])
noise = source.read_bytes()


def database(path):
    engine = sqlalchemy.create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("create table t (b blob)"))
        connection.execute(sqlalchemy.text("insert into t values (:b)"), {"b": noise})


def plain_sqlite(path):
    with sqlite3.connect(path) as connection:
        connection.execute("create table t (b blob)")
        connection.execute("insert into t values (?)", (noise,))


def member(path):
    with gzip.open(path, "wb") as stream:
        stream.write(noise)


WRITERS = {
    "bytes": lambda path: path.write_bytes(noise),
    "commit protocol": lambda path: write_bytes(path, noise),
    "copy": lambda path: shutil.copyfile(source, path),
    "gzip": member,
    "numpy": lambda path: np.save(path, np.frombuffer(noise, np.uint8)),
    "pyarrow": lambda path: pq.write_table(pa.table({"b": [noise]}), path),
    "torch": lambda path: torch.save({"w": torch.frombuffer(bytearray(noise), dtype=torch.uint8)}, path),
    "safetensors": lambda path: safetensors.numpy.save_file({"w": np.frombuffer(noise, np.uint8)}, path),
    "sqlite": plain_sqlite,
    "sqlalchemy (MLflow, Prefect)": database,
}
told = {}
for name, write in WRITERS.items():
    try:
        with disk_full_is_clear(Path("out") / name):
            Path("out").mkdir()
            write(Path("out") / "file.npy")
        told[name] = "no error"
    except DiskFullError as caught:
        told[name] = str(caught)
    except Exception as caught:
        told[name] = f"not clear: {type(caught).__name__}: {caught}"
    shutil.rmtree("out")
print(json.dumps(told))
"""
# DVC's own cache runs out of space when it commits what a stage made.
DVC = """
import json, os, subprocess, sys
from pathlib import Path
from flows.workspace.dvc import dvc_command, stream
from tasks.contracts.errors import DiskFullError

Path("dvc.yaml").write_text("stages: {big: {cmd: head -c 3000000 /dev/urandom > big, outs: [big]}}")
subprocess.run([*dvc_command(), "init", "-q", "--no-scm"], check=True)
lines = []
try:
    for line in stream([*dvc_command(), "repro"], os.environ):
        lines.append(line)
    print(json.dumps({"error": None, "lines": lines}))
except DiskFullError as caught:
    print(json.dumps({"error": str(caught), "lines": lines}))
"""


def mounts(how: str, place: Path) -> bool:
    """Return whether this machine lets us mount a small file system."""
    return (
        shutil.which("unshare") is not None
        and not subprocess.run(small_disk(how, place, "true"), capture_output=True, check=False).returncode
    )


def on_small_disk(place: Path, script: str, *arguments: str, megabytes: int) -> dict[str, str]:
    if not mounts("disk", place):
        pytest.skip("this machine lets nobody mount a small file system here")
    result = subprocess.run(
        small_disk("disk", place, sys.executable, "-c", script, *arguments, megabytes=megabytes),
        env={**os.environ, "PYTHONPATH": str(ROOT), "HEADWATER_STATE": "state"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    told: dict[str, str] = json.loads(result.stdout.splitlines()[-1])
    return told


def assert_clear(message: str, disk: Path) -> None:
    """Check that a message says in one line which disk is full, how much is free there, and what may be freed on it."""
    assert message.startswith("the disk is full"), message
    assert str(disk) in message
    assert "free" in message
    assert " gc" in message or "nothing of Headwater's on this disk can be spared" in message
    assert "\n" not in message


def test_every_writer_says_in_one_line_which_disk_is_full(workspace: Path) -> None:
    place, noise = workspace / "small", workspace / "noise"
    place.mkdir()
    noise.write_bytes(random.Random(0).randbytes(3_000_000))
    told = on_small_disk(place, WRITERS, str(noise), megabytes=2)
    for name, message in told.items():
        assert "not clear" not in message, f"{name}: {message}"
        assert_clear(message, place)


def test_dvcs_own_words_for_a_full_disk_are_understood(workspace: Path) -> None:
    place = workspace / "small"
    place.mkdir()
    told = on_small_disk(place, DVC, megabytes=5)
    assert told["error"], told["lines"]
    assert_clear(told["error"], place)


@pytest.mark.parametrize("how", ["disk", "limit"])
def test_a_stage_on_a_full_disk_keeps_what_is_whole_and_goes_on_when_there_is_space(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    place, source = workspace / "small", workspace / "in"
    place.mkdir()
    if how == "disk" and not mounts(how, place):
        pytest.skip("this machine lets nobody mount a small file system here; the file-size limit stands in")
    # Random digits, so that compression does not make room.
    for part, size in enumerate((1_000, 400_000)):
        text = random.Random(part).randbytes(size).hex()
        write_documents(source / f"part-{part:05d}.parquet", [document(text, name=str(part))])
    counts = Counts(in_=2, out=2)
    commit_manifest(source, stage="decontaminate", unit="documents", params={}, inputs={}, counts=counts)

    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HEADWATER_STATE": "state"}
    result = subprocess.run(
        small_disk(how, place, sys.executable, "-c", RUN, how, str(source)),
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    told = json.loads(result.stdout)

    assert "the disk is full" in told["error"]
    assert "part-00001" in told["error"]
    assert "headwater gc" in told["error"]
    mixed = [name for name in told["before"] if name.endswith(".parquet") and "dropped" in name]
    assert len(mixed) == 1, "the first shard is whole and kept, of the second there is nothing"
    assert not told["unfinished"]
    assert not [name for name in told["before"] if name.startswith("out/")]
    assert {Path(name).parts[1] for name in told["before"] if name.startswith("state/")} == {"shards"}
    folders = {Path(*Path(name).parts[:3]) for name in told["before"]}
    assert all(str(folder / "_shard.json") in told["before"] for folder in folders)
    assert told["before"].items() <= told["after"].items(), "finished shards were not made again"
    assert "out/_manifest.json" in told["after"]
    if how == "limit":
        monkeypatch.setenv("HEADWATER_STATE", str(workspace / "undisturbed-state"))
        run(params=Params(), inputs={"decontaminate": source}, output=workspace / "undisturbed")
        assert manifest_hash(place / "out") == manifest_hash(workspace / "undisturbed")
