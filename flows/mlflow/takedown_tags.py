"""Tags the model versions in MLflow of releases that hold what was taken down, in a process of its own."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Collection

from flows.history.releases import known_releases
from flows.services.tracking import QUIET, is_in_use
from tasks.contracts.workspace import child_environment

logger = logging.getLogger(__name__)

MLFLOW_TIMEOUT_SECONDS = 120.0


def mark_in_mlflow(releases: Collection[str]) -> bool:
    """Tag the model versions of marked releases, in a process of its own; False when MLflow did not do it.

    MLflow takes seconds to import and may be absent: that is a warning, the files stay marked, and
    `headwater lineage sync` tells it later.

    Args:
        releases: hashes of their manifests.
    """
    if not releases or not is_in_use():
        return False
    try:
        done = subprocess.run(
            [sys.executable, "-m", "flows.mlflow.takedown_tags"],
            input="\n".join(releases),
            capture_output=True,
            text=True,
            timeout=MLFLOW_TIMEOUT_SECONDS,
            check=False,
            env=child_environment(defaults=QUIET),
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        logger.warning("MLflow was not told of the takedown: %s", error)
        return False
    if done.returncode:
        logger.warning("MLflow was not told of the takedown: %s", (done.stderr.strip().splitlines() or ["?"])[-1])
    return done.returncode == 0


def main() -> None:
    """Mark the model versions of the releases whose manifests' hashes stand on the standard input."""
    from flows.mlflow.registry import mark_taken_down
    from flows.mlflow.stage_runs import open_client

    client = open_client()
    named = sys.stdin.read().split()
    for known in known_releases():
        if known.takedown and known.manifest_sha256 in named:
            mark_taken_down(client, known)


if __name__ == "__main__":
    main()
