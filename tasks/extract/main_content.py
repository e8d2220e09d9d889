"""A page's main text: the blocks that the model chooses, and what the settings say of comments and tables."""

from __future__ import annotations

import numpy as np

from tasks.extract.block_model import scores
from tasks.extract.blocks import BIT, UNSEEN, Block, Elements, Reading
from tasks.extract.features import Features, features_of
from tasks.extract.lines import Table, data_tables, lines_of
from tasks.extract.prose_features import OTHER_MAX_SHARE, good_words, left_out, sums_of

# A block of so many words that stands on the page twice is kept once; code, which stands where it is needed, twice.
REPEAT_WORDS = 10
# What the rules of thumb say counts so much beside the model's score. They were made looking at other pages than it has
# learnt from, and know old ones better.
AGREEMENT = 2.0
# Where it takes less than this of the words that they take, it has not known an article for one: they decide.
LEAST_SHARE = 0.1


def main_text(reading: Reading, *, comments: bool = False, tables: bool = True) -> str:
    """Return a page's main text, in the page's order.

    Args:
        comments: keep the prose of what is marked as readers' comments.
        tables: keep the cells of tables that are not the page's layout.
    """
    blocks, elements = reading.blocks, reading.elements
    if not blocks:
        return ""
    kept = _chosen(blocks, features_of(reading))
    good = [good_words(block) for block in blocks]
    if not any(kept):
        kept = _all_that_is_no_frame(blocks, elements, good)
    if comments:
        remarks = _marked(elements, BIT["comments"])
        kept = [main or (words > 0 and remarks[b.element]) for b, words, main in zip(blocks, good, kept, strict=True)]
    data = data_tables(blocks, elements)
    for table in data:
        _decide_whole(table, blocks, kept)
    out = _unseen(blocks, elements, good)
    if not tables:
        out = [hidden or small for hidden, small in zip(out, _small_tables(blocks, elements, good), strict=True)]
    seen: set[str] = set()
    chosen = []
    cells = {place for table in data for place in table.places()}
    for place, block in enumerate(blocks):
        if not kept[place] or out[block.element]:
            continue
        if block.words >= REPEAT_WORDS and place not in cells and block.tag != "pre":
            if block.text in seen:
                continue
            seen.add(block.text)
        chosen.append(place)
    return "\n".join(lines_of(blocks, data, chosen))


def _chosen(blocks: list[Block], features: Features) -> list[bool]:
    """Return which blocks the model takes, with what the rules of thumb say where they have enough to go by."""
    said = scores(features)
    if features.prose is None:
        return [bool(score > 0) for score in said]
    kept = said + np.where(features.prose, AGREEMENT, -AGREEMENT) > 0
    words = np.array([block.words for block in blocks])
    if words[kept].sum() < LEAST_SHARE * words[features.prose].sum():
        kept = features.prose
    return [bool(is_kept) for is_kept in kept]


def _all_that_is_no_frame(blocks: list[Block], elements: Elements, good: list[int]) -> list[bool]:
    """Return the blocks of a page where none reads like main text: what `main` holds, or no name leaves out."""
    out = left_out(blocks, elements, good, 0)
    no_main = "main" not in elements.tags
    inside = [tag == "main" or no_main for tag in elements.tags]
    for element in range(1, len(inside)):
        inside[element] |= inside[elements.parents[element]]
    return [inside[block.element] and not out[block.element] for block in blocks]


def _decide_whole(table: Table, blocks: list[Block], kept: list[bool]) -> None:
    """Keep a table of data whole or not at all, as most of its words would be."""
    places = table.places()
    main = sum(blocks[place].words for place in places if kept[place])
    keep = 2 * main > sum(blocks[place].words for place in places)
    for place in places:
        kept[place] = keep


def _marked(elements: Elements, bit: int) -> list[bool]:
    """Return which elements are, or stand in, a part that is marked as of a kind."""
    marked = [bool(marks & bit) for marks in elements.marks]
    for element in range(1, len(marked)):
        marked[element] |= marked[elements.parents[element]]
    return marked


def _unseen(blocks: list[Block], elements: Elements, good: list[int]) -> list[bool]:
    """Return which elements are hidden, or stand in one that is; none where a script must show most of the page."""
    hidden = _marked(elements, UNSEEN)
    words = sum(number for block, number in zip(blocks, good, strict=True) if hidden[block.element])
    return hidden if words <= OTHER_MAX_SHARE * sum(good) else [False] * len(hidden)


def _small_tables(blocks: list[Block], elements: Elements, good: list[int]) -> list[bool]:
    """Return which elements are, or stand in, a table that holds too little prose to be the page's layout."""
    sums = sums_of(elements, ((block.element, words) for block, words in zip(blocks, good, strict=True) if words))
    inside = [False] * len(sums)
    for element in range(1, len(inside)):
        small = elements.tags[element] == "table" and sums[element] <= OTHER_MAX_SHARE * sums[0]
        inside[element] = small or inside[elements.parents[element]]
    return inside
