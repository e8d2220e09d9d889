"""Pages made to cost time or to hide their text: read in time linear in their bytes, and as what they are."""

from typing import get_args

import pytest

from tasks.contracts.charset import decode
from tasks.contracts.markup import MOST_PARSED_ATTRIBUTES, utf16_without_mark, with_few_attributes
from tasks.extract.page_extractor import extract_page
from tasks.extract.warc_pages import Page
from tasks.extract.worker_messages import EngineName, Settings
from tests.hostile.growth import MOST_GROWTH, growth
from tests.hostile.shapes import SHAPES

TEXT = "<html><head><title>T</title></head><body><p>Ελληνικά και 日本語 words</p></body></html>"


# Shapes that an engine took quadratic time for -> a size at which that shows.
PAGES = {
    "attributes": 60_000,
    "attributes without a value": 60_000,
    "one long text": 60_000,
    "one long value": 60_000,
    "nested": 8_000,
    "nested by turns": 8_000,
    "'<li>x'": 4_000,
    "'<p>x</p>'": 4_000,
}


@pytest.mark.parametrize("engine", get_args(EngineName))
@pytest.mark.parametrize("shape", PAGES)
def test_a_page_takes_linear_time(engine: EngineName, shape: str) -> None:
    settings = Settings(engine=engine, mode="recall")
    count = 0

    def work(text: str) -> object:
        nonlocal count
        count += 1  # what was read once is remembered
        body = f"<i>{count}</i>{text}".encode()
        page = Page(record_id="1", url="", host="", captured_at=None, offset=0, payload_digest=None, content_type="",
                    body=body)  # fmt: skip
        return extract_page(page, settings)

    extract_page.prepare()
    work("warm up")
    assert growth(work, SHAPES[shape], PAGES[shape]) <= MOST_GROWTH


def test_an_element_keeps_its_first_attributes_and_the_page_its_text() -> None:
    many = "".join(f" a{n}='>{n}'" for n in range(3 * MOST_PARSED_ATTRIBUTES))
    page = f'<a href="/x"{many}>one</a><p class=x title="it\'s">two</p><a href=\'<\'{many}>three'
    short = with_few_attributes(page)
    assert short.count(" a") == 2 * (MOST_PARSED_ATTRIBUTES - 1)
    for part in ('<a href="/x"', ">one</a>", '<p class=x title="it\'s">two</p>', "href='<'", ">three"):
        assert part in short
    usual = TEXT * 50 + "<p title=it's>a 'quoted' word</p>" * 500
    assert with_few_attributes(usual) is usual


@pytest.mark.parametrize("coding", ["utf-16le", "utf-16be"])
@pytest.mark.parametrize(
    "text", [TEXT, "<?xml version='1.0'?>" + TEXT, "\n\n" + TEXT, TEXT.replace("T<", "語" * 500 + "<")]
)
@pytest.mark.parametrize("header", ["", "text/html", "text/html; charset=utf-8", "text/html; charset=iso-8859-1"])
def test_utf16_without_a_mark(coding: str, text: str, header: str) -> None:
    assert decode(text.encode(coding), header) == (text, coding)


@pytest.mark.parametrize("body", [
    b"", b"<p>", b"<html><body>plain", "<p>naïve ελληνικά".encode(), b"<p>a\0b\0", b"\0" * 100, b"<\0p",
    "<html><body>naïve".encode("latin-1"), "<html><body>語".encode("shift_jis"), TEXT.encode("utf-32-le"),
])  # fmt: skip
def test_other_bytes_are_not_taken_for_utf16(body: bytes) -> None:
    assert utf16_without_mark(body) is None
