"""The files of one release folder, each compared with the hash that the release's manifest gives it as it is read.

Nothing but the folder is needed, so a release of another machine is read like one of ours. What is not read is hashed
by `breaks` alone; every other claim of a release is checked by `headwater verify`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from tasks.contracts.errors import InputError
from tasks.contracts.manifest import MANIFEST_NAME, Manifest
from tasks.contracts.release import LINEAGE_NAME, MANIFESTS_FOLDER
from training.release.verify import Break, Release, check_claim, check_contents, check_names, is_plain, parse

Read = TypeVar("Read")

RELEASE = "release"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseFiles:
    """A release folder that was opened.

    Attributes:
        name: what the release is called.
        weights_sha256: of its weights, as training wrote it.
        manifests: stage → its manifest; the release's own is that of the stage release.
        hashes: stage → SHA-256 of its manifest.
        listed: every file → SHA-256, as the release's manifest says.
    """

    folder: Path
    name: str
    weights_sha256: str
    manifests: Mapping[str, Manifest]
    hashes: Mapping[str, str]
    listed: Mapping[str, str]

    def read(self, name: str, understand: Callable[[Any], Read]) -> Read | None:
        """Return what a JSON file of the release says, None where the release has no such file.

        Args:
            understand: takes the file's value (of a `.jsonl` file the list of its lines' values) apart.

        Raises:
            InputError: the file is missing, is not what the manifest says, or cannot be understood.
        """
        if name not in self.listed:
            return None
        content = _content(self.folder, name, self.listed[name])
        lines = [line for line in content.split(b"\n") if line]
        return _understood(
            self.folder,
            name,
            lambda: understand([parse(line) for line in lines] if name.endswith("l") else parse(content)),
        )

    def breaks(self, *, contents: bool) -> tuple[Break, ...]:
        """Return what in the folder is not as its manifest says: files that are missing, were added or are none.

        Args:
            contents: hash every file too.
        """
        release = Release(self.folder)
        checks = [check_names, *([check_contents] if contents else [])]
        results = [check_claim("files", "", partial(check, release)) for check in checks]
        return tuple(one for result in results for one in result.breaks)


def open_release(folder: Path) -> ReleaseFiles:
    """Read the manifests of a release folder.

    Raises:
        InputError: it is no release, or one of these files is missing or damaged.
    """
    path = folder / MANIFEST_NAME
    if not path.is_file():
        raise InputError(
            "this is no release",
            where=str(folder),
            expected=MANIFEST_NAME,
            found="no such file",
            fix=f"name a release's folder, such as data/release; if this is one, {_fix(folder)}",
        )
    try:
        content = _read_bytes(folder, MANIFEST_NAME)
    except (OSError, ValueError) as error:
        raise _damaged(folder, MANIFEST_NAME, "a file", str(error)) from error
    own = _understood(folder, MANIFEST_NAME, lambda: Manifest.model_validate(parse(content)))
    listed = {file.name: file.sha256 for file in own.shards}
    if own.stage != RELEASE:
        raise InputError(
            "this is no release",
            where=str(path),
            expected="the manifest of the stage release",
            found=f"one of the stage {own.stage}",
            fix="name a release's folder, such as data/release",
        )
    if LINEAGE_NAME not in listed:
        raise _damaged(folder, MANIFEST_NAME, f"{LINEAGE_NAME} among the files that it lists", "no such file")
    manifests, hashes = {}, {}
    for name in listed:
        if name.startswith(f"{MANIFESTS_FOLDER}/") and name.endswith(".json"):
            manifests[Path(name).stem] = _read_json(folder, name, listed[name], Manifest.model_validate)
            hashes[Path(name).stem] = listed[name]
    called, weights = _read_json(
        folder, LINEAGE_NAME, listed[LINEAGE_NAME], lambda value: (str(value["name"]), str(value["weights_sha256"]))
    )
    return ReleaseFiles(
        folder=folder,
        name=called,
        weights_sha256=weights,
        manifests={**manifests, RELEASE: own},
        hashes={**hashes, RELEASE: hashlib.sha256(content).hexdigest()},
        listed=listed,
    )


def _read_json(folder: Path, name: str, sha256: str, understand: Callable[[Any], Read]) -> Read:
    content = _content(folder, name, sha256)
    return _understood(folder, name, lambda: understand(parse(content)))


def _read_bytes(folder: Path, name: str) -> bytes:
    """Read a file of a release, which may come from anybody: an ordinary file in the folder, and no other."""
    if not is_plain(name):
        raise ValueError("a name that leads out of the folder, or is none")
    return Release(folder).content(name)


def _content(folder: Path, name: str, sha256: str) -> bytes:
    try:
        content = _read_bytes(folder, name)
    except (OSError, ValueError) as error:
        raise _damaged(folder, name, f"SHA-256 {sha256}", str(error)) from error
    if (found := hashlib.sha256(content).hexdigest()) != sha256:
        raise _damaged(folder, name, f"SHA-256 {sha256}", found)
    return content


def _understood(folder: Path, name: str, read: Callable[[], Read]) -> Read:
    try:
        return read()
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise _damaged(folder, name, f"a manifest of this version; {place}: {first['msg']}", "another") from error
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        said = f"{type(error).__name__}: {error}"
        raise _damaged(folder, name, "the form in which the stage release writes it", said) from error


def _damaged(folder: Path, name: str, expected: str, found: str) -> InputError:
    return InputError(
        "a file of a release is missing or damaged",
        where=str(folder / name),
        expected=expected,
        found=found,
        fix=_fix(folder),
    )


def _fix(folder: Path) -> str:
    return f"`headwater verify {folder}` names every broken link; then get the release again from where it is whole"
