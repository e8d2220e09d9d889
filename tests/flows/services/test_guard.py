"""Who gets through the guard: a table of what browsers and programs send, each line with and without the secret."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.types import Message
from starlette.websockets import WebSocket, WebSocketDisconnect

from flows.services.guard import Guard, basic_authorization

ADDRESS = "127.0.0.1:4200"
TOKEN = "t0ken"
SECRET = "me:secret"
BASIC = {"authorization": basic_authorization(SECRET)}
COOKIE = {"cookie": f"theme=dark; headwater-4200={TOKEN}"}
JSON = {"content-type": "application/json"}


class Asked:
    """A server that counts what reaches it, and hears a WebSocket out as Prefect's does."""

    def __init__(self) -> None:
        self.requests = 0
        self.messages: list[Any] = []

    async def http(self, _request: Request) -> PlainTextResponse:
        self.requests += 1
        return PlainTextResponse("secret data")

    async def socket(self, websocket: WebSocket) -> None:
        await websocket.accept(subprotocol="prefect")
        try:
            while True:
                self.messages.append(await websocket.receive_json())
                await websocket.send_json({"type": "auth_success"})
        except WebSocketDisconnect:
            return


def latin1(headers: Mapping[str, str]) -> dict[bytes, bytes]:
    """Return header fields with bytes that a browser may send and httpx by itself would not."""
    return {name.encode(): value.encode("latin-1") for name, value in headers.items()}


@pytest.fixture
def asked() -> Asked:
    return Asked()


@pytest.fixture(params=["prefect", "mlflow"])
def client(request: pytest.FixtureRequest, asked: Asked) -> TestClient:
    return guarded(asked, prefect=request.param == "prefect")


def guarded(asked: Asked, *, prefect: bool) -> TestClient:
    methods = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
    routes = [Route("/{path:path}", asked.http, methods=methods), WebSocketRoute("/{path:path}", asked.socket)]
    guard = Guard(Starlette(routes=routes), address=ADDRESS, token=TOKEN, api_secret=SECRET, prefect=prefect)
    return TestClient(guard, base_url=f"http://{ADDRESS}", follow_redirects=False)


FOREIGN: list[dict[str, str]] = [
    {"host": "evil.example:4200"},
    {"host": "127.0.0.1:4201"},
    {"host": "127.0.0.1"},
    {"host": "127.0.0.1:4200.evil.example"},
    {"host": "127.0.0.1.nip.example:4200"},
    {"host": "LOCALHOST.evil.example:4200"},
    {"host": "[::1]:4200"},
    {"host": ""},
    {"origin": "http://evil.example"},
    {"origin": "https://evil.example:4200"},
    {"origin": "null"},
    {"origin": ""},
    {"origin": "http://127.0.0.1:8888"},
    {"origin": "https://127.0.0.1:4200"},
    {"origin": "http://localhost:4200"},
    {"host": "localhost:4200", "origin": "http://127.0.0.1:4200"},
    {"host": "evil.example:4200", "origin": "http://evil.example:4200", "sec-fetch-site": "same-origin"},
    {"sec-fetch-site": "cross-site", "sec-fetch-dest": "script"},
    {"sec-fetch-site": "same-site", "sec-fetch-dest": "empty"},
    {"sec-fetch-site": "cross-site", "sec-fetch-dest": "iframe", "sec-fetch-mode": "navigate"},
]
OWN: list[dict[str, str]] = [
    {},
    {"origin": "http://127.0.0.1:4200"},
    {"host": "localhost:4200", "origin": "http://localhost:4200"},
    {"sec-fetch-site": "same-origin", "sec-fetch-dest": "empty", "origin": "http://127.0.0.1:4200"},
    {"sec-fetch-site": "none", "sec-fetch-dest": "document", "sec-fetch-mode": "navigate"},
]


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("foreign", FOREIGN, ids=str)
def test_what_is_foreign_is_refused_also_with_the_secret(
    client: TestClient, asked: Asked, foreign: dict[str, str], method: str
) -> None:
    for secret, path in itertools.product(({}, BASIC, COOKIE), ("/", "/api/x", "/api/health", f"/?token={TOKEN}")):
        answer = client.request(method, path, headers={**JSON, **secret, **foreign}, content=b"{}")
        assert answer.status_code == 403
        assert not [name for name in answer.headers if name.startswith("access-control-")]
        assert "set-cookie" not in answer.headers
    assert asked.requests == 0


@pytest.mark.parametrize("own", OWN, ids=str)
def test_what_is_ours_passes_with_the_secret_and_only_then(
    client: TestClient, asked: Asked, own: dict[str, str]
) -> None:
    wrong = [
        {},
        {"authorization": basic_authorization("me:wrong")},
        {"authorization": basic_authorization(SECRET).removeprefix("Basic ")},
        {"authorization": f"Bearer {TOKEN}"},
        {"cookie": f"headwater-4201={TOKEN}"},
        {"cookie": "headwater-4200="},
        {"cookie": f"headwater-4200={TOKEN}; headwater-4200=other"},
        {"cookie": f"headwater-4200={TOKEN}é"},
    ]
    for secret in wrong:
        encoded = latin1({**own, **secret})
        assert client.get("/api/x", headers=encoded).status_code == 401
        assert client.post("/api/x", headers={**latin1(JSON), **encoded}, content=b"{}").status_code == 401
    assert asked.requests == 0
    for secret in (BASIC, COOKIE, {"authorization": "Basic b3RoZXI=", **COOKIE}):
        assert client.get("/api/x", headers={**own, **secret}).text == "secret data"
        assert client.post("/api/x", headers={**JSON, **own, **secret}, content=b"{}").text == "secret data"
    assert asked.requests == 6


@pytest.mark.parametrize(
    "other",
    ['prefs={"theme":"dark"}', 'a=b c"d', "x=\u00e9", "flag", "=v", "a[b]=c", "", "a:b=c", 'a="b', "headwater-4200x=1"],
)
def test_the_cookies_of_other_programs_on_this_host_shut_nobody_out(
    client: TestClient, asked: Asked, other: str
) -> None:
    ours = f"headwater-4200={TOKEN}"
    for line in (f"{other}; {ours}", f"{ours}; {other}", f"{other};{ours} ;{other}"):
        assert client.get("/api/x", headers={b"cookie": line.encode()}).status_code == 200
    for line in (f"{other}{ours}x", f"{other}; headwater-4200", f"{ours}; {other}; headwater-4200=other"):
        assert client.get("/api/x", headers={b"cookie": line.encode()}).status_code == 401
    assert asked.requests == 3


@pytest.mark.parametrize("target", ["@evil.example/", "http://evil.example/", "*", "", ".evil.example/"])
@pytest.mark.parametrize("host", ["localhost:4200", ADDRESS])
def test_another_target_than_a_path_is_refused(asked: Asked, target: str, host: str) -> None:
    """Only a raw socket can send one; the reader of HTTP in front hands it on as it is."""
    sent: list[Message] = []
    headers = {"host": host, "sec-fetch-dest": "document", **COOKIE}
    scope = {
        "type": "http",
        "method": "GET",
        "path": target,
        "query_string": f"token={TOKEN}".encode(),
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(Guard(Starlette(), address=ADDRESS, token=TOKEN)(scope, receive, send))
    assert sent[0]["status"] == 400
    assert b"location" not in dict(sent[0]["headers"])


def test_a_link_from_another_page_opens_the_ui_and_nothing_else(client: TestClient) -> None:
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert client.get("/runs", headers={**link, **COOKIE}).status_code == 200
    assert client.post("/runs", headers={**link, **COOKIE, **JSON}, content=b"{}").status_code == 403


NO_JSON = [
    {"content-type": "text/plain"},
    {"content-type": "text/plain;charset=UTF-8"},
    {"content-type": "application/x-www-form-urlencoded"},
    {"content-type": "multipart/form-data; boundary=x"},
    {"content-type": "text/plain, application/json"},
    {"content-type": "application/jsonp"},
    {"content-type": ""},
    {},
]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("kind", NO_JSON, ids=str)
def test_prefect_is_asked_to_change_something_in_json_only(asked: Asked, method: str, kind: dict[str, str]) -> None:
    client = guarded(asked, prefect=True)
    answer = client.request(method, "/api/flow_runs/", headers={**BASIC, **kind}, content=b'{"a": 1}')
    assert answer.status_code == 415
    chunks = client.request(method, "/api/flow_runs/", headers={**BASIC, **kind}, content=iter([b"{}"]))
    assert chunks.status_code == 415
    assert asked.requests == 0
    assert client.request(method, "/api/x", headers=BASIC).status_code == 200, "nothing is said, and nothing misread"


def test_the_printed_address_opens_the_ui_for_this_port_alone(client: TestClient) -> None:
    answer = client.get(f"/?token={TOKEN}")
    assert "location.replace(location.pathname" in answer.text
    cookie = answer.headers["set-cookie"].lower()
    assert cookie.startswith("headwater-4200=")
    assert {"httponly", "samesite=strict", "path=/"} <= set(cookie.split("; "))
    assert client.get("/", headers={"sec-fetch-site": "same-origin"}).text == "secret data", "the cookie is kept"
    assert answer.headers["referrer-policy"] == "no-referrer", "the page after it would have the token as its referrer"


def test_a_page_of_the_ui_is_framed_by_no_other_and_tells_nobody_of_a_visit(client: TestClient) -> None:
    policy = client.get("/", headers=COOKIE).headers["content-security-policy"]
    assert policy == "frame-ancestors 'self'; connect-src 'self' ws://127.0.0.1:4200"


@pytest.mark.parametrize("path", [f"/?token={TOKEN}", "/runs?a=b", "//evil.example/", "/"])
def test_a_persons_browser_at_localhost_is_sent_on_to_the_one_address(client: TestClient, path: str) -> None:
    page = {"host": "localhost:4200", "sec-fetch-dest": "document", "sec-fetch-mode": "navigate"}
    for secret in ({}, COOKIE):
        answer = client.get(f"http://{ADDRESS}{path}", headers={**page, **secret})
        assert (answer.status_code, answer.headers["location"]) == (307, f"http://{ADDRESS}{path}")
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "set-cookie" not in answer.headers
    old = client.get(f"/?token={TOKEN}", headers={"host": "localhost:4200"})
    assert old.headers["location"] == f"http://{ADDRESS}/?token={TOKEN}", "a browser without Sec-Fetch-Dest"


@pytest.mark.parametrize("path", ["/?token=", "/?token=wrong", f"/?token=wrong&token={TOKEN}", f"/api/x?token={TOKEN}"])
def test_another_address_opens_nothing(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers
    assert client.post(f"/?token={TOKEN}", headers=JSON, content=b"{}").status_code == 401


def test_health_is_told_without_a_secret_and_nothing_else_is(client: TestClient) -> None:
    for path in ("/health", "/api/health"):
        assert client.get(path).status_code == 200
        assert client.post(path, headers=JSON, content=b"{}").status_code == 401
    for path in ("/api/health/", "//health", "/health/../api/x", "/API/HEALTH", "/api/variables/name/health"):
        assert client.get(path).status_code == 401


@given(
    st.dictionaries(
        st.sampled_from(["host", "origin", "authorization", "cookie", "sec-fetch-site", "content-type"]),
        st.one_of(
            st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=40),
            st.sampled_from([ADDRESS, "localhost:4200", f"http://{ADDRESS}", "same-origin", "application/json"]),
        ),
    ),
    st.sampled_from(["GET", "POST", "DELETE"]),
)
def test_nothing_gets_through_by_chance(headers: dict[str, str], method: str) -> None:
    asked = Asked()
    encoded = latin1(headers)
    answer = guarded(asked, prefect=True).request(method, "/api/x", headers=encoded)
    assert answer.status_code in (401, 403, 415)
    assert asked.requests == 0


def socket(client: TestClient, headers: dict[str, str], protocols: list[str], first: object) -> Any:
    headers = {"host": ADDRESS, **headers}
    with client.websocket_connect("/api/events/out", headers=headers, subprotocols=protocols) as websocket:
        websocket.send_text(first if isinstance(first, str) else json.dumps(first))
        return websocket.receive_json()


LOGIN = {"type": "auth", "token": SECRET}


@pytest.mark.parametrize("secret", [{}, BASIC, COOKIE], ids=["none", "basic", "cookie"])
@pytest.mark.parametrize("foreign", [line for line in FOREIGN if line.get("host") != ""], ids=str)
def test_a_foreign_page_opens_no_websocket(
    client: TestClient, asked: Asked, foreign: dict[str, str], secret: dict[str, str]
) -> None:
    with pytest.raises(WebSocketDisconnect):
        socket(client, {**secret, **foreign}, ["prefect"], LOGIN)
    assert asked.messages == []


def test_a_websocket_opens_with_the_secret_in_its_head_or_in_its_first_message(asked: Asked) -> None:
    client = guarded(asked, prefect=True)
    assert socket(client, BASIC, [], {"any": 1}) == {"type": "auth_success"}
    assert socket(client, {**COOKIE, "origin": f"http://{ADDRESS}"}, [], {"any": 1}) == {"type": "auth_success"}
    assert socket(client, {}, ["prefect"], LOGIN) == {"type": "auth_success"}
    assert len(asked.messages) == 3


@pytest.mark.parametrize(
    "first", ["", "no JSON", "[]", "null", "1", {"type": "auth"}, {"type": "auth", "token": None},
              {"type": "auth", "token": "me:wrong"}, {"type": "filter", "token": SECRET}, {"token": SECRET}],
    ids=str,
)  # fmt: skip
def test_a_websocket_that_says_something_else_first_is_hung_up_on(asked: Asked, first: object) -> None:
    with pytest.raises(WebSocketDisconnect):
        socket(guarded(asked, prefect=True), {}, ["prefect"], first)
    assert asked.messages == []


def test_a_websocket_that_does_not_speak_prefects_protocol_is_refused(asked: Asked) -> None:
    for prefect, protocols in ((True, []), (True, ["other"]), (False, ["prefect"])):
        with pytest.raises(WebSocketDisconnect):
            socket(guarded(asked, prefect=prefect), {}, protocols, LOGIN)
    assert asked.messages == []


def test_a_guard_without_a_secret_does_not_start() -> None:
    with pytest.raises(ValueError, match="secret"):
        Guard(Starlette(), address=ADDRESS, token="")
