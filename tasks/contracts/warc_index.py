"""What stands in a WARC file, by the plainest reader there is: it counts, so that the stages' own readers are counted.

Crawl writes with one parser and extract reads with another; this is neither. It knows the form of ISO 28500 (a version
line, named fields, an empty line, a block of Content-Length bytes) and nothing of HTTP.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tasks.contracts.errors import InputError

PAGE_TYPES = frozenset({"response", "resource"})
LONGEST_LINE = 1 << 20
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class WarcEntry:
    """One record: its fields by their names in lower case (the first of several counts)."""

    fields: dict[str, str]

    @property
    def is_page(self) -> bool:
        """Whether it holds what a server answered, or a file: what extract takes in."""
        return self.fields.get("warc-type", "").lower() in PAGE_TYPES

    @property
    def url(self) -> str:
        """The target's address, without the angle brackets that WARC 1.0 writes around it."""
        return self.fields.get("warc-target-uri", "").removeprefix("<").removesuffix(">")


def read_entries(path: Path) -> Iterator[WarcEntry]:
    """Yield the records of a gzip-compressed WARC file, in order.

    Raises:
        InputError: the file is not WARC, or ends inside a record.
    """
    try:
        with gzip.open(path) as stream:
            while line := stream.readline(LONGEST_LINE):
                if not line.strip():
                    continue
                if not line.startswith(b"WARC/"):
                    raise ValueError(f"a record begins with {line[:40]!r}")
                fields = _fields(stream)
                left = int(fields.get("content-length", ""))
                while left > 0:
                    piece = stream.read(min(left, _PIECE))
                    if not piece:
                        raise EOFError(f"{left} bytes of a record are missing")
                    left -= len(piece)
                yield WarcEntry(fields=fields)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise InputError(
            "a WARC file of the crawl cannot be read to its end",
            where=str(path),
            expected="whole WARC records",
            found=str(error),
            fix="`dvc checkout data/crawl` restores it, or crawl again with `headwater run --force crawl`",
        ) from error


def entry_at(path: Path, offset: int) -> WarcEntry | None:
    """Return the record that begins at a byte of a gzip-compressed WARC file, None where none does."""
    try:
        with path.open("rb") as raw:
            raw.seek(offset)
            with gzip.GzipFile(fileobj=raw) as stream:
                return WarcEntry(fields=_fields(stream)) if stream.readline(LONGEST_LINE).startswith(b"WARC/") else None
    except (OSError, EOFError, ValueError, zlib.error):
        return None


def count_pages(path: Path) -> int:
    """Return how many pages a WARC file holds: its response and resource records.

    Raises:
        InputError: the file is not WARC, or ends inside a record.
    """
    return sum(entry.is_page for entry in read_entries(path))


def _fields(stream: gzip.GzipFile) -> dict[str, str]:
    fields: dict[str, str] = {}
    last = ""
    while (line := stream.readline(LONGEST_LINE)).strip():
        if line[:1] in b" \t" and last:
            fields[last] += " " + line.strip().decode("utf-8", "replace")
            continue
        name, _, value = line.decode("utf-8", "replace").partition(":")
        last = name.strip().lower()
        fields.setdefault(last, value.strip())
    return fields
