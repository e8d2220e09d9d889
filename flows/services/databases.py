"""SQLite files that several programs write: how long each waits for the others, and what is said of one that is kept.

Prefect waits a minute by itself, with a write-ahead log. MLflow waits 20 s, and 5 s while it makes its tables; on a
busy machine, or beside a program that looks at the file, that is too short. It waits here as long as Prefect does.
"""

from __future__ import annotations

import functools
import logging
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psutil

from tasks.contracts.errors import LockedError

logger = logging.getLogger(__name__)

BUSY_SECONDS = float(os.environ.get("HEADWATER_BUSY_SECONDS", "60"))
"""How long a database may be kept by others; a variable of the environment, as every process of a run has to know."""
SOON_SECONDS = 2.0
"""After how long a person is told what is waited for."""
LOCKED = "database is locked"
"""What SQLite says, and in some words everybody who passes it on."""


@functools.cache
def be_patient() -> None:
    """Let every SQLite connection that SQLAlchemy opens in this process from now on wait for others, and log ahead."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    patience = f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000:.0f}"

    def connected(connection: Any, _record: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute(patience)
            connection.execute("PRAGMA journal_mode = WAL")

    def asked(_connection: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> tuple[str, Any]:
        # MLflow sets its own patience at the beginning of each session.
        return (patience if statement.startswith("PRAGMA busy_timeout") else statement), values

    event.listen(Engine, "connect", connected)
    event.listen(Engine, "before_cursor_execute", asked, retval=True)


def wait_until_free(path: Path, owner: str, seconds: float | None = None) -> None:
    """Wait until a database can be written.

    Args:
        owner: whose it is, such as "Prefect".

    Raises:
        LockedError: another program kept it for all that time; says which.
    """
    if not path.exists():
        return
    seconds = BUSY_SECONDS if seconds is None else seconds
    end = time.monotonic() + seconds
    if _can_be_written(path, min(SOON_SECONDS, seconds)):
        return
    if seconds > SOON_SECONDS:
        logger.info("waiting for %s's database, which %s keeps locked", owner, _holder(path))
    if not _can_be_written(path, max(0.0, end - time.monotonic())):
        raise locked(path, owner, seconds)


def locked(path: Path, owner: str, seconds: float) -> LockedError:
    """Return the error that says who has kept a database for too long."""
    return LockedError(
        f"{owner}'s database stayed locked for {seconds:.0f} s",
        where=str(path),
        found=_holder(path),
        fix="end that program, or wait for it, and start again",
    )


@contextmanager
def locked_is_clear(path: Path, owner: str) -> Iterator[None]:
    """Raise what whoever uses a database inside the block says of a lock as one clear error."""
    try:
        yield
    except Exception as error:
        if LOCKED in str(error):
            raise locked(path, owner, BUSY_SECONDS) from error
        raise


def _can_be_written(path: Path, seconds: float) -> bool:
    try:
        with closing(sqlite3.connect(path, timeout=seconds, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
    except sqlite3.OperationalError as error:
        return LOCKED not in str(error)  # anything else is told by whoever opens it
    except sqlite3.DatabaseError:
        return True
    return True


def _holder(path: Path) -> str:
    """Return which other programs of this user have a file open."""
    wanted, found = str(path.resolve()), []
    for process in psutil.process_iter(["pid", "name"]):
        try:
            if process.pid != psutil.Process().pid and any(one.path == wanted for one in process.open_files()):
                found.append(f"process {process.pid} ({process.name()})")
        except psutil.Error:
            continue
    return ", ".join(found) or "a program of another user or machine"
