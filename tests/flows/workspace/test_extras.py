"""Without its optional parts Headwater says what is missing, before it starts.

tests/e2e/test_wheel.py runs it where they are truly not installed.
"""

from __future__ import annotations

import importlib.metadata
import logging
from collections.abc import Callable

import pytest

from flows.cli.up import up
from flows.mlflow.mirror import SERVER_VARIABLE, mirror_server
from flows.pipeline.preflight import ready
from flows.workspace import extras
from flows.workspace.doctor import examine
from flows.workspace.graph import load_graph
from flows.workspace.params import read_params
from tasks.contracts.errors import HeadwaterError, InputError
from tests.conftest import ROOT


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    version = importlib.metadata.version

    def absent(*names: str) -> None:
        def version_of(name: str) -> str:
            if name in names:
                raise importlib.metadata.PackageNotFoundError(name)
            return version(name)

        monkeypatch.setattr(importlib.metadata, "version", version_of)

    return absent


def test_a_part_lacks_what_is_not_installed_of_it_and_of_the_parts_in_it(without: Callable[..., None]) -> None:
    assert extras.lacking("train") == []
    without("torch", "deepspeed", "mlflow")
    assert extras.lacking("train") == ["deepspeed", "torch"]
    assert extras.lacking("ui") == ["mlflow"]


@pytest.mark.parametrize(("module", "extra"), [("mlflow.tracking", "ui"), ("torch", "serve"), ("lm_eval", "train")])
def test_a_failed_import_names_the_part(without: Callable[..., None], module: str, extra: str) -> None:
    error = ModuleNotFoundError(f"No module named {module!r}", name=module)
    assert extras.not_installed(error) is None, "it is installed: this is another fault"
    without("mlflow", "torch", "lm-eval")
    assert f"headwater[{extra}]" in str(extras.not_installed(error))
    assert extras.not_installed(ModuleNotFoundError("No module named 'mine'", name="mine")) is None


def test_a_run_with_training_stages_does_not_start_without_the_trainer(
    without: Callable[..., None], workspace: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    without("deepspeed")
    graph = load_graph()
    ready(read_params(), graph, until="mix")
    with pytest.raises(HeadwaterError, match=r"(?s)no deepspeed.*headwater\[train\].*--until tokenize"):
        ready(read_params(), graph)


def test_a_run_without_mlflow_says_so_once_and_goes_on(
    without: Callable[..., None], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    without("mlflow")
    with caplog.at_level(logging.INFO), mirror_server():
        assert "MLflow is not installed" in caplog.text
    monkeypatch.delenv(SERVER_VARIABLE, raising=False)


def test_up_and_doctor_know_that_mlflow_is_not_there(without: Callable[..., None]) -> None:
    without("mlflow")
    with pytest.raises(InputError, match=r"headwater\[ui\]"):
        up()
    told = {finding.name: finding for finding in examine()}
    assert told["mlflow"].optional
    assert not told["torch"].optional
