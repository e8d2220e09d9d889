"""Where the servers of this workspace are, and the secrets that open them.

Both secrets are made at start and live as long as the servers. They are handed to child processes by environment, and
to other processes of the same person by a file that only its owner may read: a command line is read by everybody.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
from pathlib import Path

import psutil
from pydantic import Field, ValidationError

from tasks.contracts.base import FrozenModel
from tasks.contracts.durable_files import atomic_path
from tasks.contracts.workspace import ROOT, state_folder

HOST = "127.0.0.1"
USER = "headwater"
"""The user's name in Basic authorisation; the password is the token."""
TOKEN_PARAMETER = "token"

ADDRESS_VARIABLE = "HEADWATER_GUARD_ADDRESS"
TOKEN_VARIABLE = "HEADWATER_GUARD_TOKEN"
DATABASE_VARIABLE = "HEADWATER_GUARD_MLFLOW_DATABASE"
ARTIFACTS_VARIABLE = "HEADWATER_GUARD_MLFLOW_ARTIFACTS"
"""What a server of flows/services/guarded.py is told, by environment."""


class Services(FrozenModel):
    """The addresses of the running services, and the process that owns them.

    Attributes:
        prefect: the Prefect UI; its API is at `prefect` + "/api".
        mlflow: the MLflow UI and tracking server.
        pid_started: when the owner began (seconds since the epoch), since a process id is used again.
        token: the secret that opens both UIs, and MLflow's password for the user `headwater`.
        prefect_secret: what PREFECT_API_AUTH_STRING wants.
    """

    prefect: str
    mlflow: str
    pid: int
    pid_started: float
    token: str = Field("", repr=False)
    prefect_secret: str = Field("", repr=False)

    @property
    def prefect_api(self) -> str:
        """What PREFECT_API_URL wants."""
        return f"{self.prefect}/api"

    @property
    def prefect_link(self) -> str:
        """The address that opens the Prefect UI in a browser, secret included."""
        return f"{self.prefect}/?{TOKEN_PARAMETER}={self.token}"

    @property
    def mlflow_link(self) -> str:
        """The address that opens the MLflow UI in a browser, secret included."""
        # MLflow opens its pages for language-model applications unless asked for those of model training.
        return f"{self.mlflow}/?{TOKEN_PARAMETER}={self.token}#/experiments?workflowType=machine_learning"

    @property
    def mlflow_credentials(self) -> dict[str, str]:
        """What a client of this MLflow server needs in its environment."""
        return {"MLFLOW_TRACKING_USERNAME": USER, "MLFLOW_TRACKING_PASSWORD": self.token}


def running_services() -> Services | None:
    """Return the services that `headwater up` started in this workspace, None when it does not run."""
    try:
        services = Services.model_validate(json.loads(services_path().read_bytes()))
        started = psutil.Process(services.pid).create_time()
    except (OSError, ValueError, ValidationError, psutil.Error):
        return None
    return services if abs(started - services.pid_started) < 1 else None


def write_services(services: Services) -> None:
    """Say where the services are, to their owner alone, from the file's first byte on."""
    with atomic_path(services_path()) as temporary:
        temporary.unlink(missing_ok=True)
        temporary.touch(0o600, exist_ok=False)
        temporary.write_text(services.model_dump_json(indent=2), encoding="utf-8")


def services_path() -> Path:
    """Return the file that holds the running services."""
    return state_folder() / "services.json"


def new_token() -> str:
    """Return a secret of 256 bits that can stand in an address."""
    return secrets.token_urlsafe(32)


def prefect_secret() -> str:
    """Return the user's own secret for a Prefect server of theirs, where one is set, else a new one."""
    return os.environ.get("PREFECT_SERVER_API_AUTH_STRING") or f"{USER}:{new_token()}"


def prefect_environment(server: str, secret: str) -> dict[str, str]:
    """Return the settings of every Prefect process of this workspace: its own home, nothing sent anywhere, a secret.

    They take the place of the same settings in the environment, which may be for another server.
    """
    return {
        "PREFECT_API_URL": f"{server}/api",
        "PREFECT_API_AUTH_STRING": secret,
        "PREFECT_CLIENT_CUSTOM_HEADERS": "{}",
        "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "true",
        "PREFECT_SERVER_API_AUTH_STRING": secret,
        "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": server,
        "PREFECT_UI_API_URL": f"{server}/api",
        "PREFECT_HOME": str(state_folder() / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "DO_NOT_TRACK": "1",
    }


def guard_environment(address: str, token: str) -> dict[str, str]:
    """Return what a server of flows/services/guarded.py must be told.

    Args:
        address: host:port.
    """
    return {ADDRESS_VARIABLE: address, TOKEN_VARIABLE: token}


def guarded_command(server: str, *where: str) -> list[str]:
    """Return the command that starts a server of flows/services/guarded.py.

    Args:
        where: uvicorn's options of where to listen.
    """
    # An access log would hold the address with the token. Nothing here stands behind a proxy whose word would count.
    quiet = ("--log-level", "warning", "--no-access-log", "--no-proxy-headers")
    start = [sys.executable, "-m", "uvicorn", "--factory", "--app-dir", str(ROOT)]
    return [*start, f"flows.services.guarded:{server}", *where, *quiet]
