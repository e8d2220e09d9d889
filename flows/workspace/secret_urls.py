"""Secrets that come by the environment: they leave the URLs they stand in before anything of a run is written.

Programs read passwords from variables of their own, so a URL need not hold them; what must stay in one (a proxy's, a
database's) is kept out of errors and logs.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from urllib.parse import unquote, urlsplit

from tasks.contracts.redaction import remember_secret, remember_secrets_of, without_userinfo

WEB = ("http://", "https://")
MLFLOW = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")
MLFLOW_USER, MLFLOW_PASSWORD = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"
PREFECT, PREFECT_LOGIN = "PREFECT_API_URL", "PREFECT_API_AUTH_STRING"


def hide_secrets(environment: MutableMapping[str, str] = os.environ) -> None:
    """Move user and password out of MLflow's and Prefect's address, and remember every secret that a variable holds.

    Called first in each process that writes something; children inherit the moved ones.
    """
    for name in MLFLOW:
        if login := _login(environment.get(name, "")):
            environment[MLFLOW_USER], environment[MLFLOW_PASSWORD] = (unquote(part) for part in login)
            environment[name] = without_userinfo(environment[name])
    if login := _login(environment.get(PREFECT, "")):
        environment[PREFECT_LOGIN] = ":".join(unquote(part) for part in login)
        environment[PREFECT] = without_userinfo(environment[PREFECT])
    for value in (environment.get(MLFLOW_PASSWORD), environment.get(PREFECT_LOGIN)):
        if value:
            remember_secret(value)
            remember_secret(value.partition(":")[2])
    for value in environment.values():
        if "://" in value:
            remember_secrets_of(value)


def _login(url: str) -> tuple[str, str] | None:
    """Return a web address's user and password, None where it has none."""
    if not url.lower().startswith(WEB):
        return None
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    return (parts.username or "", parts.password or "") if parts.username or parts.password else None
