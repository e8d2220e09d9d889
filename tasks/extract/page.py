"""One HTML page to text, title, licence, opt-out signals and language: what the killable child runs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from lxml import etree
from trafilatura import extract, load_html
from trafilatura.metadata import examine_meta, extract_license, extract_title

from tasks.contracts.evidence import html_signals
from tasks.extract.charset import decode
from tasks.extract.language import identify
from tasks.extract.records import Page

Mode = Literal["default", "precision", "recall", "fast"]
# libxml2's HTML parser (2.14) nests 256 elements and drops what is below, text too, without an error: an element with
# as many ancestors is the last that it makes.
DEPTH_LIMIT = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to extract: the part of the stage's params that the child needs."""

    mode: Mode
    tables: bool
    comments: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Extracted:
    """What a page gave; `text` is empty when nothing was found."""

    text: str
    title: str | None = None
    license: str | None = None
    opt_out: tuple[str, ...] = ()
    language: str | None = None
    language_score: float | None = None
    truncated_depth: bool = False


def extract_page(page: Page, settings: Settings) -> Extracted:
    """Return a page's main text with what its head says about it.

    Raises:
        ValueError: the body is not HTML that can be parsed; lxml's and trafilatura's own errors also come through.
    """
    if not page.body.strip():
        return Extracted(text="", opt_out=page.signals)
    html, _ = decode(page.body, page.content_type)
    # trafilatura takes str and guesses again only for bytes. An XML declaration makes lxml refuse a str.
    tree = load_html(_without_declaration(html), max_size=len(page.body) * 4 + 1)
    if tree is None:
        return Extracted(text="", opt_out=page.signals)
    title = examine_meta(tree).title or extract_title(tree)
    license_ = extract_license(tree) or _license_link(tree)
    opt_out = tuple(sorted({*page.signals, *map(str, html_signals(html))}))
    truncated = bool(_too_deep()(tree))
    text = extract(
        tree,
        url=page.url or None,
        output_format="txt",
        fast=settings.mode == "fast",
        favor_precision=settings.mode == "precision",
        favor_recall=settings.mode == "recall",
        include_comments=settings.comments,
        include_tables=settings.tables,
        # It keeps state between calls: the same page gives None on the fourth.
        deduplicate=False,
    )
    text = (text or "").strip()
    language, score = identify(text) if text else (None, None)
    return Extracted(
        text=text,
        title=title or None,
        license=license_,
        opt_out=opt_out,
        language=language,
        language_score=score,
        truncated_depth=truncated,
    )


def _license_link(tree: Any) -> str | None:
    """Return what `<link rel=license>` or a licence meta element says."""
    for element in tree.iter("link"):
        if "license" in (element.get("rel") or "").lower().split() and element.get("href"):
            return str(element.get("href")).strip()
    for element in tree.iter("meta"):
        if (element.get("name") or "").strip().lower() in ("license", "dc.rights", "dcterms.license"):
            return (element.get("content") or "").strip() or None
    return None


def _without_declaration(html: str) -> str:
    start = html.lstrip()
    if not start.startswith("<?xml"):
        return html
    return start.partition("?>")[2] or start


@cache
def _too_deep() -> Any:
    return etree.XPath(f"boolean(//*[count(ancestor::*) >= {DEPTH_LIMIT}])")
