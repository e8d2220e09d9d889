"""An adapted release: the tuned model, its own papers and chain, and in `base/` all of the base but its weights.

So the base's papers stand in it as they were written, and its chain goes on to the base's raw records.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from tasks.contracts.base_release import WEIGHTS_SUFFIX, copy_lineage
from tasks.contracts.durable_files import write_bytes, write_json
from tasks.contracts.files import METRICS_NAME, MODEL_FOLDER, REPORT_NAME, TASKS_FOLDER
from tasks.contracts.manifest import chain_order, manifest_hash, read_manifest
from tasks.contracts.release import BASE_FOLDER, LINEAGE_NAME, MODEL_CARD_NAME
from training.release.copies import copy_judged
from training.release.papers.adapted_card import Adapted, adapted_card


def assemble_adapted(settings: Mapping[str, JsonValue], license: str, inputs: Mapping[str, Path], output: Path) -> None:
    """Write every file of an adapted release but its manifest.

    Args:
        settings: of the stage release, those that decide the bytes; its `name` among them.
        license: of the weights.
        inputs: the adaptation's stages, and `base`, the release that it began with.
    """
    base, name = inputs[BASE_FOLDER], str(settings["name"])
    manifests = {stage: read_manifest(folder) for stage, folder in inputs.items()}
    copy_judged(inputs, output)
    copy_lineage(base, output / BASE_FOLDER)
    if (base / TASKS_FOLDER).is_dir():
        shutil.copytree(base / TASKS_FOLDER, output / TASKS_FOLDER)
    figures = _read(inputs["adapt"] / METRICS_NAME)
    weights = {
        Path(shard.name).name: shard.sha256
        for shard in manifests["adapt"].shards
        if shard.name.startswith(f"{MODEL_FOLDER}/") and shard.name.endswith(WEIGHTS_SUFFIX)
    }
    described = _read(base / LINEAGE_NAME)
    lineage: dict[str, JsonValue] = {
        "name": name,
        "params": {**settings},
        "files": {**weights},
        "weights_sha256": figures["weights_sha256"],
        "stages": {
            stage: {"manifest_sha256": manifest_hash(inputs[stage]), "inputs": dict(manifest.inputs)}
            for stage, manifest in manifests.items()
        },
    }
    write_json(output / LINEAGE_NAME, lineage)
    own = {stage: manifest for stage, manifest in manifests.items() if stage != BASE_FOLDER}
    told = Adapted(
        name=name,
        license=license,
        base_name=str(described["name"]),
        base_manifest=manifest_hash(base),
        manifests={stage: own[stage] for stage in chain_order({name: one.inputs for name, one in own.items()})},
        figures=figures,
        weights=weights,
        gate=_read(inputs["gate"] / REPORT_NAME),
    )
    write_bytes(output / MODEL_CARD_NAME, adapted_card(told))


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_bytes())
    return found
