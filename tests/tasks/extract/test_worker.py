"""A page that hangs, crashes or eats memory costs only itself."""

from tasks.contracts.base import Drop
from tasks.extract.engines import Settings
from tasks.extract.records import Page
from tasks.extract.worker import Extractor, Limits


def test_each_failure_is_blamed_on_the_right_page() -> None:
    bodies = [b"one", b"HANG", b"two", b"EXIT", b"SEGV", b"EAT", b"RAISE", b"three"]
    pages = [
        Page(record_id="", url="", host="", captured_at=None, offset=0, payload_digest=None, content_type="", body=b)
        for b in bodies
    ]
    settings = Settings(mode="fast", tables=True, comments=False)
    limits = Limits(seconds=1.5, memory_mebibytes=2048)
    with Extractor(settings, limits, "tests.tasks.extract.hostile:misbehave") as extractor:
        answers = [a.rule if isinstance(a, Drop) else a.text for a in extractor.extract(pages)]
    assert answers == ["one", "timeout", "two", "crashed", "crashed", "out_of_memory", "parse_error", "three"]
