"""The champions: which releases were made, in order, each with a kept copy. Its last row is the one to beat."""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path

from tasks.contracts.base import FrozenModel
from tasks.contracts.durable_files import atomic_folder
from tasks.contracts.errors import InputError
from tasks.contracts.manifest import MANIFEST_NAME, manifest_hash
from tasks.contracts.release import LINEAGE_NAME
from tasks.contracts.workspace import state_folder

logger = logging.getLogger(__name__)


class Champion(FrozenModel):
    """One row of `champions.jsonl`."""

    release: str
    """SHA-256 of the release's manifest."""
    weights_sha256: str
    name: str
    folder: str
    """Its kept copy, relative to the state folder."""

    @property
    def path(self) -> Path:
        """Where its kept copy is."""
        return state_folder() / self.folder


def champions() -> list[Champion]:
    """Return every champion there was, the current one last.

    Raises:
        InputError: there were some, and the list of them is gone: a candidate would be compared with nothing.
    """
    path = state_folder() / "champions.jsonl"
    kept = sorted(path.parent.name for path in (state_folder() / "releases").glob(f"*/{MANIFEST_NAME}"))
    if kept and not path.exists():
        raise InputError(
            "the list of champions is missing, though releases are kept here",
            where=str(path),
            expected=f"a line for each of {len(kept)} releases in {state_folder() / 'releases'}",
            fix="restore it from a backup, or `headwater run --force release` to begin a list with the release in "
            "data/; without it the next model would not be compared with the last one",
        )
    return read_champions()


def read_champions() -> list[Champion]:
    """Return the list of champions as it stands, empty where there is no list."""
    path = state_folder() / "champions.jsonl"
    if not path.exists():
        return []
    # A last line without its end was cut off by a crash, before its release counted.
    lines = path.read_text().split("\n")[:-1]
    return [Champion.model_validate_json(line) for line in lines if line]


def kept_copy(manifest_sha256: str) -> Path | None:
    """Return where the copy of a release is kept, None where there is none here."""
    return next((one.path for one in read_champions() if one.release == manifest_sha256 and one.path.is_dir()), None)


def champion_to_beat(weights_sha256: str) -> Champion | None:
    """Return the newest champion with other weights than the candidate's.

    So building the champion itself again compares it with the one it beat, and gives the same report.
    """
    others = [champion for champion in champions() if champion.weights_sha256 != weights_sha256]
    return others[-1] if others else None


def promote(release: Path) -> Champion:
    """Make a release folder the current champion: keep a copy (by hard links) and add a row.

    A release that is the current champion already is left as it is.
    """
    own = manifest_hash(release)
    listed = read_champions()
    if listed and listed[-1].release == own:
        return listed[-1]
    described = json.loads((release / LINEAGE_NAME).read_bytes())
    champion = Champion(
        release=own,
        weights_sha256=described["weights_sha256"],
        name=described["name"],
        folder=f"releases/{own}",
    )
    if not (champion.path / MANIFEST_NAME).is_file():
        with atomic_folder(champion.path) as kept:
            shutil.copytree(release, kept, dirs_exist_ok=True, copy_function=link_or_copy)
    path = state_folder() / "champions.jsonl"
    whole = path.read_bytes() if path.exists() else b""
    with path.open("ab") as stream:
        if whole and not whole.endswith(b"\n"):
            stream.truncate(whole.rfind(b"\n") + 1)
        stream.write(champion.model_dump_json().encode() + b"\n")
        stream.flush()
        os.fsync(stream.fileno())
    logger.info("release: %s is the champion now", champion.name)
    return champion


def link_or_copy(source: str, target: str) -> None:
    """Hard-link a finished file, or copy it where the file system cannot."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
