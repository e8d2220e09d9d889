"""From an example's turns to token ids, and which of them are learnt: the chat template, and the loss on answers only.

The template is plain text, so it needs no token that the base's tokenizer does not have: a line with who speaks, what
is said, and after an answer the tokenizer's end of sequence, which is learnt too, or the model would never stop. It
stands in tokenizer_config.json, where transformers and vLLM look for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from tasks.contracts.base import Drop
from tasks.contracts.chats import ASSISTANT, CHOSEN, REJECTED, Turn, from_text, has_answer, is_preference

TEMPLATE: Final = (
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'assistant' -%}"
    "{{ 'Assistant:\\n' }}{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}{{ '\\n' }}"
    "{%- else -%}"
    "{{ message['role'] | capitalize + ':\\n' + message['content'] + '\\n' }}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ 'Assistant:\\n' }}{%- endif -%}"
)
"""Jinja, as transformers renders it; `generation` marks what is learnt."""
IGNORED: Final = -100
"""The label of a token that is not learnt, as PyTorch's cross entropy has it."""
BROKEN, SPECIAL, TOO_LONG = "broken", "special_token", "too_long"
"""Rules of the ledger: a filter cut into its turns; it spells a special token; it is longer than the context."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """An example as the trainer takes it.

    Attributes:
        row: `input_ids` and `labels`, or `prompt_ids`, `chosen_ids` and `rejected_ids`.
        tokens: how many it has, both answers counted.
        learnt: how many of them the loss is taken of.
        cut: how many it had where it was cut, None where it was not.
    """

    row: dict[str, list[int]]
    tokens: int
    learnt: int
    cut: int | None = None


def encode(
    text: str, tokenizer: Any, *, context: int, preference: bool, too_long: Literal["drop", "cut"]
) -> Encoded | Drop:
    """Return an example's tokens, or why it cannot be learnt from.

    Args:
        text: as `tasks.contracts.chats` writes it.
        tokenizer: transformers', with TEMPLATE as its chat template.
        context: the most tokens that the model takes.
    """
    turns = from_text(text)
    if turns is None or not (is_preference(turns) if preference else has_answer(turns)):
        return Drop(rule=BROKEN, detail="its turns are not whole: a filter took out some of it")
    spelled = next((one for one in tokenizer.all_special_tokens for _, said in turns if one in said), None)
    if spelled is not None:
        return Drop(rule=SPECIAL, detail=f"it spells {spelled}, which the tokenizer takes for a sign of its own")
    return _preference(turns, tokenizer, context) if preference else _chat(turns, tokenizer, context, too_long)


def _chat(turns: Sequence[Turn], tokenizer: Any, context: int, too_long: str) -> Encoded | Drop:
    found = tokenizer.apply_chat_template(
        _messages(turns), tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    ids = list(found["input_ids"])
    labels = [token if learnt else IGNORED for token, learnt in zip(ids, found["assistant_masks"], strict=True)]
    whole = len(ids)
    if whole > context:
        kept = labels[:context]
        if too_long == "drop" or all(label == IGNORED for label in kept):
            return Drop(rule=TOO_LONG, score=float(whole), threshold=float(context))
        ids, labels = ids[:context], kept
    learnt = sum(label != IGNORED for label in labels)
    row = {"input_ids": ids, "labels": labels}
    return Encoded(row=row, tokens=len(ids), learnt=learnt, cut=whole if whole > context else None)


def _preference(turns: Sequence[Turn], tokenizer: Any, context: int) -> Encoded | Drop:
    *prompt, (_, chosen), (_, rejected) = turns
    asked = _messages(prompt)
    before = tokenizer.apply_chat_template(asked, tokenize=True, return_dict=False, add_generation_prompt=True)
    answers = []
    for said in (chosen, rejected):
        answered = [*asked, {"role": ASSISTANT, "content": said}]
        ids = tokenizer.apply_chat_template(answered, tokenize=True, return_dict=False)
        assert ids[: len(before)] == before, "the template's line ends before an answer"
        answer = list(ids[len(before) :])
        answers.append(answer[: answer.index(tokenizer.eos_token_id) + 1])  # not the line's end after it
    longest = len(before) + max(map(len, answers))
    if longest > context:
        return Drop(rule=TOO_LONG, score=float(longest), threshold=float(context))
    row = {"prompt_ids": list(before), f"{CHOSEN}_ids": answers[0], f"{REJECTED}_ids": answers[1]}
    learnt = sum(map(len, answers))
    return Encoded(row=row, tokens=2 * len(before) + learnt, learnt=learnt)


def _messages(turns: Sequence[Turn]) -> list[dict[str, str]]:
    return [{"role": role, "content": said} for role, said in turns]
