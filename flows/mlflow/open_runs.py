"""Which runs are open in MLflow: a file for each, so that one whose mirror was killed is closed by the next run's."""

from __future__ import annotations

from pathlib import Path

from tasks.contracts.workspace import state_folder


def open_runs() -> Path:
    """Return the folder with one file for each run that is open in MLflow: its id, with the parent's id inside."""
    folder = state_folder() / "mirroring"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
