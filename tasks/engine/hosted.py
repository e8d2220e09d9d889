"""How a stage asks for the Ray session that its run keeps (`host.py`): over a Unix socket that nobody else reaches."""

from __future__ import annotations

import json
import os
import select
import socket
from contextlib import suppress

from tasks.contracts.errors import HeadwaterError

VARIABLE = "HEADWATER_RAY"
"""Where the stages of a run find the process that keeps their session."""
ANSWER_SECONDS = 0.25
"""How long a session that stands may take to say so: who does not wait for it makes a shard alone for nothing."""

_lines: list[socket.socket] = []


def call() -> bool:
    """Ask for the session, without waiting for its start; return whether it can be joined at once."""
    address = os.environ.get(VARIABLE)
    if not address:
        return True
    patience = 0.0
    if not _lines:
        patience = ANSWER_SECONDS
        line = socket.socket(socket.AF_UNIX)
        try:
            line.connect(address)
        except OSError:
            line.close()
            return True  # the run has ended; what is left of it starts a session of its own
        _lines.append(line)
    return bool(select.select(_lines, [], [], patience)[0])


def hosted() -> dict[str, str]:
    """Wait for the session, and return what joins it, as environment variables; nothing where none is offered.

    Raises:
        HeadwaterError: it does not start.
    """
    call()
    if not _lines:
        return {}
    answer = b""
    with _lines.pop() as line, line.makefile("rb") as stream, suppress(ConnectionError):
        answer = stream.readline()
    if not answer:
        raise HeadwaterError("the process that keeps this run's Ray session is gone", fix="run again")
    told = json.loads(answer)
    if "error" in told:
        raise HeadwaterError(told["error"])
    return dict(told["environment"])
