"""The report and the closing table say what the manifests say, for a whole run, half of one and none."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path

import pytest

from flows.report.charts import funnel, loss_chart
from flows.report.page import build_report, summary_rows
from flows.workspace.graph import load_graph
from tasks.contracts.document import Document, write_documents
from tasks.contracts.manifest import Counts, Unit, manifest_hash
from tests.conftest import ROOT
from tests.planted import plant_manifest

STAGES = tuple(load_graph())
PLANTED: dict[str, tuple[Unit, int, dict[str, int]]] = {
    "crawl": ("urls", 2214, {"robots_disallowed": 64, "http_error": 12, "noai": 9}),
    "extract": ("records", 2129, {"no_text": 38, "not_html": 4, "parser_timeout": 1}),
    "filter": ("documents", 2086, {"gopher_repetition": 212, "too_short": 164, "language": 61, "c4_curly_bracket": 47}),
    "dedup": ("documents", 1602, {"near_duplicate": 143, "exact_text": 71}),
    "perplexity": ("documents", 1388, {"tail": 139}),
    "holdout": ("documents", 1249, {"held_out": 62}),
    "decontaminate": ("documents", 1187, {"contains_item": 7}),
    "mix": ("documents", 1180, {}),
}
INPUTS = {
    **dict(zip(list(PLANTED)[1:], [[name] for name in PLANTED], strict=False)),
    "crawl": [],
    "tokenizer": ["mix"],
    "tokenize": ["holdout", "mix", "tokenizer"],
    "train": ["tokenize", "tokenizer"],
    "evaluate": ["holdout", "train"],
    "gate": ["evaluate", "holdout", "mix", "train"],
    "release": ["evaluate", "gate", "train"],
}


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADWATER_STATE", str(tmp_path / ".headwater"))
    shutil.copy2(ROOT / "dvc.yaml", tmp_path)
    return tmp_path


def plant(workspace: Path, stages: tuple[str, ...] = STAGES) -> None:
    """Write the folders of a run whose numbers are known, beside the graph that names its stages."""
    shutil.copy2(ROOT / "dvc.yaml", workspace)
    for stage in stages:
        folder = workspace / "data" / stage
        folder.mkdir(parents=True)
        unit, in_, dropped = PLANTED.get(stage, ("files", 10, {}))
        if stage == "mix":
            hosts = ["python.sample.example"] * 5 + ["numpy.sample.example"] * 3 + ["<b>odd</b>.example"]
            documents = [
                Document(doc_id=f"{i:032x}", url=f"http://{h}/{i}", host=h, record_id=str(i), source="s", text="text")
                for i, h in enumerate(hosts)
            ]
            write_documents(folder / "part-00000.parquet", documents)
        for name, content in results().get(stage, {}).items():
            (folder / name).write_text(content)
        counts = Counts(in_=in_, out=in_ - sum(dropped.values()), dropped=dropped)
        inputs = {name: workspace / "data" / name for name in INPUTS[stage]}
        plant_manifest(folder, stage=stage, unit=unit, params={}, inputs=inputs, counts=counts)


def results() -> dict[str, dict[str, str]]:
    loss = ["step,train_loss,validation_loss,learning_rate"]
    for step in range(0, 401, 4):
        validation = f"{9 * math.exp(-step / 120) + 3.4:.4f}" if step % 80 == 0 else ""
        wobble = 0.12 * math.sin(step * 1.7)
        loss.append(f"{step},{9 * math.exp(-step / 120) + 3.2 + wobble:.4f},{validation},0.001")
    rules = [
        {"rule": "bits_per_byte", "verdict": "pass", "value": 1.91, "threshold": 2.34, "low": 1.88, "high": 1.94},
        {
            "rule": "continuation_above_chance",
            "verdict": "pass",
            "value": 0.46,
            "threshold": 0.25,
            "low": 0.4,
            "high": 0.52,
        },
    ]
    return {
        "tokenize": {"tokens.json": json.dumps({"tokens": 1_240_332, "bytes": 4_400_000, "vocab_size": 4096})},
        "train": {
            "loss.csv": "\n".join(loss) + "\n",
            "metrics.json": json.dumps({"parameters": 3_211_264, "steps": 400, "tokens_seen": 1_102_400}),
        },
        "evaluate": {"metrics.json": json.dumps({"heldout_bits_per_byte": 1.91, "heldout_continuation": 0.46})},
        "gate": {"report.json": json.dumps({"verdict": "pass", "rules": rules})},
        "release": {"model.safetensors": "weights", "README.md": "# card"},
    }


def test_every_count_and_reason_of_every_manifest_is_on_the_page(workspace: Path) -> None:
    plant(workspace)
    page = build_report(workspace).read_text()
    for stage, (_, in_, dropped) in PLANTED.items():
        assert f"{in_:,}" in page, stage
        for rule, number in dropped.items():
            assert rule.replace("_", " ") in page
            assert f"{number:,} · " in page
    for stage in STAGES:
        assert manifest_hash(workspace / "data" / stage) in page


def test_the_page_needs_nothing_from_outside(workspace: Path) -> None:
    plant(workspace)
    page = build_report(workspace).read_text()
    assert not re.search(r"""(src|href)\s*=|@import|url\((?!#)|<script""", page)
    assert str(workspace) not in page


def test_text_from_the_web_is_never_markup(workspace: Path) -> None:
    plant(workspace)
    page = build_report(workspace).read_text()
    assert "<b>odd</b>" not in page
    assert "&lt;b&gt;odd" in page


@pytest.mark.parametrize("stages", [(), STAGES[:1], STAGES[:4], STAGES[:11]])
def test_stages_that_have_not_run_are_shown_as_such(workspace: Path, stages: tuple[str, ...]) -> None:
    plant(workspace, stages)
    page = build_report(workspace).read_text()
    assert page.count("has not run") == len(STAGES) - len(stages)
    rows = summary_rows(workspace)
    assert [row.stage for row in rows] == list(STAGES)
    assert [row.stage for row in rows if row.kept is not None] == list(stages)


def test_the_verdict_is_the_gates(workspace: Path) -> None:
    plant(workspace, STAGES[:-1])
    assert "The gate said no" not in build_report(workspace).read_text()
    (workspace / "data/gate/report.json").write_text('{"verdict": "fail", "rules": [{"rule": "x", "verdict": "fail"}]}')
    page = build_report(workspace).read_text()
    assert "The gate said no" in page
    assert "not met" in page


def test_the_table_names_the_main_reasons_first(workspace: Path) -> None:
    plant(workspace)
    row = next(row for row in summary_rows(workspace) if row.stage == "filter")
    assert (row.unit, row.in_, row.kept, row.dropped) == ("documents", 2086, 1602, 484)
    assert row.reasons == "gopher_repetition 212, too_short 164, language 61, 1 more"


def test_equal_manifests_give_an_equal_page(workspace: Path) -> None:
    plant(workspace)
    assert build_report(workspace).read_bytes() == build_report(workspace).read_bytes()


def test_heights_in_the_funnel_are_in_proportion() -> None:
    nodes = funnel([("a", 1000, 500), ("b", 500, 250)]).nodes
    assert nodes[0].height == pytest.approx(2 * nodes[1].height)
    assert funnel([("a", 0, 0)]).nodes[0].ribbon is None


def test_a_loss_that_diverged_does_not_break_the_chart() -> None:
    rows = [{"step": 1.0, "train_loss": 5.0}, {"step": 2.0, "train_loss": math.nan}, {"step": 3.0, "train_loss": 4.0}]
    chart = loss_chart(rows)
    assert chart is not None
    assert len(chart.lines[0].points) == 2
    assert loss_chart([]) is None
    assert loss_chart([{"step": 1.0, "train_loss": 5.0}]) is not None


def test_a_report_of_a_run_that_stopped_after_its_first_stage_asks_for_no_later_file(workspace: Path) -> None:
    counts = Counts(in_=1, out=1)
    plant_manifest(Path("data/crawl"), stage="crawl", unit="urls", params={}, inputs={}, counts=counts)
    assert "1 of 14 stages" in build_report(Path()).read_text()
