"""One local Ray session for all stages of a run, in a process of its own, started when the first of them asks for it.

A session takes seconds to start, and a run of few documents never asks. `ray_host` keeps the process beside a run;
how a stage asks it is in `hosted.py`.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Iterator

from tasks.contracts.companions import companion
from tasks.contracts.errors import HeadwaterError
from tasks.contracts.workspace import child_environment
from tasks.engine.hosted import VARIABLE


@contextlib.contextmanager
def ray_host(params: str) -> Iterator[None]:
    """Offer the stages that start in the block one local session.

    Args:
        params: the `ray` section of params.yaml, as JSON.
    """
    with companion(__name__, params, variable=VARIABLE, environment=child_environment()):
        yield


def _serve(listener: socket.socket, params: str) -> None:
    """Start the session for the first who asks, and tell everybody how it is joined, until the standard input ends."""
    signal.signal(
        signal.SIGINT, lambda *_: None
    )  # the stage at work answers a Ctrl-C; ignored, workers would inherit it
    if sys.stdin in select.select([listener, sys.stdin], [], [])[0]:
        return
    # Not loaded before it is wanted.
    from tasks.engine.session import RayParams, ray_session

    before = dict(os.environ)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(ray_session(RayParams.model_validate_json(params)))
            import ray

            os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
            answer: dict[str, object] = {
                "environment": {name: value for name, value in os.environ.items() if before.get(name) != value}
            }
        except HeadwaterError as error:
            answer = {"error": str(error)}
        while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
            line, _ = listener.accept()
            with line, contextlib.suppress(OSError):
                line.sendall(json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2])
