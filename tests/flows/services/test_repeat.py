"""What Prefect could not serve for a moment is asked again, once for each pause; what it served is not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

from flows.services import repeat
from flows.services.repeat import Repeat

PAUSES = (0.0, 0.0, 0.0)
UNAVAILABLE = 503


class LockedError(Exception):
    """What Prefect's database raises."""


class Server(Starlette):
    """Answers with these statuses, one a request, and keeps what it was sent.

    As in Prefect, 503 is the answer of a handler of all exceptions, which Starlette raises again after it, and the API
    is mounted in another application.
    """

    def __init__(self, *statuses: int) -> None:
        self._statuses = iter(statuses)
        self.bodies: list[bytes] = []
        handlers = {Exception: self._unavailable}
        api = Starlette(routes=[Route("/{path:path}", self._answer, methods=["POST"])], exception_handlers=handlers)
        super().__init__(routes=[Mount("/api", api)])

    async def _answer(self, request: Request) -> Response:
        self.bodies.append(await request.body())
        status = next(self._statuses)
        if status == UNAVAILABLE:
            raise LockedError
        return self._said(status)

    async def _unavailable(self, _request: Request, _error: Exception) -> Response:
        return self._said(UNAVAILABLE)

    def _said(self, status: int) -> Response:
        return PlainTextResponse(f"answer {len(self.bodies)}", status_code=status)


async def _parts() -> AsyncIterator[bytes]:
    yield b'{"a": '
    yield b"1}"


def ask(server: Server, body: bytes | None = b'{"a": 1}') -> httpx.Response:
    async def asked() -> httpx.Response:
        transport = httpx.ASGITransport(app=Repeat(server, PAUSES), raise_app_exceptions=False)  # as uvicorn
        async with httpx.AsyncClient(transport=transport, base_url="http://a.example") as client:
            return await client.post("/api/deployments/1/create_flow_run", content=_parts() if body is None else body)

    return asyncio.run(asked())


@pytest.mark.parametrize(
    ("statuses", "status", "times"),
    [
        ((201,), 201, 1),
        ((503, 201), 201, 2),
        ((503, 503, 503, 201), 201, 4),
        ((503, 503, 503, 503), 503, 4),
        ((500,), 500, 1),
        ((503, 409), 409, 2),
    ],
)
@pytest.mark.parametrize("body", [b'{"a": 1}', None], ids=["whole", "in parts"])
def test_only_what_could_not_be_served_is_asked_again(
    statuses: tuple[int, ...], status: int, times: int, body: bytes | None
) -> None:
    server = Server(*statuses)
    answer = ask(server, body)
    assert (answer.status_code, answer.text) == (status, f"answer {times}")
    assert server.bodies == [b'{"a": 1}'] * times


def test_a_large_request_is_passed_on_whole_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeat, "_LARGEST_KEPT_BYTES", 3)
    server = Server(503, 201)
    assert ask(server, None).status_code == 503
    assert server.bodies == [b'{"a": 1}']


def test_what_was_locked_for_long_is_not_waited_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeat, "PATIENCE_SECONDS", -1.0)
    answer = ask(Server(503, 201))
    assert (answer.status_code, answer.text) == (503, "answer 1")
