"""The engines that find a page's main text, behind one call: `content_of(html, settings)`.

- trafilatura: the library, in one of its modes.
- resiliparse: its main-content extraction on the Lexbor parser; very fast, keeps more boilerplate.
- justext: paragraphs by length, links and stop words of the language that is detected.
- combined: blocks of text, and a small model that says which are the main text (main_content.py).

Each is a pure function of the page's HTML. docs/benchmarks.md compares them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from typing import Any

from lxml import etree
from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.html import DocumentNode, HTMLTree
from trafilatura import extract, load_html
from trafilatura.metadata import extract_license
from trafilatura.settings import Extractor

from tasks.extract.blocks import read
from tasks.extract.carried import article_body, with_carried_text
from tasks.extract.language_id import identify
from tasks.extract.main_content import main_text
from tasks.extract.metadata import Head, Metadata, head_of, metadata_of
from tasks.extract.paragraphs import revise
from tasks.extract.selectors import lighten_trafilatura
from tasks.extract.worker_messages import EngineName, Mode, Settings
from tasks.rights.evidence import meta_elements
from tasks.rights.licences import is_terms, licence_in_words, target_of

# libxml2's HTML parser (2.14) nests 256 elements and drops what is below, text too, without an error. Lexbor nests all
# there are, and resiliparse takes time quadratic in the depth: the same is taken out of its tree.
DEPTH_LIMIT = 256
TOO_DEEP = ":root" + " > *" * DEPTH_LIMIT
# A page that holds so many times its visible text for browsers without scripts, or for search engines, shows it by a
# script.
HIDDEN_TIMES = 10
JUSTEXT_SAMPLE_CHARACTERS = 4_000
# Elements of a page that are looked at one by one in Lexbor's tree, a walk of it each: a page has a licence or two.
MOST_ELEMENTS_READ = 50
# jusText's stop word lists by ISO 639-1 code; a language that is not here is judged by lengths and links alone.
_LISTS = """
    af=Afrikaans ar=Arabic az=Azerbaijani be=Belarusian bg=Bulgarian bn=Bengali bs=Bosnian ca=Catalan cs=Czech
    cy=Welsh da=Danish de=German el=Greek en=English eo=Esperanto es=Spanish et=Estonian eu=Basque fa=Persian
    fi=Finnish fr=French ga=Irish gl=Galician gu=Gujarati he=Hebrew hi=Hindi hr=Croatian hu=Hungarian
    hy=Armenian id=Indonesian is=Icelandic it=Italian ka=Georgian kk=Kazakh kn=Kannada ko=Korean la=Latin
    lt=Lithuanian lv=Latvian mk=Macedonian ml=Malayalam mr=Marathi ms=Malay ne=Nepali nl=Dutch
    nn=Norwegian_Nynorsk no=Norwegian_Bokmal nb=Norwegian_Bokmal pl=Polish pt=Portuguese ro=Romanian ru=Russian
    sk=Slovak sl=Slovenian sq=Albanian sr=Serbian sv=Swedish sw=Swahili ta=Tamil te=Telugu tl=Tagalog tr=Turkish
    uk=Ukrainian ur=Urdu vi=Vietnamese
"""
JUSTEXT_LISTS = dict(pair.split("=") for pair in _LISTS.split())
# One of them is in a page that names its licence; trafilatura looks for it in those only.
LICENSE_CUES = ("license", "creativecommons", "creative commons", "cc by")


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What an engine made of a page.

    Attributes:
        truncated: the parser stopped at its depth limit, and text may be missing.
    """

    text: str
    metadata: Metadata
    truncated: bool = False


def content_of(html: str, settings: Settings) -> Content | None:
    """Return a page's main text and what it says about itself, None where there is no element in it.

    Raises:
        ValueError: the page cannot be parsed; the libraries' own errors also come through.
    """
    return _ENGINES[settings.engine](with_carried_text(html), settings)


def _trafilatura(html: str, settings: Settings) -> Content | None:
    tree = _tree(html)
    if tree is None:
        return None
    return _with_metadata(tree, html, _by_trafilatura(tree, settings, settings.mode))


def _by_trafilatura(tree: Any, settings: Settings, mode: Mode) -> str:
    return extract(tree, options=_options(mode, settings.comments, settings.tables)) or ""


@cache
def _options(mode: Mode, comments: bool, tables: bool) -> Any:
    return Extractor(
        output_format="txt",
        fast=mode == "fast",
        precision=mode == "precision",
        recall=mode == "recall",
        comments=comments,
        tables=tables,
        # It keeps state between calls: the same page gives None on the fourth.
        dedup=False,
    )


def _combined(html: str, settings: Settings) -> Content | None:
    try:
        reading = read(html)
    except etree.XMLSyntaxError:
        return None
    headings = [block.text for block in reading.blocks if block.tag == "h1"]
    text = main_text(reading, comments=settings.comments, tables=settings.tables)
    if reading.without_scripts > HIDDEN_TIMES * len(text):
        unscripted = main_text(read(html, scripts=False), comments=settings.comments, tables=settings.tables)
        text = unscripted if len(unscripted) > HIDDEN_TIMES * len(text) else text
    body = article_body(reading.head.json_ld)
    return Content(
        text=body if len(body) > HIDDEN_TIMES * len(text) else text,
        metadata=metadata_of(reading.head, headings[0] if len(headings) == 1 else None),
    )


def _resiliparse(html: str, settings: Settings) -> Content | None:
    tree = HTMLTree.parse(html)
    if tree.document is None:
        return None
    deep = tree.document.query_selector_all(TOO_DEEP)
    for element in deep:
        element.decompose()
    text = extract_plain_text(
        tree,
        main_content=True,
        alt_texts=False,
        form_fields=False,
        comments=settings.comments,
        skip_elements=None if settings.tables else ["table"],
    )
    return Content(text=text, metadata=metadata_of(_head_of(tree.document, tree.title, html)), truncated=bool(deep))


def _head_of(document: DocumentNode, title: str | None, html: str) -> Head:
    """Return what a page says about itself: the elements of Lexbor's tree, and the meta elements as a list.

    Going through the elements that a selector finds costs a walk of the tree for each: that is for few.
    """

    def found(selector: str) -> Iterator[Any]:
        return islice(document.query_selector_all(selector), MOST_ELEMENTS_READ)

    head = Head(
        title=" ".join((title or "").split()),
        metas=list(meta_elements(html)),
        json_ld=[script.text for script in found("script[type*='ld+json']")],
        base=next((base.getattr("href") or "" for base in found("base[href]")), ""),
    )
    for name in ("a", "link"):
        for link in found(f"{name}[rel~=license]"):
            head.take_licence({attribute: link.getattr(attribute) or "" for attribute in ("href", "rel", "type")})
    return head


def _justext(html: str, _: Settings) -> Content | None:
    from justext import core

    tree = _tree(html)
    if tree is None:
        return None
    found = _with_metadata(tree, html, "")
    paragraphs = core.ParagraphMaker.make_paragraphs(core.preprocessor(tree))
    longest = sorted(paragraphs, key=len, reverse=True)
    sample = "\n".join(paragraph.text for paragraph in longest)[:JUSTEXT_SAMPLE_CHARACTERS]
    stop_words = _stop_words(identify(sample)[0]) if sample else frozenset()
    # Without stop words every long paragraph of few links is good: jusText's language-independent mode.
    thresholds = {} if stop_words else {"stopwords_low": 0.0, "stopwords_high": 0.0}
    core.classify_paragraphs(paragraphs, stop_words, **thresholds)
    revise(paragraphs)
    text = "\n".join(paragraph.text for paragraph in paragraphs if not paragraph.is_boilerplate)
    return Content(text=text, metadata=found.metadata, truncated=found.truncated)


@cache
def _stop_words(language: str) -> frozenset[str]:
    from justext import get_stoplist

    name = JUSTEXT_LISTS.get(language)
    return frozenset(get_stoplist(name)) if name else frozenset()


def _tree(html: str) -> Any:
    lighten_trafilatura()
    # trafilatura takes str and guesses again only for bytes. An XML declaration makes lxml refuse a str.
    return load_html(_without_declaration(html), max_size=len(html) * 4 + 1) if html.strip() else None


def _with_metadata(tree: Any, html: str, text: str) -> Content:
    headings = tree.findall(".//h1")
    head = head_of(tree)
    metadata = metadata_of(head, " ".join(headings[0].text_content().split()) if len(headings) == 1 else None)
    if metadata.license is None and _may_name_a_license(html.lower()):
        metadata = replace(metadata, license=_by_trafilatura_too(tree, head.terms))
    return Content(text=text, metadata=metadata, truncated=bool(_too_deep()(tree)))


def _by_trafilatura_too(tree: Any, terms: set[str]) -> str | None:
    """Return the licence that trafilatura finds, which would take a link to RSL terms for one."""
    for link in tree.iterfind(".//a[@rel]") if terms else ():
        if is_terms(link.attrib) or target_of(link.attrib) in terms:
            link.attrib.pop("rel")
    # It takes the text of any link that is marked as a licence.
    return licence_in_words(extract_license(tree) or "")


def _may_name_a_license(lower: str) -> bool:
    return any(cue in lower for cue in LICENSE_CUES)


def _without_declaration(html: str) -> str:
    start = html.lstrip()
    if not start.startswith("<?xml"):
        return html
    return start.partition("?>")[2] or start


@cache
def _too_deep() -> Any:
    return etree.XPath("boolean(" + "/*" * DEPTH_LIMIT + ")")


_ENGINES: dict[EngineName, Callable[[str, Settings], Content | None]] = {
    "trafilatura": _trafilatura,
    "resiliparse": _resiliparse,
    "justext": _justext,
    "combined": _combined,
}
