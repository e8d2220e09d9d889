"""Where a workspace keeps what is half-done or local, and the hash of the code that made a file."""

from __future__ import annotations

import os
from pathlib import Path

from tasks.contracts.files import sha256_file, sha256_json

STATE_VARIABLE = "HEADWATER_STATE"
ROOT = Path(__file__).resolve().parents[2]


def state_folder() -> Path:
    """Return the folder for half-done and local state, absolute: `.headwater`, or where HEADWATER_STATE points."""
    return Path(os.environ.get(STATE_VARIABLE, ".headwater")).resolve()


def code_hash(*names: str) -> str:
    """Return a SHA-256 over the sources of packages or modules of this project, named as in an import.

    Raises:
        FileNotFoundError: there is no such module.
    """
    files: set[Path] = set()
    for name in names:
        place = ROOT.joinpath(*name.split("."))
        files |= set(place.rglob("*.py")) if place.is_dir() else {place.with_suffix(".py")}
    return sha256_json({path.relative_to(ROOT).as_posix(): sha256_file(path) for path in sorted(files)})
