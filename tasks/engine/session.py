"""A Ray session for one stage, started when there is work to spread: a local one, or the cluster of RAY_ADDRESS.

A local session listens on the loopback only and asks for a token (RAY_AUTH_MODE=token) made at its start. A cluster's
address, mode and token are the environment's: RAY_ADDRESS, RAY_AUTH_MODE, RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import secrets
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from pydantic import Field

from tasks.contracts.base import StageParams
from tasks.contracts.errors import HeadwaterError
from tasks.contracts.workspace import IMPORT_PATH, import_path
from tasks.engine.hosted import call, hosted

logger = logging.getLogger(__name__)

MEBIBYTE = 1024 * 1024
TRIES = 5
LOOPBACK = "127.0.0.1"
BRIEF_SECONDS = 5.0
"""How long a stage works in its own process before the rest is spread: about as long as joining Ray and starting its
workers takes on a machine that does nothing else, so that a wrong guess costs no more than that once again."""


@dataclass(frozen=True, slots=True)
class _Offer:
    """A session that the stage may open."""

    open: Callable[[], object]
    num_cpus: int | None


_offered: list[_Offer] = []


class RayParams(StageParams):
    """The `ray` section of params.yaml: how work is spread. Nothing here changes a byte of any output."""

    num_cpus: int | None = Field(None, ge=1)
    """Processors that a local session uses; null takes all of this machine's that this process may use."""
    object_store_megabytes: int = Field(256, ge=80)
    """Shared memory of a local session, in MiB. Text never travels through it, so it can be small."""
    worker_niceness: int = Field(0, ge=0, le=19)
    """Niceness of a local session's workers: 0 gives a run its share of a busy machine; 15, Ray's own, leaves it to all
    others first."""


def _start(init: Callable[[], object], shutdown: Callable[[], None]) -> None:
    """Start or join Ray, again where it fails: a local node gets 30 s (Ray 2.60, fixed), too few on a busy machine.

    Raises:
        HeadwaterError: it failed every time.
    """
    for attempt in range(1, TRIES + 1):
        try:
            init()
        except Exception as error:
            shutdown()
            said = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
            busy = f"load {os.getloadavg()[0]:.0f} on {os.cpu_count()} processors"
            if attempt == TRIES:
                raise HeadwaterError(
                    f"Ray does not start, {TRIES} times tried",
                    where=os.environ.get("RAY_ADDRESS", "a local session"),
                    found=f"{said} ({busy})",
                    fix="on a busy machine end or wait for what else runs; /tmp/ray/session_latest/logs says more; "
                    "with RAY_ADDRESS set, see that the cluster is there",
                ) from error
            logger.warning("Ray did not start (%s); trying again, %d of %d: %s", busy, attempt, TRIES - 1, said)
        else:
            return


def _keep_to_loopback() -> None:
    """Let what this process starts of Ray listen on the loopback only, and ask for a token of its own.

    Ray reads these once, when it is loaded or started, so they stay for as long as the process lives; its children
    inherit them.
    """
    os.environ |= {
        "RAY_AUTH_MODE": "token",
        # Else Ray 2.60 takes the address of another interface wherever it is told the loopback's.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        # No port at all: the autoscaler's figures, which nobody reads, would be told to whoever asks.
        "AUTOSCALER_METRIC_PORT": "-1",
    }
    # Ray's own is in a file that every user may read, and the same for all sessions.
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    constants: Any = sys.modules.get("ray._private.ray_constants")
    if constants is not None:
        constants.ENABLE_RAY_CLUSTER = False
        # It keeps the token that it read first, which a session before this one may have taken from elsewhere.
        sys.modules["ray._raylet"].AuthenticationTokenLoader.instance().reset_cache()
        # Where nothing is said, Ray chooses the token at `ray.init`, and so for a library that was loaded before too.
        del os.environ["RAY_AUTH_MODE"]


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep this process's own answer to SIGTERM: Ray's, which it puts in its place, ends the process by an abort."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread() and before is not None:
            signal.signal(signal.SIGTERM, before)


@contextmanager
def ray_session(params: RayParams) -> Iterator[None]:
    """Start a local Ray session (or join the cluster named by RAY_ADDRESS) and end it on the way out."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    # Workers of a local session import the project from where this process did; on a cluster it is installed.
    os.environ[IMPORT_PATH] = import_path()
    if not os.environ.get("RAY_ADDRESS"):
        os.environ |= hosted()
    shared = bool(os.environ.get("RAY_ADDRESS"))
    if not shared:
        _keep_to_loopback()
        # Ray has no argument for it: what starts the workers reads it from its environment.
        os.environ["RAY_worker_niceness"] = str(params.worker_niceness)  # noqa: SIM112 - its name
    import ray

    local: dict[str, Any] = {
        "num_cpus": params.num_cpus or _share_of_machine(),
        "object_store_memory": params.object_store_megabytes * MEBIBYTE,
        "include_dashboard": False,
        "_node_ip_address": LOOPBACK,
    }
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    with _own_sigterm():
        _start(lambda: ray.init(**quiet, **({} if shared else local)), ray.shutdown)
    logger.info("Ray: %s processors, %s", int(ray.cluster_resources().get("CPU", 0)), "cluster" if shared else "local")
    try:
        yield
    finally:
        ray.shutdown()


def ray_data() -> ModuleType:
    """Return Ray Data, quiet. It brings pandas: who only keeps a session, or starts a crawl, need not load it."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    return ray.data


@contextmanager
def ray_on_demand(params: RayParams) -> Iterator[None]:
    """Let `open_session` start or join Ray inside the block; a stage that has little to do never waits for it."""
    with ExitStack() as stack:
        _offered.append(_Offer(lambda: stack.enter_context(ray_session(params)), params.num_cpus))
        try:
            yield
        finally:
            _offered.clear()


def open_session() -> bool:
    """Start or join Ray where the stage may, has not yet and it gains something; return whether a session is open."""
    if _offered and not _is_one_processor():
        _offered.pop().open()
    return session_is_open()


def session_is_near() -> bool:
    """Have the run's session started, if it is not yet; return whether there is nothing to wait for.

    Where no session is offered or gains anything, or the stage would start one of its own, that is so at once.
    """
    return not _offered or "RAY_ADDRESS" in os.environ or _is_one_processor() or call()


def _is_one_processor() -> bool:
    """Return whether the session on offer would have one processor of this machine: this process has that already."""
    return local_processors() == 1 and not os.environ.get("RAY_ADDRESS")


def session_is_given() -> bool:
    """Return whether a session is open, or a cluster there to be joined: a local one has no processors of its own."""
    return session_is_open() or bool(_offered and os.environ.get("RAY_ADDRESS"))


def brief_seconds() -> float:
    """Return BRIEF_SECONDS, longer by as much as others keep this machine's processors busy.

    All that a stage does takes longer there, and so does the start of Ray: what is little work is little there too.
    """
    return BRIEF_SECONDS * max(1.0, os.getloadavg()[0] / multiprocessing.cpu_count())


def local_processors() -> int:
    """Return how many processors of this machine the stage may use."""
    return _offered[-1].num_cpus if _offered and _offered[-1].num_cpus else len(os.sched_getaffinity(0))


def _share_of_machine() -> int | None:
    """Return how many processors are this process's, as a batch system or taskset gives them; None where all are.

    Ray counts those itself, and knows of a container's quota.
    """
    own = len(os.sched_getaffinity(0))
    return own if own < multiprocessing.cpu_count() else None


def session_is_open() -> bool:
    """Return whether work can be handed to Ray at once."""
    # Not imported to ask: without a session nobody else has.
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())
