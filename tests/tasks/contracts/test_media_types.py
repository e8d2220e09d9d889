"""Which answers are pages: by their type where it makes sense, else by how they begin."""

from __future__ import annotations

import pytest

from tasks.contracts.media_types import is_html, media_type

PAGE = b"<!doctype html><html><body><p>x</p></body></html>"
XHTML = b'<?xml version="1.0"?>\n<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Strict//EN" "x.dtd">' \
        b'<!-- a --><html xmlns="http://www.w3.org/1999/xhtml"><body/></html>'  # fmt: skip


@pytest.mark.parametrize("content_type", [
    "text/html", "TEXT/HTML;charset=utf-8", "text/html;", "text/html; charset=", "text/html;charset",
    "text/html charset=utf-8",
    "text/html, text/html; charset=UTF-8", "text/html; charset=UTF-8,text/html", "text/plain, text/html", " text/html ",
    'text/html; charset="utf-8', "text/html;;charset=utf-8;", "application/xhtml+xml", "text/html,*/*", "text/html(x)",
    'text/html; a="b, text/plain"', "text/html; charset=utf-8, charset=utf-8", "text/html\t;charset=x",
])  # fmt: skip
def test_what_says_that_it_is_html_is(content_type: str) -> None:
    assert is_html(content_type, b"anything")


@pytest.mark.parametrize("content_type", [
    "", " ", "unknown/unknown", "application/unknown", "*/*", "charset=utf-8", "charset=utf-8, */*", "html", "text",
    "utf-8", ";charset=utf-8", "text/", "/html", "Unknown/Unknown; charset=utf-8", ", ,",
])  # fmt: skip
@pytest.mark.parametrize(("body", "page"), [
    (PAGE, True), (b"\xef\xbb\xbf" + PAGE, True), (b" \n" + PAGE, True), (b"<!-- x -->", True), (b"<p>x", True),
    (XHTML, True),
    (b"<script>x", True), (b"<H1 class=x>", True), (b"<a href=/>", True), (b"<br/>", True), (b"<meta charset=x>", True),
    (b"Notice: x in y.php<br>" + PAGE, True), (b"\xff\xfe" + PAGE.decode().encode("utf-16-le"), True),
    (PAGE.decode().encode("utf-16-be"), True), (b"", False), (b"plain text", False), (b"a <p>", False),
    (b"<pre>x", False),
    (b"<?xml version='1.0'?><rss>", False), (b"%PDF-1.4 <html>\0", False), (b"\x89PNG\r\n\x1a\n\0<html>", False),
    (b"{\"a\": \"<p>\"}", False), (b"<articles>", False), (b"<abc>", False), (b"x" * 2000 + PAGE, False),
])  # fmt: skip
def test_what_says_nothing_is_html_where_it_begins_so(content_type: str, body: bytes, page: bool) -> None:
    assert is_html(content_type, body) is page


@pytest.mark.parametrize(
    "content_type", ["application/xml", "text/xml; charset=utf-8", "application/vnd.wap.xhtml+xml"]
)
@pytest.mark.parametrize(("body", "page"), [
    (XHTML, True), (b"\xef\xbb\xbf" + XHTML, True), (b"\n" + XHTML, True), (PAGE, True),
    (b"<x:html xmlns:x='y'>", True),
    (b"<?xml version='1.0'?><?a b?><!DOCTYPE html [<!ENTITY nbsp '&#160;'>]><html>", True),
    (XHTML.decode().encode("utf-16"), True),
    (b"<?xml version='1.0'?><rss><html>", False), (b"<feed xmlns='http://www.w3.org/2005/Atom'>", False), (b"", False),
    (b"<!-- <html> --><svg>", False), (b"<?xml <html>", False), (b"<htmlx>", False), (b"<urlset>", False),
    (b"text<html>", False),
])  # fmt: skip
def test_xml_is_a_page_where_its_root_is(content_type: str, body: bytes, page: bool) -> None:
    assert is_html(content_type, body) is page


@pytest.mark.parametrize("content_type", [
    "text/plain", "text/plain; charset=utf-8", "application/json", "application/octet-stream", "image/svg", "text/htm",
    "text/css", "text/html, text/plain", "application/pdf", "message/rfc822", "text/htmlx", "xtext/html",
])  # fmt: skip
def test_what_says_that_it_is_something_else_is_that(content_type: str) -> None:
    assert not is_html(content_type, PAGE)
    assert not is_html(content_type, XHTML)


@pytest.mark.parametrize(("content_type", "essence", "charset"), [
    ("text/html; charset=a, text/html", "text/html", "a"),
    ("text/html; charset=a, text/html; charset=b", "text/html", "b"),
    ("text/html; charset=a, text/xml", "text/xml", None), ("text/html; charset=a, */*", "text/html", "a"),
    ("text/html; charset=a; charset=b", "text/html", "a"), ('text/html; charset="a\\"b"', "text/html", 'a"b'),
    ("text/html; x=charset=a", "text/html", None), ("text/html, x", "text/html", None), ("", "", None),
])  # fmt: skip
def test_several_types_are_read_as_browsers_read_them(content_type: str, essence: str, charset: str | None) -> None:
    read = media_type(content_type)
    assert (read.essence, read.charset) == (essence, charset)
