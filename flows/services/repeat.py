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
"""After so long a 503 is the answer: SQLite has waited a minute for a lock, and a client may have asked again."""
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
        self._again = asyncio.Lock()  # those that met each other would else meet again

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        messages, complete = await _body(receive)
        if not complete:
            await self._app(scope, _replayed(messages, receive), send)
            return
        begun = time.monotonic()
        kept = await self._ask(scope, _replayed(messages, receive), send)
        if kept and time.monotonic() - begun < PATIENCE_SECONDS:
            async with self._again:
                for pause in self._pauses:
                    if time.monotonic() - begun >= PATIENCE_SECONDS:
                        break
                    await asyncio.sleep(pause)
                    kept = await self._ask(scope, _replayed(messages, receive), send)
                    if not kept:
                        break
        for message in kept:
            await send(message)

    async def _ask(self, scope: Scope, receive: Receive, send: Send) -> list[Message]:
        """Ask, and pass on what is answered, unless it is a 503: return that, or nothing."""
        kept: list[Message] = []

        async def sent(message: Message) -> None:
            if kept or message.get("status") == _UNAVAILABLE:
                kept.append(message)
            else:
                await send(message)

        try:
            await self._app(dict(scope), receive, sent)
        except Exception:  # Starlette answers an error, and then raises it for whoever logs it
            if not kept:
                raise
        return kept


async def _body(receive: Receive) -> tuple[list[Message], bool]:
    """Return the messages of a request, and whether they are all of it: a large one is not kept to be asked again."""
    messages, size = [await receive()], 0
    while messages[-1].get("more_body"):
        size += len(messages[-1].get("body", b""))
        if size > _LARGEST_KEPT_BYTES:
            return messages, False
        messages.append(await receive())
    return messages, True


def _replayed(messages: list[Message], receive: Receive) -> Receive:
    """Return what gives these messages, and then whatever else comes: that the client has gone."""
    left = iter(messages)

    async def received() -> Message:
        return next(left, None) or await receive()

    return received
