"""The form of settings that Prefect shows for the pipeline, and what a run takes from it.

A form is filled in with params.yaml as it was when the form was registered, and Prefect hands every run all of it back,
also a scheduled run that nobody touched. So a run compares what it was given with the form it came from, and only what
differs is written to params.yaml: an edit made there since then stays.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentUpdate
from prefect.exceptions import ObjectNotFound
from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, create_model
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from flows.workspace.adaptation import OWN_SECTIONS
from flows.workspace.graph import load_graph
from flows.workspace.params import RAY_SECTION, check_params, read_params
from tasks.contracts.base import FrozenModel, StageParams
from tasks.contracts.durable_files import write_json
from tasks.contracts.errors import InputError
from tasks.contracts.workspace import state_folder
from tasks.engine.session import RayParams

NO_SECRET = (
    r"^(?![\s\S]*[hH][tT][tT][pP][sS]?:[/\\]{2}[^/?#\\\s]*@)(?![\s\S]*:[/\\]{2}[^/?#\\\s]*:[^/?#\\\s$]+@)"
    r"(?![\s\S]*[?&;#][^=&;#\s]*(?:[tT][oO][kK][eE][nN]|[sS][eE][cC][rR][eE][tT]|[pP][aA][sS][sS][wW][oO][rR][dD]|"
    r"[sS][iI][gG][nN][aA][tT][uU][rR][eE]|[cC][rR][eE][dD][eE][nN][tT][iI][aA][lL][sS]?|[kK][eE][yY](?:[iI][dD])?|"
    r"[sS][iI][gG]|[aA][uU][tT][hH]|[pP][wW][dD])=(?!\$\{\w+\}(?:[&#;\s]|$))[^&#;\s])"
)
"""What a text of the form must match, so that the commonest secrets do not even reach Prefect's database, which keeps a
run's parameters. JSON Schema's patterns know no flag for lower case; `secrets_in_settings` refuses the others later."""

DEPLOYMENT = "headwater/pipeline"
"""The deployment of prefect.yaml that shows this form."""


class Form(FrozenModel):
    """A form as it was registered: what stood in it before anyone touched it."""

    settings: dict[str, dict[str, Any]]

    @property
    def version(self) -> str:
        """The form's name: the deployment carries it as its version, and so does each run started from it."""
        content = json.dumps(self.settings, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(content.encode()).hexdigest()[:12]


class SettingsSchema:
    """Annotates a plain dict, so that Prefect shows params.yaml's sections and their fields as a form.

    The dict itself stays unchecked here: it may hold a part of a section, and is checked when merged with the rest.
    """

    def __get_pydantic_json_schema__(self, _schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return handler(settings_model().__pydantic_core_schema__)


@functools.cache  # Prefect asks for the schema twice where it reads the flow's arguments
def settings_model() -> type[BaseModel]:
    """Return a model of params.yaml: a group for each section, with the fields that are set there."""
    sections: dict[str, type[StageParams]] = {RAY_SECTION: RayParams}
    sections |= {name: stage.params_class for name, stage in load_graph().items()}
    groups: dict[str, Any] = {
        # Not required, and without a default in the schema: null is no group.
        name: (_group(name, params), Field(default_factory=dict))
        for name, params in sections.items()
    }
    return create_model("Settings", __config__=_CONFIG, **groups)


# Names as in params.yaml, not pydantic's "Max Steps".
_CONFIG = ConfigDict(
    extra="forbid",
    field_title_generator=lambda name, _field: name,
    json_schema_extra=lambda schema: _refuse_secrets(schema),
)


def _refuse_secrets(schema: Any) -> None:
    """Make every free text of a group refuse a secret: Prefect's server asks the schema before it stores a run."""
    if isinstance(schema, dict):
        if schema.get("type") == "string" and not {"enum", "const", "pattern"} & schema.keys():
            schema["pattern"] = NO_SECRET
        for part in [*schema.get("properties", {}).values(), *schema.get("anyOf", []), schema.get("items")]:
            _refuse_secrets(part)
        for part in [*schema.get("prefixItems", []), schema.get("additionalProperties")]:
            _refuse_secrets(part)


def _group(name: str, params: type[StageParams]) -> type[BaseModel]:
    borrowed = params.borrowed()
    fields: dict[str, Any] = {
        key: (field.annotation, field) for key, field in params.model_fields.items() if key not in borrowed
    }
    return create_model(name, __config__=_CONFIG, __doc__=params.__doc__, **fields)


def current_form() -> Form:
    """Return the form for params.yaml as it stands, and keep a copy for the runs that will be started from it."""
    checked = check_params(read_params(), load_graph())
    form = Form(
        settings={
            name: model.model_dump(mode="json", exclude=set(model.borrowed()))
            for name, model in checked.items()
            if name not in OWN_SECTIONS  # no stages of the run that the form starts
        }
    )
    write_json(_path(form.version), form.model_dump(mode="json"))
    return form


def changes(given: Mapping[str, Any], untouched: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a person changed: the keys of `given` whose value is another one than in `untouched`.

    A key that is not in `given` was not changed. A list counts as one value.

    >>> changes({"train": {"seed": 1, "max_steps": 5}}, {"train": {"seed": 1, "max_steps": None}})
    {'train': {'max_steps': 5}}
    """
    found: dict[str, Any] = {}
    for key, value in given.items():
        before = untouched.get(key)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            if inner := changes(value, before):
                found[key] = inner
        elif key not in untouched or value != before:
            found[key] = value
    return found


def changes_of_run(given: Mapping[str, Any], flow_run_id: UUID) -> dict[str, Any]:
    """Return what was changed in the form that a run was started from; all of `given` when it came from none.

    Raises:
        InputError: that form is not known in this workspace.
    """
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(flow_run_id)
    if run.deployment_id is None:
        return dict(given)
    path = _path(run.deployment_version or "")
    try:
        form = Form.model_validate_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(
            "this run was started from a form that is not known here, so what was changed in it cannot be told",
            where=str(path),
            fix="start the run again from the deployment's page; `headwater up` registers a new form",
        ) from error
    return changes(given, form.settings)


def refresh_form() -> None:
    """Fill the deployment's form in with params.yaml as it now is; nothing where Prefect has no such deployment."""
    form = current_form()
    with get_client(sync_client=True) as client:
        try:
            deployment = client.read_deployment_by_name(DEPLOYMENT)
        except ObjectNotFound:
            return
        if deployment.version != form.version:
            parameters = {**deployment.parameters, "settings": form.settings}
            client.update_deployment(deployment.id, DeploymentUpdate(version=form.version, parameters=parameters))


def _path(version: str) -> Path:
    return state_folder() / "forms" / f"{version}.json"
