"""A released model, loaded by transformers and asked token by token.

Each request is one sequence, with the keys and values of what came before kept. So what it answers does not depend on
who else asks, and a seed gives the same answer again on the same machine.
"""

from __future__ import annotations

import codecs
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tasks.contracts.errors import InputError
from tasks.contracts.files import MODEL_CONFIG_NAME, TOKENIZER_NAME
from tasks.contracts.tokenizer_files import bytes_of_tokens

OFFLINE: Final[dict[str, Any]] = {"local_files_only": True, "trust_remote_code": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How the next token is chosen.

    Attributes:
        max_tokens: most tokens of an answer.
        temperature: 0 takes the likeliest.
        top_p: the likeliest tokens whose probabilities add up to this much are drawn from (Holtzman et al. 2020).
        top_logprobs: how many of the likeliest tokens are told beside each, None for not even its own.
    """

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    top_logprobs: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Likelihood:
    """A token and its natural logarithm of probability, under the model as it is (whatever temperature and top_p)."""

    token: str
    logprob: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One more token of an answer.

    Attributes:
        text: what it adds to the text; nothing where a character is not complete yet.
        finish: "stop" with the token that ends a text, "length" with the last one that was allowed.
        likelihoods: its own, then the likeliest, where they were asked for.
    """

    text: str
    finish: str | None = None
    tokens: int = 1
    likelihoods: tuple[Likelihood, ...] = ()


class TextModel:
    """A model folder in Hugging Face layout, with its tokenizer; how it is asked, a subclass says.

    Args:
        folder: a release or an export of one; code in it is never run, and nothing is fetched.

    Attributes:
        context: most tokens of prompt and answer together.
        ends: the tokens that end a text.

    Raises:
        InputError: the folder holds no model.
    """

    def __init__(self, folder: Path) -> None:
        for name in (MODEL_CONFIG_NAME, TOKENIZER_NAME):
            if not (folder / name).is_file():
                raise InputError(
                    "this folder holds no model", where=str(folder), expected=name, fix="name a release's folder"
                )
        from transformers import AutoConfig, AutoTokenizer, GenerationConfig

        self.folder = folder
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(folder, **OFFLINE)
            config: Any = AutoConfig.from_pretrained(folder, **OFFLINE)
            ends: Any = GenerationConfig.from_pretrained(folder, local_files_only=True).eos_token_id
        except (OSError, ValueError, KeyError) as error:
            raise InputError("the model cannot be loaded", where=str(folder), found=str(error)) from error
        self.context = int(config.max_position_embeddings)
        self.ends = frozenset(ends if isinstance(ends, list) else [] if ends is None else [ends])

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text; what looks like a special token in it is text."""
        return list(self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])

    def generate(self, prompt: Sequence[int], sampling: Sampling) -> Iterator[Piece]:
        """Yield the answer to a prompt; none where no token may follow.

        An empty prompt is the beginning of a text. The answer ends where prompt and answer fill the context.
        """
        raise NotImplementedError


class ReleasedModel(TextModel):
    """A model that transformers has loaded, on the GPU where there is one."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        import torch
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", **OFFLINE)
        except (OSError, ValueError, KeyError) as error:
            raise InputError("the model cannot be loaded", where=str(folder), found=str(error)) from error
        self.token_bytes = bytes_of_tokens(self.tokenizer.backend_tokenizer)
        self.model = model.to(self.device).eval()
        self._one_at_a_time = threading.Lock()

    def generate(self, prompt: Sequence[int], sampling: Sampling) -> Iterator[Piece]:
        """Yield the answer token by token."""
        import torch

        ids = list(prompt) or sorted(self.ends)[:1]
        generator = torch.Generator(self.device)
        if sampling.seed is not None:
            generator.manual_seed(sampling.seed % (1 << 63))
        else:
            generator.seed()
        most = min(sampling.max_tokens, self.context - len(ids))
        given, cache = torch.tensor([ids], device=self.device), None
        # A character may be of several tokens.
        text = codecs.getincrementaldecoder("utf-8")("replace")
        for number in range(1, most + 1):
            # Entered anew for each token: a generator that waits for its reader must change no one else's mode.
            with self._one_at_a_time, torch.inference_mode():
                answer = self.model(input_ids=given, past_key_values=cache, use_cache=True)
                cache = answer.past_key_values
                chosen, logprobs = _choose(answer.logits[0, -1].float(), sampling, generator)
                given = torch.tensor([[chosen]], device=self.device)
            told = self._likelihoods(chosen, logprobs, sampling.top_logprobs)
            if chosen in self.ends:
                yield Piece(text=text.decode(b"", final=True), finish="stop", tokens=0)
                return
            last = number == most
            said = text.decode(self.token_bytes[chosen] if chosen < len(self.token_bytes) else b"", final=last)
            yield Piece(text=said, finish="length" if last else None, likelihoods=told)

    def _likelihoods(self, chosen: int, logprobs: Any, top: int | None) -> tuple[Likelihood, ...]:
        if top is None:
            return ()
        numbers = [chosen, *logprobs.topk(min(top, len(logprobs))).indices.tolist()]
        return tuple(
            Likelihood(token=str(self.tokenizer.decode([number])), logprob=float(logprobs[number]))
            for number in numbers
        )


def _choose(logits: Any, sampling: Sampling, generator: Any) -> tuple[int, Any]:
    """Return the next token, and the logarithms of all probabilities."""
    import torch

    logprobs = logits.log_softmax(-1)
    if sampling.temperature == 0:
        return int(logits.argmax()), logprobs
    probabilities = (logits / sampling.temperature).softmax(-1)
    if sampling.top_p < 1:
        ordered, numbers = probabilities.sort(descending=True)
        # The first one is always kept.
        out = ordered.cumsum(-1) - ordered >= sampling.top_p
        probabilities = probabilities.index_fill(0, numbers[out], 0.0)
    return int(torch.multinomial(probabilities, 1, generator=generator)), logprobs
