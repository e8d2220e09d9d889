"""A full disk is known by any library's words for it, and nothing else is taken for one."""

from __future__ import annotations

import errno
import json
import shutil
import sqlite3
import tempfile
from collections import namedtuple
from pathlib import Path

import pytest

from tasks.contracts.disk import disk_full, disk_full_in, disk_full_is_clear, mount_point
from tasks.contracts.errors import DiskFullError, InputError

CLEAR = [
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EDQUOT, "Disk quota exceeded"),
    OSError(errno.EFBIG, "File too large"),
    sqlite3.OperationalError("database or disk is full"),
    RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
    RuntimeError(
        "OutOfDiskError: Local disk is full. The object cannot be created because the local object store is full"
    ),
    ValueError("[Errno 28] Error writing bytes to file"),
]
UNCLEAR = [
    OSError("3000000 requested and 2097024 written"),
    RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"),
    RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0"),
    RuntimeError("No possible cache link types for 'data/crawl'."),
    RuntimeError("Server error '500 Internal Server Error' for url 'http://127.0.0.1:4200/api/flows/' - Response: {}"),
    sqlite3.OperationalError("disk I/O error"),
]
OTHER = [
    OSError(errno.EACCES, "Permission denied"),
    ValueError("28 items"),
    InputError("a page says: no space left on device"),
    sqlite3.OperationalError("database is locked"),
]
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(5_000_000, 5_000_000, 1000))


@pytest.mark.parametrize("error", [*CLEAR, *UNCLEAR], ids=str)
def test_a_full_disk_is_known_in_any_words_also_behind_another_error(
    workspace: Path, full: None, error: Exception
) -> None:
    for raised in (error, RuntimeError("the stage failed")):
        raised.__cause__ = error if raised is not error else None
        told = disk_full(raised, workspace / "out" / "part")
        assert told is not None
        assert told.exit_code == 1
        assert str(mount_point(workspace)) in str(told)
        assert "1.0 kB of 5.0 MB free" in str(told)
        assert "\n" not in str(told)


@pytest.mark.parametrize("error", [*OTHER, *UNCLEAR], ids=str)
def test_what_has_another_cause_is_left_as_it_is(workspace: Path, error: Exception) -> None:
    assert disk_full(error) is None
    with pytest.raises(type(error)) as caught, disk_full_is_clear(workspace):
        raise error
    assert caught.value is error


def test_an_error_that_says_it_already_is_passed_on(workspace: Path) -> None:
    told = DiskFullError("the disk is full")
    assert disk_full(told) is told


def put(name: str, content: bytes | int) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_bytes(bytes(content))


def test_what_to_free_is_named_with_the_bytes_that_its_command_frees(workspace: Path) -> None:
    put(".headwater/shards/a/part", 3_000_000)
    folder, used, unused = (letter * 32 for letter in "abc")
    put(f".dvc/cache/files/md5/aa/{folder[2:]}.dir", json.dumps([{"md5": used, "relpath": "x"}]).encode())
    put(f".dvc/cache/files/md5/bb/{used[2:]}", 9_000_000)
    put(f".dvc/cache/files/md5/cc/{unused[2:]}", 5_000_000)
    put("dvc.lock", f"outs:\n- path: data/crawl\n  md5: {folder}.dir\n".encode())
    told = str(disk_full_in("No space left on device", workspace / "out"))
    first, _, rest = told.partition("5.0 MB of earlier runs in .dvc/cache (`dvc gc -w`)")
    assert first, "what dvc.lock names is not freed"
    assert "3.0 MB in .headwater/shards (`headwater gc --keep-days 0`)" in rest
    put(".headwater/train/key/checkpoint", 1000)
    told = str(disk_full_in("No space left on device", workspace / "out"))
    assert "`headwater gc --keep-days 0`, which drops the unfinished train too" in told


def test_where_nothing_can_be_freed_it_says_so(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(workspace))
    put(".dvc/cache/files/md5/aa/a", 0)
    assert "nothing of Headwater's" in str(disk_full_in("No space left on device", workspace / "out"))


def test_how_much_is_missing_is_said_where_it_is_known(workspace: Path, full: None) -> None:
    told = str(disk_full_in("No space left on device", workspace / "out", needed=41_000))
    assert "1.0 kB of 5.0 MB free, 40.0 kB too little," in told
