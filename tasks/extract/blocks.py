"""An HTML page as blocks of text and the elements that hold them: what the `combined` engine decides on.

A block is a run of text that no block-level element divides. They are made while the page is parsed; whatever costs
time for each element is left out, since this engine is there to be fast.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, lru_cache

from lxml import etree

from tasks.extract.metadata import HEAD_TAGS, Head

# What class names, ids, roles and elements say about a part of a page. Each kind is one bit of an element's marks.
KINDS = {
    "navigation": """
        nav navi navbar navigation navigator menu menus submenu topmenu mainmenu topnav breadcrumb breadcrumbs
        crumbs pagination pager paging pages toolbar skip dropdown toc tabs
    """,
    "footer": "footer foot bottom copyright copyrights colophon legal disclaimer",
    "sidebar": "sidebar sidebars side aside rail widget widgets rightcol leftcol",
    "sharing": """
        share sharing shares social socials follow addthis sharethis facebook twitter like likes rss print
        tools bookmarks
    """,
    "related": """
        related recommend recommended recommendation recommendations trending popular mostread morenews
        readmore more also similar upnext next prev previous teaser teasers latest carousel slider suggestions
    """,
    "comments": "comment comments disqus respond reply replies commentlist reactions discussion",
    "advertising": """
        ad ads advert advertisement advertising adsense adbox sponsor sponsored promo promos promotion
        promoted banner outbrain taboola dfp
    """,
    "dialog": """
        cookie cookies consent gdpr newsletter subscribe subscription signup optin popup modal overlay login
        signin register paywall alert notice privacy
    """,
    "facts": """
        tags meta metadata byline author authors date categories postmeta rating ratings views timestamp
        keywords
    """,
    "hidden": "hidden hide noprint invisible screenreader",
    "masthead": "masthead header head top logo brand search searchbox searchform",
    "form": "",
    "control": "",
}
BIT = {kind: 1 << index for index, kind in enumerate(KINDS)}
_BIT_OF_WORD = {word: BIT[kind] for kind, words in KINDS.items() for word in words.split()}
_BIT_OF_ROLE = {
    "navigation": BIT["navigation"],
    "menu": BIT["navigation"],
    "menubar": BIT["navigation"],
    "banner": BIT["masthead"],
    "search": BIT["masthead"],
    "contentinfo": BIT["footer"],
    "complementary": BIT["sidebar"],
    "dialog": BIT["dialog"],
    "alertdialog": BIT["dialog"],
}
_CONTROLS = frozenset(
    {"svg", "object", "canvas", "audio", "video", "map", "button", "select", "option", "textarea", "label", "dialog"}
    | {"iframe"}
)
_BIT_OF_TAG = {
    "nav": BIT["navigation"],
    "footer": BIT["footer"],
    "aside": BIT["sidebar"],
    "header": BIT["masthead"],
    "form": BIT["form"],
    **dict.fromkeys(_CONTROLS, BIT["control"]),
}
_SKIPPED = frozenset({"script", "style", "noscript", "template", "head", "embed", "input"})
_BLOCK_TAGS = _CONTROLS | {
    *("address", "article", "aside", "blockquote", "body", "br", "caption", "center", "dd", "details", "dir", "div"),
    *("dl", "dt", "fieldset", "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header"),
    *("hr", "html", "li", "main", "nav", "ol", "p", "pre", "section", "summary", "table", "tbody", "td", "tfoot"),
    *("th", "thead", "tr", "ul"),
}
HEADINGS = frozenset({"h1", "h2", "h3", "h4", "h5", "h6"})
_WORD_IN_NAME = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")
_NOT_SHOWN = re.compile(r"display\s*:\s*none")


@dataclass(slots=True)
class Block:
    """A run of text.

    Attributes:
        words: how many; two characters count as one in scripts that are written without spaces.
        linked: share of the characters that stand in links, 0 to 1.
        element: index of the block element that holds it.
        row: index of the table row that it stands in, 0 for none.
    """

    text: str
    words: int
    linked: float
    tag: str
    element: int
    row: int


@dataclass(slots=True)
class Elements:
    """The block-level elements in document order, as columns; parents stand before their children.

    Attributes:
        parents: index of each one's parent; the root's is -1.
        marks: what its own name, class, id and role say: bits of `KINDS`.
    """

    parents: list[int]
    tags: list[str]
    marks: list[int]


@lru_cache(maxsize=1 << 16)
def marks_of_names(names: str) -> int:
    """Return the kinds that the words of a class attribute or an id name, as bits.

    >>> marks_of_names("siteFooter") == BIT["footer"]
    True
    >>> marks_of_names("article-body")
    0
    """
    bits = 0
    # "elementor-widget" is one page builder's name for any part of a page, the article too.
    for word in _WORD_IN_NAME.findall(names.replace("elementor-widget", "").replace("screen-reader", "screenreader")):
        bits |= _BIT_OF_WORD.get(word.lower(), 0)
    return bits


@dataclass(slots=True)
class Reading:
    """What was read of a page.

    Attributes:
        blocks: the blocks of text in document order.
        head: what the page says about itself.
    """

    blocks: list[Block] = field(default_factory=list)
    elements: Elements = field(default_factory=lambda: Elements([-1], ["html"], [0]))
    head: Head = field(default_factory=Head)


class _Reader:
    """What lxml's parser reports a page to, instead of building a tree of it.

    That takes half the time, and loses nothing below libxml2's limit of 256 nested elements.
    """

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Forget what was read."""
        self.reading = Reading()
        self._open: list[tuple[str, int, int]] = [("body", 0, 0)]
        self._pieces: list[str] = []
        self._skipped = 0
        self._open_links = 0
        self._linked = 0
        self._head_text: list[str] | None = None

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        """Take note of an opening tag."""
        if tag in HEAD_TAGS:
            self._head_text = self.reading.head.take(tag, attributes)
        if self._skipped:
            self._skipped += 1
        elif tag in _SKIPPED:
            self._skipped = 1
        elif tag in _BLOCK_TAGS:
            self._flush()
            if tag != "br":
                self._open_block(tag, attributes)
        elif tag == "a":
            self._open_links += 1
            if "rel" in attributes:
                self.reading.head.take_licence(attributes)

    def _open_block(self, tag: str, attributes: dict[str, str]) -> None:
        bits = _BIT_OF_TAG.get(tag, 0)
        if attributes:
            for name in ("class", "id"):
                if name in attributes:
                    bits |= marks_of_names(attributes[name])
            if "role" in attributes:
                bits |= _BIT_OF_ROLE.get(attributes["role"], 0)
            if (
                "hidden" in attributes
                or attributes.get("aria-hidden") == "true"
                or ("style" in attributes and _NOT_SHOWN.search(attributes["style"]))
            ):
                bits |= BIT["hidden"]
        elements = self.reading.elements
        index = len(elements.parents)
        _, parent, row = self._open[-1]
        elements.parents.append(parent)
        elements.tags.append(tag)
        elements.marks.append(bits)
        self._open.append((tag, index, index if tag == "tr" else row))

    def end(self, tag: str) -> None:
        """Take note of a closing tag; the parser reports one for each that it reported open."""
        if tag in HEAD_TAGS and self._head_text is not None:
            self.reading.head.finish(tag, "".join(self._head_text))
            self._head_text = None
        if self._skipped:
            self._skipped -= 1
        elif tag in _BLOCK_TAGS:
            if tag != "br":
                self._flush()
                if len(self._open) > 1:
                    self._open.pop()
        elif tag == "a":
            self._open_links -= 1

    def data(self, text: str) -> None:
        """Take note of text."""
        if self._head_text is not None:
            self._head_text.append(text)
        if not self._skipped:
            self._pieces.append(text)
            if self._open_links > 0:
                self._linked += len(text.strip())

    def close(self) -> Reading:
        """End the page and return what was read."""
        self._flush()
        return self.reading

    def _flush(self) -> None:
        if not self._pieces:
            return
        text = "".join(self._pieces)
        self._pieces.clear()
        linked, self._linked = self._linked, 0
        parts = text.split()
        if not parts:
            return
        tag, element, row = self._open[-1]
        words = len(parts)
        text = text.strip("\r\n").rstrip() if tag == "pre" else " ".join(parts)
        if len(text) > 12 * words and not text.isascii():
            words = len(text) // 2
        self.reading.blocks.append(Block(text, words, linked / len(text), tag, element, row))


@cache
def _parser() -> tuple[etree.HTMLParser, _Reader]:
    # One for all pages: making a parser takes as long as reading a small page.
    reader = _Reader()
    return etree.HTMLParser(target=reader, remove_comments=True, remove_pis=True, encoding="utf-8"), reader


def read(html: str) -> Reading:
    """Read a page.

    Raises:
        lxml.etree.XMLSyntaxError: there is no element in it.
    """
    parser, reader = _parser()
    reader.begin()
    try:
        parser.feed(html.encode("utf-8", "replace"))
        reading: Reading = parser.close()
    except BaseException:
        _parser.cache_clear()  # whatever state it was left in
        raise
    return reading


def lines_of(blocks: list[Block], short_cell_words: int = 20) -> Iterator[str]:
    """Yield the lines of a text: list items with a dash, the short cells of one table row side by side."""
    cells: list[str] = []
    row = 0
    for block in blocks:
        cell = block.row if block.tag in ("td", "th") and block.words <= short_cell_words else 0
        if cells and cell != row:
            yield " | ".join(cells)
            cells.clear()
        row = cell
        if cell:
            cells.append(block.text)
        else:
            yield f"- {block.text}" if block.tag == "li" else block.text
    if cells:
        yield " | ".join(cells)
