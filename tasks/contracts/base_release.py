"""A release from which another one goes on: what names it, and the files that go along as its lineage.

Its tokenizer is used as it is, its weights are those that training begins with, and all else of it stands in the folder
base/ of what is made from it: so both corpora are in one chain of proof.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Final

from tasks.contracts.base import FrozenModel
from tasks.contracts.durable_files import sha256_file
from tasks.contracts.errors import InputError, ManifestError
from tasks.contracts.files import MODEL_CONFIG_NAME
from tasks.contracts.manifest import MANIFEST_NAME, Manifest, manifest_hash, read_manifest
from tasks.contracts.release import LINEAGE_NAME, MANIFESTS_FOLDER, TAKEDOWN_MARK_NAME, context_of

WEIGHTS_SUFFIX: Final = ".safetensors"
STARTED_FROM: Final = "started_from"
"""The key in a manifest's params under which stands what `named` gives."""


class BaseRelease(FrozenModel):
    """A release from which another one goes on, as the manifests of what is made from it name it."""

    name: str
    release: str
    """SHA-256 of its manifest."""
    weights_sha256: str
    context: int
    """Tokens of its longest context."""


def read_base(folder: Path, *, fix: str = "`headwater verify FOLDER` says what is wrong with it") -> BaseRelease:
    """Return what names a release, whatever goes on from it.

    Args:
        fix: what is to be done where it is none.

    Raises:
        InputError: the folder is no release, or text of it was taken down.
    """
    if (folder / TAKEDOWN_MARK_NAME).is_file():
        raise InputError(
            "text that the release to begin with has learnt from was taken down",
            where=str(folder / TAKEDOWN_MARK_NAME),
            expected="a release without such text",
            fix="make it again without that text (`headwater run`), then begin with that",
        )
    try:
        manifest = read_manifest(folder)
        if manifest.stage != "release":
            raise ValueError(f"a folder of the stage {manifest.stage}")
        lineage: dict[str, Any] = json.loads((folder / LINEAGE_NAME).read_bytes())
        config: dict[str, Any] = json.loads((folder / MODEL_CONFIG_NAME).read_bytes())
        return BaseRelease(
            name=lineage["name"],
            release=manifest_hash(folder),
            weights_sha256=lineage["weights_sha256"],
            context=context_of(config),
        )
    except (OSError, ValueError, TypeError, LookupError, ManifestError) as error:
        raise InputError(
            "there is no release to begin with",
            where=str(folder),
            expected=f"the folder of a release, with {MANIFEST_NAME}, {LINEAGE_NAME} and {MODEL_CONFIG_NAME}",
            found=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'missing'}",
            fix=fix,
        ) from error


def checked_file(folder: Path, name: str) -> Path:
    """Return a file of a release, its bytes held against the release's manifest.

    Raises:
        InputError: it is missing, or another one.
    """
    listed = {shard.name: shard.sha256 for shard in read_manifest(folder).shards}
    found = sha256_file(folder / name) if (folder / name).is_file() else "missing"
    if name not in listed or found != listed[name]:
        raise InputError(
            "a file of the release that training is to go on from is not as its manifest says",
            where=str(folder / name),
            expected=listed.get(name, "a file that the manifest lists"),
            found=found,
            fix="get the release again; `headwater verify FOLDER` checks all of it",
        )
    return folder / name


def trained_model(folder: Path) -> dict[str, Any]:
    """Return the settings of a release's model, as its manifest of the stage train holds them."""
    text = checked_file(folder, f"{MANIFESTS_FOLDER}/train.json").read_text()
    model = Manifest.model_validate_json(text).params.get("model")
    if not isinstance(model, dict):
        raise InputError(
            "a release's manifest does not say what its model is",
            where=str(folder / MANIFESTS_FOLDER / "train.json"),
            expected="params with a section model",
            found=str(model),
        )
    return model


def copy_lineage(folder: Path, target: Path) -> None:
    """Copy a release but for its weights: its papers and its chain, with those of what it went on from itself."""
    manifest = read_manifest(folder)
    target.mkdir(parents=True)
    shutil.copyfile(folder / MANIFEST_NAME, target / MANIFEST_NAME)
    for shard in manifest.shards:
        if not shard.name.endswith(WEIGHTS_SUFFIX):
            (target / shard.name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / shard.name, target / shard.name)
