from __future__ import annotations

from pathlib import Path

import pytest

from tasks.contracts.document import Document, write_documents
from tasks.contracts.errors import ConservationError, ManifestError
from tasks.contracts.manifest import (
    MANIFEST_NAME,
    Counts,
    Manifest,
    commit_manifest,
    manifest_hash,
    read_manifest,
    text_shards,
)


def one_document(number: int) -> Document:
    return Document(doc_id=str(number), url="u", host="h", record_id="r", source="s", text="t")


def make_folder(folder: Path, rows: int = 3) -> Manifest:
    write_documents(folder / "part-00000.parquet", [one_document(n) for n in range(rows)])
    (folder / "extra.json").write_text("{}")
    counts = Counts(in_=rows + 2, out=rows, dropped={"short": 2})
    return commit_manifest(folder, stage="filter", unit="documents", params={"a": 1}, inputs={}, counts=counts)


def test_it_lists_every_file_with_its_hash_and_rows(tmp_path: Path) -> None:
    manifest = make_folder(tmp_path / "filter")
    assert [shard.name for shard in manifest.shards] == ["extra.json", "part-00000.parquet"]
    assert [shard.rows for shard in manifest.shards] == [None, 3]
    assert read_manifest(tmp_path / "filter") == manifest
    assert [shard.name for shard in text_shards(tmp_path / "filter")] == ["part-00000.parquet"]


def test_equal_folders_have_equal_manifests_and_one_changed_byte_shows(tmp_path: Path) -> None:
    make_folder(tmp_path / "a")
    make_folder(tmp_path / "b")
    make_folder(tmp_path / "c", rows=4)
    assert manifest_hash(tmp_path / "a") == manifest_hash(tmp_path / "b") != manifest_hash(tmp_path / "c")


def test_inputs_are_chained_by_the_hash_of_their_manifests(tmp_path: Path) -> None:
    make_folder(tmp_path / "filter")
    (tmp_path / "dedup").mkdir()
    counts = Counts(in_=3, out=0, dropped={"near_duplicate": 3})
    manifest = commit_manifest(
        tmp_path / "dedup",
        stage="dedup",
        unit="documents",
        params={},
        inputs={"filter": tmp_path / "filter"},
        counts=counts,
    )
    assert manifest.inputs == {"filter": manifest_hash(tmp_path / "filter")}


def test_rows_that_are_lost_or_invented_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConservationError, match="lost or invented"):
        commit_manifest(
            tmp_path, stage="x", unit="documents", params={}, inputs={}, counts=Counts(in_=3, out=1, dropped={"a": 1})
        )
    assert not (tmp_path / MANIFEST_NAME).exists()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"stage": "x"}'])
def test_a_manifest_that_is_none_is_a_clear_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / MANIFEST_NAME).write_bytes(content)
    with pytest.raises(ManifestError, match="cannot be read"):
        read_manifest(tmp_path)


def test_a_missing_manifest_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="dvc checkout"):
        manifest_hash(tmp_path / "nowhere")


def test_counts_add_up() -> None:
    total = Counts(in_=3, out=1, dropped={"a": 2}) + Counts(in_=2, out=0, dropped={"a": 1, "b": 1})
    assert total == Counts(in_=5, out=1, dropped={"a": 3, "b": 1})
