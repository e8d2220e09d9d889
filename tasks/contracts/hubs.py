"""Whose fault it is when a hub's data cannot be had: the network's, which may pass, or a setting's."""

from __future__ import annotations

import os

from tasks.contracts.errors import NetworkError, RefusedError

NETWORK_ERRORS = frozenset(
    (
        *("ConnectionError", "OfflineModeIsEnabled", "LocalEntryNotFoundError", "ConnectError", "ReadTimeout"),
        *("ConnectTimeout", "HfHubHTTPError", "MaxRetryError", "ProxyError", "Timeout", "gaierror"),
    )
)
"""Classes, of several libraries, that mean that a hub did not answer."""
OFFLINE_VARIABLES = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")


def is_network_fault(error: BaseException | None) -> bool:
    """Return whether an error, or one that it came from, says that a hub did not answer.

    >>> is_network_fault(OSError("could not connect")), is_network_fault(ValueError("a bug"))
    (True, False)
    """
    while error is not None:
        if isinstance(error, OSError) and "connect" in str(error).lower():
            return True
        if any(kind.__name__ in NETWORK_ERRORS for kind in type(error).__mro__):
            return True
        error = error.__cause__ or error.__context__
    return False


def hub_error() -> type[NetworkError]:
    """Return the error for a hub that did not answer: one that may pass, unless this machine is told to ask none."""
    offline = any(os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE") for name in OFFLINE_VARIABLES)
    return RefusedError if offline else NetworkError
