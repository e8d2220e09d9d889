"""trafilatura's own XPath expressions, compiled to find the same nodes in half the time.

A third of trafilatura's time goes into `re:test(@class, '…')` (EXSLT): for each element lxml makes objects for the
attribute and its element, decodes the pattern and searches again. Here each pattern is a function of its own, is not
asked where the attribute is missing, gets plain strings, and remembers its answers: names of classes repeat.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from types import ModuleType
from typing import Any

from lxml import etree, html
from trafilatura import external, settings, utils, xpaths

from tasks.extract.paragraphs import revise

REGULAR_EXPRESSIONS = "http://exslt.org/regular-expressions"
OURS = "headwater"
# Attributes whose answer is remembered, for each pattern, and the longest, in characters: some MiB in all.
REMEMBERED_ATTRIBUTES = 4_096
LONGEST_ATTRIBUTE_CHARACTERS = 200
# An `etree.XPath`; lxml brings no types.
Expression = Any
_TEST = re.compile(r"re:test\((@[\w-]+(?:\|@[\w-]+)*),\s*'([^']*)'(?:,\s*'(i?)')?\)")


@cache
def lighten_trafilatura() -> None:
    """Make this process's trafilatura find the same in less time; texts stay what they are, byte for byte.

    - Its expressions are replaced where they stand: in the lists that its modules share, and the one that cleans for
      the baseline and for a page's whole text.
    - Its parser gives every element lxml's plain HTML class, chosen in C; the classes of form fields, chosen in Python,
      only add properties that it does not use.
    - jusText's second look takes time linear in the paragraphs.
    - jusText's words of all languages become a frozenset, whose hash is kept; a tuple's is taken again each time.
    """
    for expressions in expressions_in(xpaths).values():
        expressions[:] = map(lighter, expressions)
    # By name, the package gives the function `baseline`.
    sys.modules["trafilatura.baseline"].BASIC_CLEAN_XPATH = lighter(settings.BASIC_CLEAN_XPATH)  # type: ignore[attr-defined]
    plain = etree.ElementDefaultClassLookup(
        element=html.HtmlElement,
        comment=html.HtmlComment,
        pi=html.HtmlProcessingInstruction,
        entity=html.HtmlEntity,
    )
    utils.HTML_PARSER.set_element_class_lookup(plain)
    external.revise_paragraph_classification = revise
    external.JT_STOPLIST = frozenset(external.jt_stoplist_init())


def expressions_in(module: ModuleType) -> dict[str, list[Expression]]:
    """Return a module's lists of expressions by name."""
    lists = {name: value for name, value in vars(module).items() if isinstance(value, list)}
    return {name: items for name, items in lists.items() if all(isinstance(item, etree.XPath) for item in items)}


def lighter(expression: Expression) -> Expression:
    """Return an expression that finds the same nodes. A test that is written otherwise stays EXSLT's."""
    functions: dict[tuple[str, str], Callable[[object, Sequence[str]], bool]] = {}

    def replaced(test: re.Match[str]) -> str:
        attributes, pattern, flag = test.groups()
        search = re.compile(pattern, re.IGNORECASE if flag else 0).search
        if search(""):  # then it is true of a missing attribute too
            return test[0]
        name = f"test{len(functions)}"
        functions[OURS, name] = _remembering(search)
        return f"(({attributes.replace('|', ' or ')}) and {OURS}:{name}({attributes}))"

    return etree.XPath(
        _TEST.sub(replaced, expression.path),
        namespaces={"re": REGULAR_EXPRESSIONS, OURS: OURS},
        extensions=functions,
        smart_strings=False,
    )


def _remembering(search: Callable[[str], object]) -> Callable[[object, Sequence[str]], bool]:
    """Return the XPath function of a pattern: of several attributes it takes the first, as EXSLT does."""

    @lru_cache(REMEMBERED_ATTRIBUTES)
    def remembered(value: str) -> bool:
        return search(value) is not None

    def test(_: object, values: Sequence[str]) -> bool:
        value = values[0]
        return remembered(value) if len(value) <= LONGEST_ATTRIBUTE_CHARACTERS else search(value) is not None

    return test
