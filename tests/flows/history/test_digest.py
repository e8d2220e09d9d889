"""The digest is DVC's own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from flows.history.digest import dvc_digest


def test_it_equals_what_dvc_writes_into_dvc_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    make = "import pathlib as p; d = p.Path('data/a/sub'); d.mkdir(parents=True); (d / 'x').write_text('1'); "
    make += "(d / 'y').write_text('2'); (d / 'left.pyc').write_text('3')"
    graph = {"stages": {"a": {"cmd": f'{sys.executable} -c "{make}"', "outs": ["data/a"]}}}
    Path("dvc.yaml").write_text(yaml.safe_dump(graph))
    for command in (["init", "--no-scm", "-q"], ["repro", "-q"]):
        if command[0] == "repro":
            Path(".dvcignore").write_text("*.pyc\n")
        subprocess.run([sys.executable, "-m", "dvc", *command], check=True)
    expected = yaml.safe_load(Path("dvc.lock").read_text())["stages"]["a"]["outs"][0]["md5"]
    assert dvc_digest(Path("data/a")) == expected
    assert len(expected) <= 36
    (tmp_path / "data/a/sub/x").unlink()
    assert dvc_digest(Path("data/a")) != expected


def test_a_folder_outside_dvc_has_one_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_text("1")
    assert dvc_digest(tmp_path / "a").endswith(".dir")


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        dvc_digest(tmp_path / "none")
