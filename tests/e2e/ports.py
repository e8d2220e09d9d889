"""Where a process and all that it started listen, and what each port tells somebody without the secret."""

from __future__ import annotations

import http.client
import socket
import subprocess
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass

import psutil

LOOPBACK = ("127.0.0.1", "::1", "::ffff:127.0.0.1")
LOOK_SECONDS = 1.0
FOREIGN = [
    {"Host": "evil.example"},
    {"Host": "127.0.0.1:{port}", "Origin": "http://evil.example"},
    {"Host": "127.0.0.1:{port}", "Origin": "null", "Content-Type": "text/plain"},
    {"Host": "127.0.0.1:{port}", "Origin": "http://127.0.0.1:1"},
    {"Host": "127.0.0.1:{port}"},
]
PATHS = (
    "/",
    "/api/flow_runs/filter",
    "/api/2.0/mlflow/experiments/search?max_results=1",
    "/metrics",
    "/api/admin/version",
)


@dataclass(frozen=True, slots=True)
class Port:
    """A port that a run opened, the programs that held it, and what it told a stranger."""

    address: str
    port: int
    programs: str
    told: tuple[str, ...]


def opened_by(process: subprocess.Popen[str]) -> tuple[Port, ...]:
    """Ask each port that a process and all that it started open, as soon as it is there, until the process ends."""
    programs: dict[tuple[str, int], set[str]] = {}
    with ThreadPoolExecutor() as asking:
        told: dict[tuple[str, int], Future[list[str]]] = {}
        while process.poll() is None:
            for place, program in listening(psutil.Process(process.pid)).items():
                programs.setdefault(place, set()).add(program)  # a run binds Prefect's port and hands it on
                if place not in told:
                    told[place] = asking.submit(answers, place[1])
            time.sleep(LOOK_SECONDS)
    return tuple(
        Port(*place, " ".join(sorted(programs[place])), tuple(answered.result())) for place, answered in told.items()
    )


def listening(root: psutil.Process) -> dict[tuple[str, int], str]:
    """Return where a process and all that it started listen: (address, port) → the program's name."""
    found = {}
    with suppress(psutil.NoSuchProcess):
        for process in [root, *root.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                for line in process.net_connections("inet"):
                    if line.status == psutil.CONN_LISTEN:
                        found[line.laddr.ip, line.laddr.port] = " ".join(process.cmdline()[:8])
    return found


def answers(port: int) -> list[str]:
    """Return what a port tells somebody without the secret who should learn nothing, in HTTP."""
    told = []
    for method in ("GET", "POST", "OPTIONS"):
        for path in PATHS:
            for headers in FOREIGN:
                sent = {name: value.format(port=port) for name, value in headers.items()}
                line = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                with closing(line), suppress(OSError, http.client.HTTPException):
                    line.request(method, path, body=b"{}" if method == "POST" else None, headers=sent)
                    answer = line.getresponse()
                    allowed = answer.getheader("access-control-allow-origin")
                    if answer.status < 400 or allowed:
                        told.append(f"{method} {path} {sent}: {answer.status}, {allowed}, {answer.read(200)!r}")
    return told


def socket_opens(port: int, **headers: str) -> bool:
    """Say whether a WebSocket opens for somebody without the secret."""
    head = {
        "Host": f"127.0.0.1:{port}",
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version": "13",
        **headers,
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as line:
        line.sendall(f"GET /api/events/out HTTP/1.1\r\n{lines}\r\n".encode())
        return line.recv(64).startswith(b"HTTP/1.1 101")
    return False


def check_ports(ports: dict[tuple[str, int], str]) -> None:
    assert ports
    assert [place for place in ports.items() if place[0][0] not in LOOPBACK] == []
    for (_, port), program in ports.items():
        assert answers(port) == [], f"port {port} of {program}"
        assert not socket_opens(port), program
        assert not socket_opens(port, Origin="http://evil.example", **{"Sec-WebSocket-Protocol": "prefect"}), program
        assert not socket_opens(port, Host="evil.example", **{"Sec-WebSocket-Protocol": "prefect"}), program
