"""jusText's second look at a page's paragraphs, by their neighbours, in time linear in their number.

jusText (3.0, `revise_paragraph_classification`) walks from each short paragraph to the next that is good or bad: 4,000
list items of a letter take it seconds. Here one walk each way finds all of these; the classes are the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

Class = Literal["short", "neargood", "good", "bad"]
HEADING_DISTANCE = 200  # characters between a heading and its text, at most: jusText's own default


def revise(paragraphs: Sequence[Any], max_heading_distance: int = HEADING_DISTANCE) -> None:
    """Set `class_type`, "good" or "bad", of jusText's paragraphs, fresh from `classify_paragraphs`."""
    classes: list[Class] = [paragraph.cf_class for paragraph in paragraphs]
    sides = list(zip(_before(classes), _after(classes), strict=True))
    classes = [_of_short(*sides[index]) if one == "short" else one for index, one in enumerate(classes)]
    previous: Class = "bad"
    for index, (following, _) in enumerate(_after(classes)):
        if classes[index] == "neargood":
            classes[index] = "bad" if previous == following == "bad" else "good"
        previous = classes[index]
    near = _headings(paragraphs, classes, max_heading_distance)
    for index, (paragraph, one) in enumerate(zip(paragraphs, classes, strict=True)):
        paragraph.class_type = "good" if index in near else one


def _before(classes: Iterable[Class]) -> list[tuple[Class, Class]]:
    """Return, for each class, the nearest before it that is good or bad, and the nearest that is not short."""
    firm: Class = "bad"
    any_of_them: Class = "bad"
    sides = []
    for one in classes:
        sides.append((firm, any_of_them))
        firm = one if one in ("good", "bad") else firm
        any_of_them = one if one != "short" else any_of_them
    return sides


def _after(classes: Sequence[Class]) -> list[tuple[Class, Class]]:
    return _before(reversed(classes))[::-1]


def _of_short(before: tuple[Class, Class], after: tuple[Class, Class]) -> Class:
    if before[0] == after[0]:
        return before[0]
    return "good" if ("bad", "neargood") in (before, after) else "bad"


def _headings(paragraphs: Sequence[Any], classes: Sequence[Class], distance: int) -> set[int]:
    """Return the headings that were not bad by themselves and have a good paragraph near behind them."""
    near: set[int] = set()
    between = distance + 1  # characters from the end of a paragraph to the next good one
    for index in reversed(range(len(paragraphs))):
        one = paragraphs[index]
        if one.heading and classes[index] == "bad" != one.cf_class and between <= distance:
            near.add(index)
        if classes[index] == "good":
            between = 0
        elif between <= distance:
            between += len(one.text)
    return near
