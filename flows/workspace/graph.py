"""The stage graph, read from dvc.yaml: the only place that says which stage follows which."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from tasks.contracts.base import StageParams
from tasks.contracts.errors import InputError, UsageError, did_you_mean
from tasks.contracts.stages import PACKAGES, module_name

GRAPH_FILE = Path("dvc.yaml")
DATA = "data/"


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of the graph.

    Attributes:
        name: as in dvc.yaml and params.yaml.
        inputs: input name → the stage folder it reads.
        output: the folder it writes.
        params: the sections or keys of params.yaml on which DVC runs it again.
        snapshot: whether its output is one of the web, which is fetched once.
    """

    name: str
    inputs: Mapping[str, Path]
    output: Path
    params: tuple[str, ...]
    snapshot: bool = False

    @property
    def module(self) -> ModuleType:
        """The module that holds this stage's `Params` and `run`."""
        return importlib.import_module(module_name(self.name))

    @property
    def params_class(self) -> type[StageParams]:
        """The model of this stage's section of params.yaml."""
        model: type[StageParams] = self.module.Params
        return model

    @property
    def uses_ray(self) -> bool:
        """Whether Ray spreads this stage's work (the training stages are spread by DeepSpeed)."""
        return module_name(self.name).startswith("tasks.")


def load_graph(path: Path = GRAPH_FILE) -> dict[str, Stage]:
    """Read the stages of dvc.yaml, each after those it depends on.

    Raises:
        InputError: dvc.yaml is missing or not readable, or names a stage that no module makes.
    """
    try:
        listed = YAML(typ="safe").load(path)["stages"]
    except FileNotFoundError as error:
        raise InputError(
            "there is no dvc.yaml here",
            where=str(path.resolve()),
            fix="call headwater from the root of a Headwater workspace (the folder with dvc.yaml and params.yaml)",
        ) from error
    except (YAMLError, KeyError, TypeError) as error:
        raise InputError("dvc.yaml cannot be read", where=str(path), found=str(error)) from error
    unknown = sorted(name for name in listed if not module_name(name))
    if unknown:
        raise InputError(
            "dvc.yaml names a stage that no module makes",
            where=str(path),
            found=", ".join(unknown),
            expected=" or ".join(f"{package}/{unknown[0]}/stage.py" for package in PACKAGES),
        )
    stages = {name: _stage(name, body) for name, body in listed.items()}
    return _in_order(stages)


def select(graph: Mapping[str, Stage], name: str) -> Stage:
    """Return one stage by name.

    Raises:
        UsageError: there is no such stage.
    """
    if name not in graph:
        raise UsageError("there is no such stage", expected=", ".join(graph), found=name, fix=did_you_mean(name, graph))
    return graph[name]


def stages_until(graph: Mapping[str, Stage], until: str | None) -> list[Stage]:
    """Return the stages of a run, in order: all, or those up to one of them."""
    stages = list(graph.values())
    return stages[: list(graph).index(select(graph, until).name) + 1] if until else stages


def _stage(name: str, body: Mapping[str, Any]) -> Stage:
    inputs = {dep.removeprefix(DATA): Path(dep) for dep in body.get("deps", []) if dep.startswith(DATA)}
    out = body["outs"][0]
    output = Path(out if isinstance(out, str) else next(iter(out)))
    return Stage(name=name, inputs=inputs, output=output, params=tuple(body.get("params", [])), snapshot=not inputs)


def _in_order(stages: Mapping[str, Stage]) -> dict[str, Stage]:
    makers = {stage.output: stage.name for stage in stages.values()}
    ordered: dict[str, Stage] = {}

    def place(stage: Stage) -> None:
        for folder in stage.inputs.values():
            place(stages[makers[folder]])
        ordered.setdefault(stage.name, stage)

    for stage in stages.values():
        place(stage)
    return ordered
