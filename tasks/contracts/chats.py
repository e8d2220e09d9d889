"""An example that a model is tuned on, as one text: what filters, decontamination, the ledger and trace see of it.

Each turn begins with a sign that no text has (U+001E, the record separator) and its role, so that what a filter masks
inside a turn leaves the turns apart. Only a text that still has this form is learnt from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

MARK: Final = "\x1e"
CHOSEN: Final = "chosen"
REJECTED: Final = "rejected"
ASSISTANT: Final = "assistant"
ROLES: Final = ("system", "user", ASSISTANT)
"""Who speaks in a chat; `assistant` is who the model is to become."""

Turn = tuple[str, str]
"""A role, or CHOSEN or REJECTED for the two answers of a preference, and what was said."""


def to_text(turns: Sequence[Turn]) -> str:
    """Return turns as one text.

    >>> to_text([("user", "One and one?"), ("assistant", "Two.")])
    '\\x1euser\\nOne and one?\\n\\n\\x1eassistant\\nTwo.'
    """
    return "\n\n".join(f"{MARK}{role}\n{said}" for role, said in turns)


def from_text(text: str) -> list[Turn] | None:
    """Return the turns of a text, None where it has this form no more or a turn is empty.

    >>> from_text(to_text([("user", "One and one?"), ("assistant", "Two.")]))
    [('user', 'One and one?'), ('assistant', 'Two.')]
    >>> from_text("a page") is None
    True
    """
    before, *pieces = text.split(MARK)
    turns = [(role, said.strip()) for role, _, said in (piece.partition("\n") for piece in pieces)]
    whole = not before.strip() and turns and all(role in (*ROLES, CHOSEN, REJECTED) and said for role, said in turns)
    return turns if whole else None


def is_preference(turns: Sequence[Turn]) -> bool:
    """Return whether turns end with an answer that was chosen and one that was rejected, and have no other such."""
    roles = [role for role, _ in turns]
    return len(roles) > 2 and roles[-2:] == [CHOSEN, REJECTED] and set(roles[:-2]) <= set(ROLES)


def has_answer(turns: Sequence[Turn]) -> bool:
    """Return whether turns are a chat in which the assistant says something."""
    roles = {role for role, _ in turns}
    return ASSISTANT in roles and roles <= set(ROLES)
