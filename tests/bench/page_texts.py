"""Plain texts to measure on: the main content of the pages of a WARC file, or of the embedded sample site."""

from __future__ import annotations

from pathlib import Path

from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.encoding import detect_encoding
from resiliparse.parse.html import HTMLTree

from tasks.extract.warc_pages import read_pages

LEAST_CHARACTERS = 300


def page_texts(pages: Path | None) -> list[tuple[str, str]]:
    """Return (URL, text) of each page that has some text."""
    found = [(url, _text(body)) for url, body in (_sample() if pages is None else _records(pages))]
    return [(url, text) for url, text in found if len(text) >= LEAST_CHARACTERS]


def _text(body: bytes) -> str:
    tree = HTMLTree.parse_from_bytes(body, detect_encoding(body, html5_compatible=True) or "utf-8")
    return str(extract_plain_text(tree, main_content=True, alt_texts=False, links=False))


def _records(path: Path) -> list[tuple[str, bytes]]:
    return [(page.url, page.body) for page in read_pages(path, 20_000_000) if page.body]


def _sample() -> list[tuple[str, bytes]]:
    from tasks.crawl.sample.site import build_pages

    return [(page.url, page.body) for page in build_pages(2)]


def about_equal_pages(texts: list[str], characters: int) -> list[str]:
    """Cut long texts at line ends into pages of about so many characters."""
    pages: list[str] = []
    for text in texts:
        page: list[str] = []
        size = 0
        for line in text.split("\n"):
            page.append(line)
            size += len(line) + 1
            if size >= characters:
                pages.append("\n".join(page))
                page, size = [], 0
        if size >= characters // 4:
            pages.append("\n".join(page))
    return pages
