"""The guard in front of every server of this workspace that speaks HTTP: who may ask, from which page, how.

The loopback is not private. Any page that is open in the operator's browser can send requests there, and so can every
other user of the machine. So a request needs the secret of these servers (a browser has it in a cookie, once the
printed address was opened; a program sends it as Basic authorisation), and what a browser sends for a page of another
origin is refused before that is asked.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Iterable
from typing import Any, NamedTuple
from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flows.services.access import TOKEN_PARAMETER, USER
from tasks.contracts.text_files import json_value

_READS = ("GET", "HEAD", "OPTIONS")
_PROBES = ("/health", "/api/health")

# Leaves the token neither in the address bar nor in the history. A redirect would not do: a browser sends a strict
# cookie only with what the page itself asks for.
_OPEN = "<!doctype html><title>Headwater</title><script>location.replace(location.pathname + location.hash)</script>"


class _Refusal(NamedTuple):
    status: int
    reason: str


class Guard:
    """An ASGI application that lets through to another one only what may ask it.

    Args:
        app: what is guarded.
        address: where browsers find it, as host:port; `localhost` with the same port is taken for it, and sends a
            person's browser on to it: Prefect's UI asks its API at one address only.
        token: the secret that opens the UI: `http://ADDRESS/?token=TOKEN`.
        api_secret: what a program sends as Basic authorisation, "user:password"; made of the token when left out.
        prefect: whether it is Prefect's server. That reads JSON sent as anything else too, so what is not called JSON
            is refused here; and its clients send `api_secret` in the first message of a WebSocket.
    """

    def __init__(
        self, app: ASGIApp, *, address: str, token: str, api_secret: str | None = None, prefect: bool = False
    ) -> None:
        if not token:
            raise ValueError("a server without a secret would be anybody's")
        port = address.rpartition(":")[2]
        self._app = app
        self._address = address
        self._hosts = (address, f"localhost:{port}")
        # Browsers keep one set of cookies for all ports of a host.
        self._cookie = f"headwater-{port}"
        self._token = token
        self._api_secret = api_secret or f"{USER}:{token}"
        self._basic = basic_authorization(self._api_secret)
        self._prefect = prefect
        # No other page may show it in a frame; and its own page asks nobody else: Prefect's tells a service of
        # analytics (Amplitude) of each visit, also where PREFECT_SERVER_ANALYTICS_ENABLED is off.
        self._policy = f"frame-ancestors 'self'; connect-src 'self' ws://{address}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._foreign(scope, headers) or self._unfit(scope, headers)
        if refusal is None and headers["host"] != self._address and (self._opens(scope) or _is_page(scope, headers)):
            await self._send_on(scope, receive, send)
            return
        if refusal is None and self._opens(scope):
            await self._answer_opening(scope, receive, send)
            return
        if refusal is None and not self._knows_secret(headers) and not _is_probe(scope):
            if self._says_it_first(scope):
                receive = self._checked(receive, send)
            else:
                refusal = _Refusal(401, "open the address that `headwater up` printed, or send its secret")
        if refusal is not None:
            await _refuse(refusal, scope, receive, send)
            return
        await self._app(scope, receive, self._hardened(send))

    def _foreign(self, scope: Scope, headers: Headers) -> _Refusal | None:
        """Refuse another target or Host (DNS rebinding), and what a page of another origin or port sends."""
        # A browser asks for a path; another target would be a part of the address that it is sent on to.
        if not scope["path"].startswith("/"):
            return _Refusal(400, "expected a path of this server")
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        if len(hosts) != 1 or hosts[0] not in self._hosts:
            return _Refusal(403, f"expected the Host {self._hosts[0]}")
        if any(origin != f"http://{hosts[0]}" for origin in origins):
            return _Refusal(403, "a page of another origin may not ask this server")
        # A page of another origin may ask for a picture or a script without an Origin. What a person follows is a link.
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and not _is_page(scope, headers):
            return _Refusal(403, "a page of another origin may not ask this server")
        return None

    def _unfit(self, scope: Scope, headers: Headers) -> _Refusal | None:
        """Refuse a body that says of itself that it is something else than JSON, or says nothing."""
        if not self._prefect or scope["type"] != "http" or scope["method"] in _READS:
            return None
        kinds = [kind.partition(";")[0].strip().lower() for kind in headers.getlist("content-type")]
        empty = headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers
        if kinds == ["application/json"] or (empty and not kinds):
            return None
        return _Refusal(415, f"expected the Content-Type application/json, found {', '.join(kinds) or 'none'}")

    def _opens(self, scope: Scope) -> bool:
        if scope["type"] != "http" or scope["method"] != "GET" or scope["path"] != "/":
            return False
        return equal(self._token, parse_qs(scope["query_string"].decode("latin-1")).get(TOKEN_PARAMETER, []))

    async def _answer_opening(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = HTMLResponse(_OPEN, headers={"cache-control": "no-store"})
        answer.set_cookie(self._cookie, self._token, httponly=True, samesite="strict")
        # Else the first page of the UI, and every script in it, would find the token in document.referrer.
        await answer(scope, receive, self._hardened(send, referrer="no-referrer"))

    async def _send_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        query = scope["query_string"].decode("latin-1")
        answer = RedirectResponse(f"http://{self._address}{scope['path']}{'?' if query else ''}{query}")
        await answer(scope, receive, self._hardened(send, referrer="no-referrer"))

    def _hardened(self, send: Send, referrer: str = "same-origin") -> Send:
        """Add to what is answered whom a browser may tell of it."""

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = _with(message.get("headers", []), "content-security-policy", self._policy)
                message = {**message, "headers": _with(headers, "referrer-policy", referrer)}
            await send(message)

        return sent

    def _knows_secret(self, headers: Headers) -> bool:
        # A browser may hold the password of another Prefect that once had this address, and sends it too.
        given = equal(self._basic, headers.getlist("authorization"))
        return given or equal(self._token, _cookies(headers, self._cookie))

    def _says_it_first(self, scope: Scope) -> bool:
        """Say whether it is a WebSocket in Prefect's protocol, whose clients log in by their first message."""
        websocket = self._prefect and scope["type"] == "websocket"
        return websocket and "prefect" in scope["subprotocols"]

    def _checked(self, receive: Receive, send: Send) -> Receive:
        """Hang up on a WebSocket whose first message is not Prefect's {"type": "auth", "token": SECRET}."""
        known = False

        async def received() -> Message:
            nonlocal known
            message = await receive()
            if message["type"] == "websocket.receive" and not known:
                known = equal(self._api_secret, _login(message.get("text")))
                if not known:
                    await send({"type": "websocket.close", "code": 1008})
                    return {"type": "websocket.disconnect", "code": 1008}
            return message

        return received


def _is_page(scope: Scope, headers: Headers) -> bool:
    """Say whether a person goes to a page of this server, by whatever link."""
    return scope["type"] == "http" and scope["method"] == "GET" and headers.get("sec-fetch-dest") == "document"


def _is_probe(scope: Scope) -> bool:
    """Say whether it is a question after the server's health, which tells nobody anything."""
    return scope["type"] == "http" and scope["method"] == "GET" and scope["path"] in _PROBES


def _login(text: str | None) -> list[str]:
    try:
        message = json_value(text or "")
        return [str(message["token"])] if message["type"] == "auth" else []
    except (ValueError, KeyError, TypeError):
        return []


def basic_authorization(secret: str) -> str:
    """Return the value of the header Authorization for "user:password" (RFC 7617)."""
    return f"Basic {base64.b64encode(secret.encode()).decode()}"


def equal(secret: str, given: Iterable[str]) -> bool:
    """Say whether all that was given is the secret, and something was, in a time that tells nothing of it."""
    tried = [hmac.compare_digest(secret.encode(), value.encode()) for value in given]
    return bool(tried) and all(tried)


def _cookies(headers: Headers, name: str) -> list[str]:
    """Return each value of a cookie, read as browsers write them: whatever else stands in the line, between semicolons.

    The other cookies are those of every program that ever listened on this host, and Python's own reader stops at the
    first that RFC 6265 would not have had: one of them would shut a person out.
    """
    pairs = (pair.partition("=") for line in headers.getlist("cookie") for pair in line.split(";"))
    return [value.strip(" \t") for one, _, value in pairs if one.strip(" \t") == name]


def _with(headers: Iterable[tuple[bytes, bytes]], name: str, value: str) -> list[tuple[bytes, bytes]]:
    kept = [(key, held) for key, held in headers if key.lower() != name.encode()]
    return [*kept, (name.encode(), value.encode("latin-1"))]


async def _refuse(refusal: _Refusal, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        # Closed before it is accepted, which the browser sees as HTTP status 403.
        message: dict[str, Any] = {"type": "websocket.close", "code": 1008, "reason": refusal.reason}
        await send(message)
        return
    await PlainTextResponse(f"{refusal.reason}\n", refusal.status)(scope, receive, send)
