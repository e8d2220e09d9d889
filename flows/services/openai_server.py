"""A server that speaks OpenAI's API for one model: /v1/models, /v1/completions, /v1/chat/completions, and /health.

Who may ask: a program with the secret (`Authorization: Bearer SECRET`, which is what OpenAI's clients make of their
`api_key`). The loopback is not private (`flows.services.guard`), so a request under another Host, or one that a browser
sends for a page, is refused before that is asked. All errors have OpenAI's form.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from typing import Any, Final

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from flows.history.output_filter import OutputFilter
from flows.services.completions import Answer, ApiError, read_request
from flows.services.guard import equal
from flows.services.released_model import TextModel

logger = logging.getLogger(__name__)

MOST_BODY_BYTES: Final = 4 << 20
HEALTH: Final = "/health"
LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")


def make_app(model: TextModel, *, name: str, token: str, host: str, port: int, filter_: OutputFilter | None) -> ASGIApp:
    """Return the application.

    Args:
        name: what the model is called.
        host: where it listens; on the loopback only its own names are taken for Host.
    """
    described = {"id": name, "object": "model", "created": int(time.time()), "owned_by": "headwater"}

    async def models(_request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [described]})

    async def one_model(request: Request) -> Response:
        if request.path_params["name"] != name:
            raise ApiError(404, f"there is no such model; there is {name!r}", param="model", code="model_not_found")
        return JSONResponse(described)

    async def complete(request: Request) -> Response:
        chat = request.url.path.endswith("/chat/completions")
        body = await _body(request)
        asked = await run_in_threadpool(
            read_request, body, chat=chat, model=model, name=name, filtered=filter_ is not None
        )
        answer = Answer(asked, model, name, filter_)
        if asked.stream:
            return StreamingResponse(
                _sse(answer), media_type="text/event-stream", headers={"cache-control": "no-store"}
            )
        return JSONResponse(await run_in_threadpool(answer.whole))

    async def health(_request: Request) -> Response:
        return PlainTextResponse("ok\n")

    routes = [
        Route("/v1/models", models),
        Route("/v1/models/{name:path}", one_model),
        Route("/v1/completions", complete, methods=["POST"]),
        Route("/v1/chat/completions", complete, methods=["POST"]),
        Route(HEALTH, health),
    ]
    handlers: Any = {ApiError: _api_error, HTTPException: _http_error, Exception: _bug}
    return ApiGuard(Starlette(routes=routes, exception_handlers=handlers), token=token, host=host, port=port)


async def _body(request: Request) -> bytes:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MOST_BODY_BYTES:
            raise ApiError(413, f"expected at most {MOST_BODY_BYTES:,} bytes of request")
    return body


def _sse(answer: Answer) -> Iterator[str]:
    try:
        for event in answer.events():
            yield f"data: {json.dumps(event)}\n\n"
    except Exception as error:
        # The answer has begun, so its status can say nothing any more.
        logger.exception("serve: an answer broke off")
        yield f"data: {json.dumps(_broken(error).body)}\n\n"
        return
    yield "data: [DONE]\n\n"


def _broken(_error: Exception) -> ApiError:
    return ApiError(500, "the server failed; its log says why", type_="server_error")


async def _api_error(_request: Request, error: Any) -> Response:
    return JSONResponse(error.body, error.status)


async def _http_error(request: Request, error: Any) -> Response:
    message = f"{request.method} {request.url.path}: {str(error.detail).lower()}"
    return JSONResponse(ApiError(error.status_code, message).body, error.status_code, headers=error.headers)


async def _bug(_request: Request, error: Exception) -> Response:
    return JSONResponse(_broken(error).body, 500)


class ApiGuard:
    """Lets through what knows the secret, comes from no page, and asks under a name of this server.

    Args:
        token: the secret.
        host: where it listens. Elsewhere than on the loopback any Host will do: what a page rebinds to this server does
            not know the secret, and no browser sends it by itself.
    """

    def __init__(self, app: ASGIApp, *, token: str, host: str, port: int) -> None:
        if not token:
            raise ValueError("a server without a secret would be anybody's")
        self._app = app
        self._token = token
        named = ("127.0.0.1", "localhost", "[::1]")
        self._hosts = tuple(f"{name}:{port}" for name in named) if host in LOOPBACK else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        if (error := self._refusal(scope)) is not None:
            await JSONResponse(error.body, error.status)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> ApiError | None:
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if self._hosts is not None and (len(hosts) != 1 or hosts[0] not in self._hosts):
            return ApiError(403, f"expected the Host {self._hosts[0]}", code="foreign_host")
        if headers.getlist("origin") or headers.get("sec-fetch-site", "none") != "none":
            return ApiError(403, "a page in a browser may not ask this server", code="foreign_origin")
        if scope["method"] == "GET" and scope["path"] == HEALTH:
            return None
        given = [value.removeprefix("Bearer ") for value in headers.getlist("authorization")]
        if not equal(self._token, given):
            return ApiError(
                401, "expected the server's secret as api_key (Authorization: Bearer SECRET)", code="invalid_api_key"
            )
        return None
