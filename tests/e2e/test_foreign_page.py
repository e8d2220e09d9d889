"""What listens while `headwater up` and a run are at work, and that no other page and no other user commands it.

The browser has opened the printed addresses, as an operator's has, and then loads a page of somebody else. Each port is
tried in each way that a page has; what counts is what happened at the servers.
"""

from __future__ import annotations

import http.server
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.e2e.browser import Page, browser
from tests.e2e.ports import LOOPBACK, check_ports, listening
from tests.e2e.workspace import FirstRun, Workspace

pytestmark = pytest.mark.e2e

START_SECONDS = 300

# What a run opens beside the stages' own processes: its temporary Prefect server and a Ray session, here without end.
RUN = """
import json, os, sys, time
from flows.services.embedded import prefect_server
wait = prefect_server()
wait()
from tasks.engine.session import RayParams, ray_session
with ray_session(RayParams(num_cpus=1)):
    import ray
    ray.get(ray.remote(lambda: 1).remote())
    print(json.dumps({"api": os.environ["PREFECT_API_URL"], "secret": os.environ.get("PREFECT_API_AUTH_STRING", "")}))
    sys.stdout.flush()
    time.sleep(3600)
"""


class Server:
    """A server that a page may try to command, and how its owner sees what came of that."""

    def __init__(self, address: str, secret: str) -> None:
        self.address = address
        user, _, password = secret.partition(":")
        self.client = httpx.Client(base_url=address, auth=(user, password) if secret else None, trust_env=False)

    def ask(self, path: str, body: object) -> Any:
        """Ask as the owner, whose token against forged requests comes first, as with any client of Prefect."""
        headers = {}
        token = self.client.get("/api/csrf-token", params={"client": "test"})
        if token.status_code == 200:
            headers = {"Prefect-Csrf-Client": "test", "Prefect-Csrf-Token": token.json()["token"]}
        answer = self.client.post(path, json=body, headers=headers)
        answer.raise_for_status()
        return answer.json()


class Up:
    """A running `headwater up`."""

    def __init__(self, workspace: Workspace, process: subprocess.Popen[bytes], log: Path) -> None:
        self.workspace, self.process = workspace, process
        links = dict(re.findall(r"^(Prefect|MLflow) +(http\S+)", log.read_text(), re.M))
        self.links: dict[str, str] = links
        self.kept = json.loads((workspace.folder / ".headwater/services.json").read_text())
        self.prefect = Server(self.kept["prefect"], self.kept.get("prefect_secret", ""))
        token = self.kept.get("token")
        self.mlflow = Server(self.kept["mlflow"], f"headwater:{token}" if token else "")
        [deployment] = self.prefect.ask("/api/deployments/filter", {})
        self.deployment = deployment["id"]

    def flow_runs(self) -> list[Any]:
        """Return every run that anybody made."""
        return list(self.prefect.ask("/api/flow_runs/filter", {}))

    def experiments(self) -> set[str]:
        """Return the names of all experiments in MLflow."""
        read = self.mlflow.client.get("/api/2.0/mlflow/experiments/search", params={"max_results": 1000})
        return {experiment["name"] for experiment in read.json()["experiments"]}


@contextmanager
def started(workspace: Workspace, **environment: str) -> Iterator[Up]:
    log = workspace.folder / "up.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            ["headwater", "up"],
            cwd=workspace.folder,
            env={**workspace.environment, **environment},
            stdout=stream,
            stderr=stream,
        )
    try:
        wait_until(lambda: "Ctrl-C" in log.read_text() or process.poll() is not None)
        assert process.poll() is None, log.read_text()
        yield Up(workspace, process, log)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    made = Workspace.clone(tmp_path_factory.mktemp("foreign"))
    made.run("headwater", "params", "apply", "tiny")
    return made


@pytest.fixture(scope="module")
def up(workspace: Workspace) -> Iterator[Up]:
    with started(workspace) as running:
        yield running


@pytest.fixture(scope="module")
def run_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[psutil.Process, Server]]:
    """The temporary Prefect server and the Ray session of a run."""
    folder = tmp_path_factory.mktemp("run")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "RAY_", "HEADWATER_"))}
    environment["HEADWATER_STATE"] = str(folder / ".headwater")
    with subprocess.Popen([sys.executable, "-c", RUN], env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            said = json.loads(process.stdout.readline())
            yield psutil.Process(process.pid), Server(said["api"].removesuffix("/api"), said["secret"])
        finally:
            process.terminate()


def wait_until(true: Any) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_all_that_up_opens_is_on_the_loopback_and_tells_a_stranger_nothing(up: Up) -> None:
    ports = listening(psutil.Process(up.process.pid))
    assert len(ports) == 2
    check_ports(ports)


def test_all_that_a_run_opens_beside_its_stages_is_on_the_loopback_and_tells_a_stranger_nothing(
    run_server: tuple[psutil.Process, Server],
) -> None:
    ports = listening(run_server[0])
    assert len(ports) > 4, "Prefect's temporary server, and Ray's"
    check_ports(ports)


def test_all_that_a_real_run_opens_is_on_the_loopback_and_tells_a_stranger_nothing(first_run: FirstRun) -> None:
    programs = " ".join(port.programs for port in first_run.opened)
    # A run of so few pages asks for no Ray; tests/tasks/engine/test_host.py looks where one that does listens.
    for part in ("flows.services.guarded:prefect", "training.train.loop"):
        assert part in programs, f"{part} was not seen: {programs}"
    assert [port for port in first_run.opened if port.told or port.address not in LOOPBACK] == []


# Everything a page can send. `target` is the server, `path` and `body` the command; "WAY" in it becomes the way's name.
# What comes back is what the page was told.
ATTACK = """
(async () => {
  const [target, path, command] = %s;
  const url = target + path, told = [];
  const attempt = (way = "") => {
  const body = command.replace("WAY", way);
  const post = (options) => fetch(url, {method: "POST", body, credentials: "include", ...options})
    .then(async answer => { if (answer.type !== "opaque") told.push(answer.status + " " + await answer.text()); })
    .catch(() => {});
  const plain = {"Content-Type": "text/plain"}, json = {"Content-Type": "application/json"};
  const form = (enctype) => new Promise(done => {
    const frame = document.createElement("iframe"), form = document.createElement("form");
    frame.name = "f" + Math.random(); document.body.append(frame, form);
    const name = document.createElement("input"), split = body.lastIndexOf("}");
    name.name = body.slice(0, split) + ', "x": "'; name.value = '"}';
    form.append(name); Object.assign(form, {method: "POST", action: url, target: frame.name, enctype});
    frame.onload = done; form.submit(); setTimeout(done, 3000);
  });
  const socket = (protocols) => new Promise(done => {
    try {
      const line = new WebSocket(target.replace("http", "ws") + "/api/events/out", protocols);
      line.onopen = () => { told.push("a WebSocket opened"); done(); };
      line.onerror = line.onclose = done; setTimeout(done, 5000);
    } catch (error) { done(); }
  });
  const ways = {
    simple: () => post({mode: "no-cors", headers: plain}),
    simple_readable: () => post({headers: plain}),
    untyped: () => post({mode: "no-cors", body: new Blob([body])}),
    beacon: async () => { navigator.sendBeacon(url, new Blob([body], {type: "text/plain"})); },
    preflight: () => post({headers: json}),
    preflight_put: () => post({method: "PUT", headers: json}),
    form_text: () => form("text/plain"),
    form_urlencoded: () => form("application/x-www-form-urlencoded"),
    read: () => fetch(target + "/api/admin/version", {credentials: "include"})
      .then(async answer => { if (answer.ok) told.push(await answer.text()); }).catch(() => {}),
    read_mlflow: () => fetch(target + "/ajax-api/2.0/mlflow/experiments/search?max_results=1",
      {credentials: "include"})
      .then(async answer => { if (answer.ok) told.push(await answer.text()); }).catch(() => {}),
    script: () => new Promise(done => {
      const script = document.createElement("script"); script.src = target + "/api/admin/version";
      script.onload = () => { told.push("a script loaded"); done(); }; script.onerror = done;
      document.body.append(script);
    }),
    websocket: () => socket(["prefect"]),
    websocket_plain: () => socket([]),
  };
  return way ? ways[way]() : Object.keys(ways);
  };
  await Promise.all(attempt().map(way => attempt(way)));
  return told.filter(text => !/^4\\d\\d /.test(text));
})()
"""


@pytest.fixture(scope="module")
def foreign() -> Iterator[int]:
    """The port of a web server of somebody else."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>a page of somebody else</title><body>")

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.fixture(scope="module")
def page(up: Up) -> Iterator[Page]:
    """The operator's browser, in which both printed addresses were opened."""
    with browser() as page:
        page.go(up.links["Prefect"])
        page.wait("document.title.includes('Prefect Server') && document.body.innerText.includes('Deployments')")
        page.go(up.links["MLflow"])
        page.wait("document.body.innerText.includes('Experiments')")
        yield page


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_the_uis_open_by_either_name_and_their_pages_neither_hold_the_token_nor_ask_anybody_else(
    up: Up, name: str
) -> None:
    with browser() as opened:
        asked = opened.asked()
        for link, shown in ((up.links["Prefect"], "Dashboard"), (up.links["MLflow"], "Default")):
            opened.go(link.replace("127.0.0.1", name))
            opened.wait(f"document.body.innerText.includes({shown!r}) && !location.search.includes('token')")
            time.sleep(2)
            assert up.kept["token"] not in opened.run("document.referrer + location.href + document.cookie")
    assert len(asked) > 10
    assert [url for url in asked if not re.match(r"(http|ws)://(127\.0\.0\.1|localhost):|data:|blob:", url)] == []


# By its name, by the loopback's own name (to which the browser sends its cookies for every port), and by a name that
# was somebody else's a moment ago and now leads here (DNS rebinding), which makes the page one of the server's own.
@pytest.mark.parametrize("place", ["other name", "other port", "rebound name"])
def test_a_page_of_somebody_else_commands_no_server(
    up: Up, page: Page, foreign: int, run_server: tuple[psutil.Process, Server], tmp_path: Path, place: str
) -> None:
    flag = tmp_path / "flag"
    run = json.dumps({"job_variables": {"command": f"touch {flag}"}, "name": "WAY"})
    make = "/api/2.0/mlflow/experiments/create"
    experiments, runs, other_runs = up.experiments(), up.flow_runs(), other_flow_runs(run_server[1])
    servers = [
        (up.prefect.address, f"/api/deployments/{up.deployment}/create_flow_run", run),
        (up.mlflow.address, make, json.dumps({"name": f"WAY {place}"})),
        (run_server[1].address, "/api/flows/", json.dumps({"name": f"WAY {place}"})),
    ]
    # Ray's ports speak another protocol, so no name makes a page one of theirs.
    others = [(f"http://127.0.0.1:{port}", "/", "{}") for _, port in listening(run_server[0])]
    told = {}
    for address, path, body in [*servers, *others]:
        name = {"other name": "evil.example", "other port": "127.0.0.1", "rebound name": "rebound.example"}[place]
        if place == "rebound name":
            address = address.replace("127.0.0.1", name)
        own = place == "rebound name" and path != "/"
        page.go(f"{address}/" if own else f"http://{name}:{foreign}/")
        if answer := page.run(ATTACK % json.dumps([address, path, body])):
            told[address] = answer
    time.sleep(0.5)
    assert [run["name"] for run in up.flow_runs()] == [run["name"] for run in runs]
    assert up.experiments() == experiments
    assert other_flow_runs(run_server[1]) == other_runs
    assert not flag.exists()
    assert told == {}


def other_flow_runs(server: Server) -> Any:
    return server.ask("/api/flows/filter", {})


def test_no_secret_is_where_other_users_can_read_it(up: Up) -> None:
    secrets = [up.kept["token"], up.kept["prefect_secret"], up.kept["prefect_secret"].partition(":")[2]]
    assert all(len(secret) >= 40 for secret in secrets)
    owner = psutil.Process(up.process.pid)
    for process in [owner, *owner.children(recursive=True)]:
        assert not [secret for secret in secrets if secret in " ".join(process.cmdline())], process.cmdline()
    holding = set()
    for path in (up.workspace.folder / ".headwater").rglob("*"):
        if path.is_file() and any(secret.encode() in path.read_bytes() for secret in secrets):
            holding.add(path.name)
            assert path.stat().st_mode & 0o077 == 0, path
    assert holding == {"services.json"}


@pytest.mark.parametrize(
    "variables",
    [
        {"command": "touch {flag}"},
        {"env": {"PATH": "{folder}", "PYTHONPATH": "{folder}"}},
        {"env.PYTHONSTARTUP": "{flag}"},
        {"working_dir": "{folder}"},
        {"image": "evil"},
        {"name": "x", "labels": {"a": "b"}},
        {"stream_output": False},
    ],
    ids=str,
)
def test_a_run_names_neither_command_nor_environment_also_with_the_secret(
    up: Up, tmp_path: Path, variables: dict[str, Any]
) -> None:
    asked = json.loads(json.dumps(variables).replace("{flag}", str(tmp_path / "f")).replace("{folder}", str(tmp_path)))
    before = up.flow_runs()
    with pytest.raises(httpx.HTTPStatusError, match=r"422|409"):
        up.prefect.ask(f"/api/deployments/{up.deployment}/create_flow_run", {"job_variables": asked})
    assert up.flow_runs() == before
