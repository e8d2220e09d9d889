"""Where MLflow keeps its runs, for whoever opens them: the given server, the one of `headwater up`, or a file."""

from __future__ import annotations

import os
from pathlib import Path

from flows.services.access import running_services
from tasks.contracts.workspace import state_folder

QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # A server that does not answer holds up a stage's end: give up within seconds, since nothing is lost.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
}


URI_VARIABLE = "MLFLOW_TRACKING_URI"


def be_quiet() -> None:
    """Put into this process's environment what MLflow is to read when it is imported, where nothing else is said."""
    os.environ.update({name: value for name, value in QUIET.items() if name not in os.environ})


def is_in_use() -> bool:
    """Return whether there may be anything in MLflow: a server is named, or the workspace has a database."""
    return bool(os.environ.get(URI_VARIABLE)) or database_path().is_file()


def tracking_uri() -> str:
    """Return MLFLOW_TRACKING_URI, else the running MLflow server's address, else the workspace's own database.

    Where that is the server of `headwater up`, this process's environment then holds what its clients must send.
    """
    given, services = os.environ.get(URI_VARIABLE), running_services()
    if services is not None and (given or services.mlflow).rstrip("/") == services.mlflow:
        os.environ |= services.mlflow_credentials
        return services.mlflow
    return given or database_uri()


def database_uri() -> str:
    """Return the address of the workspace's own MLflow database."""
    state_folder().mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{database_path()}"


def database_path() -> Path:
    """Return where the workspace's own MLflow database is."""
    return state_folder() / "mlflow.db"


def artifact_folder() -> Path:
    """Return where the workspace's own MLflow keeps files."""
    return state_folder() / "mlflow-artifacts"
