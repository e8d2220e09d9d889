"""A few thousand executions of each reader, the same ones each time; `make fuzz` looks further.

Beside them, that a finding is one: a reader that loses, crashes or hangs is seen and its input saved.
"""

from pathlib import Path
from random import Random

import pytest

from tasks.extract.warc_pages import read_pages
from tests.fuzz import READERS, harness
from tests.fuzz.harness import Wrong, checked, run
from tests.fuzz.warc import batch as warc_batch

COUNTS = {"warc": 4000, "http": 3000, "robots": 2000, "evidence": 2000, "jsonl": 3000}


@pytest.mark.parametrize("name", sorted(READERS))
def test_mutated_inputs_neither_stop_a_reader_nor_get_lost(name: str, tmp_path: Path) -> None:
    outcome = run(name, READERS[name], count=COUNTS[name], seed=0, folder=tmp_path)
    assert outcome.executions >= COUNTS[name]
    assert not outcome.findings, list(tmp_path.iterdir())


def test_a_crash_is_a_finding_with_its_input(tmp_path: Path) -> None:
    def crashes(rng: Random, folder: Path) -> int:
        with checked(b"the input"):
            raise IndexError("out of range")

    outcome = run("broken", crashes, count=3, seed=1, folder=tmp_path)
    assert outcome.findings == 3
    assert [path.read_bytes() for path in tmp_path.glob("broken-*.bin")] == [b"the input"]


def test_a_hang_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "SECONDS_AT_LEAST", 0.05)
    with pytest.raises(Wrong, match="processor time"), checked(b"x"):
        while True:
            pass


def test_a_page_that_extract_does_not_see_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.fuzz.warc.read_pages", lambda *given: list(read_pages(*given))[1:])
    with pytest.raises(Wrong, match="extract reads"):
        warc_batch(Random(0), tmp_path)
