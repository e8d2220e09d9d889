"""The crawl through DVC and Prefect, with what people lose around it: nobody is asked twice for the same pages."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.workspace import Workspace
from tests.tasks.crawl.web import Answer, Web, serving

pytestmark = pytest.mark.e2e

RUN = ("headwater", "run", "--until", "crawl")
REPRO = ("dvc", "repro", "crawl")
CACHE, LOCK, CRAWL, PART = ".dvc/cache", "dvc.lock", "data/crawl", "data/crawl/part-00000.warc.gz"


@pytest.fixture
def web() -> Iterator[Web]:
    page = Answer(b"<html><body><p>Words on a page.</p><a href='/other'>x</a></body></html>")
    with serving(Web({("127.0.0.1", "/"): page, ("127.0.0.1", "/other"): page})) as served:
        yield served


def test_only_force_and_changed_settings_fetch(tmp_path: Path, web: Web) -> None:
    fresh = Workspace.clone(tmp_path / "clone")
    sets = ["source=sites", f'seeds=["http://127.0.0.1:{web.port}/"]', "allow_hosts=[127.0.0.1]"]
    sets += ["contact=t@example.org", "delay_seconds=0", "processes=1"]
    printed = fresh.run(*RUN, *(word for one in sets for word in ("--set", f"crawl.{one}")))
    first, asked = fresh.hashes()["crawl"], len(web.log)
    assert "data/release" not in printed, "no release was made, and none stands here"
    assert "tokenize" not in printed.rpartition("stage")[2], "the table speaks of the stages of this run only"
    for command, *lost in (
        (RUN, CACHE),
        (REPRO, CACHE, LOCK),
        (REPRO, PART),
        (RUN, CRAWL, LOCK),
    ):
        for name in lost:
            place = fresh.folder / name
            shutil.rmtree(place) if place.is_dir() else place.unlink()
        fresh.run(*command)
        assert (fresh.hashes()["crawl"], len(web.log)) == (first, asked), (lost, command)
        assert (fresh.folder / CACHE / "files").is_dir()
    assert "settings changed: max_pages" in fresh.run(*RUN, "--set", "crawl.max_pages=1")
    assert fresh.hashes()["crawl"] != first
    assert len(web.log) > asked
    asked = len(web.log)
    settings = fresh.folder / "params.yaml"
    settings.write_text(settings.read_text().replace("max_pages: 1\n", "max_pages: 100000\n"))
    fresh.run(*REPRO)
    assert (fresh.hashes()["crawl"], len(web.log)) == (first, asked), "earlier settings take the earlier snapshot"
    assert "fetching again" in fresh.run(*RUN, "--force", "crawl")
    assert len(web.log) > asked
