"""The release that an adaptation begins with: whether it is whole, and what it was made from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tasks.contracts.base_release import read_base
from tasks.contracts.durable_files import sha256_file
from tasks.contracts.errors import HeadwaterError, InputError, ManifestError
from tasks.contracts.files import MODEL_CONFIG_NAME, MODEL_FOLDER, TOKENIZER_NAME
from tasks.contracts.manifest import MANIFEST_NAME, Manifest, manifest_hash, read_whole
from tasks.contracts.release import BASE_FOLDER, LINEAGE_NAME, MANIFESTS_FOLDER, RELEASE_FOLDER
from tasks.contracts.stages import model_stage

ANOTHER = f"name a finished release by adapt.base, such as {RELEASE_FOLDER}; `headwater run` makes one"


def read_whole_base(folder: Path) -> Manifest:
    """Return the manifest of a release that can be begun with.

    Raises:
        InputError: it is none, its tokenizer is another than it was trained with, or text of it was taken down.
    """
    read_base(folder, fix=ANOTHER)
    try:
        _check_tokenizer(folder)
        return read_whole(folder)
    except (OSError, ValueError, LookupError, TypeError) as error:  # whatever a stranger's folder holds
        raise InputError(
            "the base is not whole",
            where=str(folder),
            expected="a release with its manifests, tokenizer and config",
            found=f"{type(error).__name__}: {error}".splitlines()[0],
            fix=ANOTHER,
        ) from error
    except ManifestError as error:
        raise InputError(
            "the base is not whole",
            where=error.where,
            expected=error.expected,
            found=error.found,
            fix=f"`headwater verify {folder}` names every broken link",
        ) from error


def _check_tokenizer(folder: Path) -> None:
    """Raise InputError where the tokenizer is another than the model was trained with."""
    made_by = model_stage(path.stem for path in (folder / MANIFESTS_FOLDER).glob("*.json"))
    trained = Manifest.model_validate_json((folder / MANIFESTS_FOLDER / f"{made_by}.json").read_bytes())
    expected = trained.shard(f"{MODEL_FOLDER}/{TOKENIZER_NAME}").sha256
    path = folder / TOKENIZER_NAME
    found = sha256_file(path) if path.is_file() else "no such file"
    if found != expected:
        raise InputError(
            "the base's tokenizer is not the one that its model was trained with",
            where=str(path),
            expected=f"SHA-256 {expected}, as manifests/{made_by}.json says",
            found=found,
            fix=f"get the release again from where it is whole; `headwater verify {folder}` names every broken link",
        )
    entries = len(json.loads(path.read_bytes())["model"]["vocab"])
    rows = json.loads((folder / MODEL_CONFIG_NAME).read_bytes())["vocab_size"]
    if entries > rows:
        raise InputError(
            "the base's tokenizer has more entries than its model",
            where=str(path),
            expected=f"at most {rows:,} (vocab_size in {MODEL_CONFIG_NAME})",
            found=f"{entries:,}",
            fix="begin with another release",
        )


def lineage_of(base: Path) -> dict[str, Any]:
    """Return what a release says of itself: its name, its weights' hash, its chain."""
    described: dict[str, Any] = json.loads((base / LINEAGE_NAME).read_bytes())
    return described


def made_from(base: Path, stage: str) -> str:
    """Return the SHA-256 of the manifest of a stage behind a release; of an adapted one, behind its own base.

    Raises:
        InputError: no such stage is behind it.
    """
    while not (base / MANIFESTS_FOLDER / f"{stage}.json").is_file():
        base /= BASE_FOLDER
        if not base.is_dir():
            raise InputError("the base does not say what it was made from", where=str(base), expected=f"{stage}.json")
    return sha256_file(base / MANIFESTS_FOLDER / f"{stage}.json")


def missing_data(base: Path, folders: dict[str, Path]) -> Iterator[HeadwaterError]:
    """Yield what the gate needs of the base's own data and is not here: its text and its held-out items.

    Args:
        folders: stage → its folder in this workspace.
    """
    for stage, folder in folders.items():
        expected = made_from(base, stage)
        found = manifest_hash(folder) if (folder / MANIFEST_NAME).is_file() else "no such folder"
        if found != expected:
            yield InputError(
                "the data that the base was made from is not here, and the gate compares with it",
                where=str(folder),
                expected=f"the manifest {expected}",
                found=found,
                fix="bring it back (`git checkout` the base's dvc.lock, then `dvc checkout`), or begin with the "
                "release that was made from this data",
            )
