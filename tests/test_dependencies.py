"""What pyproject.toml asks for is what the code imports, and a node that crawls and filters needs no trainer."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from functools import cache

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from flows.workspace.graph import load_graph
from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OPTIONAL = PROJECT["optional-dependencies"]
OURS = {"flows", "tasks", "training", "tests"}
ASKED_FOR = {one for part in (PROJECT["dependencies"], *OPTIONAL.values()) for one in part}
PROVIDED = importlib.metadata.packages_distributions()
PART_OF = {"pydantic_core": "pydantic"}
"""Packages that another one pins to one version of its own."""
WITHOUT_NEED = {"magic": "tests/bench/datatrove_peer.py looks whether it is there"}


@cache
def imported_in(folder: str) -> set[str]:
    """Return the top-level modules of others that the code of a folder imports, wherever in a file."""
    names: set[str] = set()
    for path in (ROOT / folder).rglob("*.py"):
        if path.name == "conftest.py" and folder != "tests":
            continue
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Import):
                names.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names.add(str(node.module))
    return {name.partition(".")[0] for name in names} - sys.stdlib_module_names - OURS


def imported(folders: Iterable[str]) -> set[str]:
    return {name for folder in folders for name in imported_in(folder)}


def distributions(requirements: Iterable[str]) -> set[str]:
    return {canonicalize_name(Requirement(one).name) for one in requirements}


def providers(module: str) -> set[str]:
    module = PART_OF.get(module, module)
    return {canonicalize_name(name) for name in PROVIDED[module]}


FOR_USE = distributions([*PROJECT["dependencies"], *OPTIONAL["serve"], *OPTIONAL["train"], *OPTIONAL["ui"]])


@pytest.mark.parametrize(
    ("folders", "declared"),
    [(("flows", "tasks", "training"), FOR_USE), (("tests",), FOR_USE | distributions(OPTIONAL["dev"]))],
    ids=["the code", "the tests"],
)
def test_what_is_imported_is_asked_for(folders: tuple[str, ...], declared: set[str]) -> None:
    missing = {name for name in imported(folders) - WITHOUT_NEED.keys() if not providers(name) & declared}
    assert not missing, "pyproject.toml does not name what these modules are of"


def test_what_is_asked_for_is_imported_or_says_what_it_is_for() -> None:
    needed = {one for module in imported(OURS) - WITHOUT_NEED.keys() for one in providers(module)}
    told = re.findall(r'^    "([^"]+)",(  # \S.*)?$', (ROOT / "pyproject.toml").read_text(), re.M)
    lines = {one: comment for one, comment in told if one in ASKED_FOR}
    assert lines.keys() == ASKED_FOR, "each requirement has a line of its own"
    silent = {one for one, comment in lines.items() if not comment and not distributions([one]) & needed}
    assert not silent, "is neither imported nor has a comment that says who needs it"


def test_constraints_name_each_of_them() -> None:
    pinned = distributions(line for line in (ROOT / "constraints.txt").read_text().splitlines() if line[:1] not in "#")
    bundled = {"setuptools"}  # comes with the virtual environment
    assert FOR_USE | distributions(OPTIONAL["dev"]) <= pinned | bundled | {"headwater"}


BLOCKED = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
{code}
"""


def without(extras: Iterable[str], code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process in which the packages of these optional parts cannot be imported."""
    absent = distributions(one for extra in extras for one in OPTIONAL[extra]) - {"headwater", "setuptools"}
    modules = {name for name, makers in PROVIDED.items() if absent & {canonicalize_name(maker) for maker in makers}}
    assert {"torch", "transformers", "deepspeed", "lm_eval"} <= modules
    script = BLOCKED.format(blocked=modules, code=code)
    return subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)


DATA_STAGES = [name for name, stage in load_graph(ROOT / "dvc.yaml").items() if stage.uses_ray]


def test_data_stages_and_commands_load_without_the_trainer() -> None:
    """Every module in tasks/ and flows/, and the settings of all stages, which a run checks before it starts."""
    code = f"""
import importlib, pkgutil, flows, tasks
from flows.workspace.graph import load_graph
for package in (tasks, flows):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not module.name.endswith("__main__") and not module.name.startswith("flows.mlflow."):
            importlib.import_module(module.name)
import flows.mlflow.mirror
assert {DATA_STAGES} == [name for name, stage in load_graph().items() if stage.uses_ray and stage.params_class]
assert all(stage.params_class for stage in load_graph().values())
from flows.cli.main import main
main(["--help"])
"""
    done = without(["serve", "train", "ui"], code)
    assert done.returncode == 0, done.stderr
    assert "Usage: headwater" in done.stdout
