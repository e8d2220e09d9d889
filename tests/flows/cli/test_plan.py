"""`headwater plan`, as a person and as a script read it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from flows.cli.main import main
from flows.workspace.params import read_params, set_values
from tests.conftest import ROOT
from training.plan.machine import devices
from training.plan.published import error, errors_by_source, published

GPU = ["--device", "rtx-4090"]
ROWS = published()
HELD_OUT = [row for row in ROWS if row.held_out]
ONE_H200 = ["--device", "h200", "--devices", "1"]


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["plan", *arguments])
    code = ended.value.code
    return code if isinstance(code, int) else 0


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert call(*arguments, "--json") == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize("model", ["70b", "120b"])
@pytest.mark.parametrize(
    ("memory", "strategy"), [("4TB", "zero-3-offload"), ("400GB", "infinity-optimizer"), ("64GB", "infinity")]
)
def test_it_says_how_the_largest_models_train_on_one_device(
    workspace: Path, model: str, memory: str, strategy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = answer(capsys, "--model", model, *ONE_H200, "--host-memory", memory, "--nvme", "4TB", "--tokens", "1b")
    best = found["recommended"]
    assert found["weights"] == pytest.approx(float(model[:-1]) * 1e9, rel=0.05)
    assert (best["strategy"], best["activation_checkpointing"]) == (strategy, True)
    assert 1 < best["days"] < 1000
    assert best["dollars"] == pytest.approx(best["days"] * 24 * 3.59, rel=0.01)
    assert best["deepspeed"]["zero_optimization"]["stage"] == 3


def test_it_states_its_error(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = answer(capsys, "--model", "125m", *GPU)["error"]
    assert said["rows"] >= 60
    assert said["median"] <= 0.20
    assert call("--model", "125m", *GPU) == 0
    assert f"Tokens/s are off by {said['median']:.0%} in the median" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("model", ["tiny", "125m", "gpt2-xl", "7b", "70b", "120b"])
@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("size", [["--devices", "1"], ["--devices", "8", "--nodes", "16"]], ids=["one", "many"])
def test_what_it_prints_fits_eighty_columns(
    workspace: Path,
    model: str,
    device: str,
    size: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    call("--model", model, "--device", device, *size, "--batch", "1024", "--host-memory", "2TB", "--nvme", "30TB")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 10
    assert max(map(len, lines)) <= 80
    assert not any("…" in line for line in lines), "a cell is cut off"


def test_without_a_model_it_plans_what_params_yaml_trains(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, workspace)
    ours = answer(capsys, *GPU)
    assert ours["recommended"]["strategy"] == "ddp"
    assert ours["recommended"]["deepspeed"]["train_batch_size"] == 8
    given = ["--model", "tiny", "--seq-len", "256", "--batch", "8", "--vocabulary"]
    given.append(str(read_params()["tokenizer"]["vocab_size"]))
    assert answer(capsys, *GPU, *given)["estimates"] == ours["estimates"]


def test_settings_that_cannot_be_are_one_clear_error(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, workspace)
    set_values(["train.seq_len=much"])
    assert call(*GPU) == 2
    assert "train.seq_len = 'much'" in capsys.readouterr().err


def test_it_writes_deepspeeds_config(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "--model", "7b", *GPU, "--write", "deepspeed.json")
    assert json.loads(Path("deepspeed.json").read_bytes()) == found["recommended"]["deepspeed"]


def test_where_nothing_fits_it_says_what_is_too_small(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--model", "70b", *ONE_H200, "--host-memory", "64GB", "--write", "none.json") == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "Nothing fits." in said
    assert "too small is the host memory" in said
    assert not Path("none.json").exists()


def test_a_device_has_the_memory_that_is_given(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--model", "7b", *ONE_H200]
    assert answer(capsys, *given)["recommended"]["strategy"] == "ddp"
    assert answer(capsys, *given, "--device-memory", "24GB")["recommended"]["strategy"] != "ddp"


WRONG: dict[str, tuple[list[str], str]] = {
    "a name": (["--model", "126x"], "there is no such model"),
    "a name that is near": (["--model", "125n"], "did you mean 125m"),
    "numbers": (["--model", "{layers: 3, heads: 5}"], "multiple of heads 5"),
    "a device": (["--model", "7b", "--device", "h1000"], "did you mean h100"),
    "memory": (["--model", "7b", "--host-memory", "much"], "--host-memory is no amount"),
    "tokens": (["--model", "7b", "--tokens", "-3"], "--tokens is no amount"),
    "a batch": (["--model", "7b", "--devices", "8", "--batch", "12"], "a multiple of 8 devices"),
    "no model": ([], "there is no params.yaml here"),
}


@pytest.mark.parametrize(("arguments", "said"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_planned_is_one_clear_error(
    workspace: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*arguments) == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_the_page_says_what_the_command_says(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs/plan.md").read_text()
    for model in ("70b", "120b"):
        asked = ["--model", model, *ONE_H200, "--host-memory", "4TB", "--nvme", "4TB"]
        for one in answer(capsys, *asked, "--tokens", "1b")["estimates"]:
            if one["activation_checkpointing"] and one["strategy"] in ("zero-3-offload", "infinity-optimizer"):
                disk = f"{one['disk_bytes'] / 1e9:,.0f} GB " if one["disk_bytes"] else ""
                expected = f"| {one['host_bytes'] / 1e9:,.0f} GB | {disk}| {one['tokens_per_second']:.0f} "
                assert f"{expected}| {one['days']:.0f} days |" in page
    whole = error(HELD_OUT)
    assert f"| **{whole.rows}** | **{whole.median:.0%}** | **{whole.worst_tenth:.0%}** |".replace("%", " %") in page
    assert f"fitted to {len(ROWS) - whole.rows} of the {len(ROWS)} published runs" in page
    for source, one_source in errors_by_source(HELD_OUT):
        lines = [line for line in page.splitlines() if line.startswith(f"| {source.split()[0]}")]
        assert any(f"| {one_source.rows} | {one_source.median:.0%}".replace("%", " %") in line for line in lines), (
            source
        )


def test_a_dry_run_is_told_beside_the_plan(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = "{layers: 2, hidden_size: 256, heads: 4, kv_heads: 4}"
    asked = ["--model", model, "--devices", "8", "--nodes", "8", "--seq-len", "128", "--batch", "64", "--dry-run"]
    found = answer(capsys, *asked)
    both = found["dry_run"]
    assert both["states"]["tracked"] == both["states"]["planned"] == found["weights"] * 16 // 64
    assert both["activations"]["tracked"] == pytest.approx(both["activations"]["planned"], rel=0.1)
    assert both["peak"]["tracked"] < both["peak"]["planned"]
    assert call("--model", model, *GPU, "--dry-run") == 2
    assert "2 or more with --dry-run" in capsys.readouterr().err
