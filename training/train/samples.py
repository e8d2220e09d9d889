"""What the model writes while it is trained: the likeliest continuation of given texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tasks.contracts.tokenizer_files import EOS, load_tokenizer


class Sampler:
    """Goes on from prompts, greedily; every rank makes the same passes, so that weights may be shared out.

    Args:
        tokenizer: the folder of the tokenizer.
        prompts: an empty one begins a document.
        tokens: how many tokens to go on for.
        context: the longest input, in tokens; what is before it is not seen.
    """

    def __init__(self, tokenizer: Path, prompts: Sequence[str], *, tokens: int, context: int) -> None:
        self._tokenizer = load_tokenizer(tokenizer)
        eos = self._tokenizer.token_to_id(EOS)
        assert eos is not None, "load_tokenizer has looked"
        self._prompts = [(prompt, [eos, *self._tokenizer.encode(prompt).ids]) for prompt in prompts]
        self._tokens, self._context, self._eos = tokens, context, eos

    def __call__(self, next_token: Callable[[list[int]], int]) -> list[dict[str, Any]]:
        """Return each prompt with what follows it, up to the end of the document.

        Args:
            next_token: the likeliest token after some, on every rank the same.
        """
        written: list[dict[str, Any]] = []
        for prompt, ids in self._prompts:
            made: list[int] = []
            ended = False
            # All ranks make all passes, so that none waits for another that has come to the end of its document.
            for _ in range(self._tokens):
                token = next_token([*ids, *made][-self._context :])
                ended = ended or token == self._eos
                if not ended:
                    made.append(token)
            written.append({"prompt": prompt, "text": self._tokenizer.decode(made), "ended": ended})
        return written
