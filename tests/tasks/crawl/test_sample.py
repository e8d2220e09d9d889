"""The sample's pages: prose as prose, and every planted thing in its place."""

import html
import json
import re
import sys
from pathlib import Path

import pytest

from tasks.contracts.workspace import ROOT
from tasks.crawl.sample import site
from tasks.crawl.sample.docstrings import docstring_html, markdown_html, words
from tasks.crawl.sample.modules import read_module
from tasks.crawl.sample.pages import SamplePage, package_pages
from tasks.crawl.sample.planted import luhn_number, mirror_pages, planted_pages
from tasks.crawl.sample.quiz import ITEMS, LEAKED

NUMPY = """Filter a signal.

    The filter is applied
    in one direction only.

    Parameters
    ----------
    x : array_like
        The signal
        to filter.
    order : int, optional
        How steep it is.

    Returns
    -------
    y : ndarray
        The result.

    Examples
    --------
    >>> smooth([1, 2])
    [1, 1]
    """

GOOGLE = """Open a file.

    Args:
        path (str): Where the
            file is.
        mode: How to open it.

    Raises:
        OSError: When it is missing.
    """

SPHINX = """Open a file.

    :param path: Where the
        file is.
    :type path: str
    :return: A stream.
    """


def text(markup: str) -> str:
    return html.unescape(re.sub(r"<[^>]+>", "", markup))


def test_lines_of_a_paragraph_are_joined() -> None:
    assert "<p>The filter is applied in one direction only.</p>" in docstring_html(NUMPY)


def test_numpy_parameters_become_a_list_of_sentences() -> None:
    shown = docstring_html(NUMPY)
    assert "<h3>Parameters</h3>" in shown
    assert "<li><code>x</code> (array_like): The signal to filter.</li>" in shown
    assert "<pre>&gt;&gt;&gt; smooth([1, 2])\n[1, 1]</pre>" in shown
    assert "----" not in shown


def test_google_and_sphinx_parameters_become_lists() -> None:
    assert "<li><code>path</code>: Where the file is.</li>" in docstring_html(GOOGLE)
    assert "<li><code>OSError</code>: When it is missing.</li>" in docstring_html(GOOGLE)
    sphinx = docstring_html(SPHINX)
    assert "<li><code>path</code>: Where the file is.</li>" in sphinx
    assert "str" not in text(sphinx).replace("stream", "")


def test_literal_blocks_bullets_and_notes() -> None:
    shown = docstring_html("Do it::\n\n        x = 1\n\n    - one\n      more\n    - two\n\n    .. note:: Take care.\n")
    assert "<p>Do it:</p>" in shown
    assert "<pre>x = 1</pre>" in shown
    assert "<ul><li>one more</li><li>two</li></ul>" in shown
    assert "<p>Take care.</p>" in shown


def test_html_in_a_docstring_is_text() -> None:
    assert "<script>" not in docstring_html("Use <script>alert(1)</script> never.")
    assert "<script>" not in markdown_html("Use <script>alert(1)</script> never.")


def test_words_leave_code_out() -> None:
    assert words("<p>two words</p><pre>many more of them</pre>") == 2


def test_modules_are_read_and_never_run(tmp_path: Path) -> None:
    path = tmp_path / "danger.py"
    path.write_text('"""A module."""\nraise SystemExit\nclass A:\n    """' + "word " * 20 + '"""\n')
    module = read_module(path, "danger")
    assert module is not None
    assert [entry.heading for entry in module.entries] == ["", "class A"]
    path.write_text("def broken(:")
    assert read_module(path, "danger") is None


@pytest.fixture(scope="module")
def click_pages() -> list[SamplePage]:
    return package_pages("click", 60)


def test_a_package_becomes_a_site(click_pages: list[SamplePage]) -> None:
    paths = [page.path for page in click_pages]
    assert "/" in paths
    assert len(paths) == len(set(paths)) > 3
    body = click_pages[0].body.decode()
    assert 'rel="license"' in body
    assert '<html lang="en">' in body
    assert package_pages("click", 60) == click_pages


def test_mirrors_are_near_and_exact_copies(click_pages: list[SamplePage]) -> None:
    copies = mirror_pages(click_pages)
    assert {page.host for page in copies} == {"mirror.sample.example"}
    assert all(b"mirrored from" in page.body for page in copies[:80])


def test_planted_pages_hold_what_they_should() -> None:
    pages = planted_pages()
    hosts = {page.host.split(".")[0] for page in pages}
    assert {"junk", "reserved", "people", "languages", "study", "sample"} <= hosts
    assert len({page.url for page in pages}) == len(pages)
    assert sum(b'content="no' in page.body or "X-Robots-Tag" in page.headers for page in pages) == 15
    people = [page.body.decode() for page in pages if page.host.startswith("people")]
    assert all(re.search(r"[\w.]+@[\w-]+\.org", body) for body in people)
    assert len([page for page in pages if page.host.startswith("languages")]) == 30


def test_card_numbers_have_a_right_checksum() -> None:
    digits = [int(d) for d in luhn_number("4539", 7345112).replace(" ", "")]
    doubled = [sum(divmod(d * 2, 10)) if at % 2 == 0 else d for at, d in enumerate(digits)]
    assert len(digits) == 16
    assert sum(doubled) % 10 == 0


def test_the_quiz_leaks_word_for_word_and_stands_as_a_benchmark_file() -> None:
    leaking = " ".join(text(page.body.decode()) for page in planted_pages() if page.host.startswith("study"))
    assert all(item["question"] in leaking for item in ITEMS[:LEAKED])
    assert not any(item["question"] in leaking for item in ITEMS[LEAKED:])
    path = ROOT / "infra" / "benchmarks" / "sample_quiz.jsonl"
    assert [json.loads(line) for line in path.read_text().splitlines()] == ITEMS


def test_what_was_built_is_kept_for_as_long_as_the_same_would_be_built(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    built = planted_pages()
    odd = SamplePage("h.example", "/", "all bytes", bytes(range(256)), status=404, headers={"X": "y"})
    calls: list[int] = []

    def build(processes: int) -> list[SamplePage]:
        calls.append(processes)
        return [*built, odd]

    monkeypatch.setattr(site, "build_pages", build)
    assert site.kept_pages(2) == site.kept_pages(3) == [*built, odd]
    assert calls == [2]
    (kept,) = Path(".headwater/crawl").glob("sample-*.json")
    kept.write_bytes(kept.read_bytes()[:-1])
    assert site.kept_pages(4) == [*built, odd]
    assert calls == [2, 4]
    assert "damaged" in caplog.text
    monkeypatch.setattr(sys, "version", "another Python")
    assert site.kept_pages(5) == [*built, odd]
    assert calls == [2, 4, 5]
