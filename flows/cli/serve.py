"""`headwater serve`: a release behind OpenAI's API."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from flows.output import console
from tasks.contracts.errors import UsageError
from tasks.contracts.release import LINEAGE_NAME, RELEASE_FOLDER, TAKEDOWN_NOTICE_NAME
from training.release.signing import PUBLIC_KEY_VARIABLE

TOKEN_VARIABLE = "HEADWATER_SERVE_TOKEN"
SHORTEST_TOKEN = 16

Engine = Literal["auto", "transformers", "vllm"]


def serve(
    release: Annotated[Path, typer.Argument(metavar="[RELEASE_DIR]", help="The release.")] = Path(RELEASE_FOLDER),
    host: Annotated[str, typer.Option(help=f"Where to listen; elsewhere than here {TOKEN_VARIABLE} must be set.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    engine: Annotated[
        Engine, typer.Option(help="auto: vLLM where it is installed and there is a GPU, else transformers.")
    ] = "auto",
    public_key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", envvar=PUBLIC_KEY_VARIABLE, help="Who made it must have signed it with this key."),
    ] = None,
) -> None:
    """Serve a release by OpenAI's API: models, completions, chat where it has a chat template. Ctrl-C ends it.

    The release is verified first, and refused where a claim does not hold. What a takedown marked is withheld.

    Example: HEADWATER_SERVE_TOKEN=… headwater serve data/release --port 8000
    """
    from flows.services.openai_server import LOOPBACK

    token = _token(local=host in LOOPBACK)
    name, filter_ = _checked(release, public_key)
    listening = _listen(host, port)
    with listening:
        port = listening.getsockname()[1]
        model = _load(release, engine)
        try:
            from flows.services.openai_server import make_app

            app = make_app(model, name=name, token=token, host=host, port=port, filter_=filter_)
            shown = f"[{host}]" if ":" in host else host
            made = (
                ""
                if os.environ.get(TOKEN_VARIABLE)
                else f"\nsecret   {token}  (api_key; {TOKEN_VARIABLE} sets one of yours)"
            )
            withheld = "" if filter_ is None else (
                f"\nwithheld passages of {len(filter_.tombstones)} texts that were taken down: "
                f"read {release / TAKEDOWN_NOTICE_NAME}"
            )  # fmt: skip
            console.print(
                f"model    {name}, by {type(model).__name__}\naddress  http://{shown}:{port}/v1{made}{withheld}\n"
                "Ctrl-C ends it.",
                soft_wrap=True,
            )
            _run(app, listening)
        finally:
            if close := getattr(model, "close", None):
                close()


def _token(*, local: bool) -> str:
    """Return the secret of the server: the one that is set, else a new one, on the loopback only."""
    from flows.services.access import new_token

    given = os.environ.get(TOKEN_VARIABLE)
    if given is None and local:
        return new_token()
    if given is None:
        raise UsageError(
            "a server that others can reach needs a secret of yours",
            expected=f"the environment variable {TOKEN_VARIABLE}",
            fix="leave --host out, or set it: python3 -c 'import secrets; print(secrets.token_urlsafe(32))'",
        )
    if len(given) < SHORTEST_TOKEN or not given.isascii() or not given.isprintable() or " " in given:
        raise UsageError(
            "this secret can be guessed, or sent by no client",
            where=TOKEN_VARIABLE,
            expected=f"{SHORTEST_TOKEN} or more characters of ASCII without spaces",
            found=f"{len(given)} characters",
        )
    return given


def _checked(release: Path, public_key: Path | None) -> tuple[str, Any]:
    """Return a release's name and the filter of what was taken down, after verifying it."""
    from flows.history.output_filter import read_filter
    from flows.history.releases import read_mark
    from flows.proof.verify import refuse_broken

    refuse_broken(release, public_key)
    mark = read_mark(release)
    name = str(json.loads((release / LINEAGE_NAME).read_bytes())["name"])
    return name, None if mark is None else read_filter(mark, str(release))


def _listen(host: str, port: int) -> socket.socket:
    listening = None
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen()
    except OSError as error:
        if listening is not None:
            listening.close()
        raise UsageError(
            "the server cannot listen there", where=f"{host}, port {port}", found=str(error), fix="another --port"
        ) from error
    return listening


def _load(release: Path, engine: Engine) -> Any:
    from flows.services.released_model import ReleasedModel
    from flows.services.vllm_model import VllmModel, vllm_can

    if engine == "vllm" or (engine == "auto" and vllm_can()):
        return VllmModel(release)
    return ReleasedModel(release)


def _run(app: Any, listening: socket.socket) -> None:
    import uvicorn

    config = uvicorn.Config(app, log_level="warning", access_log=False, proxy_headers=False, server_header=False)
    try:
        uvicorn.Server(config).run(sockets=[listening])
    except KeyboardInterrupt:
        return
