"""`headwater verify --deep` on a finished workspace: every claim holds, and each is seen to fail."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.proof.verify import Check, deep_checks, guarded, workspace_checks
from tasks.contracts.document import read_documents, write_documents
from tests.e2e.workspace import Workspace
from tests.forgeries import FORGERIES, rehash
from training.release.verify import check_claim

pytestmark = pytest.mark.e2e

SAMPLE = 10_000


def test_every_claim_holds_by_both_programs(finished: Workspace) -> None:
    told = json.loads(finished.run("headwater", "verify", "--deep", "--sample", "40", "--json"))
    claims = {claim["claim"]: claim["verdict"] for claim in told["claims"]}
    assert set(claims.values()) == {"pass", "not checkable here"}
    assert [name for name, verdict in claims.items() if verdict != "pass"] == ["published", "signature"]
    assert {"folders", "counted", "recorded", "params", "documents", "warc", "texts", "items"} < set(claims)
    assert {"tokens", "batches", "copied", "figures", "judged"} < set(claims)
    release = finished.folder / "data/release"
    assert "PASS" in finished.run("python", "-I", str(release / "verify.py"), str(release))


def all_checks(sample: int) -> dict[str, Check]:
    """Return what `verify --deep` asks of the workspace that is the current folder."""
    release, data = Path("data/release"), Path("data")
    names = sorted(path.stem for path in (release / "manifests").glob("*.json"))
    return workspace_checks(release, data, names) | deep_checks(data, names, sample)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def flip_record(path: Path) -> None:
    """Change a byte of a training document's own record: others are not looked at by this claim."""
    trained = (document for part in path.parents[1].glob("mix/*.parquet") for document in read_documents(part))
    offset = next(document.warc_offset for document in trained if document.warc_path == path.name)
    assert offset is not None
    content = bytearray(path.read_bytes())
    content[offset + 100] ^= 1
    path.write_bytes(content)


def another_text(path: Path) -> None:
    documents = list(read_documents(path))
    write_documents(path, [replace(documents[0], text=f"{documents[0].text} more"), *documents[1:]])


def other_batches(path: Path) -> None:
    table = pq.read_table(path)
    hashes = pa.array(["0" * 64] * table.num_rows, table.schema.field("batch_sha256").type)
    pq.write_table(table.set_column(table.schema.get_field_index("batch_sha256"), "batch_sha256", hashes), path)


def another_record(path: Path) -> None:
    (record,) = path.glob("runs/*/crawl.json")
    record.write_text(record.read_text().replace('"stage": "crawl"', '"stage": "crawl" '))


BREAKS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "folders": ("data/mix/part-00000.parquet", flip),
    "stages": ("data/filter/_manifest.json", lambda path: path.write_text(path.read_text() + "\n")),
    "recorded": ("data/filter/_manifest.json", lambda path: path.write_text(path.read_text() + "\n")),
    "records": (".headwater", another_record),
    "warc": ("data/crawl/part-00000.warc.gz", flip_record),
    "texts": ("data/extract/part-00000.parquet", another_text),
    "tokens": ("data/tokenize/part-00000.bin", flip),
    "batches": ("data/train/steps.parquet", other_batches),
}


@pytest.mark.parametrize("claim", BREAKS)
def test_each_claim_about_the_workspace_fails_when_it_is_untrue(
    claim: str, finished: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, change = BREAKS[claim]
    shutil.copytree(finished.folder / "data", tmp_path / "data", copy_function=os.link)
    shutil.copytree(finished.folder / ".headwater/runs", tmp_path / ".headwater/runs")
    path = tmp_path / place
    if path.is_file():  # its bytes are the finished workspace's, too
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)
    change(path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADWATER_STATE", str(tmp_path / ".headwater"))
    text, check = all_checks(SAMPLE)[claim]
    result = check_claim(claim, text, lambda: guarded(check, ours=True))
    assert result.verdict == "fail"
    assert result.breaks


@pytest.fixture
def forged(finished: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of the finished workspace, whose files are the old ones until they are written anew."""
    for name in ("data", ".headwater/runs", ".headwater/releases"):
        shutil.copytree(finished.folder / name, tmp_path / name, copy_function=os.link)
    for name in ("dvc.yaml", "dvc.lock", "params.yaml", ".headwater/champions.jsonl"):
        shutil.copyfile(finished.folder / name, tmp_path / name)
    shutil.copytree(finished.folder / "infra", tmp_path / "infra")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADWATER_STATE", str(tmp_path / ".headwater"))
    return tmp_path


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forgery_with_every_hash_named_anew_is_found(name: str, forged: Path) -> None:
    claim, change = FORGERIES[name]
    change(Path("data"))
    rehash(Path("data"))
    check = all_checks(20)[claim][1]
    assert check_claim(claim, "", lambda: guarded(check, ours=True)).verdict == "fail"


SETTINGS: dict[str, tuple[str, Callable[[str], str]]] = {
    "a setting": ("params.yaml", lambda text: text.replace("ngram: 13", "ngram: 12")),
    "a borrowed setting": ("params.yaml", lambda text: re.sub(r"floor_margin: \S+", "floor_margin: 0.5", text)),
    "a setting that DVC ran with": ("dvc.lock", lambda text: text.replace("ngram: 13", "ngram: 12")),
    "a folder's digest": ("dvc.lock", lambda text: text.replace(".dir", "x.dir", 1)),
    "a stage": ("dvc.lock", lambda text: text.replace("  mix:\n", "  mixed:\n", 1)),
}


@pytest.mark.parametrize("what", SETTINGS)
def test_settings_and_dvcs_record_of_them_are_those_in_force(what: str, forged: Path) -> None:
    check = all_checks(20)["params"][1]
    assert check_claim("params", "", check).breaks == ()
    file, change = SETTINGS[what]
    before = Path(file).read_text()
    Path(file).write_text(change(before))
    assert Path(file).read_text() != before
    assert check_claim("params", "", lambda: guarded(check, ours=True)).verdict == "fail"
