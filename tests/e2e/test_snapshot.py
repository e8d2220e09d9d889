"""The crawl through DVC and Prefect, with what people lose around it: nobody is asked twice for the same pages."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from flows.workspace.params import set_values
from tests.e2e.workspace import Workspace
from tests.tasks.crawl.web import Answer, Web, serving

pytestmark = pytest.mark.e2e

RUN = ("headwater", "run", "--until", "crawl")
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
    settings = fresh.folder / "params.yaml"
    repro = partial(fresh.run, "dvc", "repro", "crawl")
    with fresh.runs("crawl") as run:
        for again, *lost in (
            (run, CACHE),
            (repro, CACHE, LOCK),
            (repro, PART),
            (run, CRAWL, LOCK),
        ):
            for name in lost:
                place = fresh.folder / name
                shutil.rmtree(place) if place.is_dir() else place.unlink()
            again()
            assert (fresh.hashes()["crawl"], len(web.log)) == (first, asked), (lost, again)
            assert (fresh.folder / CACHE / "files").is_dir()
        set_values(["crawl.max_pages=1"], settings)
        assert "settings changed: max_pages" in run()
        assert fresh.hashes()["crawl"] != first
        assert len(web.log) > asked
        asked = len(web.log)
        set_values(["crawl.max_pages=100000"], settings)
        repro()
        assert (fresh.hashes()["crawl"], len(web.log)) == (first, asked), "earlier settings take the earlier snapshot"
        assert "fetching again" in run(force=["crawl"])
        assert len(web.log) > asked
