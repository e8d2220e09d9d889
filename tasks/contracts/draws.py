"""Draws decided by what a text says: the same text is drawn alike in every run, however often it is captured.

Names would not do: a document's id holds the second in which its page was fetched.
"""

from __future__ import annotations

import hashlib
from typing import Final

DRAW_RANGE: Final = 1 << 64


def draw(text: str, *, seed: int, purpose: str) -> int:
    """Return a number in [0, DRAW_RANGE), spread evenly over texts.

    Args:
        purpose: at most 16 bytes; draws for different purposes tell nothing of each other.

    >>> draw("a text", seed=0, purpose="example") == draw("a text", seed=0, purpose="example")
    True
    """
    digest = hashlib.blake2b(
        f"{seed}\n{text}".encode(errors="surrogatepass"), digest_size=8, person=purpose.encode()
    ).digest()
    return int.from_bytes(digest, "big")
