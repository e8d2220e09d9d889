"""What `verify` says of a workspace that is whole, and has changed in ways that it may."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from flows.history import run_records
from flows.history.digest import dvc_digest
from flows.proof import verify_files
from flows.workspace.graph import load_graph
from flows.workspace.params import read_params, stage_params
from tasks.contracts.manifest import Counts
from tests.conftest import ROOT
from tests.planted import plant_manifest

RELEASE = Path("data/release")


@pytest.fixture
def release(workspace: Path) -> Path:
    """A workspace with a release, as dvc.lock says."""
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, workspace)
    RELEASE.mkdir(parents=True)
    (RELEASE / "model.safetensors").write_bytes(b"weights")
    params = stage_params(read_params(), load_graph()["release"]).in_manifest()
    plant_manifest(RELEASE, stage="release", unit="files", params=params, inputs={}, counts=Counts(in_=1, out=1))
    out = {"path": str(RELEASE), "md5": dvc_digest(RELEASE)}
    with Path("dvc.lock").open("w") as stream:
        YAML().dump({"schema": "2.0", "stages": {"release": {"cmd": "none", "outs": [out]}}}, stream)
    return RELEASE


def test_a_takedowns_mark_is_no_broken_link_and_any_other_file_is_one(release: Path) -> None:
    assert list(verify_files.settings(Path("data"), [])) == []
    (release / "takedown.json").write_text("{}")
    (release / "TAKEDOWN.md").write_text("# read first")
    assert list(verify_files.settings(Path("data"), [])) == []
    for name in ("takedown.json", "TAKEDOWN.md"):
        (release / name).unlink()
    (release / "other.md").write_text("# added")
    assert [one.where for one in verify_files.settings(Path("data"), [])] == ["dvc.lock, release, outs, data/release"]


def test_what_other_code_made_is_said(release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = run_records.Code(commit="a" * 40, dirty=False)
    monkeypatch.setattr(run_records, "code_state", lambda: here)
    monkeypatch.setattr(verify_files, "code_state", lambda: here)
    run_records.write_record(run="r1", stage="release", started_at=run_records.now(), output=release)
    assert verify_files.other_code(Path("data")) == ""
    monkeypatch.setattr(verify_files, "code_state", lambda: here.model_copy(update={"commit": "b" * 40}))
    told = verify_files.other_code(Path("data"))
    assert "commit bbbbbbbbbbbb" in told
    assert "release: commit aaaaaaaaaaaa" in told
    monkeypatch.setattr(verify_files, "code_state", run_records.Code)
    assert verify_files.other_code(Path("data")) == "", "no git, no commit to compare"
