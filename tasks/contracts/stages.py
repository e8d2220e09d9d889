"""A stage, asked by its name: the module that makes it, and what that says of itself.

The stage NAME is the module PACKAGE.NAME.stage, with `Params`, `run` and `DOES`. There is no list of them: dvc.yaml
names the stages of a workspace, and the manifests those that something was made by.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterable
from types import ModuleType

from tasks.contracts.base import StageParams

PACKAGES = ("tasks", "training")
MODEL_STAGES = ("adapt", "train")
"""The stages that make a model; of an adaptation, which has both behind it, the first."""


def model_stage(names: Iterable[str]) -> str:
    """Return which of some stages made the model that the others judge and release.

    Raises:
        LookupError: none of them makes one.

    >>> model_stage(["evaluate", "train"]), model_stage(["adapt", "base"])
    ('train', 'adapt')
    """
    given = set(names)
    for name in MODEL_STAGES:
        if name in given:
            return name
    raise LookupError(f"none of {', '.join(sorted(given))} makes a model")


def module_name(stage: str) -> str:
    """Return the name of a stage's module, empty where there is none."""
    for package in PACKAGES:
        # Of a package that is not there, the lookup inside it would fail.
        if importlib.util.find_spec(f"{package}.{stage}") and importlib.util.find_spec(f"{package}.{stage}.stage"):
            return f"{package}.{stage}.stage"
    return ""


def stage_module(stage: str) -> ModuleType | None:
    """Return the module of a stage, None where this version has none of that name."""
    name = module_name(stage)
    return importlib.import_module(name) if name else None


def params_of(stage: str) -> type[StageParams] | None:
    """Return the model of a stage's settings, None where this version has no such stage."""
    module = stage_module(stage)
    return None if module is None else module.Params


def does(stage: str) -> str:
    """Return in one sentence what a stage does, for the papers; empty of one that this version does not have."""
    module = stage_module(stage)
    return str(module.DOES) if module is not None else ""
