"""trafilatura finds the same nodes, and so the same text, by the expressions that cost less."""

import re
import sys
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree, html
from trafilatura import xpaths
from trafilatura.settings import BASIC_CLEAN_XPATH

from tasks.crawl.sample.site import build_pages
from tasks.extract.engines import content_of
from tasks.extract.selectors import LONGEST_ATTRIBUTE_CHARACTERS, lighten_trafilatura, lighter
from tasks.extract.worker_messages import Mode, Settings
from tests.tasks.extract.pages import PAGE
from tests.tasks.extract.unchanged import own_expressions, unchanged_trafilatura

EXPRESSIONS = [expression for expressions in own_expressions().values() for expression in expressions]
EXPRESSIONS.append(BASIC_CLEAN_XPATH)
LIGHTER = [lighter(expression) for expression in EXPRESSIONS]
# What the patterns look for, cut into pieces, with what may stand around it in a name.
PIECES = sorted(
    {
        piece
        for expression in EXPRESSIONS
        for pattern in re.findall(r"'([^']+)'", expression.path)
        for piece in re.findall(r"[A-Za-z]{3,}", pattern)
    }
)
NAMES = st.lists(st.sampled_from([*PIECES, "-", "_", " ", "s", "ary", "x", ""]), max_size=4).map("".join)
ATTRIBUTES = st.dictionaries(
    st.sampled_from(["id", "class", "style", "role", "itemprop", "aria-hidden", "data-component"]), NAMES, max_size=3
)
TAGS = st.sampled_from(["div", "p", "section", "span", "article", "main", "list", "item", "ol", "ul", "h1", "header"])


@st.composite
def trees(draw: st.DrawFn) -> Any:
    root = html.Element("body")
    places = [root]
    for _ in range(draw(st.integers(1, 12))):
        parent = draw(st.sampled_from(places))
        places.append(etree.SubElement(parent, draw(TAGS), draw(ATTRIBUTES)))
    return root


@given(tree=trees())
def test_the_same_nodes_are_found(tree: Any) -> None:
    for expression, ours in zip(EXPRESSIONS, LIGHTER, strict=True):
        assert ours(tree) == expression(tree), expression.path


def test_no_test_is_left_to_exslt() -> None:
    left = [expression.path for expression in LIGHTER if "re:test" in expression.path]
    assert not left, "trafilatura writes it otherwise now: selectors._TEST"


def test_trafilatura_uses_them() -> None:
    lighten_trafilatura()
    used = [sys.modules["trafilatura.baseline"].BASIC_CLEAN_XPATH]
    used += [expression for name in own_expressions() for expression in getattr(xpaths, name)]
    assert not [expression.path for expression in used if "re:test" in expression.path]


@pytest.mark.parametrize("value", ["a" * LONGEST_ATTRIBUTE_CHARACTERS + "menu", "menu", "", "a", " MENU"])
@pytest.mark.parametrize("test", ["@class, 'menu'", "@class, 'menu', 'i'", "@id|@class, '^a|^$'", "@class, ''"])
def test_long_values_upper_case_and_patterns_that_are_true_of_nothing(value: str, test: str) -> None:
    tree = html.Element("body")
    etree.SubElement(tree, "div", {"class": value})
    etree.SubElement(tree, "div", {"id": value, "class": "menu"})
    etree.SubElement(tree, "div")
    theirs = etree.XPath(f".//*[re:test({test})]", namespaces={"re": "http://exslt.org/regular-expressions"})
    assert lighter(theirs)(tree) == theirs(tree)


@pytest.fixture(scope="module")
def pages() -> list[str]:
    sample = [page.body.decode("utf-8", "replace") for page in build_pages(1) if b"<body" in page.body]
    return [PAGE, *sample[:: len(sample) // 20]]


@pytest.mark.parametrize("mode", get_args(Mode))
@pytest.mark.parametrize("comments", [False, True])
def test_the_text_is_trafilaturas_own(mode: Mode, *, comments: bool, pages: list[str]) -> None:
    settings = Settings(engine="trafilatura", mode=mode, comments=comments)
    ours = [content_of(page, settings) for page in pages]
    with unchanged_trafilatura():
        assert "re:test" in xpaths.OVERALL_DISCARD_XPATH[0].path
        theirs = [content_of(page, settings) for page in pages]
    assert ours == theirs
    assert any(content and len(content.text) > 500 for content in ours)
