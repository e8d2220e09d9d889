"""The files that a newcomer meets first agree with each other and with the code."""

from __future__ import annotations

import re
import subprocess
import tomllib

import yaml

from tests.conftest import ROOT

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
    assert sorted(re.findall(r"^  make (\w+) +\S", told, re.M)) == sorted(targets.split())


def test_a_commit_is_checked_by_what_make_check_does() -> None:
    (hooks,) = (repo["hooks"] for repo in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"])
    dry = ["make", "--dry-run", "--old-file", ".venv/.setup-done", "check"]
    checks = subprocess.run(dry, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [hook["entry"] for hook in hooks] == checks


def test_the_types_of_every_package_are_declared() -> None:
    assert all((ROOT / name / "py.typed").is_file() for name in ("flows", "tasks", "training"))
