"""A release behind OpenAI's API, asked by OpenAI's own client."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import uvicorn
from typer.testing import CliRunner

from flows.cli import serve as command
from flows.cli.main import app as headwater
from flows.history.marks import mark_release
from flows.history.output_filter import OutputFilter, make_filter, read_filter
from flows.proof.affected import fingerprint
from flows.services.completions import say
from flows.services.openai_server import MOST_BODY_BYTES, make_app
from flows.services.released_model import Piece, ReleasedModel, Sampling, TextModel
from flows.services.vllm_model import VllmModel
from tasks.contracts.errors import InputError, UsageError
from tasks.contracts.manifest import manifest_hash
from tasks.tokenizer.byte_level import train_tokenizer
from tests.corpus import prose
from tests.training.release.test_verify import build_release

TOKEN = "a-secret-of-sixteen-characters"
NAME = "small"
ID = "0123456789abcdef"
SEQ_LEN = 128
PROMPT = "The function returns"
TEMPLATE = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"


@dataclass
class Served:
    """A running server, and a client of it."""

    port: int
    client: openai.OpenAI

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        known = {"Authorization": f"Bearer {TOKEN}", **headers}
        return httpx.post(self.address + path, content=content, headers=known, timeout=60)


@contextlib.contextmanager
def served(model: TextModel, filter_: OutputFilter | None = None) -> Iterator[Served]:
    listening = command._listen("127.0.0.1", 0)
    port = listening.getsockname()[1]
    app = make_app(model, name=NAME, token=TOKEN, host="127.0.0.1", port=port, filter_=filter_)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        with openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=TOKEN, max_retries=0) as client:
            yield Served(port, client)
    finally:
        server.should_exit = True
        thread.join()
        listening.close()


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("served")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADWATER_STATE", str(root / "state"))
        tokenizer = train_tokenizer([prose(number) for number in range(5)], vocab_size=300)
        return build_release(root, tokenizer=tokenizer, seq_len=SEQ_LEN)


@pytest.fixture(scope="module")
def model(release: Path) -> ReleasedModel:
    return ReleasedModel(release)


@pytest.fixture(scope="module")
def base(model: ReleasedModel) -> Iterator[Served]:
    with served(model) as running:
        yield running


@pytest.fixture(scope="module")
def chat(release: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("chat") / "model"
    shutil.copytree(release, folder)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    with served(ReleasedModel(folder)) as running:
        yield running


def test_it_says_which_model_there_is(base: Served) -> None:
    assert [one.id for one in base.client.models.list()] == [NAME]
    assert base.client.models.retrieve(NAME).id == NAME
    with pytest.raises(openai.NotFoundError, match="no such model"):
        base.client.models.retrieve("other")


def test_the_likeliest_completion_is_what_transformers_generates(base: Served, model: ReleasedModel) -> None:
    import torch

    ids = model.encode(PROMPT)
    whole = model.model.generate(torch.tensor([ids]), max_new_tokens=30, do_sample=False)[0, len(ids) :].tolist()
    answer = base.client.completions.create(model=NAME, prompt=PROMPT, max_tokens=30, temperature=0)
    assert answer.choices[0].text == model.tokenizer.decode(whole, skip_special_tokens=True)
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == len(ids)
    assert answer.usage.completion_tokens == len([one for one in whole if one not in model.ends])
    by_ids = base.client.completions.create(model=NAME, prompt=ids, max_tokens=30, temperature=0)
    assert by_ids.choices[0].text == answer.choices[0].text


def test_a_stream_is_the_whole_answer_in_pieces(base: Served) -> None:
    asked: dict[str, Any] = {"model": NAME, "prompt": PROMPT, "max_tokens": 40, "seed": 3}
    whole = base.client.completions.create(**asked)
    events = list(base.client.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert "".join(choice.text for event in events for choice in event.choices) == whole.choices[0].text
    assert events[-1].usage == whole.usage
    assert [c.finish_reason for e in events for c in e.choices if c.finish_reason] == [whole.choices[0].finish_reason]


def test_a_seed_gives_the_same_answer_and_each_choice_another(base: Served) -> None:
    asked: dict[str, Any] = {"model": NAME, "prompt": [PROMPT, "Another"], "n": 3, "seed": 5, "max_tokens": 20}
    first, again = (base.client.completions.create(**asked) for _ in range(2))
    texts = [choice.text for choice in first.choices]
    assert texts == [choice.text for choice in again.choices]
    assert [choice.index for choice in first.choices] == list(range(6))
    assert len(set(texts[:3])) == 3
    narrow = {base.client.completions.create(**{**asked, "n": 1, "top_p": 1e-6, "seed": s}).choices[0].text
              for s in range(3)}  # fmt: skip
    assert len(narrow) == 1


def test_an_answer_ends_before_a_stop_string(base: Served) -> None:
    asked: dict[str, Any] = {"model": NAME, "prompt": PROMPT, "max_tokens": 60, "seed": 3}
    whole = base.client.completions.create(**asked).choices[0].text
    stop = whole[20:24]
    before = whole[: whole.find(stop)]
    answer = base.client.completions.create(**asked, stop=[stop, "never said"]).choices[0]
    assert (answer.text, answer.finish_reason) == (before, "stop")
    events = base.client.completions.create(**asked, stop=stop, stream=True)
    assert "".join(choice.text for event in events for choice in event.choices) == before


def test_logprobs_are_those_of_the_model(base: Served, chat: Served, model: ReleasedModel) -> None:
    answer = base.client.completions.create(model=NAME, prompt=PROMPT, max_tokens=5, temperature=0, logprobs=3)
    told = answer.choices[0].logprobs
    assert told is not None
    assert told.top_logprobs is not None
    assert "".join(told.tokens or []) == answer.choices[0].text
    for own, top in zip(told.token_logprobs or [], told.top_logprobs, strict=True):
        assert own == pytest.approx(max(top.values()))
        assert own < 0
        assert len(top) <= 3
    said = chat.client.chat.completions.create(
        model=NAME, messages=[{"role": "user", "content": "Hello"}], max_tokens=4, logprobs=True, top_logprobs=2
    ).choices[0]
    assert said.logprobs is not None
    assert said.logprobs.content is not None
    assert [len(one.top_logprobs) for one in said.logprobs.content] == [2] * len(said.logprobs.content)


def test_chat_goes_through_the_models_template(chat: Served, base: Served) -> None:
    messages: list[Any] = [
        {"role": "developer", "content": "Be kind."},
        {"role": "user", "content": [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]},
    ]
    asked: dict[str, Any] = {"model": NAME, "temperature": 0, "max_tokens": 12}
    answer = chat.client.chat.completions.create(messages=messages, **asked)
    assert answer.choices[0].message.role == "assistant"
    plain = base.client.completions.create(prompt="[system] Be kind.\n[user] Hello\n", **asked)
    assert answer.choices[0].message.content == plain.choices[0].text
    events = list(chat.client.chat.completions.create(messages=messages, **asked, stream=True))
    assert events[0].choices[0].delta.role == "assistant"
    assert "".join(event.choices[0].delta.content or "" for event in events) == plain.choices[0].text
    assert events[-1].choices[0].finish_reason == answer.choices[0].finish_reason
    # Without a limit the answer may fill the context.
    long = chat.client.chat.completions.create(model=NAME, messages=messages)
    assert long.usage is not None
    assert long.usage.total_tokens <= SEQ_LEN


def test_a_model_without_a_template_says_that_it_cannot_chat(base: Served) -> None:
    with pytest.raises(openai.BadRequestError, match="no chat template") as error:
        base.client.chat.completions.create(model=NAME, messages=[{"role": "user", "content": "Hello"}])
    assert error.value.code == "no_chat_template"


COMPLETE: dict[str, Any] = {"model": NAME, "prompt": "x"}
WRONG: list[tuple[dict[str, Any], int, str | None, str]] = [
    ({**COMPLETE, "model": "gpt-4"}, 404, "model", "does not exist"),
    ({"prompt": "x"}, 400, "model", "required"),
    ({"model": NAME}, 400, "prompt", "required"),
    ({**COMPLETE, "prompt": []}, 400, "prompt", "empty"),
    ({**COMPLETE, "prompt": [100_000]}, 400, "prompt", "token ids from 0"),
    ({**COMPLETE, "prompt": ["x"] * 17}, 400, "prompt", "at most 16"),
    ({**COMPLETE, "max_tokens": 0}, 400, "max_tokens", "greater"),
    ({**COMPLETE, "max_tokens": 5000}, 400, "prompt", "context is 128 tokens"),
    ({**COMPLETE, "prompt": "word " * 300}, 400, "prompt", "context is 128 tokens"),
    ({**COMPLETE, "temperature": -1}, 400, "temperature", "greater"),
    ({**COMPLETE, "temperature": "hot"}, 400, "temperature", "number"),
    ({**COMPLETE, "top_p": 0}, 400, "top_p", "greater"),
    ({**COMPLETE, "n": 1000}, 400, "n", "less"),
    ({**COMPLETE, "stop": ["a", "b", "c", "d", "e"]}, 400, "stop", "at most 4"),
    ({**COMPLETE, "stop": ""}, 400, "stop", "none of them empty"),
    ({**COMPLETE, "logprobs": 6}, 400, "logprobs", "less"),
    ({**COMPLETE, "best_of": 4}, 400, "best_of", "does not do that"),
    ({**COMPLETE, "echo": True}, 400, "echo", "does not do that"),
    ({**COMPLETE, "suffix": "y"}, 400, "suffix", "does not do that"),
    ({**COMPLETE, "presence_penalty": 1.0}, 400, "presence_penalty", "does not do that"),
    ({**COMPLETE, "logit_bias": {"5": 100}}, 400, "logit_bias", "does not do that"),
    ({**COMPLETE, "top_k": 5}, 400, "top_k", "no such parameter"),
]


@pytest.mark.parametrize(("body", "status", "param", "says"), WRONG)
def test_a_wrong_request_gets_an_error_in_openais_form(
    base: Served, body: dict[str, Any], status: int, param: str | None, says: str
) -> None:
    for stream in (False, True):
        answer = base.post("/v1/completions", {**body, "stream": stream})
        error = answer.json()["error"]
        assert (answer.status_code, error["param"]) == (status, param), error
        assert says in error["message"]
        assert set(error) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    ("body", "param", "says"),
    [
        ({"messages": []}, "messages", "at least 1"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role", "'user'"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, None, "content"),
        ({"messages": [{"role": "user", "content": "x"}], "tools": [{"type": "function"}]}, "tools", "does not do"),
        ({"messages": [{"role": "user", "content": "x"}], "top_logprobs": 3}, "top_logprobs", "needs logprobs"),
        ({"messages": [{"role": "user", "content": "x " * 500}]}, "messages", "context is 128 tokens"),
        (
            {"messages": [{"role": "user", "content": "x"}], "response_format": {"type": "json_object"}},
            "response_format",
            "does not do",
        ),
    ],
)
def test_a_wrong_chat_gets_one_too(chat: Served, body: dict[str, Any], param: str | None, says: str) -> None:
    answer = chat.post("/v1/chat/completions", {"model": NAME, **body})
    error = answer.json()["error"]
    assert answer.status_code == 400
    assert param is None or error["param"] == param
    assert says in error["message"]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/completions", b"{", 400),
        ("/v1/completions", b"\xff", 400),
        ("/v1/completions", b"[]", 400),
        ("/v1/completions", b" " * (MOST_BODY_BYTES + 1), 413),
        ("/v1/embeddings", b"{}", 404),
        ("/v1/models", b"{}", 405),
    ],
)
def test_what_is_no_request_gets_one_too(base: Served, path: str, body: bytes, status: int) -> None:
    answer = base.post(path, body)
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Authorization": ""}, 401),
        ({"Authorization": "Bearer"}, 401),
        ({"Authorization": f"Basic {TOKEN}"}, 401),
        ({"Authorization": "Bearer another-secret-of-sixteen"}, 401),
        ({"Host": "rebound.example"}, 403),
        ({"Host": "127.0.0.1:1"}, 403),
        ({"Origin": "http://127.0.0.1"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
    ],
)
def test_who_may_not_ask_is_refused(base: Served, headers: dict[str, str], status: int) -> None:
    answer = base.post("/v1/completions", COMPLETE, **headers)
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert httpx.get(f"{base.address}/health").status_code == 200
    wrong = openai.OpenAI(base_url=f"{base.address}/v1", api_key="wrong", max_retries=0)
    with wrong, pytest.raises(openai.AuthenticationError):
        wrong.models.list()


class Parrot(TextModel):
    """A model that says a text, in pieces of three characters."""

    def __init__(self, folder: Path, text: str) -> None:
        super().__init__(folder)
        self.text = text

    def generate(self, prompt: Any, sampling: Sampling) -> Iterator[Piece]:
        for at in range(0, len(self.text), 3):
            yield Piece(text=self.text[at : at + 3], finish=None if at + 3 < len(self.text) else "stop")


def test_a_taken_down_passage_is_withheld_whole_or_streamed(release: Path) -> None:
    taken = prose(77)
    filter_ = read_filter({"filter": make_filter([fingerprint(ID, taken)], [ID], np.zeros(0, np.uint32))})
    passage = " ".join(taken.split()[20:60])
    before = "He said as follows"
    with served(Parrot(release, f"{before}: {passage}, and went."), filter_) as running:
        answer = running.client.completions.create(model=NAME, prompt="x").choices[0]
        assert (answer.text, answer.finish_reason) == (f"{before}: ", "content_filter")
        events = list(running.client.completions.create(model=NAME, prompt="x", stream=True))
        assert "".join(choice.text for event in events for choice in event.choices) == answer.text
        assert events[-1].choices[0].finish_reason == "content_filter"
        with pytest.raises(openai.BadRequestError, match="taken down"):
            running.client.completions.create(model=NAME, prompt="x", logprobs=1)
    other = f"{before}, and went home again, and that was all there is to tell."
    with served(Parrot(release, other), filter_) as running:
        answer = running.client.completions.create(model=NAME, prompt="x").choices[0]
        assert (answer.text, answer.finish_reason) == (other, "stop")


def test_text_is_held_back_only_while_it_may_begin_a_stop_string() -> None:
    pieces = [Piece(text=text) for text in ("on", "e E", "N", "X and EN", "D no")]
    said = [part.text for part in say(iter(pieces), ["END", "never"], None)]
    assert said == ["o", "ne ", "", "ENX and ", ""]


def test_vllms_server_is_asked_as_ours_can_be(base: Served, release: Path, model: ReleasedModel) -> None:
    """Our own server in the place of vLLM's: both speak OpenAI's API, and take a prompt's tokens."""
    other = VllmModel(release, address=base.address, secret=TOKEN, name=NAME)
    ids = model.encode(PROMPT)
    for sampling in (
        Sampling(max_tokens=20, temperature=0.0, top_logprobs=2),
        Sampling(max_tokens=1000, temperature=0.7, top_p=0.9, seed=4),
        Sampling(max_tokens=0),
    ):
        mine, theirs = list(model.generate(ids, sampling)), list(other.generate(ids, sampling))
        assert "".join(piece.text for piece in theirs) == "".join(piece.text for piece in mine)
        assert sum(piece.tokens for piece in theirs) == sum(piece.tokens for piece in mine)
        assert [piece.finish for piece in theirs][-1:] == [piece.finish for piece in mine][-1:]
        assert len([p for p in theirs if p.likelihoods]) == len([p for p in mine if p.likelihoods])
    assert TOKEN not in " ".join(other.command(8000))
    with pytest.raises(InputError, match="vLLM refuses"):
        list(VllmModel(release, address=base.address, secret="wrong", name=NAME).generate(ids, Sampling(max_tokens=3)))


def call(*arguments: str) -> Any:
    return CliRunner().invoke(headwater, ["serve", *arguments]).exception


def test_wrong_use_is_refused(
    release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(command.TOKEN_VARIABLE, raising=False)
    assert "needs a secret of yours" in str(call(str(release), "--host", "0.0.0.0"))
    monkeypatch.setenv(command.TOKEN_VARIABLE, "short")
    assert "can be guessed" in str(call(str(release)))
    monkeypatch.setenv(command.TOKEN_VARIABLE, TOKEN)
    assert isinstance(call(str(tmp_path)), UsageError)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert "cannot listen there" in str(call(str(release), "--port", str(taken.getsockname()[1])))
    assert "vLLM is not installed" in str(call(str(release), "--engine", "vllm", "--port", "0"))
    changed = tmp_path / "changed"
    shutil.copytree(release, changed)
    weights = bytearray((changed / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (changed / "model.safetensors").write_bytes(weights)
    assert "is not what it claims to be" in str(call(str(changed)))


def test_a_mark_without_a_filter_is_refused_and_one_with_it_is_in_force(release: Path, tmp_path: Path) -> None:
    marked = tmp_path / "marked"
    shutil.copytree(release, marked)
    tombstones: dict[str, Any] = {ID: {"kind": "url", "date": "2026-01-31", "documents": 1, "held_out": 0}}
    mark_release(marked, manifest_hash(marked), tombstones)
    assert "has no output filter" in str(call(str(marked), "--port", "0"))
    filter_ = make_filter([fingerprint(ID, prose(1))], [ID], np.zeros(0, np.uint32))
    mark_release(marked, manifest_hash(marked), tombstones, filter_)
    name, found = command._checked(marked, None)
    assert found is not None
    assert (name, found.tombstones) == (command._checked(release, None)[0], [ID])


def test_the_command_serves_and_ends(release: Path, tmp_path: Path) -> None:
    start = [sys.executable, "-c", "from flows.cli.main import main; main()", "serve", str(release), "--port", "0"]
    log = tmp_path / "log"
    with log.open("w") as stream, subprocess.Popen(start, stdout=stream, stderr=stream) as process:
        try:
            deadline = time.monotonic() + 300
            while "Ctrl-C" not in log.read_text():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.1)
            printed = log.read_text()
            address, secret = (re.findall(rf"^{name} +(\S+)", printed, re.M)[0] for name in ("address", "secret"))
            with openai.OpenAI(base_url=address, api_key=secret, max_retries=0) as client:
                (known,) = client.models.list()
                assert client.completions.create(model=known.id, prompt="x").choices[0].finish_reason
        finally:
            process.terminate()
        assert process.wait(60) in (0, 130), log.read_text()
