"""Every command in README and docs is run, in a workspace in which `make run` has just ended."""

from __future__ import annotations

import re
import signal
import subprocess
import time

import pytest

from tests.conftest import ROOT
from tests.e2e.workspace import Workspace

pytestmark = pytest.mark.e2e

PAGES = ["README.md", *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md"))]
LONG = "docs/walkthrough.md"  # takes as long as all others: tests/e2e/test_walkthrough.py
THIS_RUN = {"make run": "is what made the workspace", "make test": "is what runs this test"}
# Twelve passes over sixty pages take minutes, and show no more of the commands and of the verdict than four.
SHORTER = {"--set crawl.delay_seconds=0": "--set crawl.delay_seconds=0 --set train.epochs=4"}
SERVES = ".venv/bin/headwater up"


def commands(page: str) -> list[str]:
    """Return the blocks of commands of a page, in order."""
    return [block.strip() for block in re.findall(r"```bash\n(.*?)```", (ROOT / page).read_text(), re.S)]


@pytest.mark.parametrize("page", [page for page in PAGES if page != LONG])
def test_every_command_of_a_page_works(reader: Workspace, page: str) -> None:
    follow(reader, page)


def follow(reader: Workspace, page: str) -> None:
    """Run every block of commands of a page, each with the settings as they were."""
    settings = (reader.folder / "params.yaml").read_bytes()
    for block in commands(page):
        if block in THIS_RUN:
            continue
        if block == SERVES:
            start_and_end(reader)
        else:
            for typed, shorter in SHORTER.items():
                block = block.replace(typed, shorter)
            reader.run("bash", "-euc", block)
        (reader.folder / "params.yaml").write_bytes(settings)


def start_and_end(reader: Workspace) -> None:
    """Start the services, wait for their addresses, end them as Ctrl-C does."""
    log = reader.folder / "up.log"
    with (
        log.open("w") as stream,
        subprocess.Popen(
            ["bash", "-c", f"exec {SERVES}"], cwd=reader.folder, env=reader.environment, stdout=stream, stderr=stream
        ) as process,
    ):
        try:
            deadline = time.monotonic() + 300
            while "Ctrl-C" not in log.read_text():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.2)
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0, log.read_text()
        finally:
            process.kill()
    assert "http://127.0.0.1" in log.read_text()


def test_what_is_shortened_is_still_in_the_pages() -> None:
    blocks = [block for page in PAGES for block in commands(page)]
    assert all(any(typed in block for block in blocks) for typed in (*SHORTER, *THIS_RUN, SERVES))
