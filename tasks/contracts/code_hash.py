"""The hash of the code that made a file: with it in a key, a change of code makes the file anew."""

from __future__ import annotations

from pathlib import Path

from tasks.contracts.durable_files import sha256_file, sha256_json
from tasks.contracts.workspace import ROOT


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
