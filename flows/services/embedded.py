"""The embedded services of `headwater up`: a Prefect server with a worker, and an MLflow server, on the loopback.

All of them stand behind the guard of `flows.services.guard`, with a secret made at start. The temporary Prefect server
of `headwater run` does so too.

They live exactly as long as the process that started them: a small warden process ends all of them, with everything
they started, when it asks for that or dies in whatever way (also by `kill -9`).
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from types import FrameType

import psutil
import yaml
from pydantic import JsonValue

from flows.services import access
from flows.services.access import (
    HOST,
    Services,
    guard_environment,
    guarded_command,
    new_token,
    prefect_environment,
    prefect_secret,
    running_services,
    services_path,
    write_services,
)
from flows.services.databases import wait_until_free
from flows.services.tracking import database_path
from tasks.contracts.durable_files import write_bytes, write_json
from tasks.contracts.errors import HeadwaterError, LockedError
from tasks.contracts.workspace import child_environment, state_folder

logger = logging.getLogger(__name__)

POOL = "headwater"
POOL_TEMPLATE: dict[str, JsonValue] = {
    "job_configuration": {"stream_output": True},
    "variables": {"type": "object", "properties": {}, "additionalProperties": False},
}
"""What a run may say of the process that it runs in: nothing. Prefect's default lets it name a command, an environment
and a folder, and would add an environment even to an empty one that stood here."""
DATABASE = "prefect.db"
START_SECONDS = 300.0
"""A service imports for 10 s on a free machine, and for minutes on one whose processors others use."""
SOON_SECONDS = 30.0
"""After how long a person is told what is waited for."""
STOP_SECONDS = 15.0


class ServiceError(HeadwaterError):
    """An embedded service that did not start, or ended on its own."""


def prefect_server() -> Callable[[], None]:
    """Point Prefect at the server of `headwater up`, or at one of this process, whose history `up` shows later.

    What it returns waits until the server answers, so that others can start meanwhile. Prefect would start one by
    itself, but only when a flow is called, which then waits some 10 s.
    Call it before Prefect is imported: the server then outlives what Prefect still sends when this process exits.

    Raises:
        ServiceError: it did not start; from the call of what is returned.
    """
    if (services := running_services()) is not None:
        os.environ |= prefect_environment(services.prefect, services.prefect_secret)
        return lambda: None
    _copy_tables()
    wait_until_free(state_folder() / "prefect" / DATABASE, "Prefect")
    lifetime = contextlib.ExitStack()
    atexit.register(lifetime.close)
    # Bound here and handed on: a port that was free a moment ago may be another run's when the server binds it.
    with socket.create_server((HOST, 0)) as listener:
        address = f"{HOST}:{listener.getsockname()[1]}"
        os.environ |= prefect_environment(f"http://{address}", prefect_secret())
        server = lifetime.enter_context(_warden())(
            "prefect-run",
            guarded_command("prefect", "--fd", str(listener.fileno())),
            # As Prefect's own: without the UI and the services that schedule and watch runs.
            child_environment(
                {
                    **guard_environment(address, new_token()),
                    "PREFECT_UI_ENABLED": "0",
                    "PREFECT__SERVER_EPHEMERAL": "1",
                    "PREFECT__SERVER_FINAL": "1",
                }
            ),
            pass_fds=[listener.fileno()],
        )
    return lambda: _wait_until_healthy({"prefect-run": server}, "prefect-run", f"http://{address}/api/health")


@contextlib.contextmanager
def prefect_is_clear() -> Iterator[None]:
    """Raise what a client says, when Prefect's server does not answer as it should, as one clear error."""
    from httpx import HTTPError

    try:
        yield
    except HTTPError as error:
        path = state_folder() / "prefect" / DATABASE
        wait_until_free(path, "Prefect", seconds=1.0)
        raise ServiceError(
            "Prefect's server did not answer as it should",
            where=str(_log_path("prefect-run")),
            found=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no answer in time'}",
            fix="run again: finished stages are kept; a busy machine may need other programs ended first",
        ) from error


def _copy_tables() -> None:
    """Give a new workspace the empty database that set-up made: Prefect takes 10 s to make its tables."""
    made, own = Path(sys.prefix) / "share" / "headwater" / DATABASE, state_folder() / "prefect" / DATABASE
    if made.exists() and not own.exists():
        write_bytes(own, made.read_bytes())


@dataclass(kw_only=True)
class Running:
    """The started services, as `embedded_services` gives them."""

    addresses: Services
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def wait(self) -> None:
        """Block until Ctrl-C or SIGTERM.

        Raises:
            ServiceError: a service ended on its own.
        """
        with _signals_interrupt(), contextlib.suppress(KeyboardInterrupt):
            while True:
                self.check()
                time.sleep(0.5)

    def check(self) -> None:
        """Raise ServiceError when a service has ended."""
        _check(self.processes)


@contextlib.contextmanager
def embedded_services(
    *, prefect_port: int = 4200, mlflow_port: int = 5000, worker: bool = True, folder: Path | None = None
) -> Iterator[Running]:
    """Start the services, wait until they answer, and end them all on the way out.

    Args:
        prefect_port: where to begin looking for a free port; likewise `mlflow_port`.
        worker: also start a worker and register the deployments of prefect.yaml.
        folder: the workspace, where prefect.yaml stands; the current folder by default.

    Raises:
        LockedError: they run already in this workspace.
        ServiceError: one did not start; the message has the end of its log.
        ParamsError: params.yaml, which fills in the form of a run, is wrong.
    """
    if (other := running_services()) is not None:
        raise LockedError(
            "the services run already",
            where=f"process {other.pid}",
            found=f"Prefect at {other.prefect}, MLflow at {other.mlflow}",
            fix="use those, or end them with Ctrl-C where they were started",
        )
    workspace = (folder or Path.cwd()).resolve()
    prefect_port = free_port(prefect_port)
    mlflow_port = free_port(mlflow_port, taken={prefect_port})
    addresses = Services(
        prefect=f"http://{HOST}:{prefect_port}",
        mlflow=f"http://{HOST}:{mlflow_port}",
        pid=os.getpid(),
        pid_started=psutil.Process().create_time(),
        token=new_token(),
        prefect_secret=prefect_secret(),
    )
    settings = prefect_environment(addresses.prefect, addresses.prefect_secret)
    forms = {}
    if worker:
        # This process is a client too, and Prefect reads them when it is imported, for the forms.
        os.environ |= settings
        forms = _forms(workspace)
    environment = child_environment({**settings, "HEADWATER_ROOT": str(workspace)})
    running = Running(addresses=addresses)
    _copy_tables()
    wait_until_free(state_folder() / "prefect" / DATABASE, "Prefect")
    wait_until_free(database_path(), "MLflow")
    with _warden() as start:
        guard = guard_environment(f"{HOST}:{mlflow_port}", addresses.token)
        running.processes["mlflow"] = start("mlflow", _mlflow(mlflow_port), _mlflow_environment(environment | guard))
        guard = guard_environment(f"{HOST}:{prefect_port}", addresses.token)
        server = guarded_command("prefect", "--host", HOST, "--port", str(prefect_port))
        running.processes["prefect"] = start("prefect", server, environment | guard)
        _wait_until_healthy(running.processes, "prefect", f"{addresses.prefect}/api/health")
        if worker:
            prefect = [sys.executable, "-m", "prefect"]
            template = state_folder() / "prefect" / "pool.json"
            write_json(template, POOL_TEMPLATE)
            create = [*prefect, "work-pool", "create", POOL, "--type", "process", "--overwrite"]
            _once("work pool", [*create, "--base-job-template", str(template)], environment, workspace)
            # `{{ HEADWATER_ROOT }}` in prefect.yaml is filled in where a run starts, not here.
            for name in _deployments(workspace):
                deploy = [*prefect, "--no-prompt", "deploy", "--name", name, *forms.get(name, [])]
                _once("deployment", deploy, environment, workspace, forgive=_ADVICE_CALL)
            _end_interrupted_runs(addresses)
            work = [*prefect, "worker", "start", "--pool", POOL, "--type", "process", "--name", POOL]
            running.processes["worker"] = start("worker", work, environment)
        _wait_until_healthy(running.processes, "mlflow", f"{addresses.mlflow}/health")
        running.check()
        write_services(addresses)
        try:
            yield running
        finally:
            services_path().unlink(missing_ok=True)


def free_port(first: int, *, taken: set[int] = frozenset()) -> int:  # type: ignore[assignment]
    """Return the first port from `first` on that nothing listens on, on the loopback.

    Raises:
        ServiceError: none of the next hundred is free.
    """
    for port in range(first, first + 100):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
        if port not in taken:
            return port
    raise ServiceError("no free port", expected=f"one of {first} to {first + 99} on {HOST}")


def _mlflow(port: int) -> list[str]:
    return guarded_command("mlflow", "--host", HOST, "--port", str(port))


def _mlflow_environment(environment: Mapping[str, str]) -> dict[str, str]:
    state = state_folder()
    state.mkdir(parents=True, exist_ok=True)
    address = environment[access.ADDRESS_VARIABLE]
    return {
        **environment,
        access.DATABASE_VARIABLE: f"sqlite:///{database_path()}",
        access.ARTIFACTS_VARIABLE: (state / "mlflow-artifacts").as_uri(),
        # MLflow's own checks stay, as a second wall.
        "MLFLOW_SERVER_ALLOWED_HOSTS": f"{address},{address.replace(HOST, 'localhost')}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }


class _Start:
    """Starts services, each in a process group of its own that the warden knows."""

    def __init__(self, warden: subprocess.Popen[bytes]) -> None:
        self._warden = warden

    def __call__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], pass_fds: Sequence[int] = ()
    ) -> subprocess.Popen[bytes]:
        with _log_path(name).open("wb") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(environment),
                start_new_session=True,
                pass_fds=pass_fds,
            )
        assert self._warden.stdin is not None, "the warden is started with a pipe"
        self._warden.stdin.write(f"{process.pid}\n".encode())
        self._warden.stdin.flush()
        return process


@contextlib.contextmanager
def _warden() -> Iterator[_Start]:
    """Start the process that outlives this one by a moment, to end what it started."""
    command = [sys.executable, str(Path(__file__).with_name("warden.py")), str(STOP_SECONDS)]
    warden = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    try:
        yield _Start(warden)
    finally:
        assert warden.stdin is not None, "the warden is started with a pipe"
        warden.stdin.close()
        warden.wait(timeout=STOP_SECONDS * 2)


def _end_interrupted_runs(services: Services) -> None:
    """Tell Prefect that what an earlier worker was running has ended: it would wait for those runs for ever."""
    # Takes a second to import, which the others who ask this module for an address need not pay.
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.filters import FlowRunFilter
    from prefect.client.schemas.objects import State
    from prefect.client.schemas.sorting import FlowRunSort
    from prefect.states import Crashed

    theirs = FlowRunFilter.model_validate(
        {"deployment_id": {"is_null_": False}, "state": {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}}}
    )
    with SyncPrefectClient(api=services.prefect_api, auth_string=services.prefect_secret) as client:
        for run in client.read_flow_runs(flow_run_filter=theirs, sort=FlowRunSort.ID_DESC, limit=200):
            state: State[None] = Crashed(message="`headwater up` ended while this ran; a new run goes on from there")
            client.set_flow_run_state(run.id, state, force=True)
            logger.info("the run %s was interrupted; a new one goes on from there", run.name)


def _forms(workspace: Path) -> dict[str, list[str]]:
    """Return, by deployment name, the options of `prefect deploy` that fill in its form."""
    # Takes a second to import, which the others who ask this module for an address need not pay.
    from flows.workspace.form import DEPLOYMENT, current_form

    with contextlib.chdir(workspace):
        form = current_form()
    name = DEPLOYMENT.rpartition("/")[2]
    return {name: ["--version", form.version, "--params", json.dumps({"settings": form.settings})]}


def _deployments(workspace: Path) -> list[str]:
    try:
        content = yaml.safe_load((workspace / "prefect.yaml").read_bytes())
        return [str(deployment["name"]) for deployment in content["deployments"]]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise ServiceError(
            "the deployments cannot be read",
            where=str(workspace / "prefect.yaml"),
            expected="a list `deployments`, each with a name",
            found=f"{type(error).__name__}: {error}",
            fix="run this in the project's folder, or restore the file",
        ) from error


# After a deployment is registered, `prefect deploy` asks which workers are online, to print advice. Prefect 3.8 sends
# nulls there, which FastAPI 0.153 refuses: the registration stands, the advice is not wanted.
_ADVICE_CALL = "/workers/filter"


def _once(
    name: str, command: Sequence[str], environment: Mapping[str, str], workspace: Path, forgive: str | None = None
) -> None:
    result = subprocess.run(command, env=dict(environment), cwd=workspace, capture_output=True, text=True, check=False)
    said = result.stderr + result.stdout
    if result.returncode and (forgive is None or forgive not in said):
        raise ServiceError(
            f"Prefect refused the {name}",
            where=str(workspace / "prefect.yaml"),
            found=said[-2000:],
        )


def _check(processes: Mapping[str, subprocess.Popen[bytes]]) -> None:
    for name, process in processes.items():
        if process.poll() is not None:
            raise _ended(name, process.returncode)


def _wait_until_healthy(processes: Mapping[str, subprocess.Popen[bytes]], name: str, url: str) -> None:
    begun = time.monotonic()
    told = False
    while (waited := time.monotonic() - begun) < START_SECONDS:
        _check(processes)
        if waited > SOON_SECONDS and not told:
            logger.info(
                "%s is still starting, on a machine with load %.0f; up to %.0f s",
                name,
                os.getloadavg()[0],
                START_SECONDS,
            )
            told = True
        # URLError is an OSError. Where nothing listens yet, a connection may reach itself, and reads its own request.
        with contextlib.suppress(OSError, HTTPException), urllib.request.urlopen(url, timeout=10) as answer:
            if answer.status == 200:
                logger.debug("%s answers", name)
                return
        time.sleep(0.3)
    raise ServiceError(f"{name} does not answer after {START_SECONDS:.0f} s", where=url, found=_log_end(name))


def _ended(name: str, status: int) -> ServiceError:
    return ServiceError(
        f"the service {name} ended on its own (exit status {status})",
        where=str(_log_path(name)),
        found=_log_end(name),
        fix="see its log; another program on its port, or a full disk, are the usual causes",
    )


def _log_path(name: str) -> Path:
    path = state_folder() / "logs" / f"{name}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _log_end(name: str) -> str:
    try:
        lines = _log_path(name).read_text(errors="replace").splitlines()
    except OSError:
        return "no log"
    return "\n".join(["", *lines[-15:]])


@contextlib.contextmanager
def _signals_interrupt() -> Iterator[None]:
    """End on SIGTERM as on Ctrl-C, and on SIGINT even in a background job, whose shell has it ignored."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
