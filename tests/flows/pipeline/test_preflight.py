"""What keeps a run from starting is said before anything starts: all of it, once, with exit code 2."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from flows.cli import main as cli
from flows.pipeline import due
from flows.pipeline.preflight import ready
from flows.services import embedded as services
from flows.workspace.graph import load_graph
from flows.workspace.params import read_params, set_values
from tasks.contracts.errors import ParamsError
from tests.conftest import ROOT

SITES = ("crawl.source=sites", "crawl.contact=me@test.example", "crawl.seeds=[https://example.org/]")
FAULTS = {
    "no contact": (["crawl.source=sites", "crawl.seeds=[https://e.org/]"], "crawl.contact"),
    "no seeds": ([*SITES, "crawl.seeds=[]"], "nothing to crawl"),
    "a scheme": ([*SITES, "crawl.seeds=[https://e.org/, ftp://e.org/]"], "ftp://e.org/"),
    "a sitemap's scheme": ([*SITES, "crawl.sitemaps=[file:///etc/passwd]"], "crawl.sitemaps"),
    "loopback": ([*SITES, "crawl.seeds=[http://127.0.0.1:8000/]"], "crawl.allow_hosts=[127.0.0.1]"),
    "loopback as a number": ([*SITES, "crawl.seeds=[http://2130706433/]"], "crawl.allow_hosts=[127.0.0.1]"),
    "loopback of IPv6": ([*SITES, "crawl.seeds=[http://[::1]/]"], "crawl.allow_hosts=[::1]"),
    "loopback by name": ([*SITES, "crawl.seeds=[http://localhost:1/]"], "crawl.allow_hosts=[localhost]"),
    "a private network": ([*SITES, "crawl.sitemaps=[http://10.1.2.3/s.xml]"], "crawl.allow_hosts=[10.1.2.3]"),
    "a URL for a host": ([*SITES, "crawl.allowed_domains=[https://e.org/]"], "crawl.allowed_domains"),
    "a variable": ([*SITES, "crawl.seeds=['https://e.org/?k=${NO_SUCH_NAME}']"], "NO_SUCH_NAME"),
    "no roots": ([*SITES, "crawl.ca_file=nowhere.pem"], "crawl.ca_file"),
    "no snapshot": (["crawl.source=common_crawl"], "Common Crawl"),
    "no paths": (["crawl.source=warc"], "crawl.paths"),
    "no such file": (["crawl.source=text", "crawl.paths=[nowhere.jsonl]"], "no file at nowhere.jsonl"),
    "an empty glob": (["crawl.source=warc", "crawl.paths=[*.warc.gz]"], "no file at *.warc.gz"),
    "no driver": (["crawl.source=warc", "crawl.paths=[gopher://e.org/a.warc]"], "gopher://e.org/a.warc"),
    "a list": (["filter.rules=[{url: {lists: [denied.txt]}}]"], "denied.txt"),
    "a class": (["filter.rules=[{use: no_such_package.rules:Cats}]"], "no_such_package"),
    "a model": (["perplexity.model=en.bin"], "en.bin"),
    "a reference": (["perplexity.reference.files=[edited.txt]"], "edited.txt"),
    "no reference": (["perplexity.reference={hosts: [], otherwise: error}"], "reads like"),
    "a benchmark": (["decontaminate.benchmarks=[quiz.jsonl]"], "quiz.jsonl"),
    "a benchmark's form": (["decontaminate.benchmarks=[params.yaml]"], "not JSON"),
    "a task": (["evaluate.tasks=[heldout_bits_per_byte, heldout_continuation, mmlux]"], "did you mean mmlu?"),
    "a device": (["evaluate.device=cuda:1"], "evaluate.device"),
    "a GPU": (["train.device=gpu"], "train.device"),
    "a batch": (["train.batch_size=9", "train.num_ranks=2"], "train.batch_size"),
    "the gate's task": (["evaluate.tasks=[heldout_bits_per_byte]"], "gate.chance_task"),
    "a key": (["release.signing_key=nowhere.pem"], "nowhere.pem"),
}


@pytest.fixture
def clone(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a clone holds of what a run reads first; whatever would start is an error."""
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy2(ROOT / name, name)
    shutil.copytree(ROOT / "infra" / "benchmarks", "infra/benchmarks")
    Path(".dvc").mkdir()
    Path(".headwater").mkdir()
    version = importlib.metadata.version("lm-eval")
    Path(f".headwater/lm_eval_tasks-{version}.json").write_text(json.dumps(["arc_easy", "mmlu"]))

    def started() -> None:
        raise AssertionError("Prefect's server was started")

    monkeypatch.setattr(services, "prefect_server", started)
    monkeypatch.setattr("training.device.gpus", lambda: 0)
    return workspace


def refused(capfd: pytest.CaptureFixture[str], *words: str) -> str:
    before = Path("params.yaml").read_bytes()
    with pytest.raises(SystemExit) as ended:
        cli.main(["run", *words])
    printed = capfd.readouterr()
    assert ended.value.code == 2, printed.err
    assert printed.out == "", "no empty table, nothing but the error"
    assert Path("params.yaml").read_bytes() == before
    return printed.err


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_said_before_anything_starts(clone: Path, capfd: pytest.CaptureFixture[str], name: str) -> None:
    assignments, said = FAULTS[name]
    printed = refused(capfd, *[word for assignment in assignments for word in ("--set", assignment)])
    assert said in printed
    assert printed.count("error: ") == 1
    assert "Traceback" not in printed


def test_all_of_them_are_said_at_once(clone: Path, capfd: pytest.CaptureFixture[str]) -> None:
    chosen = ("no contact", "a benchmark", "a GPU", "a key", "the gate's task", "a model")
    assignments = [assignment for name in chosen for assignment in FAULTS[name][0]]
    printed = refused(capfd, *[word for assignment in assignments for word in ("--set", assignment)])
    assert "6 things keep this run from starting" in printed
    assert all(FAULTS[name][1] in printed for name in chosen)


def test_wrong_keys_of_several_sections_are_said_at_once(clone: Path, capfd: pytest.CaptureFixture[str]) -> None:
    printed = refused(capfd, "--set", "train.max_stepz=5", "--set", "crawl.max_pages=0", "--set", "ray.num_cpu=1")
    for said in ("3 sections", "did you mean max_steps?", "crawl.max_pages", "did you mean num_cpus?"):
        assert said in printed


def test_settings_that_stand_in_the_file_are_checked_too(clone: Path, capfd: pytest.CaptureFixture[str]) -> None:
    set_values(["crawl.source=sites"])
    assert "crawl.contact" in refused(capfd)


@pytest.mark.parametrize("place", ["data", ".headwater", "state"])
def test_a_folder_that_cannot_be_written(
    clone: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    if place == "state":
        Path("a file").touch()
        monkeypatch.setenv("HEADWATER_STATE", "a file/state")
    else:
        shutil.rmtree(place, ignore_errors=True)
        monkeypatch.setenv("HEADWATER_STATE", str(clone / ("elsewhere" if place == "data" else place)))
        Path(place).touch()
    with pytest.raises(ParamsError, match="cannot be written"):
        ready(read_params(), load_graph())


def test_a_folder_that_dvc_does_not_know(clone: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Path(".dvc").rmdir()
    assert ".dvc" in refused(capfd)


def test_a_list_of_takedowns_that_cannot_be_read(clone: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Path("infra/takedowns.jsonl").write_text("{\n")
    assert "takedowns.jsonl" in refused(capfd)


def test_what_the_run_does_not_come_to_is_not_held_against_it(clone: Path) -> None:
    set_values(["train.device=gpu", "decontaminate.benchmarks=[quiz.jsonl]"])
    with pytest.raises(ParamsError, match="2 things"):
        ready(read_params(), load_graph())
    with pytest.raises(ParamsError, match=r"quiz\.jsonl"):
        ready(read_params(), load_graph(), "mix")
    assert ready(read_params(), load_graph(), "holdout")


def locked() -> None:
    """Write dvc.lock as it is when every stage has run with these settings."""
    settings = read_params()
    ran = {name: {key: _value(settings, key) for key in stage.params} for name, stage in load_graph().items()}
    stages = {name: {"cmd": "none", "params": {"params.yaml": values}} for name, values in ran.items()}
    Path("dvc.lock").write_text(json.dumps({"schema": "2.0", "stages": stages}))


def _value(settings: Any, name: str) -> Any:
    for key in name.split("."):
        settings = settings[key]
    return settings


def test_what_is_up_to_date_needs_no_input_any_more(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_values(["crawl.source=warc", "crawl.paths=[gone.warc.gz]"])
    stale: dict[str, list[object]] = {}
    monkeypatch.setattr(due, "dvc_status", lambda: stale)
    with pytest.raises(ParamsError, match=r"gone\.warc\.gz"):
        ready(read_params(), load_graph())
    locked()
    assert ready(read_params(), load_graph()), "DVC says that the crawl is as it should be"
    for why in ("force", "stale", "changed"):
        changed = read_params()
        if why == "changed":
            changed["crawl"]["seed"] = 5
        stale |= {"crawl": ["changed command"]} if why == "stale" else {}
        with pytest.raises(ParamsError, match=r"gone\.warc\.gz"):
            ready(changed, load_graph(), force=["crawl"] if why == "force" else [])
    monkeypatch.setattr(due, "is_whole", lambda *_: True)
    assert ready(read_params(), load_graph()), "the snapshot is whole and is only put back"


def test_what_follows_from_a_stage_that_runs_may_run(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_values(["train.device=gpu"])
    locked()
    monkeypatch.setattr(due, "dvc_status", dict)
    assert ready(read_params(), load_graph())
    monkeypatch.setattr(due, "dvc_status", lambda: {"mix": ["changed command"]})
    with pytest.raises(ParamsError, match=r"train\.device"):
        ready(read_params(), load_graph())
