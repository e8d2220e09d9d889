"""What every release has of the stages behind it, as they made it: model, scores, verdict and manifests."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from tasks.contracts.files import MODEL_FOLDER, REPORT_NAME
from tasks.contracts.manifest import MANIFEST_NAME
from tasks.contracts.release import BASE_FOLDER, EVALUATION_FOLDER, GATE_NAME, MANIFESTS_FOLDER, VERIFIER_NAME
from tasks.contracts.stages import model_stage


def copy_judged(inputs: Mapping[str, Path], output: Path) -> None:
    """Copy it, and the program that checks a release."""
    (output / MANIFESTS_FOLDER).mkdir(parents=True, exist_ok=True)
    shutil.copytree(inputs[model_stage(inputs)] / MODEL_FOLDER, output, dirs_exist_ok=True)
    shutil.copytree(inputs["evaluate"], output / EVALUATION_FOLDER, ignore=shutil.ignore_patterns(MANIFEST_NAME))
    shutil.copyfile(inputs["gate"] / REPORT_NAME, output / GATE_NAME)
    for stage, folder in inputs.items():
        if stage != BASE_FOLDER:
            shutil.copyfile(folder / MANIFEST_NAME, output / MANIFESTS_FOLDER / f"{stage}.json")
    shutil.copyfile(Path(__file__).with_name(VERIFIER_NAME), output / VERIFIER_NAME)
