"""The pages on a wide screen and on a telephone: nothing is cut off, and no figure is broken in two."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.report.page import build_report
from flows.report.picture import write_picture
from tests.e2e.browser import Page, browser
from tests.flows.proof.traced_workspace import make
from tests.flows.report.test_page import plant, results

pytestmark = pytest.mark.e2e

# What is wider than the screen can only be seen by scrolling; a picture that scrolls in its own frame is meant to.
CUT_OFF = """
[...document.querySelectorAll("body *")]
  .filter(one => !one.closest("svg") && one.getBoundingClientRect().right > innerWidth + 1)
  .map(one => one.tagName + " " + one.textContent.trim().slice(0, 40))
"""
# Text nodes of the large figures, each with how many lines it takes.
LINES = """
[...document.querySelectorAll(".figures dd")].map(one => {
  const range = document.createRange();
  range.selectNode(one.firstChild);
  return [one.firstChild.textContent, range.getClientRects().length];
})
"""


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with browser() as opened:
        yield opened


def show(page: Page, path: Path, width: int) -> None:
    page.resize(width, 900)
    page.go(path.resolve().as_uri())


@pytest.mark.parametrize("width", [1400, 700, 400])
def test_the_report_fits(page: Page, workspace: Path, width: int) -> None:
    plant(workspace)
    figures = json.loads(results()["tokenize"]["tokens.json"])["tokens"]
    show(page, build_report(workspace), width)
    assert page.run(CUT_OFF) == []
    lines = dict(page.run(LINES))
    assert lines[f"{figures:,}"] == 1
    assert set(lines.values()) == {1}


@pytest.mark.parametrize("width", [1400, 400])
def test_the_picture_of_the_chain_fits(page: Page, workspace: Path, width: int) -> None:
    make(workspace)
    show(page, write_picture(workspace, workspace / "lineage.html"), width)
    assert page.run(CUT_OFF) == []
