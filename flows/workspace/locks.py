"""One run at a time in a workspace: a file lock that the kernel lets go when its holder dies, however it dies."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from tasks.contracts.errors import LockedError
from tasks.contracts.workspace import state_folder


@contextmanager
def workspace_lock(name: str) -> Iterator[None]:
    """Hold `.headwater/NAME.lock` for as long as the block runs.

    Raises:
        LockedError: another process holds it; says which.
    """
    folder = state_folder()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.lock"
    with path.open("a+", encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            stream.seek(0)
            holder = stream.read().strip()
            raise LockedError(
                "another run is at work in this workspace",
                where=str(path),
                found=f"process {holder}" if holder else None,
                fix="wait until it ends, or use another clone of the workspace",
            ) from error
        stream.truncate(0)
        stream.write(str(os.getpid()))
        stream.flush()
        yield
