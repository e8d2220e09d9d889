"""What one line of a file of examples says, in the forms in which such files are written.

`messages` (role and content, as OpenAI's chats), `instruction`, `input` and `output` (as Alpaca), `prompt` and
`completion`, and for preferences `prompt`, `chosen` and `rejected`. Where a text may stand, messages may stand too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tasks.contracts.chats import ASSISTANT, CHOSEN, MARK, REJECTED, ROLES, Turn

FORMS = "messages; instruction, input and output; prompt and completion"
BAD_LINE, NO_ANSWER, SAME_ANSWERS = "bad_line", "no_answer", "same_answers"


@dataclass(frozen=True, slots=True)
class Unusable(Exception):
    """A line that nothing can be learnt from: the ledger's rule, and what is wrong with it."""

    rule: str
    detail: str


def turns_of(line: Mapping[str, Any], *, preference: bool) -> list[Turn]:
    """Return the turns of a line.

    Args:
        preference: whether a chosen and a rejected answer are asked for, not one that is right.

    Raises:
        Unusable: it has none of the forms, or no answer to learn from.
    """
    if preference:
        return _preference(line)
    if "messages" in line:
        turns = _messages(line["messages"], "messages")
    elif "instruction" in line:
        asked = [_text(line[name], name) for name in ("instruction", "input") if line.get(name)]
        turns = [("user", "\n\n".join(asked)), (ASSISTANT, _text(line.get("output"), "output"))]
    elif "completion" in line:
        turns = [*_said(line.get("prompt"), "prompt", "user"), *_said(line["completion"], "completion", ASSISTANT)]
    else:
        raise Unusable(NO_ANSWER, f"expected {FORMS}; found {', '.join(map(str, line)) or 'no key'}")
    if not any(role == ASSISTANT and said for role, said in turns):
        raise Unusable(NO_ANSWER, "the assistant says nothing")
    return _checked(turns)


def _preference(line: Mapping[str, Any]) -> list[Turn]:
    if CHOSEN not in line or REJECTED not in line:
        raise Unusable(NO_ANSWER, f"expected chosen and rejected; found {', '.join(map(str, line)) or 'no key'}")
    prompt = _said(line["prompt"], "prompt", "user") if "prompt" in line else []
    chosen, rejected = (_said(line[name], name, ASSISTANT) for name in (CHOSEN, REJECTED))
    if chosen[:-1] != rejected[:-1]:
        raise Unusable(BAD_LINE, "chosen and rejected answer different questions")
    prompt += chosen[:-1]
    answers = []
    for name, turns in ((CHOSEN, chosen), (REJECTED, rejected)):
        if not turns or turns[-1][0] != ASSISTANT or not turns[-1][1]:
            raise Unusable(NO_ANSWER, f"{name} is no answer of the assistant")
        answers.append(turns[-1][1])
    if not prompt:
        raise Unusable(BAD_LINE, "nothing is asked: there is no prompt")
    if answers[0] == answers[1]:
        raise Unusable(SAME_ANSWERS, "chosen and rejected are the same")
    return [*_checked(prompt), *_checked([(CHOSEN, answers[0]), (REJECTED, answers[1])])]


def _said(value: Any, name: str, role: str) -> list[Turn]:
    """Return what is said in a field that holds a text, of the one who says it, or messages."""
    return _messages(value, name) if isinstance(value, list) else [(role, _text(value, name))]


def _messages(value: Any, name: str) -> list[Turn]:
    if not isinstance(value, list) or not value:
        raise Unusable(BAD_LINE, f"{name} is no list of messages")
    turns = []
    for number, message in enumerate(value):
        if not isinstance(message, Mapping) or message.get("role") not in ROLES:
            role = message.get("role") if isinstance(message, Mapping) else type(message).__name__
            raise Unusable(BAD_LINE, f"{name}[{number}]: expected a role of {', '.join(ROLES)}, found {role!r}"[:300])
        turns.append((str(message["role"]), _content(message.get("content"), f"{name}[{number}].content")))
    return turns


def _content(value: Any, name: str) -> str:
    """Return a message's text; a list of parts is one where all of them are texts."""
    if not isinstance(value, list):
        return _text(value, name)
    if not all(isinstance(part, Mapping) and part.get("type") == "text" for part in value):
        raise Unusable(BAD_LINE, f"{name} holds parts that are no text")
    return "\n\n".join(_text(part.get("text"), name) for part in value)


def _text(value: Any, name: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Unusable(BAD_LINE, f"{name} is {type(value).__name__}, not text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise Unusable(BAD_LINE, f"{name} is not Unicode text (a lone surrogate)") from error
    if MARK in value:
        raise Unusable(BAD_LINE, f"{name} holds U+001E, which divides turns here")
    return value.strip()


def _checked(turns: list[Turn]) -> list[Turn]:
    if empty := next((role for role, said in turns if not said), None):
        raise Unusable(NO_ANSWER if empty == ASSISTANT else BAD_LINE, f"a turn of {empty} is empty")
    return turns
