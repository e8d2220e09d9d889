"""Manifests of folders that no stage could make: planted figures, which `commit_manifest` refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasks.contracts.durable_files import write_json
from tasks.contracts.manifest import MANIFEST_NAME, Manifest, describe_folder


def plant_manifest(folder: Path, **described: Any) -> Manifest:
    """Write a folder's manifest with whatever counts, unchecked; takes what `commit_manifest` takes."""
    manifest = describe_folder(folder, **described)
    write_json(folder / MANIFEST_NAME, manifest.model_dump(mode="json", by_alias=True))
    return manifest
