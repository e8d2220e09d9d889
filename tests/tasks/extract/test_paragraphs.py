"""jusText's second look in linear time: the classes are jusText's own."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import pytest
from justext.core import revise_paragraph_classification

from tasks.extract.paragraphs import revise
from tests.hostile.growth import MOST_GROWTH, growth

# Class, whether it is a heading, and a text.
KINDS = (
    ("short", False, "xx"),
    ("short", True, "x"),
    ("neargood", False, "xxx"),
    ("good", False, "xxxx"),
    ("bad", False, "xxx"),
)


@dataclass
class Paragraph:
    cf_class: str
    heading: bool
    text: str
    class_type: str = ""


@pytest.mark.parametrize("distance", [0, 2, 3, 6])
def test_the_classes_are_those_of_justext(distance: int) -> None:
    """In every page of up to five paragraphs."""
    for count in range(6):
        for kinds in product(KINDS, repeat=count):
            ours, theirs = ([Paragraph(*kind) for kind in kinds] for _ in range(2))
            revise(ours, distance)
            revise_paragraph_classification(theirs, distance)
            assert [one.class_type for one in ours] == [one.class_type for one in theirs], kinds


@pytest.mark.parametrize("heading", [False, True])
@pytest.mark.parametrize("kind", ["short", "neargood", "good", "bad"])
def test_paragraphs_take_linear_time(kind: str, heading: bool) -> None:
    """Of one class each, so that no neighbour ends a walk."""

    def work(text: str) -> None:
        revise([Paragraph(kind, heading, letter) for letter in text])

    assert growth(work, "x".__mul__, 2000) <= MOST_GROWTH
