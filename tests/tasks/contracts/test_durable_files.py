from __future__ import annotations

import errno
from pathlib import Path

import pytest

from tasks.contracts.durable_files import atomic_folder, atomic_path, canonical_json, write_json
from tasks.contracts.errors import DiskFullError


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]
    with atomic_path(target) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    with pytest.raises(RuntimeError), atomic_folder(target) as temporary:
        (temporary / "a").write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with atomic_folder(target) as temporary:
        (temporary / "a").write_text("whole")
        assert not target.exists()
    assert (target / "a").read_text() == "whole"


def test_a_full_disk_says_where_and_what_to_do_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(DiskFullError) as caught, atomic_path(tmp_path / "shard") as temporary:
        temporary.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert "shard" in str(caught.value)
    assert "the disk is full" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_another_os_error_passes_through(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), atomic_path(tmp_path / "shard"):
        raise PermissionError(errno.EACCES, "no")


def test_equal_values_give_equal_json_bytes(tmp_path: Path) -> None:
    assert canonical_json({"b": 1, "a": [2.5, None]}) == canonical_json({"a": [2.5, None], "b": 1})
    write_json(tmp_path / "1", {"b": 1, "a": 2})
    write_json(tmp_path / "2", {"a": 2, "b": 1})
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()
