"""`headwater init`, and whose code answers in a workspace. tests/e2e/test_wheel.py runs what it makes to its end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from flows.cli.init import init, workspace_files
from flows.cli.main import ANYWHERE
from tasks.contracts.errors import InputError, UsageError
from tests.conftest import ROOT


def headwater(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Call the command in a folder, as an installed one: what lies in the folder is not on its path."""
    start = f"import sys; sys.path[:] = [{str(ROOT)!r}, *sys.path[1:]]; from flows.cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-c", start, *words], cwd=folder, capture_output=True, text=True, check=False
    )


def test_a_workspace_is_in_git_and_has_every_file_of_this_one(workspace: Path) -> None:
    init(Path("corpus"))
    asked = ["git", "ls-files", "--cached", "--others"]
    tracked = subprocess.run(asked, cwd="corpus", capture_output=True, text=True, check=True).stdout.splitlines()
    assert sorted(tracked) == sorted(name.as_posix() for _, name in workspace_files())
    assert {"dvc.yaml", "params.yaml", ".dvc/config", "infra/profiles/tiny.yaml", "flows/report/report.html.j2"} <= {
        *tracked
    }
    state = subprocess.run(["git", "status", "--short"], cwd="corpus", capture_output=True, text=True, check=True)
    assert state.stdout == ""


def test_a_folder_that_holds_something_is_left_alone(workspace: Path) -> None:
    (workspace / "mine.txt").write_text("mine")
    for place in (workspace, workspace / "mine.txt"):
        with pytest.raises(UsageError, match="new or an empty folder"):
            init(place)
    assert [path.name for path in workspace.iterdir()] == ["mine.txt"]


def test_what_git_refuses_is_said(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hooks = workspace / "hooks"
    hooks.mkdir()
    (hooks / "pre-commit").write_text("#!/bin/sh\necho no commits today >&2\nexit 1\n")
    (hooks / "pre-commit").chmod(0o755)
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "core.hooksPath")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", str(hooks))
    with pytest.raises(InputError, match="no commits today"):
        init(Path("corpus"))


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A folder that looks like a workspace, with code of somebody else's."""
    (tmp_path / "flows" / "cli").mkdir(parents=True)
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    for name in ("flows/__init__.py", "flows/cli/__init__.py"):
        (tmp_path / name).touch()
    (tmp_path / "flows" / "cli" / "main.py").write_text("import sys\nprint('the code here got', *sys.argv[1:])\n")
    return tmp_path


def test_a_workspace_is_answered_by_its_own_code(foreign: Path) -> None:
    assert headwater(foreign, "params", "show", "mix").stdout == "the code here got params show mix\n"


@pytest.mark.parametrize("word", ANYWHERE)
def test_what_needs_no_workspace_runs_no_code_that_lies_there(foreign: Path, word: str) -> None:
    """Somebody looks at a release that is not trusted from within its folder."""
    done = headwater(foreign, word, *({"diff": ["a", "b"], "init": ["dvc.yaml"]}.get(word, [])))
    assert "the code here" not in done.stdout + done.stderr
