"""The public face: every command, its options, the keys of what it says with --json, and its exit codes.

Scripts of other people stand on it. Who changes it changes these tables, and says so in CHANGELOG.md.
"""

from __future__ import annotations

import json
import logging
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from flows.cli.main import app, main
from tests.conftest import ROOT
from tests.flows.proof import traced_workspace

OPTIONS = {
    "init": "DIR",
    "plan": "--model --device --devices --nodes --device-memory --host-memory --nvme --nvme-bandwidth --seq-len "
    "--batch --tokens --vocabulary --dry-run --write --json",
    "run": "--set --profile --until --force --plan --json",
    "adapt": "[files] --method --base --set --plan --json",
    "stage": "name",
    "up": "",
    "doctor": "--json",
    "report": "--json",
    "gc": "--keep-days",
    "trace": "[query] --text --step --rank --release --limit --output --prompt --min-tokens --max-tokens --index "
    "--json",
    "verify": "[RELEASE_DIR] --deep --sample --expect --public-key --json",
    "diff": "RELEASE_A RELEASE_B --all --limit --json",
    "sign": "[release] --key --json",
    "export": "RELEASE_DIR FOLDER --format --dtype --json",
    "serve": "[RELEASE_DIR] --host --port --engine --public-key",
    "params show": "[section] --json",
    "params apply": "profile",
    "params diff": "",
    "lineage sync": "--json",
    "lineage picture": "--output --json",
    "filters list": "--json",
    "filters new": "name",
    "filters show": "name --json",
    "filters try": "name --input --sample --set --examples --json --html",
    "filters train-classifier": "--good --bad --output --language --bits --ngrams --json",
    "takedown add": "[URL|HOST] --reason --file --asked-by --date --withdraw --json",
    "takedown list": "--json",
    "takedown plan": "--json",
    "takedown apply": "--json",
    "policy check": "--policy --set --examples --json",
}
"""Command → its arguments (those in brackets may be left out) and options."""

URL = f"http://{traced_workspace.HOST}/kept.html"
ANSWERS: dict[str, tuple[int | None, str]] = {
    "run --plan --json": (0, "[stage kind why]"),
    "plan --model 7b --json": (0, "weights tokens estimates recommended error"),
    "plan --model 700b --json": (1, "weights tokens estimates recommended error"),
    "plan --model nothing --json": (2, ""),
    "adapt --plan": (2, ""),
    "stage extract": (0, ""),
    "stage nothing": (2, ""),
    "doctor --json": (None, "[name ok found fix optional]"),
    "report --json": (0, "report"),
    "gc --keep-days 1": (0, ""),
    f"trace {URL} --json": (0, "query matched total captures records documents training"),
    "trace site.example --json": (0, "query host counts documents training"),
    "trace --step 0 --json": (0, "batches"),
    "trace --step 100000 --json": (2, ""),
    "trace --release small --json": (
        0,
        "name manifest_sha256 weights_sha256 takedown documents tokens seen examples groups",
    ),
    "trace --release nothing --json": (2, ""),
    "trace --text text.txt --json": (0, "match trace"),
    "trace --index --json": (0, "index"),
    "trace nothing.example --json": (1, "query matched total captures records documents training"),
    "verify data/release --json": (1, "folder verdict manifest_sha256 first_break takedown_marks claims limits"),
    "verify data/mix --json": (1, "folder verdict manifest_sha256 first_break takedown_marks claims limits"),
    "verify nothing --json": (2, ""),
    "diff data/release data/release --json": (
        0,
        "same a b stages scores gate settings rules sources not_told documents counts code",
    ),
    "diff data/release nothing --json": (2, ""),
    "sign --key nothing --json": (2, ""),
    "params show crawl --json": (0, "crawl"),
    "params show nothing --json": (2, ""),
    "params apply tiny": (0, ""),
    "params apply nothing": (2, ""),
    "params diff": (0, ""),
    "lineage sync --json": (0, "added already no data"),
    "lineage picture --json": (0, "picture"),
    "filters list --json": (0, "[name used what]"),
    "filters show length --json": (0, "name used settings"),
    "filters show nothing --json": (2, ""),
    "filters try length --set min_words=1000 --json": (
        0,
        "filter settings input documents alone after_the_others cases",
    ),
    "filters try nothing --json": (2, ""),
    "filters train-classifier --good good.txt --bad bad.txt --output model.json --json": (0, "model held_out"),
    "filters train-classifier --good nothing.txt --bad bad.txt --output model.json --json": (1, ""),
    f"takedown add {URL} --reason asked --json": (0, "id new kind value reason date asked_by"),
    f"takedown add {URL} --json": (2, ""),
    "takedown list --json": (0, "[id kind value reason date asked_by in_force fingerprints]"),
    "takedown plan --json": (
        1,
        "complete unreachable read_elsewhere documents duplicates shards token_shards checkpoint "
        "perplexity_reference retrain releases rebuild_estimate",
    ),
    "takedown apply --json": (
        0,
        "complete unreachable read_elsewhere documents duplicates shards token_shards checkpoint "
        "perplexity_reference retrain releases fingerprints_stored folders_marked mlflow_marked next",
    ),
    "policy check --json": (
        1,
        "policy pages reserving dropped_otherwise changes newly_dropped newly_kept newly_marked no_longer_marked",
    ),
    "policy check --set noai=nothing --json": (2, ""),
}
"""Command line → exit code (None: as this machine is) and, with --json, the keys of its answer: of a list, those
of its first entry."""


def _leaves(command: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every command by its name; Typer's classes are no part of its face, so none is named."""
    if hasattr(command, "commands"):
        for key, one in command.commands.items():
            yield from _leaves(one, f"{name} {key}".strip())
    else:
        yield name, command


def _parameter(parameter: Any) -> str:
    if parameter.param_type_name == "option":
        return "/".join([*parameter.opts, *parameter.secondary_opts])
    shown = (parameter.metavar or parameter.name).strip("[]")
    return shown if parameter.required else f"[{shown}]"


def test_every_command_and_its_options_are_in_the_table() -> None:
    commands = dict(_leaves(get_command(app)))
    assert {name: " ".join(map(_parameter, command.params)) for name, command in commands.items()} == OPTIONS


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with pages and a release in it, each of whose files is small."""
    root = tmp_path_factory.mktemp("face")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADWATER_STATE", str(root / ".headwater"))
        traced_workspace.make(root)
    (root / ".dvc").mkdir()
    for name in ("dvc.yaml", "params.yaml", ".dvc/config"):
        shutil.copy(ROOT / name, root / name)
    for name in ("profiles", "benchmarks"):
        shutil.copytree(ROOT / "infra" / name, root / "infra" / name)
    (root / "text.txt").write_text(traced_workspace.text_of("kept"))
    for name in ("good", "bad"):
        (root / f"{name}.txt").write_text("".join(f"{name} words in line {number}\n" for number in range(40)))
    return root


@pytest.fixture
def inside(planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    root = tmp_path / "workspace"
    shutil.copytree(planted, root, symlinks=True)
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    monkeypatch.chdir(root)
    monkeypatch.setenv("HEADWATER_STATE", str(root / ".headwater"))
    handlers, handler = list(logging.getLogger().handlers), signal.getsignal(signal.SIGTERM)
    yield root
    logging.getLogger().handlers[:] = handlers
    signal.signal(signal.SIGTERM, handler)


def _called(line: str) -> int:
    try:
        main(line.split())
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def _keys(answer: object) -> str:
    if isinstance(answer, list):
        return f"[{_keys(answer[0])}]"
    assert isinstance(answer, dict)
    return " ".join(answer)


@pytest.mark.parametrize("line", ANSWERS)
def test_what_a_command_answers(inside: Path, capfd: pytest.CaptureFixture[str], line: str) -> None:
    if line.startswith("takedown") and not line.startswith("takedown add"):
        assert _called(f"takedown add {URL} --reason asked --date 2026-01-02") == 0
    capfd.readouterr()
    code = _called(line)
    printed = capfd.readouterr().out
    keys = _keys(json.loads(printed)) if "--json" in line.split() and printed else ""
    expected = ANSWERS[line]
    assert (code if expected[0] is not None else None, keys) == expected


def test_every_answer_in_json_is_in_the_table() -> None:
    lines = [line for line, (_, keys) in ANSWERS.items() if keys]
    missing = {
        name
        for name, options in OPTIONS.items()
        if "--json" in options.split() and not any(line.startswith(f"{name} ") for line in lines)
    }
    assert missing == {"adapt", "sign", "export"}, "test_adapt.py, test_sign.py and test_export.py read what they say"


@pytest.mark.parametrize("name", OPTIONS)
def test_wrong_use_is_2(inside: Path, capfd: pytest.CaptureFixture[str], name: str) -> None:
    assert _called(f"{name} --no-such-option") == 2
    assert not capfd.readouterr().out
