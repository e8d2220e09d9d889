"""Wherever a person names something that is nearly there, the nearest name is asked for; `--version` says which."""

from __future__ import annotations

import importlib.metadata
import json
import shlex
import shutil
from pathlib import Path

import pytest

from flows.cli.main import main
from tests.conftest import ROOT

TOMBSTONE = "0123456789abcdef"

NEARLY = [
    ("rnu", "run"),
    ("params shwo", "show"),
    ("filters lst", "list"),
    ("takedown lsit", "list"),
    ("lineage sycn", "sync"),
    ("policy chekc", "check"),
    ("run --untill gate", "--until"),
    ("--verson", "--version"),
    ("stage extrakt", "extract"),
    ("run --until TRIAN", "train"),
    ("run --force dedupe", "dedup"),
    ("run --profile webb", "web"),
    ("params apply tinny", "tiny"),
    ("params show trian", "train"),
    ("run --set trian.max_steps=3", "train"),
    ("run --set train.max_stepz=3", "max_steps"),
    ("run --set max_stepz=3", "train.max_steps"),
    ("run --set train.model.layerz=3", "layers"),
    ("run --set extract.opt_out.noia=drop", "noai"),
    ("run --set extract.opt_out.noai=dorp", "drop"),
    ("run --set crawl.source=site", "sites"),
    ("run --set gate.chance_metric=acc_nrom", "acc_norm"),
    ("run --set filter.rules=[{gopher_qualty:{}}]", "gopher_quality"),
    ("run --set 'filter.rules=[{length: {min_word: 1}}]'", "min_words"),
    ("run --set 'filter.rules=[{use: \"tasks.filter.rules.length:Lenght\"}]'", "Length"),
    ("run --set evaluate.tasks=[heldout_bits_per_byt]", "heldout_bits_per_byte"),
    ("run --set gate.chance_task=heldout_continuatio", "heldout_continuation"),
    ("filters show gopher_qualty", "gopher_quality"),
    ("filters try gopher_qualty", "gopher_quality"),
    ("filters try length --set min_word=3", "min_words"),
    ("policy check --set noia=drop", "noai"),
    ("policy check --set noai=dorp", "drop"),
    ("takedown add --withdraw 0123456789abcdee --reason no", TOMBSTONE),
    ("trace --release headwater-won", "headwater-one"),
    ("diff headwater-won headwater-one", "headwater-one"),
]
"""What somebody types, and the name that was meant."""


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What these commands read: settings, profiles, and a release and a tombstone that have names."""
    made = tmp_path_factory.mktemp("clone")
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy2(ROOT / name, made / name)
    for name in ("profiles", "benchmarks"):
        shutil.copytree(ROOT / "infra" / name, made / "infra" / name)
    (made / ".dvc").mkdir()
    (made / ".headwater").mkdir()
    row = {"release": "ab" * 32, "weights_sha256": "cd" * 32, "name": "headwater-one", "folder": "releases/none"}
    (made / ".headwater/champions.jsonl").write_text(f"{json.dumps(row)}\n")
    tombstone = {"id": TOMBSTONE, "kind": "host", "value": "e.example", "reason": "asked", "date": "2026-01-01"}
    (made / "infra/takedowns.jsonl").write_text(f"{json.dumps(tombstone)}\n")
    tasks = f"lm_eval_tasks-{importlib.metadata.version('lm-eval')}.json"
    (made / ".headwater" / tasks).write_text(json.dumps(["arc_easy", "mmlu"]))
    return made


@pytest.fixture
def here(clone: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(clone)
    monkeypatch.setenv("HEADWATER_STATE", str(clone / ".headwater"))
    return clone


def said(capfd: pytest.CaptureFixture[str], typed: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        main(shlex.split(typed))
    printed = capfd.readouterr()
    return int(ended.value.code or 0), " ".join((printed.out + printed.err).replace("│", " ").split())


@pytest.mark.parametrize(("typed", "meant"), NEARLY)
def test_what_was_meant_is_asked(here: Path, capfd: pytest.CaptureFixture[str], typed: str, meant: str) -> None:
    before = (here / "params.yaml").read_bytes()
    code, told = said(capfd, typed)
    assert code == 2, told
    asked = (f"did you mean {meant}?", f"Did you mean '{meant}'?", f"(Possible options: {meant})")
    assert any(one in told for one in asked), told
    assert (here / "params.yaml").read_bytes() == before


@pytest.mark.parametrize("typed", ["stage zzzz", "run --set zzzz.zzzz=1", "params show zzzz", "filters show zzzz"])
def test_nothing_is_asked_where_nothing_is_near(here: Path, capfd: pytest.CaptureFixture[str], typed: str) -> None:
    code, told = said(capfd, typed)
    assert code == 2, told
    assert "did you mean" not in told
    assert "zzzz" in told


def test_the_version_is_said_anywhere(workspace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, told = said(capfd, "--version")
    assert (code, told) == (0, f"headwater {importlib.metadata.version('headwater')}")
