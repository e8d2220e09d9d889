"""DVC's own digest of a folder, "<md5>.dir": the name by which MLflow's datasets, dvc.lock and the DVC cache agree.

Computed by the same call as `dvc repro` makes, honouring .dvcignore and through DVC's state database, so that a
folder hashed here costs DVC nothing when it hashes it next.
"""

from __future__ import annotations

import json
from pathlib import Path


def dvc_digest(folder: Path) -> str:
    """Return the digest that dvc.lock gives for `folder`: 36 characters for a folder.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    from dvc.exceptions import NotDvcRepoError
    from dvc.fs import LocalFileSystem
    from dvc.repo import Repo
    from dvc_data.hashfile.build import build
    from dvc_data.hashfile.db import HashFileDB

    path = folder.resolve(strict=True)
    try:
        repo = Repo(str(path.parent))
    except NotDvcRepoError:
        # Never written to: a dry run only hashes.
        store = HashFileDB(LocalFileSystem(), str(path.parent))
        return str(build(store, str(path), store.fs, "md5", dry_run=True)[2].hash_info.value)
    try:
        store = repo.cache.local
        built = build(store, str(path), store.fs, "md5", ignore=repo.dvcignore, dry_run=True)[2]
        return str(built.hash_info.value)
    finally:
        repo.close()


def cache_path(digest: str) -> str:
    """Return where the DVC cache keeps the content of a digest.

    >>> cache_path("0123456789abcdef0123456789abcdef.dir")
    'files/md5/01/23456789abcdef0123456789abcdef.dir'
    """
    return f"files/md5/{digest[:2]}/{digest[2:]}"


def cached_files(digest: str) -> dict[str, Path]:
    """Return the files of a folder with this digest in the local DVC cache, by their names in the folder.

    Empty where the cache holds no such folder, or there is no DVC here; a file that it lists may be gone all the same.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        repo = Repo()
    except DvcException:
        return {}
    try:
        cache = Path(repo.cache.local.path)
    finally:
        repo.close()
    try:
        listed = json.loads(_place(cache, digest).read_bytes())
    except (OSError, ValueError):
        return {}
    return {entry["relpath"]: _place(cache, entry["md5"]) for entry in listed}


def _place(cache: Path, digest: str) -> Path:
    return cache / digest[:2] / digest[2:]
