"""A snapshot is fetched once: whatever is lost around it, it is put back where it is whole on this disk."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from dvc.cli import main as dvc_main

from flows.history.digest import dvc_digest
from flows.history.run_records import now, write_record
from flows.pipeline import stage_run
from flows.workspace.graph import Stage
from tasks.contracts.manifest import manifest_hash
from tasks.crawl import stage as crawl_stage
from tasks.crawl.stage import Params
from tasks.engine.session import RayParams
from tests.tasks.crawl.web import Answer, Web, serving

STAGE = Stage(name="crawl", inputs={}, output=Path("data/crawl"), params=("crawl",), snapshot=True)
PART, LEDGER, MANIFEST = (f"data/crawl/{name}" for name in ("part-00000.parquet", "dropped", "_manifest.json"))
CACHE = ".dvc/cache"


@pytest.fixture
def web(workspace: Path) -> Iterator[Web]:
    (workspace / "dvc.yaml").write_text("stages:\n  crawl:\n    cmd: none\n    outs: [data/crawl: {persist: true}]\n")
    dvc("init", "-q", "--no-scm")
    page = Answer(b"<html><body><p>Words on a page.</p></body></html>")
    rows = [{"text": f"Text {number}.", "title": f"Title {number}.", "id": str(number)} for number in range(3)]
    texts = Answer(b"".join(json.dumps(row).encode() + b"\n" for row in rows))
    routes = {("127.0.0.1", "/"): page, ("127.0.0.1", "/texts.jsonl"): texts}
    with serving(Web(dict(routes))) as served:
        yield served


def dvc(*command: str) -> None:
    """Call DVC's command in this process: to start one for each takes most of a test's time."""
    assert dvc_main(list(command)) == 0


def settings(web: Web, **more: object) -> Params:
    """Return settings that ask the site for one file of texts."""
    return Params.model_validate({"source": "text", "paths": (f"http://127.0.0.1:{web.port}/texts.jsonl",)} | more)


def pages(web: Web) -> Params:
    """Return settings that crawl the site, by a crawler process."""
    given: dict[str, object] = {"source": "sites", "seeds": (f"http://127.0.0.1:{web.port}/",)}
    given |= {"allow_hosts": ("127.0.0.1",), "contact": "t@example.org", "delay_seconds": 0, "processes": 1}
    return Params.model_validate(given)


def crawl(params: Params, *, force: bool = False, commit: bool = True) -> str:
    """Make data/crawl as `python -m flows crawl` does, and put it into DVC's cache as `dvc repro` does then."""
    started = now()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(stage_run, "forced", lambda: force)
        # Whether Ray or this process takes the pages in is all the same here.
        patched.setattr(stage_run, "ray_on_demand", lambda _: nullcontext())
        stage_run._make(STAGE, params, RayParams())
    write_record(
        run="r1",
        stage="crawl",
        started_at=started,
        output=STAGE.output,
        params=params.model_dump(mode="json"),
        digests={"crawl": dvc_digest(STAGE.output)},
    )
    if commit:
        dvc("commit", "-q", "-f", "crawl")
    return manifest_hash(STAGE.output)


def lose(*names: str) -> None:
    for name in names:
        shutil.rmtree(name, ignore_errors=True)
        Path(name).unlink(missing_ok=True)


@pytest.mark.parametrize(
    "lost",
    [
        (CACHE,),
        (CACHE, "dvc.lock"),
        (CACHE, MANIFEST),
        (PART,),
        (PART, "dvc.lock"),
        (LEDGER, MANIFEST, PART),
        ("data",),
        ("data", "dvc.lock"),
    ],
)
def test_a_snapshot_that_is_whole_somewhere_is_put_back_and_nobody_is_asked(web: Web, lost: tuple[str, ...]) -> None:
    made = crawl(settings(web))
    asked = len(web.log)
    lose(*lost)
    assert crawl(settings(web)) == made
    assert Path(PART).is_file()
    assert len(web.log) == asked


def test_without_a_record_a_snapshot_is_put_back_where_it_stands_and_else_fetched_again(web: Web) -> None:
    made = crawl(pages(web))
    asked = len(web.log)
    lose(CACHE, "dvc.lock", ".headwater/runs")
    assert crawl(pages(web)) == made
    assert len(web.log) == asked
    lose("data", ".headwater/runs")
    crawl(pages(web))
    assert len(web.log) > asked


@pytest.mark.parametrize("lost", [(CACHE, PART), (CACHE, "data")])
def test_what_is_nowhere_is_fetched_again_and_said(
    web: Web, lost: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    crawl(settings(web))
    asked = len(web.log)
    lose(*lost)
    crawl(settings(web))
    assert len(web.log) > asked
    assert "nowhere on this disk" in caplog.text


def test_a_damaged_snapshot_is_not_taken_for_whole(web: Web) -> None:
    crawl(settings(web), commit=False)
    asked = len(web.log)
    whole = Path(PART).read_bytes()
    Path(PART).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    crawl(settings(web), commit=False)
    assert len(web.log) > asked


@pytest.mark.parametrize("cached", [True, False])
def test_changed_settings_fetch_and_say_so_and_the_old_snapshot_stays(
    web: Web, caplog: pytest.LogCaptureFixture, cached: bool
) -> None:
    caplog.set_level(logging.INFO)
    first = crawl(settings(web), commit=cached)
    asked = len(web.log)
    second = crawl(settings(web, text_column="title"), commit=cached)
    assert len(web.log) > asked
    assert "settings changed: text_column" in caplog.text
    assert ("the DVC cache" if cached else f".headwater/snapshots/{first}") in caplog.text
    asked = len(web.log)
    assert crawl(settings(web), commit=cached) == first != second, "going back to earlier settings costs nothing"
    assert crawl(settings(web, text_column="title"), commit=cached) == second
    assert len(web.log) == asked


def test_settings_that_change_no_byte_fetch_nothing(web: Web) -> None:
    made = crawl(settings(web))
    asked = len(web.log)
    assert crawl(settings(web, processes=2, timeout_seconds=9)) == made
    assert len(web.log) == asked


def test_force_fetches_again(web: Web, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    crawl(settings(web))
    asked = len(web.log)
    crawl(settings(web), force=True)
    assert len(web.log) > asked
    assert "fetching again" in caplog.text


def test_other_files_under_paths_are_another_snapshot(workspace: Path, web: Web) -> None:
    for name in ("one", "two"):
        line = json.dumps({"text": f"A text of {name}.", "url": "http://a.example/"})
        (workspace / f"{name}.jsonl").write_text(f"{line}\n")
    texts = [crawl(Params(source="text", paths=(f"{name}.jsonl",))) for name in ("one", "two", "one")]
    assert texts[0] == texts[2] != texts[1]


def test_a_kill_while_fetching_again_leaves_the_old_snapshot(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    made = crawl(settings(web), commit=False)
    asked = len(web.log)

    def killed(*, output: Path, **_: Any) -> None:
        output.mkdir(parents=True)
        (output / "part-00000.parquet").write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(crawl_stage, "run", killed)
        with pytest.raises(KeyboardInterrupt):
            crawl(settings(web), force=True)
        assert manifest_hash(STAGE.output) == made
    assert crawl(settings(web)) == made
    assert len(web.log) == asked
    assert [path.name for path in Path("data").iterdir()] == ["crawl"]


def test_a_kill_when_all_is_fetched_loses_nothing_either(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    crawl(settings(web), commit=False)
    with monkeypatch.context() as patched:
        patched.setattr("flows.pipeline.snapshot._swap", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            crawl(settings(web), force=True)
    fetched = manifest_hash(Path("data/.crawl.new"))
    asked = len(web.log)
    assert crawl(settings(web)) == fetched
    assert len(web.log) == asked
