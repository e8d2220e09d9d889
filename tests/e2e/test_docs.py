"""Every command in README and docs is run, in a workspace in which `make run` has just ended."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import time

import pytest

from tests.conftest import ROOT
from tests.e2e.workspace import Workspace

pytestmark = pytest.mark.e2e

PAGES = ["README.md", *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md"))]
THIS_RUN = {"make test": "is what runs this test"}
SERVES = ".venv/bin/headwater up"


def commands(page: str) -> list[str]:
    """Return the blocks of commands of a page, in order."""
    return [block.strip() for block in re.findall(r"```bash\n(.*?)```", (ROOT / page).read_text(), re.S)]


@pytest.fixture(scope="module")
def reader(finished: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A copy of the finished workspace, with a WARC file of the reader's own."""
    folder = tmp_path_factory.mktemp("reader") / "workspace"
    shutil.copytree(finished.folder, folder, symlinks=True)
    parts = sorted((folder / "data" / "crawl").glob("part-*.warc.gz"))
    (folder / "pages.warc.gz").write_bytes(b"".join(part.read_bytes() for part in parts))
    return Workspace(folder)


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_works(reader: Workspace, page: str) -> None:
    settings = (reader.folder / "params.yaml").read_bytes()
    for block in commands(page):
        if block in THIS_RUN:
            continue
        if block == SERVES:
            start_and_end(reader)
        else:
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
