"""Whose insides we use, it stays at the version that was looked at, and pyproject.toml says why."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

import pytest

from tests.conftest import ROOT

FOLDERS = ("flows", "tasks", "training")
UNDOCUMENTED = {
    "datatrove.pipeline.filters", "dvc.repo", "dvc_data.hashfile", "justext.core", "mlflow.server",
    "prefect.server.api.server", "scrapy.core", "spacy.lang.char_classes", "trafilatura.xpaths",
}  # fmt: skip
"""Modules that their libraries' documentation does not name."""
ON_INSTANCES = {"_encode": "py3langid", "_alias_pairs": "py3langid", "_quiescentCallback": "twisted"}
"""Private attributes of other libraries' objects, which no import shows."""


def is_private(module: str) -> bool:
    inner = any(module == name or module.startswith(f"{name}.") for name in UNDOCUMENTED)
    return inner or any(part.startswith("_") and not part.startswith("__") for part in module.split("."))


def private_uses(path: Path) -> set[str]:
    """Return the libraries, by the name that is imported, of which a file uses a private part."""
    used = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            used |= {alias.name for alias in node.names if is_private(alias.name)}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            used |= {name for name in names if is_private(name)}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if re.fullmatch(r"\w+(\.\w+)*\._\w+(\.\w+)*", node.value):
                used.add(node.value)
        elif isinstance(node, ast.Attribute) and node.attr in ON_INSTANCES:
            used.add(ON_INSTANCES[node.attr])
    libraries = {name.split(".")[0] for name in used}
    return libraries - {*FOLDERS, "tests"} - set(sys.stdlib_module_names)


def libraries() -> list[str]:
    return sorted({name for folder in FOLDERS for path in (ROOT / folder).rglob("*.py") for name in private_uses(path)})


def requirements() -> dict[str, str]:
    """Return the line of pyproject.toml for each distribution, comment and all."""
    text = (ROOT / "pyproject.toml").read_text()
    project = tomllib.loads(text)["project"]
    wanted = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    lines = {re.split(r"[\[<>=,]", one)[0].lower().replace("_", "-"): one for one in wanted}
    return {name: next(line for line in text.splitlines() if f'"{one}"' in line) for name, one in lines.items()}


def test_private_parts_are_found() -> None:
    assert {"ray", "scrapy", "dvc", "py3langid", "twisted", "mlflow", "prefect"} <= set(libraries())


@pytest.mark.parametrize("library", libraries())
def test_a_library_of_whose_insides_we_use_a_part_is_pinned_with_the_reason(library: str) -> None:
    names = {name.lower().replace("_", "-") for name in importlib.metadata.packages_distributions()[library]}
    (line,) = (line for name, line in requirements().items() if name in names)
    assert re.search(r"<\d+\.\d+", line), f"{line.strip()}: no upper bound at its next minor version"
    assert "#" in line, f"{line.strip()}: no reason"
