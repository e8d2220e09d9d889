"""A full disk, in whatever words a library says so: which disk, how much is free, and what can be freed.

No space shows in many ways: errno in our own writes and pyarrow's, a text in Rust's and SQLite's errors, DVC's "No
possible cache link types", Ray's OutOfDiskError, from Prefect's server an "Internal Server Error", and from torch's
writer only that a write fell short.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks.contracts.errors import DiskFullError, HeadwaterError
from tasks.contracts.workspace import state_folder

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""No space, no quota left, or the largest file that the system or a shell's `ulimit -f` allows."""

_SAID = re.compile(
    r"no space left on device|disk quota exceeded|file too large|database or disk is full|local disk is full"
    r"|OutOfDiskError|\[errno (?:28|122|27)\]|os error (?:28|122|27)\b|not enough (?:disk )?space",
    re.I,
)
# These have other causes too, and count where a disk is found to be full.
_MAY_MEAN = re.compile(
    r"no possible cache link types|disk i/o error|PytorchStreamWriter|inline_container|unexpected pos"
    r"|file write failed|requested and \d+ written|unable to write|short write|object store is full"
    r"|500 Internal Server Error",  # what Prefect's server says when its database cannot grow
    re.I,
)
NEARLY_FULL = 1 << 20
"""Bytes free under which a disk counts as full, where the message alone is not clear: 1 MiB."""
WEIGHING_SECONDS = 2.0
CACHES = ("shards", "perplexity/models")
UNFINISHED = ("crawl", "train")
FREED_BY = {
    "mlflow-artifacts": "by hand, with mlflow.db: `headwater lineage sync` makes both again",
    "snapshots": "by hand: crawls that no command fetches again",
}
"""Folders of the state folder that may be large: those that `headwater gc` empties, what an interrupted stage goes on
from, and how others are freed."""
_IN_LOCK = re.compile(r"\bmd5: ([0-9a-f]{32}(?:\.dir)?)")


@contextmanager
def disk_full_is_clear(path: Path, needed: int | None = None) -> Iterator[None]:
    """Turn "no space left", said by whatever was writing, into an error that names the disk and what to do.

    Args:
        needed: bytes that are written to `path`, where that is known.
    """
    try:
        yield
    except Exception as error:
        full = disk_full(error, path, needed)
        if full is None or full is error:
            raise
        raise full from error


def disk_full(error: BaseException, path: Path | None = None, needed: int | None = None) -> DiskFullError | None:
    """Return what an error means if it means a full disk, None if it does not.

    Args:
        path: what was being written, where that is known; `needed` likewise its bytes.
    """
    cause: BaseException | None = error
    seen: set[int] = set()
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        if isinstance(cause, DiskFullError):
            return cause
        if isinstance(cause, OSError) and cause.errno in NO_SPACE:
            named = Path(cause.filename) if isinstance(cause.filename, str) else None
            return _error(path or named, os.strerror(cause.errno), needed)
        # Our own errors say what they mean, and may quote a page.
        if not isinstance(cause, HeadwaterError) and (
            full := disk_full_in(f"{type(cause).__name__}: {cause}", path, needed)
        ):
            return full
        cause = cause.__cause__ or cause.__context__
    return None


def says_full(text: str) -> bool:
    """Tell whether a message says itself that there is no space left."""
    return _SAID.search(text) is not None


def disk_full_in(text: str, path: Path | None = None, needed: int | None = None) -> DiskFullError | None:
    """Return what a message means if it means a full disk, None if it does not."""
    if said := _SAID.search(text):
        return _error(path, said[0], needed)
    may = _MAY_MEAN.search(text)
    if may and any(shutil.disk_usage(place).free < NEARLY_FULL for place in _places(path)):
        return _error(path, may[0], needed)
    return None


def _places(path: Path | None) -> list[Path]:
    """Return a folder on each disk that is written to, that of the path first."""
    listed = [Path.cwd(), state_folder(), Path(tempfile.gettempdir()), Path("/dev/shm")]
    if path is not None:
        listed.insert(0, path)
    return list(dict.fromkeys(_existing(place) for place in listed))


def _existing(path: Path) -> Path:
    path = path.absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def _error(path: Path | None, said: str, needed: int | None) -> DiskFullError:
    place = _places(path)[0]
    fullest = min(_places(path), key=lambda one: shutil.disk_usage(one).free)
    # A library may have been writing elsewhere, to its temporary files or to shared memory.
    if path is None or (shutil.disk_usage(place).free >= NEARLY_FULL > shutil.disk_usage(fullest).free):
        path, place = None, fullest
    usage = shutil.disk_usage(place)
    disk = mount_point(place)
    if usage.free >= NEARLY_FULL and "large" in said.lower():
        what = f"a file is larger than may be written on {disk}"
    elif usage.free >= NEARLY_FULL and "quota" in said.lower():
        what = f"the quota on {disk} is used up"
    else:
        what = f"{disk} has {size_of(usage.free)} of {size_of(usage.total)} free"
        if needed is not None and needed > usage.free:
            what += f", {size_of(needed - usage.free)} too little,"
    writing = f" while {path} was written" if path is not None else ""
    freed = _freeable(disk)
    ways = (
        ", ".join(freed) or "nothing of Headwater's on this disk can be spared: free what else is on it, or enlarge it"
    )
    return DiskFullError(
        f"the disk is full: {what} ({said}){writing}; free space, then run again, as what is finished is kept: {ways}"
    )


def mount_point(path: Path) -> Path:
    """Return where the disk is mounted that a path lies on."""
    place = _existing(path).resolve()
    while not place.is_mount() and place != place.parent:
        place = place.parent
    return place


def _freeable(disk: Path) -> list[str]:
    """Say what can be freed on this disk, and by what, the largest first."""
    deadline = time.monotonic() + WEIGHING_SECONDS
    state = state_folder()
    lost = [name for name in UNFINISHED if any(path.is_dir() for path in (state / name).glob("*"))]
    collect = "`headwater gc --keep-days 0`" + (
        f", which drops the unfinished {' and '.join(lost)} too" if lost else ""
    )
    ways = {state / name: collect for name in CACHES}
    ways |= {state / name: way for name, way in FREED_BY.items()}
    ways[Path(tempfile.gettempdir()) / "ray"] = "by hand, when no run is at work"
    here = [folder for folder in ways if folder.is_dir() and mount_point(folder) == disk]
    found = [(_weigh(folder, deadline), f"in {_short(folder)} ({ways[folder]})") for folder in here]
    cache = Path(".dvc/cache").absolute()
    if cache.is_dir() and mount_point(cache) == disk:
        found.append((_weigh(cache, deadline, _in_use(cache)), "of earlier runs in .dvc/cache (`dvc gc -w`)"))
    return [f"{size_of(size)} {where}" for size, where in sorted(found, reverse=True) if size]


def _in_use(cache: Path) -> set[str]:
    """Return the digests that dvc.lock names, which `dvc gc -w` keeps, those of the files in its folders too."""
    try:
        digests = set(_IN_LOCK.findall(Path("dvc.lock").read_text()))
    except OSError:
        return set()
    for digest in [one for one in digests if one.endswith(".dir")]:
        try:
            listed = json.loads((cache / "files" / "md5" / digest[:2] / digest[2:]).read_bytes())
            digests |= {entry["md5"] for entry in listed}
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return digests


def _short(path: Path) -> str:
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def _weigh(folder: Path, deadline: float, spared: Collection[str] = ()) -> int:
    """Return the bytes in a folder, as far as they can be counted in time.

    Args:
        spared: digests whose files of a DVC cache are left out: a file's is its folder's name and its own.
    """
    size = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            if spared and Path(parent).name + name in spared:
                continue
            try:
                size += Path(parent, name).lstat().st_size
            except OSError:
                continue
        if time.monotonic() > deadline:
            break
    return size


def size_of(size: int) -> str:
    """Return a number of bytes as people say it: 7300000 → "7.3 MB"."""
    for factor, unit in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} B"
