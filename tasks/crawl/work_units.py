"""Divides input files into units that are taken in side by side, and puts what they made together in order.

A unit is decided by the files' sizes alone, never by the number of workers: so are the parts, and their bytes. A
finished one stays under the state folder, by what decides its bytes, so that an ingest that was killed goes on.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import JsonValue

from tasks.contracts.code_hash import code_hash
from tasks.contracts.durable_files import atomic_folder, disk_full_is_clear, sha256_json, sync_folder, write_json
from tasks.contracts.files import is_part, part_name
from tasks.contracts.ledger import LedgerRow, read_ledger, write_ledger
from tasks.crawl.input_files import Identity, SourceFile, identify, local_path
from tasks.crawl.processes import spread

MEBIBYTE = 1024 * 1024
LEAST_BYTES = 16 * MEBIBYTE  # below this, starting a task costs more than it saves
Ids = np.ndarray[Any, np.dtype[np.uint64]]
NO_IDS: Ids = np.empty(0, dtype=np.uint64)
_FACTS, _LEDGER, _IDS = "facts.json", "ledger.parquet", "ids.npy"


@dataclass(frozen=True, slots=True)
class Unit:
    """What one worker takes in: some whole files, or the bytes of one from `start` on.

    Attributes:
        stop: the first record that begins here or later belongs to the next unit; None: to the file's end.
    """

    files: tuple[SourceFile, ...]
    start: int = 0
    stop: int | None = None

    @property
    def whole(self) -> bool:
        """Whether it holds its files from the first byte to the last."""
        return self.start == 0 and self.stop is None

    def key(self, state: Path, settings: Mapping[str, JsonValue], identities: Sequence[Identity], taken: Ids) -> Path:
        """Return the folder that holds this unit when it is finished.

        Args:
            settings: what else decides its bytes.
            identities: of its files' content, in their order.
            taken: ids that earlier units hold.
        """
        named: list[JsonValue] = [[file.name, one.content] for file, one in zip(self.files, identities, strict=True)]
        code = code_hash("tasks.contracts", "tasks.crawl")
        content = {**settings, "files": named, "start": self.start, "stop": self.stop, "code": code}
        return state / sha256_json({**content, "taken": taken.tobytes().hex()})[:32]


@dataclass(frozen=True, slots=True)
class Made:
    """What one unit gave, as it stands in its folder: parts, ledger rows, facts, and the ids of its documents.

    Attributes:
        ids: the first 64 bits of each id, sorted.
    """

    folder: Path

    @property
    def facts(self) -> dict[str, Any]:
        """Whatever else its maker says of it."""
        facts: dict[str, Any] = json.loads((self.folder / _FACTS).read_bytes())
        return facts

    @property
    def rows(self) -> list[LedgerRow]:
        """Its ledger."""
        return list(read_ledger(self.folder / _LEDGER))

    @property
    def ids(self) -> Ids:
        """The ids of its documents."""
        ids: Ids = np.load(self.folder / _IDS, allow_pickle=False)
        return ids


def id_number(identity: str) -> int:
    """Return the first 64 bits of an id's SHA-256: enough to see that one is taken."""
    return int.from_bytes(hashlib.sha256(identity.encode()).digest()[:8], "big")


def identities_of(units: Sequence[Unit]) -> dict[SourceFile, Identity]:
    """Return what each file of some units holds, which costs reading the local ones."""
    groups = list(dict.fromkeys(unit.files for unit in units))
    identified = spread(identify, groups)
    return {
        file: one for group, ones in zip(groups, identified, strict=True) for file, one in zip(group, ones, strict=True)
    }


def repeated_files(files: Sequence[SourceFile]) -> list[LedgerRow]:
    """Return a note for each file that was named more than once."""
    return [
        LedgerRow(stage="crawl", action="note", rule="repeated_file",
                  detail=f"{file.name}: named {file.repeated + 1} times in crawl.paths, taken once")
        for file in files if file.repeated
    ]  # fmt: skip


@contextmanager
def working_folder(state: Path | None, output: Path) -> Iterator[Path]:
    """Give the folder of finished units; where no state is kept, one that is gone afterwards."""
    folder = state or output / ".units"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
    finally:
        if state is None:
            shutil.rmtree(folder, ignore_errors=True)


def make(folder: Path, fill: Callable[[Path], tuple[dict[str, JsonValue], list[LedgerRow], Ids]]) -> Made:
    """Return a unit that is finished already, or make it: `fill` writes its parts and returns facts, rows and ids.

    The folder appears in one step, when all of it is on the disk.
    """
    if not folder.exists():
        with atomic_folder(folder) as temporary:
            facts, rows, ids = fill(temporary)
            write_ledger(temporary / _LEDGER, rows)
            np.save(temporary / _IDS, np.sort(ids), allow_pickle=False)
            write_json(temporary / _FACTS, facts)
    return Made(folder)


def repeated(units: Sequence[Made]) -> dict[int, Ids]:
    """Return the units that hold ids of earlier ones, each with those ids, once for each time they were taken."""
    again: dict[int, Ids] = {}
    seen = NO_IDS
    for index, one in enumerate(units):
        ids = one.ids
        if (both := seen[np.isin(seen, ids)]).size:
            again[index] = both
        seen = np.sort(np.concatenate([seen, ids]))
    return again


def make_units(files: Sequence[SourceFile], megabytes: float, divisible: Callable[[Path], bool]) -> list[Unit]:
    """Return the units of some files, in order: small ones together, big local ones in slices where they allow it."""
    least = max(LEAST_BYTES, int(4 * megabytes * MEBIBYTE))
    units: list[Unit] = []
    for group in _groups(files, least):
        path = local_path(group[0].url)
        size = path.stat().st_size if path is not None and len(group) == 1 else 0
        if path is None or size < 2 * least or not divisible(path):
            units.append(Unit(group))
            continue
        cuts = list(range(0, size - least + 1, least))
        units += [Unit(group, start, stop) for start, stop in zip(cuts, [*cuts[1:], None], strict=True)]
    return units


def _groups(files: Sequence[SourceFile], least: int) -> Iterator[tuple[SourceFile, ...]]:
    group: list[SourceFile] = []
    size = 0
    for file in files:
        path = local_path(file.url)
        here = path.stat().st_size if path is not None else least
        if group and size + here > least:
            yield tuple(group)
            group, size = [], 0
        group.append(file)
        size += here
    if group:
        yield tuple(group)


def join_parts(units: Sequence[Made], output: Path) -> None:
    """Put every unit's parts into `output`, numbered through; the units keep theirs until the stage is done."""
    number = 0
    with disk_full_is_clear(output):
        for unit in units:
            for path in sorted(path for path in unit.folder.iterdir() if is_part(path.name)):
                target = output / part_name(number, f".{path.name.partition('.')[2]}")
                try:
                    os.link(path, target)
                except OSError:
                    shutil.copyfile(path, target)
                number += 1
    sync_folder(output)
