"""Asks Prefect again where its database was locked: its own clients do so, a person's browser does not.

SQLite ends a transaction at once that has read what another has changed since, whatever the patience (SQLITE_BUSY in
https://sqlite.org/rescode.html#busy_snapshot); Prefect answers 503 then, having changed nothing. On a busy machine
that is what came of a click on "Run".
"""

from __future__ import annotations

import asyncio
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

PAUSES_SECONDS = (0.1, 0.2, 0.4, 0.8, 1.6)
PATIENCE_SECONDS = 10.0
"""After so long the answer is 503: SQLite has waited a minute for a lock, and a client may have asked again itself."""
_LARGEST_KEPT_BYTES = 8 << 20
_UNAVAILABLE = 503


class Repeat:
    """An ASGI application that asks another one again, after a pause, for what it answered with 503.

    Args:
        app: what is asked. A 503 of it means that nothing came of the request.
        pauses: seconds before each further try. What the last one answers is the answer, or what comes late.
    """

    def __init__(self, app: ASGIApp, pauses: tuple[float, ...] = PAUSES_SECONDS) -> None:
        self._app = app
        self._pauses = pauses

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given, complete = await _body(receive)
        if complete:
            begun = time.monotonic()
            for pause in self._pauses:
                answer = _Answer(send)
                try:
                    await self._app(dict(scope), _again(given, receive), answer)
                except Exception:
                    # Starlette raises again, for the log, what its handler of all exceptions has answered.
                    if not answer.unavailable:
                        raise
                if not answer.unavailable:
                    return
                if time.monotonic() - begun > PATIENCE_SECONDS:
                    await answer.pass_on()
                    return
                await asyncio.sleep(pause)
        await self._app(scope, _again(given, receive), send)


class _Answer:
    """Passes on what is answered, but keeps a 503."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.unavailable = False
        self._kept: list[Message] = []

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.unavailable = message["status"] == _UNAVAILABLE
        if self.unavailable:
            self._kept.append(message)
        else:
            await self._send(message)

    async def pass_on(self) -> None:
        """Answer with the 503 after all."""
        for message in self._kept:
            await self._send(message)


async def _body(receive: Receive) -> tuple[list[Message], bool]:
    """Return the messages of a request, and whether they are all of it: a large one is not kept to be asked again."""
    messages, size = [await receive()], 0
    while messages[-1].get("more_body"):
        size += len(messages[-1].get("body", b""))
        if size > _LARGEST_KEPT_BYTES:
            return messages, False
        messages.append(await receive())
    return messages, True


def _again(messages: list[Message], receive: Receive) -> Receive:
    """Return what gives these messages, and then whatever else comes: that the client has gone."""
    left = iter(messages)

    async def received() -> Message:
        return next(left, None) or await receive()

    return received
