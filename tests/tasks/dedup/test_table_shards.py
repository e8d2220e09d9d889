"""Shards written a table at a time have the bytes of those written document by document."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.contracts.document import open_shard, read_documents, write_documents
from tasks.contracts.errors import InputError
from tasks.dedup.table_shards import write_batches
from tests.tasks.dedup.conftest import document


@pytest.mark.parametrize("size", [1, 700, 1024, 5000])
def test_bytes_are_those_of_the_contract(tmp_path: Path, size: int) -> None:
    documents = [
        document(str(n), f"text {n}" * (n % 7), captured_at="2020" if n % 3 else None).with_scores(
            {"a.b": n / 3} if n % 2 else {}
        )
        for n in range(2_500)
    ]
    write_documents(tmp_path / "all.parquet", documents)
    with open_shard(tmp_path / "all.parquet") as shard:
        assert write_batches(tmp_path / "copy.parquet", shard.iter_batches(batch_size=size)) == 2_500
    assert (tmp_path / "copy.parquet").read_bytes() == (tmp_path / "all.parquet").read_bytes()
    assert list(read_documents(tmp_path / "copy.parquet")) == documents


def test_no_documents_are_a_shard_too(tmp_path: Path) -> None:
    write_documents(tmp_path / "none.parquet", [])
    assert write_batches(tmp_path / "copy.parquet", []) == 0
    assert (tmp_path / "copy.parquet").read_bytes() == (tmp_path / "none.parquet").read_bytes()


def test_what_is_no_shard_is_refused(tmp_path: Path) -> None:
    (tmp_path / "part.parquet").write_text("no")
    with pytest.raises(InputError, match="cannot be read"):
        open_shard(tmp_path / "part.parquet")
