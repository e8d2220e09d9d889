"""Rules of thumb about a page's prose, with a handful of numbers, all of them here: what the block model is told first.

1. A block that reads like prose is "good": ten words or more, some punctuation, few links, no copyright notice.
2. A part of the page whose element, class or id says navigation, footer, comments … is left out, unless it holds so
   much of the page's prose that the name cannot mean that (a forum's posts may be called "comments").
3. Of what is left, the element is best whose blocks sum up best: good words for it, linked and other words against it.

The ideas are those of readability, BoilerPipe and jusText (text and link density, names, neighbourhood) and of
maximum subsequence segmentation (Pasternack and Roth, 2009). The numbers were set by hand.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from tasks.extract.blocks import BIT, HEADINGS, Block, Elements

GOOD_WORDS = 10
GOOD_MAX_LINKED = 0.33
KEPT_MAX_LINKED = 0.5
# How much of a page's good words a marked part may hold and still be left out.
TRUSTED = ("navigation", "footer", "sidebar", "related", "comments")
TRUSTED_MAX_SHARE = 0.8
OTHER_MAX_SHARE = 0.3
# A kind whose parts hold more than this together means something else on this page.
KIND_MAX_SHARE = 0.6
# What a word counts for its element: in a good block 1, in one of links or in other text this.
LINKED_WEIGHT = -0.5
OTHER_WEIGHT = -0.3
LINKED_BLOCK_COST = 1.0
# An element that sums up to less holds no prose worth the name.
LISTING_BELOW = 60
# Fewer good blocks than this, and the choice rests on too little.
SURE_BLOCKS = 3

PUNCTUATION = re.compile(r"[.,;:!?。，、！？；：؟،।]")
_COPYRIGHT_YEAR = re.compile(r"\(c\) ?\d{4}")
_KNOWN_BITS = sum(BIT.values())
_TRUSTED_BITS = sum(BIT[kind] for kind in TRUSTED)


def good_words(block: Block) -> int:
    """Return the words of a block that reads like prose, 0 for any other."""
    if block.words < GOOD_WORDS or block.linked >= GOOD_MAX_LINKED:
        return 0
    return block.words if PUNCTUATION.search(block.text) and not is_copyright(block.text) else 0


def is_copyright(text: str) -> bool:
    """Return whether a text has a copyright notice in it."""
    lower = text.lower()
    if "©" in lower or "copyright" in lower or "all rights reserved" in lower:
        return True
    return "(c)" in lower and _COPYRIGHT_YEAR.search(lower) is not None


def value(block: Block, good: float) -> float:
    """Return what a block counts for the element it stands in."""
    if good:
        return good
    if block.linked > KEPT_MAX_LINKED:
        return LINKED_WEIGHT * block.words - LINKED_BLOCK_COST
    return 0.0 if block.tag in HEADINGS else OTHER_WEIGHT * block.words


def sums_of(elements: Elements, values: Iterable[tuple[int, float]]) -> list[float]:
    """Return, for each element, the sum of the values of the blocks in it and below it."""
    sums = [0.0] * len(elements.parents)
    for element, value in values:
        sums[element] += value
    for element in range(len(sums) - 1, 0, -1):
        sums[elements.parents[element]] += sums[element]
    return sums


def left_out(blocks: list[Block], elements: Elements, good: Sequence[float], ignored: int) -> list[bool]:
    """Return which elements are, or stand in, a part that its name rightly marks as something else than main text.

    Args:
        good: the words of each block that reads like prose, 0 for the others.
        ignored: bits of the kinds whose names say nothing.
    """
    sums = sums_of(elements, ((block.element, words) for block, words in zip(blocks, good, strict=True) if words))
    trusted_limit, other_limit = TRUSTED_MAX_SHARE * sums[0], OTHER_MAX_SHARE * sums[0]
    inherited = [0] * len(sums)
    held: dict[int, float] = {}
    for element in range(1, len(sums)):
        above = inherited[elements.parents[element]]
        bits = elements.marks[element] & _KNOWN_BITS & ~ignored & ~above
        if bits:
            if sums[element] > trusted_limit:
                bits &= ~_TRUSTED_BITS
            if sums[element] > other_limit:
                bits &= _TRUSTED_BITS
            if bits and sums[element]:
                for bit in _single_bits(bits):
                    held[bit] = held.get(bit, 0.0) + sums[element]
        inherited[element] = above | bits
    meaningless = sum(bit for bit, words in held.items() if words > KIND_MAX_SHARE * sums[0])
    return [bool(bits & ~meaningless) for bits in inherited]


def _single_bits(bits: int) -> list[int]:
    return [bit for bit in BIT.values() if bits & bit]
