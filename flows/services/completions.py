"""What an OpenAI-compatible server is asked, and what it answers: completions and chat, whole or as a stream.

What of OpenAI's API a model of ours cannot do is refused, and not silently left out. Text passes two sieves on its way:
stop strings, and the filter of what was taken down (`flows.history.output_filter`); what may be the beginning of either
is held back until it is known.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, ValidationError

from flows.history.output_filter import OutputFilter, Withholder
from flows.services.released_model import Likelihood, Piece, Sampling, TextModel

MOST_CHOICES: Final = 16
MOST_STOPS: Final = 4
DEFAULT_TOKENS: Final = 16
"""Of a completion, as at OpenAI; a chat's answer may fill the context."""


class ApiError(Exception):
    """An error in OpenAI's form.

    Args:
        status: of HTTP.
        param: the field of the request that it is about.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        type_: str = "invalid_request_error",
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": type_, "param": param, "code": code}}


def _only(*allowed: Any) -> BeforeValidator:
    """Accept a field of OpenAI's API only as it is when nobody asks for anything."""

    def check(value: Any) -> Any:
        if value not in allowed:
            raise ValueError(f"this server does not do that; leave it out or say {allowed[-1]!r}")
        return value

    return BeforeValidator(check)


def _stops(value: str | list[str] | None) -> list[str]:
    stops = [value] if isinstance(value, str) else value or []
    if len(stops) > MOST_STOPS or not all(stops):
        raise ValueError(f"expected at most {MOST_STOPS} strings, none of them empty")
    return stops


class _StreamOptions(BaseModel):
    model_config = ConfigDict(extra="forbid")
    include_usage: bool = False
    include_obfuscation: bool = False


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    model: str
    temperature: float | None = Field(1.0, ge=0, le=2)
    top_p: float | None = Field(1.0, gt=0, le=1)
    n: int | None = Field(1, ge=1, le=MOST_CHOICES)
    seed: int | None = None
    stop: Annotated[str | list[str] | None, AfterValidator(_stops)] = Field(None, validate_default=True)
    stream: bool | None = False
    stream_options: _StreamOptions | None = None
    user: str | None = None
    metadata: Any = None
    frequency_penalty: Annotated[float | None, _only(None, 0)] = None
    presence_penalty: Annotated[float | None, _only(None, 0)] = None
    logit_bias: Annotated[Any, _only(None, {})] = None


class CompletionRequest(_Request):
    """The body of POST /v1/completions."""

    prompt: str | list[str] | list[int] | list[list[int]]
    max_tokens: int | None = Field(DEFAULT_TOKENS, ge=1)
    logprobs: int | None = Field(None, ge=0, le=5)
    best_of: Annotated[int | None, _only(None, 1)] = None
    echo: Annotated[bool | None, _only(None, False)] = None
    suffix: Annotated[str | None, _only("", None)] = None


class _TextPart(BaseModel):
    model_config = ConfigDict(extra="forbid")
    type: Literal["text"]
    text: str


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid")
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[_TextPart]
    name: str | None = None

    def as_text(self) -> dict[str, str]:
        content = self.content
        text = content if isinstance(content, str) else "".join(part.text for part in content)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class ChatRequest(_Request):
    """The body of POST /v1/chat/completions."""

    messages: list[_Message] = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool | None = False
    top_logprobs: int | None = Field(None, ge=0, le=20)
    tools: Annotated[Any, _only([], None)] = None
    tool_choice: Annotated[Any, _only("none", None)] = None
    response_format: Annotated[Any, _only(None, {"type": "text"})] = None
    store: Annotated[bool | None, _only(None, False)] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request that can be answered."""

    chat: bool
    prompts: tuple[tuple[int, ...], ...]
    choices: int
    sampling: Sampling
    stops: tuple[str, ...]
    stream: bool
    include_usage: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A part of an answer that may leave."""

    text: str
    finish: str | None
    tokens: int
    likelihoods: tuple[Likelihood, ...]


def read_request(body: bytes, *, chat: bool, model: TextModel, name: str, filtered: bool) -> Asked:
    """Read a request and check it against the model.

    Args:
        name: what the model is called.
        filtered: whether a filter of what was taken down is in force.

    Raises:
        ApiError: it is none that can be answered.
    """
    kind: type[ChatRequest] | type[CompletionRequest] = ChatRequest if chat else CompletionRequest
    try:
        asked: Any = kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        param = ".".join(map(str, first["loc"])) or None
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            message = "there is no such parameter here"
        raise ApiError(400, f"{param}: {message}" if param else message, param=param) from error
    if asked.model != name:
        raise ApiError(404, f"the model {asked.model!r} does not exist; there is {name!r}", param="model",
                       code="model_not_found")  # fmt: skip
    top: int | None = asked.logprobs
    if chat:
        if asked.top_logprobs is not None and not asked.logprobs:
            raise ApiError(400, "top_logprobs needs logprobs: true", param="top_logprobs")
        top = asked.top_logprobs or 0 if asked.logprobs else None
    if top is not None and filtered:
        raise ApiError(
            400, "logprobs are not offered: text of this model was taken down, and they would tell it", param="logprobs"
        )
    prompts = _chat_prompt(asked, model) if chat else _prompts(asked.prompt, model)
    longest = max(map(len, prompts))
    most: int | None = asked.max_tokens
    if chat:
        most = asked.max_completion_tokens or asked.max_tokens or max(model.context - longest, 1)
    most = most or DEFAULT_TOKENS
    if longest + most > model.context:
        raise ApiError(
            400,
            f"the model's context is {model.context} tokens; {longest + most} were asked for ({longest} in the "
            f"{'messages' if chat else 'prompt'}, {most} for the answer)",
            param="messages" if chat else "prompt",
            code="context_length_exceeded",
        )
    return Asked(
        chat=chat,
        prompts=tuple(map(tuple, prompts)),
        choices=asked.n or 1,
        sampling=Sampling(
            max_tokens=most,
            temperature=1.0 if asked.temperature is None else asked.temperature,
            top_p=1.0 if asked.top_p is None else asked.top_p,
            seed=asked.seed,
            top_logprobs=top,
        ),
        stops=tuple(asked.stop),
        stream=bool(asked.stream),
        include_usage=bool(asked.stream_options and asked.stream_options.include_usage),
    )


def _prompts(prompt: Any, model: TextModel) -> list[list[int]]:
    if isinstance(prompt, str):
        return [model.encode(prompt)]
    if not prompt:
        raise ApiError(400, "prompt: expected a text, found an empty list", param="prompt")
    if not isinstance(prompt[0], int) and len(prompt) > MOST_CHOICES:
        raise ApiError(400, f"prompt: expected at most {MOST_CHOICES} prompts", param="prompt")
    if isinstance(prompt[0], str):
        return [model.encode(one) for one in prompt]
    lists: list[list[int]] = [prompt] if isinstance(prompt[0], int) else prompt
    size = len(model.tokenizer)
    if not all(0 <= number < size for one in lists for number in one):
        raise ApiError(400, f"prompt: expected token ids from 0 to {size - 1}", param="prompt")
    return lists


def _chat_prompt(asked: ChatRequest, model: TextModel) -> list[list[int]]:
    if not model.tokenizer.chat_template:
        raise ApiError(
            400,
            "this model was not trained to chat: its tokenizer has no chat template; ask /v1/completions",
            param="messages",
            code="no_chat_template",
        )
    messages = [message.as_text() for message in asked.messages]
    try:
        text = model.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    except Exception as error:  # a template refuses by whatever it raises
        raise ApiError(400, f"messages: the chat template refuses them: {error}", param="messages") from error
    return [list(model.tokenizer(text, add_special_tokens=False)["input_ids"])]


def say(pieces: Iterator[Piece], stops: Sequence[str], filter_: OutputFilter | None) -> Iterator[Said]:
    """Yield what may leave of an answer; the last has a `finish`."""
    withholder = Withholder(filter_) if filter_ is not None else None
    held = ""
    for piece in pieces:
        held += piece.text
        ends = [at for stop in stops if (at := held.find(stop)) >= 0]
        finish = "stop" if ends else piece.finish
        keep = 0 if finish else _beginning(held, stops)
        text = held[: min(ends)] if ends else held[: len(held) - keep]
        held = held[len(held) - keep :]
        if withholder is not None:
            text = withholder.push(text) + (withholder.finish() if finish else "")
            finish = finish if withholder.tombstone is None else "content_filter"
        yield Said(text=text, finish=finish, tokens=piece.tokens, likelihoods=piece.likelihoods)
        if finish:
            return
    yield Said(text="", finish="length", tokens=0, likelihoods=())


def _beginning(text: str, stops: Sequence[str]) -> int:
    """Return how many characters at the end of a text may begin a stop string."""
    longest = max(map(len, stops), default=1) - 1
    return next(
        (
            size
            for size in range(min(longest, len(text)), 0, -1)
            if any(stop.startswith(text[-size:]) for stop in stops)
        ),
        0,
    )


class Answer:
    """The answer to one request: made while it is read."""

    def __init__(self, asked: Asked, model: TextModel, name: str, filter_: OutputFilter | None) -> None:
        self.asked, self.model, self.name, self.filter = asked, model, name, filter_
        self.tokens = 0
        self.head: dict[str, JsonValue] = {
            "id": f"{'chatcmpl' if asked.chat else 'cmpl'}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": name,
        }

    def whole(self) -> dict[str, Any]:
        """Return the answer in one piece."""
        choices = []
        for index, said in self._choices():
            parts = list(said)
            text = "".join(part.text for part in parts)
            logprobs = self._logprobs(parts, 0)
            body = {"message": {"role": "assistant", "content": text}} if self.asked.chat else {"text": text}
            choices.append({"index": index, **body, "logprobs": logprobs, "finish_reason": parts[-1].finish})
        kind = "chat.completion" if self.asked.chat else "text_completion"
        return {**self.head, "object": kind, "choices": choices, "usage": self._usage()}

    def events(self) -> Iterator[dict[str, Any]]:
        """Yield the answer as it is made, in OpenAI's chunks."""
        kind = "chat.completion.chunk" if self.asked.chat else "text_completion"
        head = {**self.head, "object": kind, **({"usage": None} if self.asked.include_usage else {})}
        for index, said in self._choices():
            if self.asked.chat:
                first = {"index": index, "delta": {"role": "assistant", "content": ""}}
                yield {**head, "choices": [{**first, "logprobs": None, "finish_reason": None}]}
            offset = 0
            for part in said:
                if not part.text and not part.finish and not part.likelihoods:
                    continue
                logprobs = self._logprobs([part], offset)
                offset += len(part.text)
                body = {"delta": {"content": part.text}} if self.asked.chat else {"text": part.text}
                choice = {"index": index, **body, "logprobs": logprobs, "finish_reason": part.finish}
                yield {**head, "choices": [choice]}
        if self.asked.include_usage:
            yield {**head, "choices": [], "usage": self._usage()}

    def _choices(self) -> Iterator[tuple[int, Iterator[Said]]]:
        for number, prompt in enumerate(self.asked.prompts):
            for choice in range(self.asked.choices):
                sampling = self.asked.sampling
                if sampling.seed is not None:
                    # Several answers to one prompt are to differ.
                    sampling = Sampling(**{**_fields(sampling), "seed": sampling.seed + choice})
                pieces = self.model.generate(prompt, sampling)
                yield number * self.asked.choices + choice, self._counted(say(pieces, self.asked.stops, self.filter))

    def _counted(self, said: Iterator[Said]) -> Iterator[Said]:
        for part in said:
            self.tokens += part.tokens
            yield part

    def _usage(self) -> dict[str, int]:
        prompt = sum(map(len, self.asked.prompts))
        return {"prompt_tokens": prompt, "completion_tokens": self.tokens, "total_tokens": prompt + self.tokens}

    def _logprobs(self, parts: Sequence[Said], offset: int) -> dict[str, Any] | None:
        if self.asked.sampling.top_logprobs is None:
            return None
        told = [part.likelihoods for part in parts if part.likelihoods]
        if self.asked.chat:
            content = [{**_likelihood(own), "top_logprobs": [*map(_likelihood, top)]} for own, *top in told]
            return {"content": content, "refusal": None}
        offsets = [offset]
        for own, *_ in told:
            offsets.append(offsets[-1] + len(own.token))
        return {
            "tokens": [own.token for own, *_ in told],
            "token_logprobs": [own.logprob for own, *_ in told],
            "top_logprobs": [{one.token: one.logprob for one in top} for _, *top in told],
            "text_offset": offsets[:-1],
        }


def _fields(sampling: Sampling) -> dict[str, Any]:
    return {name: getattr(sampling, name) for name in Sampling.__slots__}


def _likelihood(one: Likelihood) -> dict[str, Any]:
    return {"token": one.token, "logprob": one.logprob, "bytes": list(one.token.encode("utf-8", "replace"))}
