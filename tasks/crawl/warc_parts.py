"""Packs gzip members into `part-00000.warc.gz …` of about one size: a part begins and ends with whole records."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from tasks.contracts.durable_files import disk_full_is_clear, sync_file, sync_folder
from tasks.contracts.files import part_name

MEBIBYTE = 1024 * 1024


class PartWriter:
    """Writes members one after the other, a new part when the one before is full.

    Args:
        header: called with each new part's stream, to write its warcinfo record.
    """

    def __init__(self, output: Path, megabytes: float, header: Callable[[BinaryIO], None] = lambda _: None) -> None:
        self.output = output
        self.limit = int(megabytes * MEBIBYTE)
        self.header = header
        self.parts: list[str] = []
        self._stream: BinaryIO | None = None

    def __enter__(self) -> PartWriter:
        self.output.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def add(self, members: bytes) -> None:
        """Append whole members that belong together (a request and its response)."""
        with disk_full_is_clear(self.output):
            if self._stream is not None and self._stream.tell() + len(members) > self.limit and self._stream.tell():
                self._close()
            if self._stream is None:
                self.parts.append(part_name(len(self.parts), ".warc.gz"))
                self._stream = (self.output / self.parts[-1]).open("wb")
                self.header(self._stream)
            self._stream.write(members)

    def _close(self) -> None:
        if self._stream is not None:
            self._stream.close()
            sync_file(self.output / self.parts[-1])
            sync_folder(self.output)
            self._stream = None
