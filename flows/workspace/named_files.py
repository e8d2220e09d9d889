"""Files that settings name: a stage runs again when what stands in one of them changed.

DVC watches what dvc.yaml lists. A word list, a classifier, a KenLM model or a benchmark may lie anywhere else, so what
each held when the stage last ran is remembered here, beside which output that gave.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from flows.workspace.graph import Stage
from tasks.contracts.base import StageParams
from tasks.contracts.durable_files import sha256_path, write_json
from tasks.contracts.errors import ManifestError
from tasks.contracts.manifest import manifest_hash
from tasks.contracts.workspace import state_folder

MISSING = "missing"


def contents(params: StageParams) -> dict[str, str]:
    """Return each file or folder that the settings name with the SHA-256 of what it holds."""
    return {name: sha256_path(Path(name)) if Path(name).exists() else MISSING for name in params.named_files()}


def remember(stage: Stage, held: Mapping[str, str]) -> None:
    """Write down what the files held from which the stage's present output was made."""
    write_json(_memory(stage), {"output": manifest_hash(stage.output), "held": dict(held)})


def changed(stage: Stage, params: StageParams) -> list[str]:
    """Return the named files that do not hold what the stage's present output was made from.

    All of them where that is not known: making shards again from equal files costs little. None where there is no
    output, as DVC makes one then anyway.
    """
    if not params.named_files():
        return []
    try:
        output = manifest_hash(stage.output)
    except (ManifestError, OSError):
        return []
    held: dict[str, str] = {}
    try:
        memory = json.loads(_memory(stage).read_bytes())
        if memory["output"] == output:
            held = memory["held"]
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return [name for name, content in contents(params).items() if held.get(name) != content]


def _memory(stage: Stage) -> Path:
    return state_folder() / "named_files" / f"{stage.name}.json"
