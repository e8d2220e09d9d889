"""Lines and paragraphs: how a text is cut into them, what they are known by, and how they are taken out of it.

A line is what stands between line feeds; a paragraph what stands between blank lines, where a text has any.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
import xxhash
from numpy.typing import NDArray

from tasks.contracts.normal_form import normal_bytes

BlockKind = Literal["paragraph", "line"]

# What the lowest bit of a key says it is of.
BLOCK_KINDS: Final[tuple[BlockKind, ...]] = ("paragraph", "line")
_BLANK_LINES = re.compile(r"\n(?:[^\S\n]*\n)+")
_SEPARATORS: Final = {"paragraph": "\n\n", "line": "\n"}


def split_blocks(text: str, kind: BlockKind) -> list[str]:
    """Return a text's lines or paragraphs; a text without blank lines has no paragraphs.

    >>> split_blocks("a\\nb\\n\\nc", "paragraph"), split_blocks("one", "paragraph")
    (['a\\nb', 'c'], [])
    """
    if kind == "line":
        return text.split("\n")
    blocks = _BLANK_LINES.split(text)
    return blocks if len(blocks) > 1 else []


def _key(block: str, kind: BlockKind, characters: int) -> int | None:
    """Return a block's key, None where it is too short to be counted."""
    if len(block) < characters:
        return None
    normal = normal_bytes(block)
    # 64 bits: of a trillion lines none is expected to have the key of one of a million common ones by accident.
    return xxhash.xxh3_64_intdigest(normal) & ~1 | BLOCK_KINDS.index(kind) if normal else None


def block_keys(text: str, kinds: Sequence[BlockKind], characters: int) -> NDArray[np.uint64]:
    """Return the keys of a text's blocks, each once."""
    found = {_key(block, kind, characters) for kind in kinds for block in split_blocks(text, kind)}
    return np.array(sorted(key for key in found if key is not None), dtype=np.uint64)


def cut_blocks(text: str, keys: frozenset[int], characters: int) -> tuple[str, dict[BlockKind, tuple[int, int]]]:
    """Return a text without the blocks of these keys, and for each kind how many of how many were cut."""
    done: dict[BlockKind, tuple[int, int]] = {}
    for kind in BLOCK_KINDS:
        blocks = split_blocks(text, kind)
        kept = [block for block in blocks if _key(block, kind, characters) not in keys]
        if len(kept) < len(blocks):
            text = _SEPARATORS[kind].join(kept).strip("\n")
            done[kind] = (len(blocks) - len(kept), len(blocks))
    return text, done
