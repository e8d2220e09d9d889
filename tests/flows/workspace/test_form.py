from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from prefect.exceptions import ObjectNotFound
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools.validation import is_valid, validate

from flows.pipeline.flow import pipeline
from flows.workspace import form as form_module
from flows.workspace.form import changes, changes_of_run, current_form, refresh_form
from flows.workspace.graph import load_graph
from flows.workspace.params import merge_values, read_params
from tasks.contracts.errors import InputError
from tests.conftest import ROOT

KEYS = st.sampled_from("abc")
VALUES = st.none() | st.booleans() | st.integers() | st.lists(st.integers(0, 2), max_size=2)
TREES = st.dictionaries(KEYS, VALUES | st.dictionaries(KEYS, VALUES))
DEPLOYMENT = UUID(int=1)


@pytest.fixture
def project(workspace: Path) -> Path:
    """The project's own dvc.yaml and params.yaml in an empty folder."""
    for name in ("dvc.yaml", "params.yaml"):
        (workspace / name).write_bytes((ROOT / name).read_bytes())
    return workspace


class Server:
    """Stands for Prefect's: one deployment, and runs that were started from it or by hand."""

    def __init__(self) -> None:
        self.deployment: SimpleNamespace | None = None
        self.runs: dict[UUID, SimpleNamespace] = {}

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None: ...

    def start(self, *, from_form: bool = True) -> UUID:
        run = uuid4()
        version = self.deployment.version if self.deployment and from_form else None
        self.runs[run] = SimpleNamespace(deployment_id=DEPLOYMENT if from_form else None, deployment_version=version)
        return run

    def read_flow_run(self, run: UUID) -> SimpleNamespace:
        return self.runs[run]

    def read_deployment_by_name(self, name: str) -> SimpleNamespace:
        if self.deployment is None or name != "headwater/pipeline":
            raise ObjectNotFound(Exception(name))
        return self.deployment

    def update_deployment(self, deployment_id: UUID, update: Any) -> None:
        assert deployment_id == DEPLOYMENT
        assert self.deployment is not None
        vars(self.deployment).update(update.model_dump(exclude_unset=True))


@pytest.fixture
def server(project: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A server on which `headwater up` has registered the form."""
    made = Server()
    form = current_form()
    made.deployment = SimpleNamespace(
        id=DEPLOYMENT, version=form.version, parameters={"settings": form.settings, "until": "gate"}
    )
    monkeypatch.setattr(form_module, "get_client", lambda **_: made)
    return made


def filled_in(server: Server) -> dict[str, Any]:
    """What the form shows, as a browser would send it back."""
    assert server.deployment is not None
    settings: dict[str, Any] = json.loads(json.dumps(server.deployment.parameters["settings"]))
    return settings


def properties(schema: dict[str, Any], section: str) -> dict[str, Any]:
    fields: dict[str, Any] = schema["definitions"][section]["properties"]
    return fields


def test_the_form_has_a_group_for_each_section_and_a_described_field_for_each_setting() -> None:
    schema = parameter_schema(pipeline.fn).model_dump()
    groups = schema["properties"]["settings"]["anyOf"][0]["properties"]
    assert groups == {name: {"$ref": f"#/definitions/{name}"} for name in ("ray", *load_graph(ROOT / "dvc.yaml"))}
    for name in groups:
        assert all(field.get("description") for field in properties(schema, name).values()), name
    learning_rate = properties(schema, "train")["learning_rate"]
    assert learning_rate["title"] == "learning_rate"
    assert learning_rate["exclusiveMinimum"] == 0


@pytest.mark.parametrize(
    ("model", "taken"),
    [("125m", True), ({"layers": 3}, True), ({"preset": "7b", "qk_norm": True}, True), ("126m", False), (7, False)],
    ids=str,
)
def test_the_form_takes_a_model_by_name_or_by_numbers(model: object, taken: bool) -> None:
    schema = parameter_schema(pipeline.fn).model_dump()
    assert is_valid({"settings": {"train": {"model": model}}}, schema) is taken


def test_a_setting_that_stands_in_another_section_is_asked_for_once() -> None:
    schema = parameter_schema(pipeline.fn).model_dump()
    assert "tasks" in properties(schema, "evaluate")
    assert "tasks" not in properties(schema, "decontaminate")
    assert not {"tasks", "policy"} & set(properties(schema, "train"))


def test_the_filled_in_form_is_valid_and_a_wrong_value_or_name_is_refused_before_the_run(project: Path) -> None:
    schema = parameter_schema(pipeline.fn).model_dump()
    untouched = json.loads(json.dumps(current_form().settings))
    assert validate({"settings": untouched}, schema) == []
    assert untouched["train"]["max_steps"] == read_params()["train"]["max_steps"]
    wrong: dict[str, Any]
    for wrong in ({"train": {"max_steps": 0}}, {"train": {"steps": 5}}, {"tarin": {}}, {"crawl": {"source": "disk"}}):
        assert not is_valid({"settings": wrong}, schema), wrong


def test_an_untouched_form_writes_nothing_over_params_that_were_edited_since(server: Server) -> None:
    given, run = filled_in(server), server.start()
    merge_values({"train": {"max_steps": 7}})
    assert changes_of_run(given, run) == {}


def test_only_what_a_person_changed_is_taken_from_the_form(server: Server) -> None:
    given, run = filled_in(server), server.start()
    given["train"]["model"]["layers"] = 9
    given["crawl"]["seeds"] = ["http://a.example/"]
    merge_values({"train": {"max_steps": 7}})
    assert changes_of_run(given, run) == {"train": {"model": {"layers": 9}}, "crawl": {"seeds": ["http://a.example/"]}}


def test_a_run_that_waited_is_compared_with_the_form_it_was_started_from(server: Server) -> None:
    given, waiting = filled_in(server), server.start()
    merge_values({"train": {"max_steps": 7}})
    refresh_form()
    assert changes_of_run(given, waiting) == {}


def test_a_refreshed_form_shows_the_new_value_so_that_the_old_one_can_be_asked_for(server: Server) -> None:
    before = filled_in(server)
    merge_values({"train": {"max_steps": 7}})
    refresh_form()
    assert filled_in(server)["train"]["max_steps"] == 7
    assert server.deployment is not None
    assert server.deployment.parameters["until"] == "gate"
    assert changes_of_run(before, server.start()) == {"train": {"max_steps": before["train"]["max_steps"]}}


def test_settings_given_without_a_form_are_all_changes(server: Server) -> None:
    given = {"train": {"max_steps": 200}}
    assert changes_of_run(given, server.start(from_form=False)) == given


def test_a_run_from_an_unknown_form_is_refused(server: Server) -> None:
    given, run = filled_in(server), server.start()
    server.runs[run].deployment_version = "another"
    with pytest.raises(InputError, match="form that is not known here"):
        changes_of_run(given, run)


def test_a_server_without_the_deployment_needs_no_form(server: Server) -> None:
    server.deployment = None
    refresh_form()


@settings(max_examples=50)
@given(TREES, TREES)
def test_what_is_the_same_is_no_change_and_every_change_is_found(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert changes(before, before) == {}
    found = changes(after, before)
    for key, value in after.items():
        if key not in before or (value != before[key] and not isinstance(value, dict)):
            assert found[key] == value
        if key in before and value == before[key]:
            assert key not in found


def test_the_deployments_flow_is_loaded_without_hiding_libraries_behind_our_files() -> None:
    """From a file, Prefect would load it with the file's folder before all others, where names may hide libraries."""
    (deployment,) = yaml.safe_load((ROOT / "prefect.yaml").read_bytes())["deployments"]
    script = (
        "import sys\n"
        "from prefect.flows import load_flow_from_entrypoint\n"
        "print(load_flow_from_entrypoint(sys.argv[1]).name, ROOT in sys.path)\n".replace(
            "ROOT", repr(str(ROOT / "flows"))
        )
    )
    told = subprocess.run(
        [sys.executable, "-c", script, deployment["entrypoint"]], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert told.stdout.split() == ["headwater", "False"]
