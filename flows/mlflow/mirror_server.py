"""The mirror's server of a pipeline run (`python -m flows.mlflow.mirror_server FD`, started by `mirror.py`).

It loads MLflow when the first stage is at work (at once where a run is left to be closed) and forks for each stage that
connects: nothing is loaded where nothing has to run, or while Prefect, without which no stage begins, still starts.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import sys

from flows.mlflow.open_runs import open_runs


def serve(listener: socket.socket) -> None:
    """Mirror the stage at the other end of each connection, in a fork, until the standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    abandoned = any(open_runs().iterdir())
    if not abandoned and sys.stdin in select.select([listener, sys.stdin], [], [])[0]:
        return
    # Not loaded before it is wanted.
    from flows.mlflow.mirror_process import LOG_FORMAT, mirror_one, prepare
    from flows.workspace.secret_urls import hide_secrets

    hide_secrets()
    logging.basicConfig(level=logging.WARNING, format=LOG_FORMAT)
    prepare()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:
            return
        line, _ = listener.accept()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.dup2(line.fileno(), 0)
            os.dup2(line.fileno(), 1)
            line.close()
            listener.close()
            try:
                mirror_one()
            finally:
                logging.shutdown()
                os._exit(0)
        line.close()


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
    logging.shutdown()
    os._exit(0)  # all that MLflow loaded need not be taken apart, for a second and a half
