"""A run from a form that does not end well leaves params.yaml and data/ as they were: however it ends, wherever."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import pytest
from prefect.exceptions import TerminationSignal

from flows.cli.main import main
from flows.history.kept_files import snapshots_folder
from flows.pipeline import tryout
from flows.pipeline.tryout import undo_killed, undone_unless_it_ends_well
from flows.workspace.graph import load_graph
from flows.workspace.locks import workspace_lock
from flows.workspace.params import merge_values, read_params
from tasks.contracts.errors import InputError
from tasks.contracts.manifest import Counts, commit_manifest, manifest_hash
from tests.conftest import ROOT

RUN = "r2"
CHANGES = {"train": {"max_steps": 7}, "filter": {"rules": []}}
STAGES = tuple(load_graph())


def kill() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def fail() -> NoReturn:
    raise InputError("no page")


def cancel() -> NoReturn:
    raise TerminationSignal(signal.SIGTERM)


@pytest.fixture(autouse=True)
def made(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project's settings and graph, and what an earlier run has left of each stage."""
    monkeypatch.delenv("HEADWATER_RUN", raising=False)
    for name in ("dvc.yaml", "params.yaml"):
        (workspace / name).write_bytes((ROOT / name).read_bytes())
    (workspace / "dvc.lock").write_text("of before\n")
    for name in STAGES:
        make(name, "before")
    return workspace


def make(name: str, text: str) -> None:
    """Make a stage's folder anew, as DVC and the stage do: the old one is removed first."""
    folder = Path("data", name)
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "dropped").mkdir(parents=True)
    part = folder / "words.txt"
    part.write_text(f"{name} {text}")
    commit_manifest(folder, stage=name, unit="documents", params={}, inputs={}, counts=Counts(in_=1, out=1))


def everything() -> dict[str, bytes]:
    files = [Path("params.yaml"), Path("dvc.lock"), *Path("data").rglob("*")]
    return {str(path): path.read_bytes() for path in files if path.is_file()}


def try_out(last: str, end: Callable[[], object], half: bool = True) -> None:
    """Run the stages up to one that ends the run when half of its output is there."""
    with undone_unless_it_ends_well(RUN, CHANGES, print):
        merge_values(CHANGES)
        for name in STAGES[: STAGES.index(last) + 1]:
            make(name, "after")
            Path("dvc.lock").write_text(f"after {name}\n")
        if half:
            Path("data", last, "_manifest.json").unlink()
        end()


def in_a_child(work: Callable[[], object], kills: int | None = signal.SIGKILL) -> int:
    """Do something in a process of its own that is killed by it; return how that ended."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    ended = os.waitpid(child, 0)[1]
    assert kills is None or os.WTERMSIG(ended) == kills
    return ended


@pytest.mark.parametrize("last", STAGES)
@pytest.mark.parametrize("end", [fail, cancel])
def test_after_a_failure_or_a_cancellation_all_is_as_before(last: str, end: Callable[[], NoReturn]) -> None:
    before = everything()
    with pytest.raises((InputError, TerminationSignal)):
        try_out(last, end)
    assert everything() == before
    assert not undo_killed()


@pytest.mark.parametrize("last", STAGES)
def test_after_a_kill_the_next_start_puts_all_back(last: str) -> None:
    before = everything()
    in_a_child(lambda: try_out(last, kill))
    assert everything() != before
    assert undo_killed()
    assert everything() == before
    assert not undo_killed()


@pytest.mark.parametrize("stood", [(), ("crawl",), ("crawl", "extract", "filter")])
def test_what_was_not_there_is_not_there_again(stood: tuple[str, ...]) -> None:
    for name in set(STAGES) - set(stood):
        shutil.rmtree(Path("data", name))
    Path("dvc.lock").unlink()
    before = everything_but_lock()
    with pytest.raises(InputError):
        try_out("mix", fail)
    assert everything_but_lock() == before
    assert not Path("dvc.lock").exists()


def test_the_first_run_of_a_clone_that_cannot_begin_says_why() -> None:
    shutil.rmtree("data")
    with pytest.raises(InputError, match="no page"), undone_unless_it_ends_well(RUN, CHANGES, print):
        fail()
    assert not Path("data").exists()


def test_where_putting_back_fails_the_runs_own_error_is_told_and_the_next_start_puts_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = everything()
    with monkeypatch.context() as patched:
        patched.setattr(tryout, "_undo_settings", lambda *_: (_ for _ in ()).throw(OSError("read-only")))
        with pytest.raises(InputError, match="no page"):
            try_out("filter", fail)
    assert undo_killed()
    assert everything() == before


def everything_but_lock() -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in [Path("params.yaml"), *Path("data").rglob("*")] if p.is_file()}


def test_a_run_that_ends_well_stays_and_leaves_nothing_behind() -> None:
    try_out("release", lambda: None, half=False)
    assert read_params()["train"]["max_steps"] == 7
    assert Path("data/crawl/words.txt").read_text() == "crawl after"
    assert not Path("data/.before").exists()
    assert not undo_killed()


def test_putting_back_may_itself_be_killed_at_any_moment() -> None:
    for name in STAGES[3:]:
        shutil.rmtree(Path("data", name))
    before = everything()
    for number in itertools.count():
        in_a_child(lambda: try_out("holdout", kill))
        ended = in_a_child(partial(undo_killed_at, number), kills=None)
        undo_killed()
        assert everything() == before, number
        assert not undo_killed()
        if ended == 0:
            break
    assert number > 10


def undo_killed_at(number: int) -> None:
    """Undo a killed run, and be killed before the step of that number."""
    steps = itertools.count()

    def counted(true: Any) -> Any:
        return lambda *given, **options: kill() if next(steps) == number else true(*given, **options)

    with pytest.MonkeyPatch.context() as patched:
        for owner, name in ((shutil, "rmtree"), (os, "rename"), (os, "unlink"), (tryout, "write_bytes")):
            patched.setattr(owner, name, counted(getattr(owner, name)))
        undo_killed()


def test_a_new_snapshot_of_the_crawl_is_kept_and_the_old_one_is_back() -> None:
    def crawl_and_fail() -> None:
        with undone_unless_it_ends_well(RUN, CHANGES, print):
            make("crawl", "after")
            fetched.append(manifest_hash(Path("data/crawl")))
            fail()

    fetched: list[str] = []
    before = everything()
    with pytest.raises(InputError):
        crawl_and_fail()
    assert everything() == before
    assert (snapshots_folder() / fetched[0] / "words.txt").read_text() == "crawl after"


def test_an_edit_of_params_since_then_stays_and_what_the_run_changed_goes() -> None:
    steps = read_params()["train"]["max_steps"]
    rules = read_params()["filter"]["rules"]
    in_a_child(lambda: try_out("filter", kill))
    merge_values({"tokenizer": {"vocab_size": 999}, "ray": {"num_cpus": 1}})
    assert undo_killed()
    settings = read_params()
    assert (settings["train"]["max_steps"], settings["filter"]["rules"]) == (steps, rules)
    assert (settings["tokenizer"]["vocab_size"], settings["ray"]["num_cpus"]) == (999, 1)


def test_where_a_person_set_the_same_setting_the_person_counts() -> None:
    in_a_child(lambda: try_out("filter", kill))
    merge_values({"train": {"max_steps": 8}})
    assert undo_killed()
    assert read_params()["train"]["max_steps"] == 8
    assert read_params()["filter"]["rules"] != []


def test_a_run_at_work_and_its_own_stages_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    in_a_child(lambda: try_out("filter", kill))
    left = everything()
    with workspace_lock("run"):
        assert not undo_killed()
    with monkeypatch.context() as patched:
        patched.setenv("HEADWATER_RUN", RUN)
        assert not undo_killed()
    assert everything() == left


def test_what_a_killed_run_started_ends_before_its_files_are_put_back() -> None:
    in_a_child(lambda: try_out("filter", kill))
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    with (
        subprocess.Popen(command, env={**os.environ, "HEADWATER_RUN": RUN}) as its,
        subprocess.Popen(command, env={**os.environ, "HEADWATER_RUN": "r3"}) as anothers,
    ):
        try:
            assert undo_killed()
            assert its.poll() is not None
            assert anothers.poll() is None
        finally:
            its.kill()
            anothers.kill()


def test_a_stage_that_dvc_calls_after_a_kill_puts_back_and_says_to_call_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = everything()
    in_a_child(lambda: try_out("filter", kill))
    with pytest.raises(SystemExit) as ended:
        main(["stage", "mix"])
    assert ended.value.code == 1
    assert "the same command again" in capsys.readouterr().err
    assert everything() == before


def test_any_command_of_the_command_line_puts_back_first(capsys: pytest.CaptureFixture[str]) -> None:
    steps = read_params()["train"]["max_steps"]
    in_a_child(lambda: try_out("filter", kill))
    with pytest.raises(SystemExit):
        main(["params", "show", "train", "--json"])
    assert f'"max_steps": {steps}' in capsys.readouterr().out
