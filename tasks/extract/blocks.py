"""An HTML page as blocks of text and the elements that hold them: what the `combined` engine decides on.

A block is a run of text that no block-level element divides. They are made while the page is parsed; whatever costs
time for each element is left out, since this engine is there to be fast.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import Any

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
# Hidden by the element's own attributes, whatever its name says; above the kinds' bits.
UNSEEN = 1 << len(KINDS)
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
# Words in class names, ids and itemprops that say what a part holds; what each is worth the model has learnt. One bit
# each, by the order here: block_model.json belongs to it.
NAMES = """
    content article post entry story body main text prose markdown descr detail summary product thread message answer
    question doc review price title list item card grid result feature hero cta team testimonial spec faq author date
    cooked col row wrap container page block section sub bread cart variant swatch filter sort facet tab accordion step
    member user avatar profile sign quote code
""".split()  # noqa: SIM905 - a table
_BITS_OF_NAMES = [(name, 1 << index) for index, name in enumerate(NAMES)]
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
# What no browser of today shows; the parser takes the content of some for text, tags and all.
_SKIPPED = frozenset({"script", "style", "noscript", "noframes", "noembed", "template", "head", "embed", "input"})
# Names of old for an element of code.
_CODE = {"listing": "pre", "xmp": "pre", "plaintext": "pre"}
_BLOCK_TAGS = _CONTROLS | {
    *("address", "article", "aside", "blockquote", "body", "br", "caption", "center", "dd", "details", "dir", "div"),
    *("hgroup", "legend", "menu", "optgroup", "search"),
    *("dl", "dt", "fieldset", "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header"),
    *("hr", "html", "li", "main", "nav", "ol", "p", "pre", "section", "summary", "table", "tbody", "td", "tfoot"),
    *("th", "thead", "tr", "ul"),
}
# Within `pre` these end a line, and no more.
_LINES = frozenset({"br", "div"})
_LISTS = frozenset({"ul", "ol", "dir", "menu"})
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
        item: how many lists it stands in, where it is the first of a list item; 0 for any other block.
    """

    text: str
    words: int
    linked: float
    tag: str
    element: int
    item: int


@dataclass(slots=True)
class Elements:
    """The block-level elements in document order, as columns; parents stand before their children.

    Attributes:
        parents: index of each one's parent; the root's is -1.
        marks: what its own name, class, id and role say: bits of `KINDS`, and `UNSEEN`.
        names: what stands in its class, id and itemprop: bits of `NAMES`.
    """

    parents: list[int]
    tags: list[str]
    marks: list[int]
    names: list[int]


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


@lru_cache(maxsize=1 << 16)
def names_in(names: str) -> int:
    """Return which of `NAMES` stand in a class attribute, an id or an itemprop, as bits; part of a word counts.

    >>> names_in("blog-Posts") == names_in("post")
    True
    """
    lower = names.lower()
    return sum(bit for name, bit in _BITS_OF_NAMES if name in lower)


@dataclass(slots=True)
class Reading:
    """What was read of a page.

    Attributes:
        blocks: the blocks of text in document order.
        head: what the page says about itself.
        without_scripts: how many characters it holds for browsers that run no scripts, and are not in the blocks.
    """

    blocks: list[Block] = field(default_factory=list)
    elements: Elements = field(default_factory=lambda: Elements([-1], ["html"], [0], [0]))
    head: Head = field(default_factory=Head)
    without_scripts: int = 0


@dataclass(slots=True)
class _Formula:
    """A formula while it is read: its text is the source that stands beside it, in TeX mostly, or what is in it.

    Attributes:
        told: MathML's `alttext`.
    """

    told: str = ""
    in_tex: bool = False
    tex: list[str] = field(default_factory=list)
    drawn: list[str] = field(default_factory=list)

    def take(self, text: str) -> None:
        (self.tex if self.in_tex else self.drawn).append(text)

    def text(self) -> str:
        return self.told or "".join(self.tex) or "".join(self.drawn)


class _Reader:
    """What lxml's parser reports a page to, instead of building a tree of it.

    That takes half the time, and loses nothing below libxml2's limit of 256 nested elements.
    """

    def __init__(self) -> None:
        self.begin()

    def begin(self, *, scripts: bool = True) -> None:
        """Forget what was read.

        Args:
            scripts: read as a browser that runs scripts: without what stands in `noscript`.
        """
        self.reading = Reading()
        self._ignored = _SKIPPED if scripts else _SKIPPED - {"noscript"}
        # Of each open block element its tag, its index, and in how many lists it stands.
        self._open: list[tuple[str, int, int]] = [("body", 0, 0)]
        self._pieces: list[str] = []
        self._item = False
        # Of each open `pre`, how many of its lines are open as elements.
        self._lines: list[int] = []
        self._skipped = 0
        self._noscript = False
        self._formula: _Formula | None = None
        self._open_links = 0
        self._linked = 0
        self._head_text: list[str] | None = None

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        """Take note of an opening tag."""
        tag = _CODE.get(tag, tag)
        if tag in HEAD_TAGS:
            self._head_text = self.reading.head.take(tag, attributes)
        if self._skipped:
            self._skipped += 1
            if self._formula is not None:
                self._formula.in_tex = tag == "annotation" and "tex" in attributes.get("encoding", "")
        elif tag in self._ignored:
            self._skipped = 1
            self._noscript = tag == "noscript"
            if tag == "script" and attributes.get("type", "").startswith("math/tex"):
                self._formula = _Formula(in_tex=True)
        elif tag in _BLOCK_TAGS:
            if self._open[-1][0] == "pre" and tag in _LINES:
                if tag == "br":
                    self._pieces.append("\n")
                else:
                    self._end_line()
                    self._lines[-1] += 1
                return
            self._flush()
            if tag != "br":
                self._open_block(tag, attributes)
        elif tag == "a":
            self._open_links += 1
            if "rel" in attributes:
                self.reading.head.take_licence(attributes)
        elif tag == "math":
            self._skipped = 1
            self._formula = _Formula(told=attributes.get("alttext", ""))
        elif attributes and attributes.get("aria-hidden") == "true":
            self._skipped = 1  # ornaments, and formulas that were drawn with letters beside their source

    def _end_line(self) -> None:
        if self._pieces and not self._pieces[-1].endswith("\n"):
            self._pieces.append("\n")

    def _open_block(self, tag: str, attributes: dict[str, str]) -> None:
        bits, names = _BIT_OF_TAG.get(tag, 0), 0
        if attributes:
            for name in ("class", "id"):
                if name in attributes:
                    bits |= marks_of_names(attributes[name])
                    names |= names_in(attributes[name])
            if "itemprop" in attributes:
                names |= names_in(attributes["itemprop"])
            if "role" in attributes:
                bits |= _BIT_OF_ROLE.get(attributes["role"], 0)
            if (
                "hidden" in attributes
                or attributes.get("aria-hidden") == "true"
                or ("style" in attributes and _NOT_SHOWN.search(attributes["style"]))
            ):
                bits |= BIT["hidden"] | UNSEEN
        elements = self.reading.elements
        index = len(elements.parents)
        _, parent, lists = self._open[-1]
        elements.parents.append(parent)
        elements.tags.append(tag)
        elements.marks.append(bits)
        elements.names.append(names)
        self._open.append((tag, index, lists + (tag in _LISTS)))
        if tag == "li":
            self._item = True
        elif tag == "pre":
            self._lines.append(0)

    def end(self, tag: str) -> None:
        """Take note of a closing tag; the parser reports one for each that it reported open."""
        tag = _CODE.get(tag, tag)
        if tag in HEAD_TAGS and self._head_text is not None:
            self.reading.head.finish(tag, "".join(self._head_text))
            self._head_text = None
        if self._skipped:
            self._skipped -= 1
            if self._formula is not None:
                self._formula.in_tex = False
                if not self._skipped:
                    self._pieces.append(self._formula.text())
                    self._formula = None
        elif tag in _BLOCK_TAGS:
            if tag in _LINES and self._open[-1][0] == "pre" and self._lines[-1]:
                if tag != "br":
                    self._end_line()
                    self._lines[-1] -= 1
            elif tag != "br":
                self._flush()
                if len(self._open) > 1 and self._open.pop()[0] == "pre":
                    self._lines.pop()
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
        elif self._formula is not None:
            self._formula.take(text)
        elif self._noscript:
            self.reading.without_scripts += len(text.strip())

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
        tag, element, lists = self._open[-1]
        words = len(parts)
        # As HTML has it, a line ends with a line feed, and the first one in `pre` is no part of it.
        text = text.replace("\r\n", "\n").strip("\n").rstrip() if tag == "pre" else " ".join(parts)
        if len(text) > 12 * words and not text.isascii():
            words = len(text) // 2
        item, self._item = lists if self._item else 0, False
        self.reading.blocks.append(Block(text, words, min(linked / len(text), 1.0), tag, element, item))


@cache
def _parser() -> tuple[Any, _Reader]:
    # One for all pages: making a parser takes as long as reading a small page.
    reader = _Reader()
    return etree.HTMLParser(target=reader, remove_comments=True, remove_pis=True, encoding="utf-8"), reader


def read(html: str, *, scripts: bool = True) -> Reading:
    """Read a page, as a browser that runs scripts or as one that does not.

    Raises:
        lxml.etree.XMLSyntaxError: there is no element in it.
    """
    parser, reader = _parser()
    reader.begin(scripts=scripts)
    try:
        parser.feed(html.encode("utf-8", "replace"))
        reading: Reading = parser.close()
    except BaseException:
        _parser.cache_clear()  # whatever state it was left in
        raise
    return reading
