"""A model that vLLM holds: its server, started as a child of this process and asked by nobody else.

What a request may ask, its errors, stop strings and what was taken down are ours whichever of the two answers
(`flows.services.completions`); vLLM is sent a prompt's tokens and streams back text.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from flows.services.access import HOST, new_token
from flows.services.released_model import Likelihood, Piece, Sampling, TextModel
from tasks.contracts.errors import InputError, ToolMissingError

NAME: Final = "release"
START_SECONDS: Final = 1800
"""Longest that a model may take to load."""


def vllm_can() -> bool:
    """Say whether vLLM is installed and there is a GPU for it."""
    if find_spec("vllm") is None:
        return False
    import torch

    return torch.cuda.is_available()


class VllmModel(TextModel):
    """A model folder that vLLM serves.

    Args:
        address: of a server that is running already, "http://host:port", with `secret` as its key; one is started when
            it is left out.

    Raises:
        InputError: the folder holds no model, or vLLM ended before it listened.
    """

    def __init__(self, folder: Path, address: str | None = None, secret: str | None = None, name: str = NAME) -> None:
        super().__init__(folder)
        self.name = name
        self.secret = secret or new_token()
        self.process: subprocess.Popen[bytes] | None = None
        self.address = address or self._start()

    def generate(self, prompt: Sequence[int], sampling: Sampling) -> Iterator[Piece]:
        """Yield the answer in the pieces that vLLM sends."""
        import httpx

        ids = list(prompt) or sorted(self.ends)[:1]
        most = min(sampling.max_tokens, self.context - len(ids))
        if most < 1:
            return
        body: dict[str, Any] = {
            "model": self.name,
            "prompt": ids,
            "max_tokens": most,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        body |= {} if sampling.seed is None else {"seed": sampling.seed}
        body |= {} if sampling.top_logprobs is None else {"logprobs": sampling.top_logprobs}
        headers = {"Authorization": f"Bearer {self.secret}"}
        url = f"{self.address}/v1/completions"
        last: Piece | None = None
        with httpx.stream("POST", url, json=body, headers=headers, timeout=None, trust_env=False) as answer:
            if answer.status_code != httpx.codes.OK:
                raise InputError("vLLM refuses a request", found=answer.read().decode(errors="replace")[:1000])
            told = 0
            for line in answer.iter_lines():
                data = line.removeprefix("data: ")
                if data == line or data == "[DONE]":
                    continue
                event = json.loads(data)
                if usage := event.get("usage"):
                    told = int(usage["completion_tokens"])
                for choice in event.get("choices", ()):
                    piece = Piece(
                        text=choice["text"],
                        finish=choice["finish_reason"],
                        likelihoods=_likelihoods(choice.get("logprobs"), sampling.top_logprobs),
                        tokens=0,
                    )
                    if piece.finish:
                        last = piece
                    else:
                        yield piece
        if last is not None:
            yield Piece(text=last.text, finish=last.finish, likelihoods=last.likelihoods, tokens=told)

    def close(self) -> None:
        """End the server that was started."""
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()

    def command(self, port: int) -> list[str]:
        """Return the command that starts vLLM's server; its key goes by environment."""
        program = Path(sys.executable).with_name("vllm")
        where = ["--host", HOST, "--port", str(port), "--served-model-name", self.name]
        return [str(program), "serve", str(self.folder), *where]

    def _start(self) -> str:
        import httpx

        if find_spec("vllm") is None:
            raise ToolMissingError("vLLM is not installed", fix="pip install vllm, or --engine transformers")
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            port = int(probe.getsockname()[1])
        quiet = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"}
        self.process = subprocess.Popen(self.command(port), env={**os.environ, **quiet, "VLLM_API_KEY": self.secret})
        address, deadline = f"http://{HOST}:{port}", time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            try:
                if httpx.get(f"{address}/health", trust_env=False).status_code == httpx.codes.OK:
                    return address
            except httpx.TransportError:
                time.sleep(1)
        self.close()
        raise InputError("vLLM did not start", where=str(self.folder), found="its log is above",
                         fix="--engine transformers serves without it")  # fmt: skip


def _likelihoods(told: Any, top: int | None) -> tuple[Likelihood, ...]:
    if told is None or top is None or not told["tokens"]:
        return ()
    own = Likelihood(token=told["tokens"][0], logprob=told["token_logprobs"][0])
    others = (told["top_logprobs"] or [{}])[0]
    return (own, *(Likelihood(token=token, logprob=value) for token, value in others.items()))
