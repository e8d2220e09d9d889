"""What Prefect could not serve for a moment is asked again, once for each pause; what it served is not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from flows.services import repeat
from flows.services.repeat import Repeat

PAUSES = (0.0, 0.0, 0.0)


class Server:
    """Answers with these statuses, one a request, and keeps what it was sent; raises after an error, as Starlette."""

    def __init__(self, *statuses: int) -> None:
        self._statuses = iter(statuses)
        self.bodies: list[bytes] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.bodies.append(await Request(scope, receive).body())
        answer = PlainTextResponse(f"answer {len(self.bodies)}", status_code=next(self._statuses))
        await answer(scope, receive, send)
        if answer.status_code >= 500:
            raise OSError("database is locked")


async def _parts() -> AsyncIterator[bytes]:
    yield b'{"a": '
    yield b"1}"


def ask(server: Server, body: bytes | None = b'{"a": 1}') -> httpx.Response:
    async def asked() -> httpx.Response:
        transport = httpx.ASGITransport(app=Repeat(server, PAUSES), raise_app_exceptions=False)
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
