"""A page that hangs, crashes or eats memory costs only itself."""

from dataclasses import replace

import pytest

from tasks.contracts.base import Drop
from tasks.extract import page_extractor as page_module
from tasks.extract import worker
from tasks.extract.engines import Content
from tasks.extract.metadata import Metadata
from tasks.extract.page_extractor import PageExtractor
from tasks.extract.worker import Extractor, Limits, close_shared, shared_extractor
from tasks.extract.worker_messages import Settings
from tests.tasks.extract.pages import page


def test_each_failure_is_blamed_on_the_right_page() -> None:
    bodies = [b"one", b"HANG", b"two", b"EXIT", b"SEGV", b"EAT", b"RAISE", b"three"]
    pages = [page(body, "") for body in bodies]
    settings = Settings(mode="fast", tables=True, comments=False)
    limits = Limits(seconds=1.5, memory_mebibytes=2048)
    with Extractor(settings, limits, "tests.tasks.extract.hostile:misbehave") as extractor:
        answers = [a.rule if isinstance(a, Drop) else a.text for a in extractor.extract(pages)]
    assert answers == ["one", "timeout", "two", "crashed", "crashed", "out_of_memory", "parse_error", "three"]


@pytest.mark.parametrize("send_every", [0.0, 100.0])
def test_a_failure_in_a_batch_costs_no_neighbour(send_every: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the answers before it were sent already or died with the child."""
    monkeypatch.setattr(worker, "SEND_EVERY_SECONDS", send_every)
    bodies = [b"%d" % n for n in range(9)]
    bodies[4], bodies[7] = b"EXIT", b"SEGV"
    with Extractor(
        Settings(), Limits(seconds=5, memory_mebibytes=2048), "tests.tasks.extract.hostile:misbehave"
    ) as extractor:
        answers = [a.rule if isinstance(a, Drop) else a.text for a in extractor.extract([page(b, "") for b in bodies])]
    assert answers == ["0", "1", "2", "3", "crashed", "5", "6", "crashed", "8"]


def test_a_child_serves_shard_after_shard_until_the_settings_change() -> None:
    limits = Limits(seconds=5, memory_mebibytes=2048)
    first = shared_extractor(Settings(), limits)
    assert shared_extractor(Settings(), limits) is first
    second = shared_extractor(Settings(mode="fast"), limits)
    assert second is not first
    close_shared()


def test_an_exact_repeat_of_a_payload_is_extracted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def content(html: str, settings: Settings) -> Content:
        asked.append(html)
        return Content(text=f"text of {html}", metadata=Metadata())

    monkeypatch.setattr(page_module, "content_of", content)
    extract = PageExtractor()
    answers = [extract(page(body), Settings()).text for body in ("<p>one", "<p>two", "<p>one")]
    assert answers == ["text of <p>one", "text of <p>two", "text of <p>one"]
    assert asked == ["<p>one", "<p>two"]
    extract(page("<p>one", "text/html; charset=latin-1"), Settings())
    extract(page("<p>one"), Settings(mode="fast"))
    assert len(asked) == 4, "another charset or other settings may give another text"


def test_a_relative_licence_is_that_of_the_page_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two sites' "/license" are two licences, though their pages are one payload."""
    said = Content(text="text", metadata=Metadata(license="./license"))
    monkeypatch.setattr(page_module, "content_of", lambda html, settings: said)
    extract = PageExtractor()
    urls = ["https://one.example/a/b", "https://two.example/a/b"]
    found = [extract(replace(page("<p>equal"), url=url), Settings()).license for url in urls]
    assert found == ["https://one.example/a/license", "https://two.example/a/license"]
