"""The held-out tasks in a release, so that lm-eval can score the model on them from any folder.

lm-eval reads `data_files` of a task relative to the working folder; what a `!function` names it finds beside the YAML.
So the tasks of a release name a loader of a few lines, which finds the items beside itself.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tasks.contracts.durable_files import write_bytes
from tasks.contracts.files import TASKS_FOLDER

LOADER = "items.py"

_LOADER = '''\
"""Loads the items of the tasks in this folder for lm-eval: `custom_dataset: !function items.load`."""

import json
from pathlib import Path


def load(file, **_):
    """Return the items of one JSONL file beside this one, as lm-eval's split "test"."""
    import datasets

    path = Path(__file__).parent / Path(file).name
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\\n") if line]
    return datasets.DatasetDict({"test": datasets.Dataset.from_list(rows)})
'''


def write_local_tasks(holdout: Path, release: Path) -> list[str]:
    """Copy the tasks of the stage holdout into a release and return their names; none where it made none."""
    import yaml

    target, names = release / TASKS_FOLDER, []
    for path in sorted((holdout / TASKS_FOLDER).glob("*.yaml")):
        described = yaml.safe_load(path.read_bytes())
        del described["dataset_path"]
        (file,) = described["dataset_kwargs"]["data_files"].values()
        described["dataset_kwargs"] = {"file": file}
        text = yaml.safe_dump(described, sort_keys=False) + f"custom_dataset: !function {Path(LOADER).stem}.load\n"
        write_bytes(target / path.name, text.encode())
        shutil.copyfile(path.parent / file, target / file)
        names.append(path.stem)
    if names:
        write_bytes(target / LOADER, _LOADER.encode())
    return names


def documents_of_tasks(release: Path) -> set[str]:
    """Return the documents whose text stands in the items of a release's tasks."""
    found: set[str] = set()
    for path in sorted((release / TASKS_FOLDER).glob("*.jsonl")):
        for line in path.read_bytes().splitlines():
            row = json.loads(line)
            found.update((row["doc_id"], *row.get("choice_doc_ids", ())))
    return found
