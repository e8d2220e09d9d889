"""What `verify --deep` says of a small workspace that a forger has been at, every hash named anew."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from flows.history import run_records
from flows.proof import verify_again, verify_documents, verify_files
from flows.proof.verify import guarded
from tasks.contracts.document import Document
from tasks.contracts.errors import ConservationError
from tasks.contracts.manifest import MANIFEST_NAME, commit_manifest, manifest_hash, read_manifest
from tests.flows.proof.traced_workspace import TEXT_STAGES, make
from tests.forgeries import FORGERIES, edit_json, edit_rows, rehash
from training.release.verify import Break

NAMES = ["crawl", *TEXT_STAGES, "tokenize", "train"]
CHECKS: dict[str, Callable[[Path], Iterator[Break]]] = {
    "documents": lambda data: verify_documents.documents(data, NAMES),
    "counted": lambda data: verify_files.counted(data, NAMES),
    "folders": lambda data: verify_files.folders(data, NAMES),
    "batches": lambda data: verify_again.batches(data, None),
}
HERE = [name for name, (claim, _) in FORGERIES.items() if claim in CHECKS and "seed" not in name]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADWATER_STATE", str(root / ".headwater"))
        make(root)
        for stage in NAMES:
            run_records.write_record(
                run="first", stage=stage, started_at=run_records.now(), output=root / "data" / stage
            )
    return root


@pytest.fixture
def data(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(made, tmp_path / "ws")
    monkeypatch.setenv("HEADWATER_STATE", str(tmp_path / "ws/.headwater"))
    monkeypatch.chdir(tmp_path / "ws")
    monkeypatch.setattr(verify_documents, "_rules", lambda stage: edited_again if stage == "filter" else None)
    return Path("data")


def edited_again(document: Document) -> Document:
    return document.with_text(document.text.replace(".", ""))


@pytest.mark.parametrize("claim", CHECKS)
def test_what_nobody_touched_passes(data: Path, claim: str) -> None:
    assert list(CHECKS[claim](data)) == []
    rehash(data)
    assert list(CHECKS[claim](data)) == []


@pytest.mark.parametrize("name", HERE)
def test_a_forgery_with_every_hash_named_anew_is_found(data: Path, name: str) -> None:
    claim, change = FORGERIES[name]
    change(data)
    rehash(data)
    assert list(guarded(lambda: CHECKS[claim](data), ours=True)), name


def test_a_stage_that_nobody_knows_is_followed_as_well(data: Path) -> None:
    """A fifteenth stage, between two others, that loses or changes a document."""
    shutil.copytree(data / "dedup", data / "polish")
    edit_json(data / "polish" / MANIFEST_NAME, lambda v: v.update(stage="polish"))
    count = json.loads((data / "dedup" / MANIFEST_NAME).read_bytes())["counts"]["out"]
    for path in sorted((data / "polish/dropped").glob("*.parquet")):
        shutil.copyfile(data / "mix/dropped/part-00000.parquet", path)
    edit_json(
        data / "polish" / MANIFEST_NAME,
        lambda v: v.update(counts={"in": count, "out": count, "dropped": {}}, inputs={"dedup": "x"}),
    )
    edit_json(data / "perplexity" / MANIFEST_NAME, lambda v: v.update(inputs={"polish": "x"}))
    rehash(data)
    names = [*NAMES, "polish"]
    assert list(verify_documents.documents(data, names)) == []
    assert [b for b in verify_files.counted(data, names) if "polish" in b.where] == []
    edit_json(data / "perplexity" / MANIFEST_NAME, lambda v: v["counts"].update({"in": count - 1, "out": count - 2}))
    assert any("out of polish and into perplexity" in b.where for b in verify_files.counted(data, names))


def lose_kept(state: Path) -> None:
    shutil.rmtree(state / "runs/manifests")


def change_kept(state: Path) -> None:
    path = next((state / "runs/manifests").iterdir())
    path.write_bytes(path.read_bytes().replace(b"1", b"2"))


def lose_chain(state: Path) -> None:
    (state / "runs/chain.jsonl").unlink()


def lose_runs(state: Path) -> None:
    shutil.rmtree(state / "runs")


def lose_record(state: Path) -> None:
    next((state / "runs/first").glob("mix.json")).unlink()


def link_kept(state: Path) -> None:
    path = next((state / "runs/manifests").iterdir())
    path.rename(path.with_suffix(".bak"))
    path.symlink_to(path.with_suffix(".bak").name)


@pytest.mark.parametrize("change", [lose_kept, change_kept, lose_chain, lose_runs, lose_record, link_kept])
def test_run_records_and_the_manifests_kept_with_them_are_whole(data: Path, change: Callable[[Path], None]) -> None:
    assert list(verify_files.records()) == []
    change(Path(os.environ["HEADWATER_STATE"]))
    assert list(verify_files.records())


def test_trace_never_says_two_things_of_one_document(data: Path) -> None:
    """Two pages under one id, one held out and one trained on: the stage that would make them stops."""
    doc_id = pq.read_table(data / "holdout/heldout/part-00001.parquet")["doc_id"][0].as_py()
    edit_rows(data / "holdout/part-00000.parquet", lambda rows: rows[0].update(doc_id=doc_id))
    old = read_manifest(data / "holdout")
    before = manifest_hash(data / "holdout")
    with pytest.raises(ConservationError, match="two documents have one id"):
        commit_manifest(
            data / "holdout",
            stage="holdout",
            unit=old.unit,
            params=old.params,
            inputs={"perplexity": data / "perplexity"},
            counts=old.counts,
        )
    assert manifest_hash(data / "holdout") == before
