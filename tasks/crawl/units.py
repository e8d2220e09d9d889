"""Divides input files into units that are taken in side by side, and puts what they made together in order.

A unit is decided by the files' sizes alone, never by the number of workers: so are the parts, and their bytes.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.contracts.files import sync_folder
from tasks.crawl.files import SourceFile

MEBIBYTE = 1024 * 1024
LEAST_BYTES = 16 * MEBIBYTE  # below this, starting a task costs more than it saves


@dataclass(frozen=True, slots=True)
class Unit:
    """What one worker takes in: some whole files, or the bytes of one from `start` on.

    Attributes:
        stop: the first record that begins here or later belongs to the next unit; None: to the file's end.
        folder: where its parts go, until they are put together.
    """

    files: tuple[SourceFile, ...]
    folder: Path
    start: int = 0
    stop: int | None = None

    @property
    def whole(self) -> bool:
        """Whether it holds its files from the first byte to the last."""
        return self.start == 0 and self.stop is None


def make_units(
    files: Sequence[SourceFile], output: Path, megabytes: float, divisible: Callable[[Path], bool]
) -> list[Unit]:
    """Return the units of some files, in order: small ones together, big local ones in slices where they allow it."""
    least = max(LEAST_BYTES, int(4 * megabytes * MEBIBYTE))
    units: list[Unit] = []

    def add(files: tuple[SourceFile, ...], start: int = 0, stop: int | None = None) -> None:
        units.append(Unit(files, output / f".unit-{len(units):06d}", start, stop))

    for group in _groups(files, least):
        path = local_path(group[0])
        size = path.stat().st_size if path is not None and len(group) == 1 else 0
        if path is None or size < 2 * least or not divisible(path):
            add(group)
            continue
        cuts = list(range(0, size - least + 1, least))
        for start, stop in zip(cuts, [*cuts[1:], None], strict=True):
            add(group, start, stop)
    return units


def _groups(files: Sequence[SourceFile], least: int) -> Iterator[tuple[SourceFile, ...]]:
    group: list[SourceFile] = []
    size = 0
    for file in files:
        path = local_path(file)
        here = path.stat().st_size if path is not None else least
        if group and size + here > least:
            yield tuple(group)
            group, size = [], 0
        group.append(file)
        size += here
    if group:
        yield tuple(group)


def local_path(file: SourceFile) -> Path | None:
    """Return where a local file stands, None for a remote one."""
    return Path(file.url.removeprefix("file://")) if file.url.startswith("file://") else None


def join_parts(units: Sequence[Unit], output: Path) -> None:
    """Move every unit's parts into `output`, numbered through."""
    number = 0
    for unit in units:
        for path in sorted(unit.folder.glob("part-*")):
            path.rename(output / f"part-{number:05d}.{path.name.partition('.')[2]}")
            number += 1
        shutil.rmtree(unit.folder, ignore_errors=True)
    sync_folder(output)
