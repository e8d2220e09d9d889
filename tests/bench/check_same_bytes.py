"""Does this code make what earlier code made? `python -m tests.bench.check_same_bytes WORKSPACE`, for a refactoring.

WORKSPACE is one in which the earlier code has run to the release. Its snapshot of the web is laid into a clone of
this checkout, every later stage runs there, and the manifests are compared: equal shards, counts and params in each,
or the stage is named with what differs and the exit code is 1.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from flows.workspace.graph import load_graph
from tasks.contracts.manifest import Manifest, read_manifest
from tests.e2e.workspace import Workspace

COMPARED = ("unit", "params", "counts", "shards")


def main() -> None:
    """Run, compare, print a line a stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workspace", type=Path)
    before = parser.parse_args().workspace.resolve()
    differing = 0
    with tempfile.TemporaryDirectory() as name:
        clone = Workspace.clone(Path(name))
        shutil.copy2(before / "params.yaml", clone.folder)
        for stage in load_graph().values():
            if stage.inputs:
                clone.run("python", "-m", "flows", stage.name)
            else:
                shutil.copytree(before / stage.output, clone.folder / stage.output)
            found = differences(read_manifest(before / stage.output), read_manifest(clone.folder / stage.output))
            differing += bool(found)
            print(f"{stage.name:<14} {'; '.join(found) or 'equal'}", flush=True)
    sys.exit(1 if differing else 0)


def differences(a: Manifest, b: Manifest) -> list[str]:
    """Say in which fields two manifests of one stage differ, and in which files.

    The hashes of the inputs follow from the files of the stage before, and of evaluate, gate and release the files hold
    such hashes themselves: with equal inputs they are equal too.
    """
    found = [f"another {field}" for field in COMPARED[:-1] if getattr(a, field) != getattr(b, field)]
    sides = [{shard.name: shard.sha256 for shard in side.shards} for side in (a, b)]
    names = sorted(name for name in {*sides[0], *sides[1]} if sides[0].get(name) != sides[1].get(name))
    return [*found, *([f"{len(names)} files: {', '.join(names[:5])}"] if names else [])]


if __name__ == "__main__":
    main()
