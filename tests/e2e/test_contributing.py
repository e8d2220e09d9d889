"""CONTRIBUTING.md is followed word for word, from its first command to its last, where `make run` has just ended."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.e2e.workspace import Workspace

pytestmark = pytest.mark.e2e

SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", (ROOT / "CONTRIBUTING.md").read_text(), re.M | re.S))
WITH_COMMANDS = [name for name, text in SECTIONS.items() if "```bash\n" in text]


def commands(section: str) -> list[str]:
    return [block.strip() for block in re.findall(r"```bash\n(.*?)```", SECTIONS[section], re.S)]


def test_a_filter_a_stage_a_family_and_a_command_are_added_by_commands() -> None:
    """docs/filters.md, to which the section on filters leads, is followed by test_docs."""
    assert WITH_COMMANDS == ["Before you send it", "Add a filter", "Add a stage", "Add a model family", "Add a command"]
    (anchor,) = re.findall(r"\(docs/filters\.md#(.*?)\)", SECTIONS["Add a filter"])
    assert f"\n## {anchor.replace('-', ' ').capitalize()}\n" in (ROOT / "docs/filters.md").read_text()


def test_what_the_page_adds_runs_together_and_passes_the_checks(finished: Workspace, tmp_path: Path) -> None:
    shutil.copytree(finished.folder, tmp_path / "workspace", symlinks=True)
    workspace = Workspace(tmp_path / "workspace")
    if (known := ROOT / ".mypy_cache").is_dir():  # else mypy reads all libraries anew, for minutes
        shutil.copytree(known, workspace.folder / known.name)
    for section in WITH_COMMANDS[1:]:
        for block in commands(section):
            workspace.run("bash", "-euc", block)
    for check in commands(WITH_COMMANDS[0]):
        workspace.run("bash", "-euc", check)

    asked = str(workspace.manifest("filter").params["rules"])
    assert "{'exclamations': {'max_share': 0.4}}" in asked
    capped = workspace.manifest("cap").counts
    assert capped.dropped["host_full"] == capped.in_ - capped.out > 0
    assert workspace.manifest("perplexity").counts.in_ == capped.out
    config = workspace.read_json("data/release/config.json")
    assert isinstance(config, dict)
    assert config["architectures"] == ["Olmo2ForCausalLM"]
    papers = {name: (workspace.folder / "data/release" / name).read_text() for name in ("README.md", "data_card.md")}
    assert "Olmo2 architecture" in papers["README.md"]
    assert "host_full" in papers["data_card.md"]
    workspace.run("headwater", "verify")
