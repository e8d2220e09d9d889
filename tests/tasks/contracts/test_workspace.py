"""What a process that is started here inherits: this code and this Python first, never the working folder by chance."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.contracts.workspace import ROOT, child_environment


@pytest.mark.parametrize("before", [None, "", os.pathsep, f"/x{os.pathsep}", f"{ROOT}{os.pathsep}/x"])
def test_this_code_is_found_first_and_no_empty_entry_stands_for_the_working_folder(
    monkeypatch: pytest.MonkeyPatch, before: str | None
) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    if before is not None:
        monkeypatch.setenv("PYTHONPATH", before)
    entries = child_environment()["PYTHONPATH"].split(os.pathsep)
    assert entries[0] == str(ROOT)
    assert "" not in entries
    assert len(entries) == len(set(entries))


def test_a_child_in_another_folder_has_the_same_state_python_and_code(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADWATER_STATE", "state")
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "tasks").mkdir(parents=True)
    (elsewhere / "tasks" / "__init__.py").write_text("raise SystemExit('the working folder was imported')")
    script = tmp_path / "said.py"
    script.write_text(
        "import shutil, tasks.contracts.workspace as w; print(w.state_folder(), w.ROOT, shutil.which('python'))"
    )
    said = subprocess.run(
        [sys.executable, script], cwd=elsewhere, env=child_environment(), capture_output=True, text=True, check=True
    )
    assert said.stdout.split() == [str(tmp_path / "state"), str(ROOT), str(Path(sys.executable).parent / "python")]


def test_what_is_said_beats_what_is_inherited_and_that_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAID", "inherited")
    monkeypatch.delenv("NOT_SAID", raising=False)
    assert child_environment(defaults={"SAID": "default"})["SAID"] == "inherited"
    assert child_environment({"SAID": "given"}, defaults={"NOT_SAID": "default"})["SAID"] == "given"
    assert child_environment(defaults={"NOT_SAID": "default"})["NOT_SAID"] == "default"
