"""lineage.html is one page that needs nothing else and shows the chain that the manifests say."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli.main import app
from flows.history import run_records
from flows.report import drops
from flows.report.picture import write_picture
from tasks.contracts.errors import InputError
from tasks.contracts.manifest import Counts, manifest_hash, read_manifest
from tests.planted import plant_manifest

GRAPH = {
    "crawl": [],
    "extract": ["crawl"],
    "holdout": ["extract"],
    "mix": ["holdout"],
    "train": ["mix"],
    "gate": ["train", "holdout", "mix"],
}
RULES = {f"rule.{n}<&>": n for n in range(1, 9)}


def run_stage(run: str, stage: str, inputs: list[str], rules: dict[str, int] = RULES) -> Path:
    output = Path("data") / stage
    output.mkdir(parents=True, exist_ok=True)
    if stage == "gate":
        (output / "report.json").write_text('{"verdict": "fail", "rules": [{"rule": "floor", "verdict": "fail"}]}')
    counts = Counts(in_=100, out=100 - sum(rules.values()), dropped=rules)
    folders = {name: Path("data") / name for name in inputs}
    plant_manifest(output, stage=stage, unit="documents", params={}, inputs=folders, counts=counts)
    run_records.write_record(run=run, stage=stage, started_at=run_records.now(), output=output)
    return output


@pytest.fixture
def page(workspace: Path) -> str:
    for stage, inputs in GRAPH.items():
        run_stage("r1" if stage in ("crawl", "extract") else "r2", stage, inputs)
    return write_picture(workspace).read_text()


def test_nothing_is_asked_of_the_network_or_of_scripts(page: str) -> None:
    assert not re.search(r"<script|<link|<img|https?:|@import|url\((?!#)| on\w+=", page)


def test_every_stage_has_its_full_hash_and_a_place_to_link_to(page: str) -> None:
    for stage in GRAPH:
        sha256 = manifest_hash(Path("data") / stage)
        assert f"<title>manifest {sha256}</title>{sha256[:12]}" in page
        assert f"<code>{sha256}</code>" in page
        assert f'href="#stage-{stage}"' in page
        assert f'<tr id="stage-{stage}">' in page


def test_every_input_of_every_manifest_is_one_line(page: str) -> None:
    drawn = re.findall(r"<title>(\w+) was made from (\w+), manifest (\w{64})</title>", page)
    told = [(stage, name, manifest_hash(Path("data") / name)) for stage, names in GRAPH.items() for name in names]
    assert sorted(drawn) == sorted(told)


def test_reused_outputs_name_the_run_that_made_them(page: str) -> None:
    assert page.count('<g class="reused">') == 2
    assert "reused from run r1" in page


def test_a_verdict_of_no_is_shown_and_rules_are_escaped(page: str) -> None:
    assert '<dd class="fail"><strong>fail</strong></dd>' in page
    assert "rule.8&lt;&amp;&gt;" in page
    assert "and 3 more reasons" in page


def test_the_drawing_is_well_formed_and_keeps_inside_its_frame(page: str) -> None:
    drawing = ET.fromstring(re.search(r"<svg.*?</svg>", page, re.S)[0])  # type: ignore[index]
    _, _, width, height = (float(part) for part in drawing.attrib["viewBox"].split())
    for box in drawing.iter("rect"):
        assert 0 <= float(box.attrib["x"]) <= float(box.attrib["x"]) + float(box.attrib["width"]) <= width
        assert 0 <= float(box.attrib["y"]) <= float(box.attrib["y"]) + float(box.attrib["height"]) <= height


def test_a_later_run_of_the_same_bytes_changes_nothing(page: str, workspace: Path) -> None:
    run_stage("r3", "extract", ["crawl"])
    assert write_picture(workspace).read_text() == page


def test_the_command_writes_where_it_is_told(page: str, workspace: Path) -> None:
    answer = CliRunner().invoke(app, ["lineage", "picture", "--output", "here.html", "--json"])
    assert json.loads(answer.stdout) == {"picture": "here.html"}
    assert Path("here.html").read_text() == page


def test_an_empty_workspace_is_told_what_to_do(workspace: Path) -> None:
    with pytest.raises(InputError, match="headwater run"):
        write_picture(workspace)


def test_the_plot_of_drop_reasons_is_well_formed_and_in_order(workspace: Path) -> None:
    manifest = read_manifest(run_stage("r1", "extract", []))
    drawing = ET.fromstring(drops.drop_plot(manifest))
    lengths = [float(bar.attrib["width"]) for bar in drawing.iter("{http://www.w3.org/2000/svg}rect")][1:]
    assert len(lengths) == len(RULES)
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] / lengths[1] == pytest.approx(8 / 7, rel=0.01)


def test_bars_of_all_stages_share_one_scale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADWATER_STATE", str(tmp_path / "state"))
    dropped = {"crawl": {"a": 40, "b": 10}, "extract": {"c": 10}, "holdout": {"d": 20, "e": 5}}
    for stage, rules in dropped.items():
        run_stage("r1", stage, GRAPH[stage], rules)
    page = write_picture(Path()).read_text()
    widths = {
        rule: float(width)
        for rule, width in re.findall(
            r"<title>([a-e]): .*?<rect class=\"bar\"[^>]* width=\"([\d.]+)\"", page, re.DOTALL
        )
    }
    assert len(widths) == 5
    one = widths["a"] / 40  # each stage took in 100
    for rules in dropped.values():
        for rule, number in rules.items():
            assert widths[rule] == pytest.approx(one * number, abs=0.1), rule
