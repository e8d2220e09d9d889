"""Which blocks of a page are its main text: rules with a handful of numbers, all of them here.

1. A block that reads like prose is "good": ten words or more, some punctuation, few links, no copyright notice.
2. A part of the page whose element, class or id says navigation, footer, comments … is left out, unless it holds so
   much of the page's prose that the name cannot mean that (a forum's posts may be called "comments").
3. Of what is left, the element wins whose blocks sum up best: good words for it, linked and other words against it.
4. Its blocks are kept, those in links and repeats left out, the page's heading put before.

The ideas are those of readability, BoilerPipe and jusText (text and link density, names, neighbourhood) and of
maximum subsequence segmentation (Pasternack and Roth, 2009). The numbers were set by hand and checked, not fitted;
docs/benchmarks.md has what they gave, on pages that were looked at while setting them and on others.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

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
# An element that sums up to less holds no prose worth the name: a listing, kept whole with its links.
LISTING_BELOW = 60
REPEAT_WORDS = 10
# Fewer good blocks than this, and the choice rests on too little to be sure of.
SURE_BLOCKS = 3

_PUNCTUATION = re.compile(r"[.,;:!?。，、！？；：؟،।]")
_COPYRIGHT = re.compile(r"©|copyright|all rights reserved|\(c\) ?\d{4}", re.IGNORECASE)
_TRUSTED_BITS = sum(BIT[kind] for kind in TRUSTED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The blocks of the main text, and whether they rest on enough prose to be relied on."""

    blocks: list[Block]
    sure: bool


def main_blocks(blocks: list[Block], elements: Elements, *, comments: bool = False, tables: bool = True) -> Choice:
    """Choose the blocks of a page's main text.

    Args:
        comments: keep what is marked as readers' comments.
        tables: keep the cells of tables that are not the page's layout.
    """
    good = [_good_words(block) for block in blocks]
    out_of_bounds = _left_out(blocks, elements, good, BIT["comments"] if comments else 0)
    if not tables:
        _leave_out_tables(blocks, elements, good, out_of_bounds)
    seen: set[str] = set()
    left: list[int] = []
    for index, block in enumerate(blocks):
        if out_of_bounds[block.element]:
            continue
        if block.words >= REPEAT_WORDS:
            if block.text in seen:
                continue
            seen.add(block.text)
        left.append(index)
    if not left:
        return Choice(blocks=[], sure=False)
    sums = _sums(elements, ((blocks[i].element, _value(blocks[i], good[i])) for i in left))
    # Of equal sums the inner element.
    best = max(range(len(sums)), key=lambda element: (sums[element], element))
    max_linked = KEPT_MAX_LINKED
    if sums[best] < LISTING_BELOW:
        best = elements.tags.index("main") if "main" in elements.tags else 0
        max_linked = 1.0
    inside = [False] * len(sums)
    inside[best] = True
    for element in range(best + 1, len(sums)):
        inside[element] = inside[elements.parents[element]]
    chosen = [i for i in left if inside[blocks[i].element] and blocks[i].linked <= max_linked] or left
    headings = [i for i in range(chosen[0]) if blocks[i].tag == "h1"]
    if len(headings) == 1:
        chosen.insert(0, headings[0])
    return Choice(blocks=[blocks[i] for i in chosen], sure=sum(good[i] > 0 for i in chosen) >= SURE_BLOCKS)


def _good_words(block: Block) -> int:
    if block.words < GOOD_WORDS or block.linked >= GOOD_MAX_LINKED:
        return 0
    return block.words if _PUNCTUATION.search(block.text) and not _COPYRIGHT.search(block.text) else 0


def _value(block: Block, good: int) -> float:
    if good:
        return good
    if block.linked > KEPT_MAX_LINKED:
        return LINKED_WEIGHT * block.words - LINKED_BLOCK_COST
    return 0.0 if block.tag in HEADINGS else OTHER_WEIGHT * block.words


def _sums(elements: Elements, values: Iterable[tuple[int, float]]) -> list[float]:
    """Return, for each element, the sum of the values of the blocks in it and below it."""
    sums = [0.0] * len(elements.parents)
    for element, value in values:
        sums[element] += value
    for element in range(len(sums) - 1, 0, -1):
        sums[elements.parents[element]] += sums[element]
    return sums


def _left_out(blocks: list[Block], elements: Elements, good: list[int], ignored: int) -> list[bool]:
    """Return which elements are, or stand in, a part that its name rightly marks as something else than main text."""
    sums = _sums(elements, ((block.element, words) for block, words in zip(blocks, good, strict=True) if words))
    trusted_limit, other_limit = TRUSTED_MAX_SHARE * sums[0], OTHER_MAX_SHARE * sums[0]
    inherited = [0] * len(sums)
    held: dict[int, float] = {}
    for element in range(1, len(sums)):
        above = inherited[elements.parents[element]]
        bits = elements.marks[element] & ~ignored & ~above
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


def _leave_out_tables(blocks: list[Block], elements: Elements, good: list[int], left_out: list[bool]) -> None:
    """Mark the tables, and what is in them, that hold too little prose to be the page's layout."""
    sums = _sums(elements, ((block.element, words) for block, words in zip(blocks, good, strict=True) if words))
    for element in range(1, len(left_out)):
        if elements.tags[element] == "table" and sums[element] <= OTHER_MAX_SHARE * sums[0]:
            left_out[element] = True
        left_out[element] |= left_out[elements.parents[element]]
