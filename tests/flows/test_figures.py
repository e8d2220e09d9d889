"""One figure, one name: what one run writes in many places agrees, with the manifests and with each other."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from flows.report.page import build_report
from flows.report.picture import write_picture
from tasks.contracts.manifest import read_manifest
from tests.conftest import ROOT
from tests.training.release.test_release_use import make_release
from training.gate.stage import rules_met

AMBIGUOUS = ("training tokens", "tokens seen", "training saw", "sha-256 of the weights", "weights, sha-256")


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A run's folder, and everything that people and programs read of it: name → text without markup."""
    root = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("HEADWATER_STATE", str(root / "state"))
        release = make_release(root)
        release.rename(root / "data" / "release")
        shutil.copy2(ROOT / "dvc.yaml", root)
        pages = {"report.html": build_report(root), "lineage.html": write_picture(root)}
        named = {name: (root / "data/release" / name) for name in _papers(root)}
        found = {name: path.read_text() for name, path in {**pages, **named}.items()}
    return root, {name: _plain(text) if name.endswith("html") else text for name, text in found.items()}


def _papers(root: Path) -> list[str]:
    listed = [path.name for path in (root / "data/release").iterdir() if path.suffix in (".md", ".json", ".jsonld")]
    return [name for name in listed if not name.startswith(("tokenizer", "special", "generation", "config"))]


def _plain(page: str) -> str:
    page = re.sub(r"<style.*?</style>", "", page, flags=re.DOTALL)
    return re.sub(r"[ \t]+", " ", unescape(re.sub(r"<(?:/?(?:td|th|dt|dd|tr|small|code|br|div)\b[^>]*)>", " | ", page)))


def _figures(text: str, name: str, value: str) -> Iterator[str]:
    """Yield the values that stand behind a name, or before it as in "1,234 tokens trained on"."""
    gap = r"[\s|\"`:]*(?:,\s*\"(?:value|answer)\":\s*\")?"
    for match in re.finditer(rf"(?<![\w-]){re.escape(name)}{gap}({value})(?![\w,]*\d)", text, re.IGNORECASE):
        yield match[1]
    for match in re.finditer(rf"({value}) {re.escape(name)}(?!\w)", text, re.IGNORECASE):
        yield match[1]


NUMBER, DIGEST = r"\d[\d,]*", r"[0-9a-f]{64}|w1"


def expected(root: Path) -> dict[str, tuple[str, str, int]]:
    """Name → (its value by the manifests' own files, its form, in how many outputs it stands at least)."""
    data = root / "data"
    training: dict[str, Any] = json.loads((data / "train/metrics.json").read_bytes())
    tokens: dict[str, Any] = json.loads((data / "tokenize/tokens.json").read_bytes())
    weights = hashlib.sha256((data / "release/model.safetensors").read_bytes()).hexdigest()
    return {
        "tokens in the shards": (f"{tokens['tokens']:,}", NUMBER, 6),
        "tokens trained on": (f"{training['tokens_seen']:,}", NUMBER, 4),
        "parameters": (f"{training['parameters']:,}", NUMBER, 3),
        "SHA-256 of model.safetensors": (weights, DIGEST, 5),
        "tensor hash": (training["weights_sha256"], DIGEST, 4),
        "headwater:tokens_in_shards": (str(tokens["tokens"]), NUMBER, 1),
        "headwater:tokens_trained_on": (str(training["tokens_seen"]), NUMBER, 1),
        "headwater:tensor_hash": (training["weights_sha256"], DIGEST, 1),
        "headwater:sha256:model.safetensors": (weights, DIGEST, 1),
        "tensorHash": (training["weights_sha256"], DIGEST, 1),
        "weights_sha256": (training["weights_sha256"], DIGEST, 1),
    }


def test_equal_names_have_equal_values_and_agree_with_the_manifests(texts: tuple[Path, dict[str, str]]) -> None:
    root, outputs = texts
    for name, (value, form, least) in expected(root).items():
        found = {output: set(_figures(text, name, form)) for output, text in outputs.items()}
        found = {output: values for output, values in found.items() if values}
        said = {figure.replace(",", "").lower() for values in found.values() for figure in values}
        assert said == {value.replace(",", "").lower()}, (name, value, found)
        assert len(found) >= least, (name, sorted(found))


def test_no_output_has_a_name_that_two_figures_had(texts: tuple[Path, dict[str, str]]) -> None:
    for output, text in texts[1].items():
        assert [name for name in AMBIGUOUS if name in text.lower()] == [], output


def test_counts_of_documents_bytes_and_hosts_are_those_of_the_manifests(texts: tuple[Path, dict[str, str]]) -> None:
    root, outputs = texts
    sources = json.loads(outputs["sources.json"])
    total, hosts = sources["total"], len(sources["hosts"])
    assert total["tokens"] == json.loads((root / "data/tokenize/tokens.json").read_bytes())["tokens"]
    for output in ("README.md", "data_card.md", "ab2013.md", "eu_ai_act_summary.md"):
        assert f"{total['documents']:,} documents" in outputs[output], output
        assert f"{total['bytes']:,} bytes" in outputs[output], output
    for output in ("README.md", "croissant.json", "ab2013.md"):
        assert f"{hosts} host" in outputs[output], output
    assert f"from {hosts} hosts" in outputs["report.html"]
    for stage in ("crawl", "filter", "dedup"):
        counts = read_manifest(root / "data" / stage).counts
        row = rf"\| {stage} \|[^\n]*\| {counts.in_:,} \| {counts.out:,} \| {sum(counts.dropped.values()):,} \|"
        assert re.search(row, outputs["data_card.md"])
        assert f"{counts.in_:,}" in outputs["report.html"]
        assert f"{counts.in_:,}" in outputs["lineage.html"]


@pytest.mark.parametrize(
    ("verdicts", "said"),
    [
        (["pass", "pass", "not applicable", "not applicable", "pass"], "3 of 3 rules met, 2 not applicable."),
        (["fail", "not applicable"], "0 of 1 rule met, 1 not applicable."),
        (["pass", "fail"], "1 of 2 rules met."),
        ([], "0 of 0 rules met."),
    ],
)
def test_a_rule_that_does_not_apply_is_not_met(verdicts: list[str], said: str) -> None:
    assert rules_met(verdicts) == said


def test_report_and_card_count_the_rules_alike(texts: tuple[Path, dict[str, str]]) -> None:
    rules = json.loads(texts[1]["gate.json"])["rules"]
    said = rules_met([rule["verdict"] for rule in rules])
    assert said in texts[1]["README.md"]
    assert said.rstrip(".") in texts[1]["report.html"]
