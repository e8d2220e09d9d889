"""The embedded services."""

from __future__ import annotations

import json
import os

from pydantic import ValidationError

from tasks.contracts.base import FrozenModel
from tasks.contracts.workspace import state_folder


class Services(FrozenModel):
    """The addresses of the running services, and the process that owns them."""

    prefect: str
    mlflow: str
    pid: int


def running_services() -> Services | None:
    """Return the services that `headwater up` started in this workspace, None when it does not run."""
    path = state_folder() / "services.json"
    try:
        services = Services.model_validate(json.loads(path.read_bytes()))
        os.kill(services.pid, 0)
    except (OSError, ValueError, ValidationError):
        return None
    return services
