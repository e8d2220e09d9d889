"""What the block model is told about each block of a page: a table of numbers, a row a block.

Nothing here depends on the language: lengths, links, punctuation, place on the page, the names of the elements around,
and what the page says that it is. Every number is rounded to 1/64, so that what the model makes of them is the same to
the last bit on every machine. `block_model.json` belongs to the order of the columns; tests/bench/learn_blocks.py
learns it again where they change.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt

from tasks.extract.blocks import BIT, HEADINGS, NAMES, Block, Elements, Reading
from tasks.extract.metadata import Head
from tasks.extract.prose_features import (
    KEPT_MAX_LINKED,
    LISTING_BELOW,
    PUNCTUATION,
    SURE_BLOCKS,
    good_words,
    is_copyright,
    left_out,
    value,
)

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

GRAIN = 64
# The block's element, the one above it and so on: at so many levels a block is told what stands around it.
LEVELS = 4
COUNTED = 4096
BLOCKS_AT_A_TIME = 4096
"""Blocks that are looked at together: what they are unpacked to takes memory."""
WRAPPERS = 12
NOTICE_WORDS = 60
START, BEGINNING = 400, 120  # characters of a block that are looked at for punctuation, and for the rest
REMEMBERED = 200  # characters of a block, at most, that is looked at once for all pages

TAGS = (
    *("p", "li", "h1", "h2", "h3", "td", "div", "pre", "blockquote", "dd", "dt", "section", "article", "caption"),
    *("control", "other"),
)
_TAG = {tag: index for index, tag in enumerate(TAGS)}
_TAG |= dict.fromkeys(("h4", "h5", "h6"), _TAG["h3"]) | {"th": _TAG["td"]}
_TAG |= dict.fromkeys(("figcaption", "summary"), _TAG["caption"])
_TAG |= dict.fromkeys(("label", "button", "option", "select", "svg", "textarea"), _TAG["control"])
_OTHER = _TAG["other"]

_PRICE = re.compile(r"[$€£¥₹] ?\d|\d ?[$€£¥₹]")
_DIGITS = re.compile(r"\d+")
_YEAR = re.compile(r"\b(?:19|20)\d\d\b")
_SEPARATOR = re.compile(r"[|»›•·→]")
_SENTENCE_ENDS = re.compile(r"[.!?…。！？؟।]['\"”’»)\]]?\Z")
_JSON_LD_TYPE = re.compile(r'"@type"\s*:\s*"(\w+)"')

# What a page says that it is (schema.org's types), and words of its address.
TYPES = """
    Article NewsArticle BlogPosting Product ItemList CollectionPage DiscussionForumPosting QAPage FAQPage Organization
    LocalBusiness Event Recipe Person WebPage BreadcrumbList SoftwareApplication Service TechArticle VideoObject
""".split()  # noqa: SIM905 - a table
PATHS = """
    product forum thread topic categor collection doc blog news shop article question service about tag /t/ /p/ /dp/
    search list best guide pricing feature jobs event recipe review wiki store
""".split()  # noqa: SIM905 - a table
MAX_JSON_LD = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """A page's blocks in numbers, packed: a page may have a million blocks.

    Attributes:
        numbers: float32 [blocks, columns], multiples of 1/64.
        flags: uint8 [blocks, columns], 0 or 1.
        page: float64 [columns], what is the same for all blocks.
        ranges: int64 [blocks, LEVELS + 1, 2]: which blocks stand in the block's element, in the one above it, …, on
            the page: from the first to the last one, exclusive.
        prose: bool [blocks], what the rules of thumb would take (rules.py); None where they have too little to go by.
    """

    numbers: npt.NDArray[np.float32]
    flags: npt.NDArray[np.uint8]
    page: Floats
    ranges: Integers
    prose: npt.NDArray[np.bool_] | None

    def values(self, rows: slice = slice(None)) -> Floats:
        """Return the features of some blocks, float64 [blocks, all columns], multiples of 1/64."""
        numbers, flags = self.numbers[rows], self.flags[rows]
        return np.concatenate([numbers, flags, np.tile(self.page, (len(numbers), 1))], axis=1, dtype=np.float64)


def features_of(reading: Reading) -> Features:
    """Return the features of a page that has a block or more."""
    blocks, elements = reading.blocks, reading.elements
    tree = _Tree(elements, blocks)
    words = np.array([block.words for block in blocks], dtype=np.float64)
    linked = np.array([block.linked for block in blocks])
    good = np.array([good_words(block) for block in blocks], dtype=np.float64)
    page = _Page(blocks, elements, tree, good)
    columns = [
        *_own(blocks, words, linked, good),
        *_place(blocks, tree, page, words),
        *_around(tree, page, words, linked, good),
    ]
    tags = np.zeros((len(blocks), len(TAGS)), dtype=np.uint8)
    tags[np.arange(len(blocks)), [_TAG.get(block.tag, _OTHER) for block in blocks]] = 1
    return Features(
        numbers=_numbers(columns, len(blocks)),
        flags=np.concatenate([*_names(tree, elements), tags], axis=1),
        page=_rounded(np.array(_whole(reading, page, words, linked, good))),
        ranges=tree.ranges(),
        prose=_prose(page, tree, linked, good),
    )


def _prose(page: _Page, tree: _Tree, linked: Floats, good: Floats) -> npt.NDArray[np.bool_] | None:
    taken: npt.NDArray[np.bool_] = page.inside[tree.of] & ~page.left_out[tree.of] & (linked <= KEPT_MAX_LINKED)
    if page.sums[page.best] < LISTING_BELOW or np.count_nonzero(good[taken]) < SURE_BLOCKS:
        return None
    headings = [index for index in page.headings if not taken[: index + 1].any()]
    if len(headings) == 1:
        taken[headings] = True
    return taken


def _numbers(columns: list[Any], number: int) -> npt.NDArray[np.float32]:
    """Return the columns side by side, rounded: many at a time, as each step costs more than what it works on."""
    numbers = np.empty((number, len(columns)), dtype=np.float32)
    for start in range(0, number, BLOCKS_AT_A_TIME):
        part = slice(start, min(start + BLOCKS_AT_A_TIME, number))
        table = np.empty((len(columns), part.stop - start))
        for row, column in zip(table, columns, strict=True):
            row[:] = column[part]
        numbers[part] = _rounded(table).T
    return numbers


def _rounded(values: Floats) -> Floats:
    rounded: Floats = np.rint(values * GRAIN) / GRAIN
    return rounded


class _Tree:
    """The elements as arrays; what stands in one is a run of elements, and of blocks.

    What is above an element is its parent; but of elements that do nothing but wrap each other, many deep, a block sees
    none: it would see nothing else.
    """

    def __init__(self, elements: Elements, blocks: list[Block]) -> None:
        parents, tags = elements.parents, elements.tags
        number = len(parents)
        end = list(range(1, number + 1))
        for element in range(number - 1, 0, -1):
            if end[element] > end[parents[element]]:
                end[parents[element]] = end[element]
        self.end = np.array(end)
        self.of = np.array([block.element for block in blocks])
        held = self.sums(np.ones(len(blocks))).tolist()
        siblings = Counter(zip(parents, tags, strict=True))
        outermost, wrappers = list(range(number)), [1] * number
        for element in range(1, number):
            if held[parents[element]] == held[element]:
                outermost[element] = outermost[parents[element]]
                wrappers[outermost[element]] += 1
        up, depth = [0] * number, [0] * number
        for element in range(1, number):
            parent = parents[element]
            wrapped = outermost[element] != element and wrappers[outermost[element]] > WRAPPERS
            up[element] = up[parent] if wrapped else parent
            depth[element] = depth[parent] + (not wrapped)
        self.parents = [0, *parents[1:]]
        self.parent = np.array(self.parents)
        self.up = np.array(up)
        self.depth = np.array(depth)
        self.alike = np.array([0, *(siblings[parents[e], tags[e]] for e in range(1, number))])

    def sums(self, values: Floats) -> Floats:
        """Return, for each element, the sum of the values of the blocks in it and below it."""
        running = np.zeros(len(self.end) + 1)
        np.cumsum(np.bincount(self.of, weights=values, minlength=len(self.end)), out=running[1:])
        below: Floats = running[self.end] - running[:-1]
        return below

    def ranges(self) -> Integers:
        """Return the first and the last block, exclusive, of the elements that hold each block, level by level."""
        blocks, number = len(self.of), len(self.end)
        index = np.arange(blocks)
        # Of blocks in one element the one that is written last counts.
        first, last = np.full(number + 1, blocks), np.zeros(number + 1, dtype=np.int64)
        first[self.of[::-1]] = index[::-1]
        last[self.of] = index + 1
        runs = np.stack([np.arange(number), self.end], axis=1).ravel()
        ranges = np.empty((blocks, LEVELS + 1, 2), dtype=np.int64)
        ranges[:, LEVELS] = 0, blocks
        for side, reach in enumerate((np.minimum.reduceat(first, runs)[::2], np.maximum.reduceat(last, runs)[::2])):
            for level, above in enumerate(self.levels()):
                ranges[:, level, side] = reach[above]
        return ranges

    def levels(self) -> list[Integers]:
        """Return the element of each block, the one above it, the one above that and so on."""
        levels = [self.of]
        while len(levels) < LEVELS:
            levels.append(self.up[levels[-1]])
        return levels


class _Page:
    """What the rules say of the page: which parts their names mark as something else, and where the prose is."""

    def __init__(self, blocks: list[Block], elements: Elements, tree: _Tree, good: Floats) -> None:
        self.left_out = np.array(left_out(blocks, elements, good.tolist(), 0))
        worth = np.array([value(block, words) for block, words in zip(blocks, good, strict=True)])
        self.sums = tree.sums(np.where(self.left_out[tree.of], 0.0, worth))
        # Of equal sums the inner element.
        self.best = int(len(self.sums) - 1 - np.argmax(self.sums[::-1]))
        elements_in_order = np.arange(len(tree.end))
        self.inside = (elements_in_order >= self.best) & (elements_in_order < tree.end[self.best])
        self.good = good
        self.headings = [index for index, block in enumerate(blocks) if block.tag == "h1"]


def _own(blocks: list[Block], words: Floats, linked: Floats, good: Floats) -> list[Any]:
    """Return what is to be said of each block by itself."""
    characters = np.array([len(block.text) for block in blocks], dtype=np.float64)
    told = [
        (_often_told if len(block.text) <= REMEMBERED else _told)(block.text, block.words < NOTICE_WORDS)
        for block in blocks
    ]
    punctuation, digits, *others = np.array(told, dtype=np.float64).T
    return [
        _log(words) / 8,
        linked,
        linked > 0.9,
        linked == 0,
        words < 3,
        _log(characters) / 8,
        np.minimum(characters / words, 16) / 16,
        good > 0,
        _log(good) / 8,
        np.minimum(2 * punctuation / np.minimum(words, 70), 2),
        digits / np.minimum(characters, BEGINNING),
        *others,
        [block.item > 0 for block in blocks],
    ]


def _told(text: str, may_be_notice: bool) -> tuple[int, ...]:
    """Return what a block's text says by itself: how many signs and digits it begins with, and what it looks like."""
    start = text[:BEGINNING]
    digits = sum(map(len, _DIGITS.findall(start)))
    return (
        len(PUNCTUATION.findall(text[:START])),
        digits,
        _SENTENCE_ENDS.search(text[-2:]) is not None,
        digits > 0 and _PRICE.search(start) is not None,
        may_be_notice and is_copyright(text),
        _SEPARATOR.search(start) is not None,
        digits > 3 and _YEAR.search(start) is not None,
        text[-1] == ":",
        text[-1] == "?",
        text[0].isupper(),
        start.isupper(),
    )


_often_told = lru_cache(maxsize=1 << 16)(_told)  # what is around the main text stands on many pages


def _place(blocks: list[Block], tree: _Tree, page: _Page, words: Floats) -> list[Any]:
    """Return where on the page each block stands."""
    number = len(blocks)
    index = np.arange(number)
    heading = np.array([block.tag in HEADINGS for block in blocks])
    since = index - np.maximum.accumulate(np.where(heading, index, -1))
    times = Counter(block.text for block in blocks)
    first = page.headings[0] if page.headings else -1
    prose = np.flatnonzero(page.good)
    start, end = (prose[0], prose[-1]) if len(prose) else (0, number)
    return [
        index / number,
        (np.cumsum(words) - words) / words.sum(),
        np.minimum(since, 16) / 16,
        _log(np.array([times[block.text] - 1 for block in blocks])) / 4,
        np.full(number, first < 0),
        (index >= first) & (first >= 0),
        index == first,
        _clipped((index - start) / 20),
        _clipped((index - end) / 20),
        _log(tree.depth[tree.of]) / 4,
        page.inside[tree.of],
        page.left_out[tree.of],
        page.sums[tree.of] > 0,
        _shared_depth(tree, page.best)[tree.of],
        _clipped(page.sums[tree.of] / 100),
        _log(np.bincount(tree.of)[tree.of]) / 4,
    ]


def _shared_depth(tree: _Tree, best: int) -> Floats:
    """Return how deep what holds both an element and the best one is nested, in depths of the best one."""
    above = set()
    element = best
    while element:
        above.add(element)
        element = tree.parents[element]
    shared = [0] * len(tree.parents)
    for element in range(1, len(shared)):
        shared[element] = int(tree.depth[element]) if element in above else shared[tree.parents[element]]
    return np.array(shared) / max(int(tree.depth[best]), 1)


def _around(tree: _Tree, page: _Page, words: Floats, linked: Floats, good: Floats) -> list[Any]:
    """Return what the elements that hold each block hold beside it."""
    held, prose, links = tree.sums(words), tree.sums(good), tree.sums(words * linked)
    number, of_links = tree.sums(np.ones(len(words))), tree.sums((linked > 0.5).astype(np.float64))
    of_elements = np.array(
        [
            held / held[0],
            prose / max(prose[0], 1),
            links / np.maximum(held, 1),
            _log(number) / 8,
            _log(held) / 8,
            of_links / np.maximum(number, 1),
            _clipped(page.sums / 200),
            _log(tree.alike) / 4,
        ]
    )
    return [column for above in tree.levels() for column in of_elements[:, above]]


def _names(tree: _Tree, elements: Elements) -> list[npt.NDArray[np.uint8]]:
    """Return what is in the names of all elements that hold each block, and of its own and its parent."""
    tables = []
    for own, kinds in ((elements.marks, len(BIT)), (elements.names, len(NAMES))):
        above = list(own)
        for element in range(1, len(above)):
            above[element] |= above[tree.parents[element]]
        near = np.array(own, dtype="<u8")
        near |= near[tree.parent]
        for bits in (np.array(above, dtype="<u8"), near):
            octets = bits[tree.of][:, None].view(np.uint8)
            tables.append(np.unpackbits(octets, axis=1, count=kinds, bitorder="little"))
    return tables


def _whole(reading: Reading, page: _Page, words: Floats, linked: Floats, good: Floats) -> list[float]:
    """Return what is to be said of the whole page."""
    tags = reading.elements.tags
    inside = page.sums[page.best]
    articles = tags.count("article")
    number, total = len(words), words.sum()
    said = [
        float(_log(np.array(number))) / 8,
        float(_log(np.array(total))) / 8,
        good.sum() / total,
        (words * linked).sum() / total,
        float(_log(np.count_nonzero(good))) / 8,
        "main" in tags,
        articles == 1,
        articles > 1,
        inside >= LISTING_BELOW,
        len(page.headings) == 1,
    ]
    return [float(one) for one in (*said, *kind_of_page(reading.head))]


def kind_of_page(head: Head) -> list[bool]:
    """Return what kind of page this is by its own words: Open Graph's and schema.org's types, its address."""
    kind, address = "", ""
    for meta in head.metas:
        name = (meta.get("property") or meta.get("name") or "").lower()
        if name == "og:type":
            kind = (meta.get("content") or "").lower()
        elif name == "og:url":
            address = address or (meta.get("content") or "")
    for link in head.links:
        if (link.get("rel") or "").lower() == "canonical":
            address = link.get("href") or address
    types = {one for script in head.json_ld for one in _JSON_LD_TYPE.findall(script[:MAX_JSON_LD])}
    path = _path(address)
    return [
        *(kind == "article", kind.startswith("product"), kind == "website", bool(kind)),
        *(one in types for one in TYPES),
        *(word in path for word in PATHS),
        *(path == "/", bool(_DIGITS.search(path)), path.count("/") > 2, path.count("-") >= 4, not address),
    ]


def _path(address: str) -> str:
    try:
        parts = urlsplit(address)
    except ValueError:
        return "/"
    return (parts.path + ("?" + parts.query if parts.query else "")).lower() or "/"


def _clipped(values: Floats) -> Floats:
    clipped: Floats = np.minimum(np.maximum(values, -1), 1)  # np.clip takes five times as long for a few
    return clipped


_LOGARITHMS = np.round(np.log2(1 + np.arange(COUNTED + 1)) * GRAIN) / GRAIN


def _log(counts: Any) -> Any:
    return _LOGARITHMS[np.minimum(counts, COUNTED).astype(np.int64)]
