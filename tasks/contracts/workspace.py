"""Where this code stands, where a workspace keeps what is half-done or local, and what a process it starts inherits."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STATE_VARIABLE = "HEADWATER_STATE"
IMPORT_PATH = "PYTHONPATH"


def state_folder() -> Path:
    """Return the folder for half-done and local state, absolute: `.headwater`, or where HEADWATER_STATE points."""
    return Path(os.environ.get(STATE_VARIABLE, ".headwater")).resolve()


def progress_path() -> Path:
    """Return the file that training appends {"step", "loss", …} lines to."""
    return state_folder() / "train" / "progress.jsonl"


def child_environment(
    more: Mapping[str, str] | None = None, *, defaults: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the environment of a process that runs this code, wherever it is started and whatever its folder is.

    It imports this code first, finds this Python's programs first and has the same state folder.

    Args:
        more: what it has besides, whatever this process has.
        defaults: what it has where this process has nothing of the name.
    """
    own = {IMPORT_PATH: import_path(), "PATH": program_path(), STATE_VARIABLE: str(state_folder())}
    return {**(defaults or {}), **os.environ, **own, **(more or {})}


def import_path(code: Path = ROOT) -> str:
    """Return PYTHONPATH with this code, or a copy of it, first; an empty entry would stand for the working folder."""
    return _first(str(code), os.environ.get(IMPORT_PATH, ""))


def program_path() -> str:
    """Return PATH with the folder of this Python first, whether or not its environment is activated."""
    return _first(str(Path(sys.executable).parent), os.environ.get("PATH", ""))


def _first(entry: str, rest: str) -> str:
    return os.pathsep.join(dict.fromkeys([entry, *filter(None, rest.split(os.pathsep))]))
