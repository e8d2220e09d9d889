"""Marks a release that holds what was taken down: two files beside its card, and a tag in MLflow.

The kept copy under `.headwater/releases/` is what counts; `data/release` gets the same two files when it is that
release, also when the stage makes it again (`restore_mark`). Neither is hashed by the release's manifest, so the mark
changes nothing that was proven; and it names tombstones by id, not by address or reason.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from flows.lineage.releases import MARK, NOTICE, known_releases, read_mark
from flows.lineage.tracking import QUIET
from tasks.contracts.errors import ManifestError
from tasks.contracts.files import write_bytes, write_json
from tasks.contracts.manifest import manifest_hash
from tasks.contracts.workspace import ROOT, state_folder

logger = logging.getLogger(__name__)

PATIENCE = 120.0
FEW = 5
"""Tombstones that MLflow names; the mark has them all."""


def mark_release(folder: Path, manifest_sha256: str, tombstones: Mapping[str, Mapping[str, JsonValue]]) -> bool:
    """Add tombstones to a release folder's mark; return whether anything changed.

    Args:
        tombstones: id → {"kind", "date", "documents", "held_out"}; held out: how many of the documents stand in
            `tasks/` only.
    """
    old: Any = read_mark(folder) or {}
    listed = {**old.get("tombstones", {}), **{name: dict(one) for name, one in tombstones.items()}}
    mark: dict[str, JsonValue] = {"release": manifest_sha256, "tombstones": listed}
    if mark == old and (folder / NOTICE).is_file():
        return False
    write_bytes(folder / NOTICE, notice(listed).encode())
    write_json(folder / MARK, mark)
    return True


def notice(tombstones: Mapping[str, Any]) -> str:
    """Return TAKEDOWN.md."""
    lines = [
        "# Taken down",
        "",
        "This release was trained on text that has been taken down since, or holds such text in `tasks/`, to be scored",
        "on. Do not deploy it, train on it further or pass it on; use a later release. Its files are unchanged.",
        "",
        "| tombstone | kind | asked on | trained on (documents) | in `tasks/` only (documents) |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, one in sorted(tombstones.items()):
        held_out = one.get("held_out", 0)
        lines.append(f"| `{name}` | {one['kind']} | {one['date']} | {one['documents'] - held_out} | {held_out} |")
    return "\n".join([*lines, ""])


def takedown_note(mark: Mapping[str, Any]) -> str:
    """Return in one line what a mark says."""
    tombstones = mark.get("tombstones", {})
    documents = sum(one["documents"] for one in tombstones.values())
    held_out = sum(one.get("held_out", 0) for one in tombstones.values())
    only = f" ({held_out} of them held out of training, in tasks/)" if held_out else ""
    more = f" and {len(tombstones) - FEW} more" if len(tombstones) > FEW else ""
    return f"holds {documents} documents{only} under tombstones {', '.join(sorted(tombstones)[:FEW])}{more}"


def restore_mark(release: Path) -> None:
    """Give a release folder that was made again the mark of its kept copy."""
    own = manifest_hash(release)
    for known in known_releases():
        if known.manifest_sha256 == own and known.takedown is not None and known.folder != release:
            for name in (MARK, NOTICE):
                write_bytes(release / name, (known.folder / name).read_bytes())


def is_release(folder: Path, manifest_sha256: str) -> bool:
    """Return whether a folder is the release with this manifest."""
    try:
        return manifest_hash(folder) == manifest_sha256
    except ManifestError:
        return False


def mark_in_mlflow(releases: Collection[str]) -> bool:
    """Tag the model versions of marked releases, in a process of its own; False when MLflow did not do it.

    MLflow takes seconds to import and may be absent: that is a warning, the files stay marked, and
    `headwater lineage sync` tells it later.

    Args:
        releases: hashes of their manifests.
    """
    database = state_folder() / "mlflow.db"
    if not releases or not (database.is_file() or os.environ.get("MLFLOW_TRACKING_URI")):
        return False
    try:
        done = subprocess.run(
            [sys.executable, "-m", "flows.lineage.marks"],
            input="\n".join(releases),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
            env={**QUIET, **os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        logger.warning("MLflow was not told of the takedown: %s", error)
        return False
    if done.returncode:
        logger.warning("MLflow was not told of the takedown: %s", (done.stderr.strip().splitlines() or ["?"])[-1])
    return done.returncode == 0


def main() -> None:
    """Mark the model versions of the releases whose manifests' hashes stand on the standard input."""
    from flows.lineage.mlflow_runs import open_client
    from flows.lineage.registry import mark_taken_down

    client = open_client()
    named = sys.stdin.read().split()
    for known in known_releases():
        if known.takedown and known.manifest_sha256 in named:
            mark_taken_down(client, known)


if __name__ == "__main__":
    main()
