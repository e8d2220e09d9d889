"""A small web for tests: many hosts on one loopback port, each answer a function of how often it was asked for."""

import ssl
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread


@dataclass(frozen=True)
class Answer:
    body: bytes = b"<html><body><p>words</p></body></html>"
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    kind: str = "text/html"
    fields: tuple[tuple[str, str], ...] = ()  # further header fields, also of one name
    endless_head: bool = False  # header fields, and never an end
    endless: bool = False  # no length, and never an end
    hang_up: bool = False  # the connection closes without an answer
    cut: int | None = None  # bytes of the body that are sent before the connection closes


Route = Answer | Callable[[int], Answer]
GONE = Answer(b"<html><body>not found</body></html>", 404)


class Web:
    """Routes by (host, path), and a log of what was asked when."""

    def __init__(self, routes: dict[tuple[str, str], Route]) -> None:
        self.routes = routes
        self.log: list[tuple[float, str, str]] = []
        self.counts: Counter[tuple[str, str]] = Counter()
        self.lock = Lock()
        self.port = 0

    def answer(self, host: str, path: str) -> Answer:
        with self.lock:
            self.log.append((time.monotonic(), host, path))
            self.counts[host, path] += 1
            count = self.counts[host, path]
        route = self.routes.get((host, path), GONE)
        return route(count) if callable(route) else route

    def times(self, host: str) -> list[float]:
        return [moment for moment, asked, _ in self.log if asked == host]


@contextmanager
def serving(web: Web, tls: ssl.SSLContext | None = None) -> Iterator[Web]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            answer = web.answer((self.headers.get("Host") or "").rsplit(":", 1)[0].lower(), self.path)
            if answer.hang_up:
                self.close_connection = True
                return
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.kind)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            for name, value in answer.fields:
                self.send_header(name, value)
            if answer.endless_head:
                self.close_connection = True
                self.flush_headers()
                try:
                    while True:
                        self.wfile.write(b"X-More: " + b"x" * 8000 + b"\r\n")
                except OSError:
                    return
            if answer.endless:
                self.close_connection = True
                self.end_headers()
                try:
                    while True:
                        self.wfile.write(b"<p>more of it</p>" * 1000)
                except OSError:
                    return
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body if answer.cut is None else answer.body[: answer.cut])
            self.close_connection = answer.cut is not None

        def log_message(self, *_: object) -> None:
            """Stay quiet."""

    class Server(ThreadingHTTPServer):
        request_queue_size = 256
        daemon_threads = True

    server = Server(("127.0.0.1", 0), Handler)
    if tls is not None:
        # Each connection's thread shakes hands, so that one that never does holds nobody up.
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    web.port = server.server_address[1]
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield web
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)
