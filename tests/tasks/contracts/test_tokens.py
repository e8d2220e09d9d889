"""tokens.json: what it says must be what the files hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tasks.contracts.durable_files import write_json
from tasks.contracts.errors import ManifestError
from tasks.contracts.tokens import TokenRange, TokensInfo, read_index, read_tokens_info, smallest_dtype, write_index


def write_folder(folder: Path, **changes: Any) -> None:
    (folder / "part-00000.bin").write_bytes(b"\x01\x00" * 5)
    (folder / "validation.bin").write_bytes(b"\x01\x00" * 2)
    info: dict[str, Any] = {
        "dtype": "uint16", "vocab_size": 300, "eos_id": 0, "tokens": 5, "documents": 1, "bytes": 9,
        "shards": [{"name": "part-00000.bin", "tokens": 5}], "validation_tokens": 2, "validation_bytes": 3,
    }  # fmt: skip
    write_json(folder / "tokens.json", {**info, **changes})


def test_a_good_folder_is_read(tmp_path: Path) -> None:
    write_folder(tmp_path)
    assert isinstance(read_tokens_info(tmp_path), TokensInfo)


@pytest.mark.parametrize(
    "changes", [{"validation_tokens": 3}, {"dtype": "uint32"}, {"shards": [{"name": "part-00001.bin", "tokens": 5}]}]
)
def test_a_shard_of_another_size_or_a_missing_one_is_an_error(tmp_path: Path, changes: dict[str, Any]) -> None:
    write_folder(tmp_path, **changes)
    with pytest.raises(ManifestError, match="missing or has another size"):
        read_tokens_info(tmp_path)


def test_an_unknown_key_or_no_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no token shards"):
        read_tokens_info(tmp_path)
    write_folder(tmp_path, more=1)
    with pytest.raises(ManifestError, match="cannot be read"):
        read_tokens_info(tmp_path)


def test_the_index_comes_back(tmp_path: Path) -> None:
    ranges = [TokenRange(doc_id="a", url="u", epoch=1, offset=0, length=4, bytes=9)]
    write_index(tmp_path / "part-00000.parquet", ranges)
    assert list(read_index(tmp_path / "part-00000.parquet")) == ranges


def test_uint16_holds_exactly_65536_ids() -> None:
    assert (smallest_dtype(65536), smallest_dtype(65537)) == ("uint16", "uint32")
