"""Headwater's optional parts, as pyproject.toml names them: which of their packages are missing here."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tasks.contracts.errors import InputError

PROJECT = "headwater"
TRAIN = "train"
UI = "ui"


def lacking(extra: str) -> list[str]:
    """Return the packages of an optional part that are not installed here, sorted."""
    return sorted({name for name in _packages(extra) if not is_installed(name)})


def is_installed(name: str) -> bool:
    """Return whether a distribution is installed here."""
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def not_installed(error: BaseException) -> InputError | None:
    """Return what to say of an import that failed because an optional part is not installed, None for any other."""
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return None
    package = canonicalize_name(error.name.partition(".")[0])
    for extra in importlib.metadata.metadata(PROJECT).get_all("Provides-Extra") or []:
        if package in lacking(extra):
            return InputError("a package that this needs is not installed", found=package, fix=how_to_install(extra))
    return None


def how_to_install(extra: str) -> str:
    """Return what a person does to get an optional part."""
    return f"`make setup`, or `pip install '{PROJECT}[{extra}]'`"


def _packages(extra: str) -> Iterator[str]:
    for requirement in map(Requirement, importlib.metadata.requires(PROJECT) or []):
        if requirement.marker is None or not requirement.marker.evaluate({"extra": extra}):
            continue
        if canonicalize_name(requirement.name) == PROJECT:
            for part in requirement.extras:
                yield from _packages(part)
        elif not requirement.marker.evaluate({"extra": ""}):
            yield canonicalize_name(requirement.name)
