"""Lines and paragraphs of a text, and how much of them stood before."""

from __future__ import annotations

from collections.abc import Sequence


def repeated_parts(parts: Sequence[str]) -> tuple[int, int]:
    """Return how many parts stood before, and their characters.

    >>> repeated_parts(["menu", "text", "menu", "menu"])
    (2, 8)
    """
    if len(parts) == len(set(parts)):
        return 0, 0
    seen: set[str] = set()
    count = characters = 0
    for part in parts:
        if part in seen:
            count += 1
            characters += len(part)
        else:
            seen.add(part)
    return count, characters


def shortened(text: str, most: int = 120) -> str:
    """Return the beginning of a text, for the ledger's detail."""
    return text if len(text) <= most else f"{text[: most - 1]}…"
