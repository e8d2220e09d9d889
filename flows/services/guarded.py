"""The guarded servers, as uvicorn starts them (`python -m uvicorn --factory flows.services.guarded:prefect`).

What they are told comes by environment, so that no secret stands on a command line, where every user can read it.
"""

from __future__ import annotations

import os

from starlette.types import ASGIApp

from flows.services.access import ADDRESS_VARIABLE, ARTIFACTS_VARIABLE, DATABASE_VARIABLE, TOKEN_VARIABLE
from flows.services.databases import be_patient
from flows.services.guard import Guard
from flows.services.repeat import Repeat


def prefect() -> ASGIApp:
    """Return Prefect's server, API and UI, behind the guard."""
    # Asked for by the guard alone: Prefect's UI would ask a person for a password that the cookie stands for.
    secret = os.environ.pop("PREFECT_SERVER_API_AUTH_STRING")
    from prefect.server.api.server import create_app

    return _guard(Repeat(create_app()), api_secret=secret, prefect=True)


def mlflow() -> ASGIApp:
    """Return MLflow's server behind the guard, set up as `mlflow server` does it."""
    from mlflow.server import constants

    database = os.environ[DATABASE_VARIABLE]
    root = "mlflow-artifacts:/"
    os.environ |= {
        constants.BACKEND_STORE_URI_ENV_VAR: database,
        constants.REGISTRY_STORE_URI_ENV_VAR: database,
        constants.ARTIFACT_ROOT_ENV_VAR: root,
        constants.ARTIFACTS_DESTINATION_ENV_VAR: os.environ[ARTIFACTS_VARIABLE],
        constants.SERVE_ARTIFACTS_ENV_VAR: "true",
        "_MLFLOW_SGI_NAME": "uvicorn",
    }
    from mlflow.server.handlers import initialize_backend_stores

    be_patient()
    initialize_backend_stores(database, database, root)
    from mlflow.server.fastapi_app import app

    return _guard(app)


def _guard(app: ASGIApp, api_secret: str | None = None, prefect: bool = False) -> Guard:
    address, token = os.environ[ADDRESS_VARIABLE], os.environ[TOKEN_VARIABLE]
    return Guard(app, address=address, token=token, api_secret=api_secret, prefect=prefect)
