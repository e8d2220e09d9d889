"""Where the files of an output stand now: in data/, in the shard cache or in the DVC cache, found by what they are.

DVC takes a stage's output away before it runs the stage again, and a later run replaces it, so what is missing from
data/ is often whole elsewhere. Nothing is taken for the file that is asked for unless its size and SHA-256 agree.
"""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path

from flows.history import run_records
from flows.history.chain import Link
from flows.history.digest import cached_files
from flows.workspace.adaptation import FOLDER
from tasks.contracts.durable_files import sha256_file
from tasks.contracts.errors import ManifestError
from tasks.contracts.manifest import Shard, manifest_hash
from tasks.contracts.workspace import state_folder


def snapshots_folder() -> Path:
    """Return where snapshots of the web are kept that are neither in data/ nor in the DVC cache."""
    return state_folder() / "snapshots"


class KeptFiles:
    """Finds files of stage outputs, those of earlier runs too.

    Attributes:
        data: the workspace's folder of stage folders.
        elsewhere: stages of which something was read that is not in `data`.
    """

    def __init__(self, data: Path) -> None:
        self.data = data
        self.elsewhere: set[str] = set()
        self._standing: dict[str, str | None] = {}
        self._in_dvc: dict[tuple[str, str], dict[str, Path]] = {}
        self._checked: dict[Path, str] = {}

    def path(self, link: Link, shard: Shard) -> Path | None:
        """Return where a file of an output can be read, None where it is nowhere on this machine."""
        own = self.data / link.name / shard.name
        if self.standing(link.name) == link.sha256 and own.is_file() and own.stat().st_size == shard.bytes:
            return own
        copies = [*self._in_shards.get(shard.sha256, []), snapshots_folder() / link.sha256 / shard.name]
        copies.append(FOLDER / link.name / shard.name)
        for copy in copies:
            if self.is_file(copy, shard):
                self.elsewhere.add(link.name)
                return copy
        found_in_dvc = self.in_dvc(link, shard)
        if found_in_dvc:
            self.elsewhere.add(link.name)
        return found_in_dvc

    def standing(self, stage: str) -> str | None:
        """Return the hash of the manifest that stands in `data`, None where the stage's folder is not finished."""
        if stage not in self._standing:
            try:
                self._standing[stage] = manifest_hash(self.data / stage)
            except ManifestError:
                self._standing[stage] = None
        return self._standing[stage]

    def digest(self, link: Link) -> str | None:
        """Return DVC's digest of an output, None where no run record and no dvc.lock tells it."""
        return self._digests.get((link.name, link.sha256))

    def note_digest(self, link: Link, digest: str) -> None:
        """Take note of a digest that dvc.lock tells."""
        self._digests[link.name, link.sha256] = digest
        self._in_dvc.pop((link.name, link.sha256), None)

    def is_file(self, path: Path, shard: Shard) -> bool:
        """Return whether a file is there and is, byte for byte, the one that a manifest lists."""
        if not path.is_file() or path.stat().st_size != shard.bytes:
            return False
        if path not in self._checked:
            self._checked[path] = sha256_file(path)
        return self._checked[path] == shard.sha256

    @cached_property
    def _in_shards(self) -> dict[str, list[Path]]:
        """Every file of the shard cache, by its SHA-256."""
        found: dict[str, list[Path]] = {}
        for described in (state_folder() / "shards").glob("*/_shard.json"):
            try:
                files = json.loads(described.read_bytes())["files"]
            except (OSError, ValueError, KeyError):
                continue  # a damaged entry holds nothing; the shard map removes it
            for file in files:
                found.setdefault(file["sha256"], []).append(described.parent / file["name"])
        return found

    @cached_property
    def _digests(self) -> dict[tuple[str, str], str]:
        """DVC's digest of every output that a run record tells of, by stage and manifest."""
        return {
            (record.stage, record.manifest_sha256): record.digests[record.stage]
            for record in run_records.records_on_disk()
            if record.manifest_sha256 and record.stage in record.digests
        }

    def in_dvc(self, link: Link, shard: Shard) -> Path | None:
        """Return where the DVC cache has a file of an output, None where it has not."""
        key = (link.name, link.sha256)
        if key not in self._in_dvc:
            digest = self.digest(link)
            self._in_dvc[key] = cached_files(digest) if digest else {}
        found = self._in_dvc[key].get(shard.name)
        return found if found and self.is_file(found, shard) else None
