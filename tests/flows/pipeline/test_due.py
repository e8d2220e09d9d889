"""`headwater run --plan`: each cause by which a stage is due is named, and nothing is started or written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dvc.cli import main as dvc_main

from flows.cli.main import main
from flows.pipeline import due as due_module
from flows.services import embedded as services
from flows.workspace.graph import load_graph
from flows.workspace.params import set_values
from tests.conftest import ROOT

GRAPH = """\
stages:
  crawl:
    cmd: mkdir -p data/crawl && echo pages > data/crawl/part-00000.txt
    params: [crawl]
    outs: [data/crawl: {persist: true}]
  extract:
    cmd: mkdir -p data/extract && cat data/crawl/*.txt code.py > data/extract/part-00000.txt
    deps: [data/crawl, code.py]
    params: [extract]
    outs: [data/extract]
  filter:
    cmd: mkdir -p data/filter && cp data/extract/*.txt data/filter
    deps: [data/extract]
    params: [filter, evaluate.tasks]
    outs: [data/filter]
"""
# The other stages, so that each section of params.yaml has one; nobody has to make them.
GRAPH += "".join(
    f"  {name}:\n    cmd: mkdir -p data/{name}\n    deps: [data/filter]\n    outs: [data/{name}]\n"
    for name in load_graph()
    if name not in ("crawl", "extract", "filter")
)
UP_TO_DATE = {"crawl": "up to date", "extract": "up to date", "filter": "up to date"}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which three small stages have run through DVC."""
    made = tmp_path_factory.mktemp("due")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(made)
        shutil.copy2(ROOT / "params.yaml", "params.yaml")
        shutil.copytree(ROOT / "infra/profiles", "infra/profiles")
        Path("dvc.yaml").write_text(GRAPH)
        Path("code.py").write_text("1\n")
        assert dvc_main(["init", "-q", "--no-scm"]) == 0
        assert dvc_main(["repro", "-q"]) == 0
    return made


@pytest.fixture
def ran(template: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(template, workspace, dirs_exist_ok=True)

    def started() -> None:
        raise AssertionError("a server was started")

    monkeypatch.setattr(services, "prefect_server", started)
    return workspace


def files(folder: Path) -> dict[str, bytes]:
    listed = (path for path in folder.rglob("*") if path.is_file() and "tmp" not in path.relative_to(folder).parts)
    return {str(path): path.read_bytes() for path in listed}


def planned(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Return what the plan says of each stage, and why; see that it changed nothing."""
    before = files(Path())
    main_in(["run", "--plan", "--json", *([] if "--until" in words else ["--until", "filter"]), *words])
    rows: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    assert files(Path()) == before
    return {row["stage"]: row["kind"] for row in rows}, {row["stage"]: row["why"] for row in rows}


def main_in(words: list[str], code: int = 0) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert (ended.value.code or 0) == code


def test_what_is_up_to_date_is_said_to_be(ran: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert planned(capsys)[0] == UP_TO_DATE
    main_in(["run", "--plan", "--until", "filter"])
    assert "everything is up to date" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("typed", "stage", "why"),
    [
        (["--set", "extract.tables=false"], "extract", "extract.tables: true → false"),
        (["--set", "extract.opt_out.noai=keep"], "extract", 'extract.opt_out.noai: "drop" → "keep"'),
        (["--set", "filter.max_error_rate=0.5"], "filter", "filter.max_error_rate: 0.01 → 0.5"),
        (["--set", "evaluate.tasks=[heldout_continuation]"], "filter", "evaluate.tasks: without"),
        (["--set", "filter.rules=[length: {min_words: 9}]"], "filter", "filter.rules: without"),
        (["--set", "crawl.max_pages=7"], "crawl", "crawl.max_pages: 100000 → 7"),
        (["--profile", "tiny"], "crawl", "crawl.shard_megabytes: 1 → 0.25"),
        (["--force", "extract"], "extract", "--force"),
    ],
)
@pytest.mark.parametrize("written", [False, True])
def test_what_was_asked_for_is_named_with_both_values(
    ran: Path, capsys: pytest.CaptureFixture[str], typed: list[str], stage: str, why: str, written: bool
) -> None:
    if written and typed[0] == "--set":
        set_values([typed[1]])
        typed = []
    kinds, reasons = planned(capsys, *typed)
    assert any(reason.startswith(why) for reason in reasons[stage]), reasons
    names = list(UP_TO_DATE)
    at = names.index(stage)
    assert [kinds[name] for name in names] == [*["up to date"] * at, "runs", *["may run"] * (2 - at)]
    assert all(
        reasons[name] == [f"if {before} gives another output"]
        for before, name in zip(names[at:], names[at + 1 :], strict=False)
    )


@pytest.mark.parametrize(
    ("change", "stage", "why"),
    [
        (lambda: Path("code.py").write_text("2\n"), "extract", "code.py is another one than before"),
        (lambda: Path("code.py").unlink(), "extract", "code.py is missing"),
        (lambda: shutil.rmtree("data/filter"), "filter", "data/filter is missing"),
        (lambda: Path("data/filter/more.txt").write_text("x"), "filter", "data/filter is another one than before"),
        (lambda: Path("data/extract/more.txt").write_text("x"), "filter", "data/extract is another one than before"),
        (lambda: Path("dvc.lock").unlink(), "crawl", "has not run here yet"),
        (
            lambda: Path("dvc.yaml").write_text(GRAPH.replace("cp data", "cp -r data")),
            "filter",
            "changed command",
        ),
    ],
)
def test_what_changed_on_the_disk_is_named(
    ran: Path, capsys: pytest.CaptureFixture[str], change: Callable[[], object], stage: str, why: str
) -> None:
    change()
    kinds, reasons = planned(capsys)
    assert kinds[stage] == "runs"
    assert why in reasons[stage], reasons


def test_a_lost_cache_makes_nothing_run(ran: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(".dvc/cache")
    assert planned(capsys)[0] == UP_TO_DATE


def test_a_snapshot_on_this_disk_is_put_back(
    ran: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(due_module, "is_whole", lambda *_: True)
    shutil.rmtree("data/crawl")
    assert planned(capsys)[0]["crawl"] == "put back"
    kinds, _ = planned(capsys, "--set", "crawl.max_pages=7", "--until", "extract")
    assert kinds == {"crawl": "put back", "extract": "runs"}, "DVC sees that data/crawl is missing"


def test_what_would_stop_the_run_stops_the_plan(ran: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main_in(["run", "--plan", "--set", "crawl.source=sites", "--set", "crawl.contact=me@e.example"], code=2)
    assert "nothing to crawl" in capsys.readouterr().err


def test_json_alone_is_no_way_to_run(ran: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main_in(["run", "--json"], code=2)
    assert "--json belongs to --plan" in capsys.readouterr().err


@pytest.mark.usefixtures("ran")
@pytest.mark.parametrize("broken", ["", "schema: '2.0'\nsta", "<<<<<<< HEAD\n"])
def test_a_lock_that_cannot_be_read_is_no_plan(capsys: pytest.CaptureFixture[str], broken: str) -> None:
    Path("dvc.lock").write_text(broken)
    main_in(["run", "--plan"], code=1)
    assert "dvc.lock cannot be read" in capsys.readouterr().err
    assert Path("dvc.lock").read_text() == broken
