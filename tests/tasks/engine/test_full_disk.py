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
from tasks.mixture.stage import Params, run
from tests.corpus import document

# Runs the stage where space ends in the second shard, then again with space, and tells what it saw.
RUN = """
import json, resource, shutil, sys
from pathlib import Path
from tasks.contracts.errors import DiskFullError
from tasks.mixture.stage import Params, run

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
limit(resource.RLIM_INFINITY) if how == "limit" else ballast.unlink()
shutil.rmtree("out", ignore_errors=True)
go()
print(json.dumps({"error": error, "before": before, "after": files()}))
"""


def small_disk(how: str, folder: Path, *command: str) -> list[str]:
    """Return a command that runs another one in `folder`, which for "disk" is a file system of one megabyte."""
    if how == "limit":
        return list(command)
    # In a mount namespace of its own: nobody else sees it, and it goes away with the process.
    mounting = f'mount -t tmpfs -o size=1m tmpfs "{folder}" && cd "{folder}" && exec "$@"'
    return ["unshare", "--map-root-user", "--mount", "sh", "-c", mounting, "sh", *command]


@pytest.mark.parametrize("how", ["disk", "limit"])
def test_a_stage_on_a_full_disk_keeps_what_is_whole_and_goes_on_when_there_is_space(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    place, source = workspace / "small", workspace / "in"
    place.mkdir()
    if how == "disk" and (
        shutil.which("unshare") is None
        or subprocess.run(small_disk(how, place, "true"), capture_output=True, check=False).returncode
    ):
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
    assert not [name for name in told["before"] if ".tmp" in name or name.startswith("out/")]
    assert {Path(name).parts[1] for name in told["before"] if name.startswith("state/")} == {"shards"}
    folders = {Path(*Path(name).parts[:3]) for name in told["before"]}
    assert all(str(folder / "_shard.json") in told["before"] for folder in folders)
    assert told["before"].items() <= told["after"].items(), "finished shards were not made again"
    assert "out/_manifest.json" in told["after"]
    if how == "limit":
        monkeypatch.setenv("HEADWATER_STATE", str(workspace / "undisturbed-state"))
        run(params=Params(), inputs={"decontaminate": source}, output=workspace / "undisturbed")
        assert manifest_hash(place / "out") == manifest_hash(workspace / "undisturbed")
