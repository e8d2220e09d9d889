"""No regular expression of the source code takes more than linear time, whatever a stranger writes."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.hostile.growth import MOST_GROWTH, growth, seconds
from tests.hostile.patterns import patterns, pumped

LENGTH = 6000
# Linear patterns take far less for so few characters, quadratic ones far more.
SUSPECT_SECONDS = 0.004
# A use of a pattern that bounds what it is given: name of the pattern -> where and by how much.
BOUNDED = {
    "tasks.decontaminate.spellings._ASKED_IN_WORDS": "a benchmark's item of at most 200 characters",
    "tasks.decontaminate.spellings._RESULT": "a benchmark's item of at most 200 characters",
    "tasks.filter.rules.pii._VERSION_BEFORE": "the 16 characters before an address",
}
PATTERNS = {name: given for name, given in patterns().items() if name.partition(" ")[0] not in BOUNDED}


def work_of(pattern: re.Pattern[Any], use: str) -> Callable[[Any], object]:
    return (lambda text: (pattern.match(text), pattern.fullmatch(text))) if use == "match" else pattern.findall


def worst(pattern: re.Pattern[Any], use: str) -> str:
    """Return the first input found that takes more than linear time, "" where none does."""
    work = work_of(pattern, use)
    for beginning, part, end in pumped(pattern):

        def shape(size: int, ends: tuple[str, str, str] = (beginning, part, end)) -> Any:
            text = ends[0] + ends[1] * (size // len(ends[1])) + ends[2]
            return text.encode("latin-1", "replace") if isinstance(pattern.pattern, bytes) else text

        if seconds(work, shape(LENGTH), 1) > SUSPECT_SECONDS:
            grown = growth(work, shape, LENGTH // 4)
            if grown > MOST_GROWTH:
                return f"{beginning[:40]!r}, then {part[:40]!r} many times, then {end!r}: {grown:.0f} times longer"
    return ""


@pytest.mark.parametrize("name", PATTERNS)
def test_a_pattern_takes_linear_time(name: str) -> None:
    assert worst(*PATTERNS[name]) == ""


QUADRATIC = {
    "the Link header as it was read once": (r"<([^>]*)>([^,<]*(?:\"[^\"]*\"[^,<]*)*)", "search"),
    "two runs that may share": (r"charset\s*=\s*[\"']?\s*([a-z]+)", "search"),
    "a run that ends elsewhere": (r"\s+$", "search"),
    "the same class twice": (r"[\d ]*\d[\d ]*", "match"),
}


@pytest.mark.parametrize("name", QUADRATIC)
def test_a_quadratic_pattern_is_seen(name: str) -> None:
    text, use = QUADRATIC[name]
    assert worst(re.compile(text), use)


def test_the_patterns_are_found_wherever_they_are_kept() -> None:
    """In a module, in a mapping, in a dataclass within a tuple, made by a filter, and in the midst of code."""
    names = {name.partition(" ")[0] for name in PATTERNS}
    assert len(names) > 70
    for part in (
        "markup._CLOSING",
        "secrets._FORMS",
        "RefinedwebLines",
        "contracts.urls._HOST",
        "evaluation_items:",
    ):
        assert any(part in name for name in names), part
