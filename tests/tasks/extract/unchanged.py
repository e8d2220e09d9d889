"""trafilatura as it comes, for comparing what selectors.py made of it."""

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from lxml import html
from trafilatura import external, settings, utils, xpaths

from tasks.extract.selectors import Expression, expressions_in, lighten_trafilatura


@cache
def own_expressions() -> dict[str, list[Expression]]:
    """Return trafilatura's lists of expressions by name, from a second copy of their module."""
    spec = importlib.util.spec_from_file_location("unchanged_xpaths", xpaths.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return expressions_in(module)


@contextmanager
def unchanged_trafilatura() -> Iterator[None]:
    """Give trafilatura its own expressions, element classes and stop words back inside the block."""
    for name, expressions in own_expressions().items():
        getattr(xpaths, name)[:] = expressions
    sys.modules["trafilatura.baseline"].BASIC_CLEAN_XPATH = settings.BASIC_CLEAN_XPATH  # type: ignore[attr-defined]
    utils.HTML_PARSER.set_element_class_lookup(html.HtmlElementClassLookup())
    external.jt_stoplist_init()
    try:
        yield
    finally:
        lighten_trafilatura.cache_clear()
        lighten_trafilatura()
