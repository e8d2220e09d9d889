"""A key that is left out of params.yaml means what params.yaml says: one default a setting."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from pydantic import BaseModel
from ruamel.yaml import YAML

from flows.workspace.adaptation import ADAPTATION, OWN_SECTIONS
from flows.workspace.graph import load_graph
from flows.workspace.params import RAY_SECTION
from tasks.contracts.base import StageParams
from tasks.engine.session import RayParams
from tests.conftest import ROOT

FILE: dict[str, Any] = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
MODELS: dict[str, type[StageParams]] = {
    RAY_SECTION: RayParams,
    **{name: stage.params_class for name, stage in load_graph(ROOT / "dvc.yaml").items()},
    **{name: ADAPTATION[name].params_class for name in OWN_SECTIONS},
}
OF_THE_SAMPLE = {"filter.rules", "perplexity.reference", "decontaminate.benchmarks", "mix.groups"}
"""What speaks of the sample's own pages (its hosts, its quiz, rules tuned to it), which other pages do not have.

Left out, there are none, and params.yaml says so.
"""


def _keys(section: Mapping[str, Any], above: str) -> Iterator[tuple[str, Any]]:
    for name, value in section.items():
        yield f"{above}.{name}", value


SETTINGS = [pair for section, keys in FILE.items() for pair in _keys(keys or {}, section)]


def _default(setting: str) -> Any:
    section, key = setting.split(".")
    return getattr(MODELS[section].model_validate({}), key)


def _as_checked(setting: str, value: Any) -> Any:
    """Return a value of the file as the section's model takes it."""
    section, key = setting.split(".")
    return getattr(MODELS[section].model_validate({key: value}), key)


@pytest.mark.parametrize(("setting", "value"), SETTINGS, ids=[name for name, _ in SETTINGS])
def test_a_setting_that_is_left_out_is_what_the_file_says(setting: str, value: Any) -> None:
    default, written = _default(setting), _as_checked(setting, value)
    if setting in OF_THE_SAMPLE:
        assert default != written, f"{setting} is no exception any more"
    else:
        assert default == written
        assert type(default) is type(written)


@pytest.mark.parametrize(("setting", "value"), SETTINGS, ids=[name for name, _ in SETTINGS])
def test_also_one_within_another(setting: str, value: Any) -> None:
    default = _default(setting)
    if setting in OF_THE_SAMPLE or not isinstance(default, BaseModel):
        return
    for key in value:
        rest = {name: one for name, one in value.items() if name != key}
        assert _as_checked(setting, rest) == _as_checked(setting, value), f"{setting}.{key}"


def test_every_section_and_exception_is_asked_for() -> None:
    assert set(FILE) == set(MODELS)
    assert {name for name, _ in SETTINGS} >= OF_THE_SAMPLE
