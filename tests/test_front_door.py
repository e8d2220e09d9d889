"""The files that a newcomer meets first agree with each other and with the code."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_one_version_everywhere() -> None:
    """pyproject.toml says which; the newest entry of the changelog and the citation are of it, with its day."""
    version = PROJECT["project"]["version"]
    newest = re.findall(r"^## (\S+) \((\d{4}-\d\d-\d\d)\)$", (ROOT / "CHANGELOG.md").read_text(), re.M)[0]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert newest == (version, str(citation["date-released"]))
    assert citation["version"] == version
    assert citation["license"] == PROJECT["project"]["license"] == "Apache-2.0"
    assert "Apache License\n                           Version 2.0, January 2004" in (ROOT / "LICENSE").read_text()


def test_a_workspace_holds_all_that_a_clone_holds() -> None:
    """Otherwise what `headwater init` makes would lack what somebody adds beside the packages."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    held = (*PROJECT["tool"]["headwater"]["workspace"], "flows", "tasks", "training")
    assert [name for name in files if name not in held and not name.startswith(tuple(f"{one}/" for one in held))] == []


def test_make_help_tells_of_every_target() -> None:
    told = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (targets,) = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.M)
    assert sorted(re.findall(r"^  make ([\w-]+) +\S", told, re.M)) == sorted(targets.split())


def test_a_commit_is_checked_by_what_make_check_does() -> None:
    (hooks,) = (repo["hooks"] for repo in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"])
    dry = ["make", "--dry-run", "--old-file", ".venv/.setup-done", "check"]
    checks = subprocess.run(dry, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [hook["entry"] for hook in hooks] == checks


def test_the_types_of_every_package_are_declared() -> None:
    assert all((ROOT / name / "py.typed").is_file() for name in ("flows", "tasks", "training"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_between_the_pages_lead_somewhere(page: Path) -> None:
    """To a file that is there, and in a page to a heading that it has."""
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    for target, anchor in re.findall(r"\]\(([^)#:\s]*)(?:#([^)\s]*))?\)", prose):
        linked = page.parent / target if target else page
        assert linked.exists(), f"it links to {target}"
        if anchor:
            titles = re.findall(r"^#+ (.*)$", linked.read_text(), re.M)
            assert anchor in {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}, anchor


def test_the_tour_names_what_is_in_the_files_that_it_leads_to() -> None:
    """Behind a link to a file stand functions and classes of it; any other name is of one of the files linked."""
    page = ROOT / "docs" / "tour.md"
    prose = " ".join(re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S).split())
    everywhere: set[str] = set()
    named = re.findall(r"\]\(([^)]+\.py)\)((?:(?:,| and)? `\w+`)*)", prose)
    assert len(named) > 40
    for target, names in named:
        defined = {
            node.name
            for node in ast.walk(ast.parse((page.parent / target).read_bytes()))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        }
        assert defined >= {*re.findall(r"`(\w+)`", names)}, target
        everywhere |= defined
    assert everywhere >= {*re.findall(r"`(\w+)`", prose)}
