"""Takedowns: what must never be in a corpus again, kept as a list in git and as fingerprints that outlive the text.

`infra/takedowns.jsonl` is append-only: a row adds a tombstone (a URL, a host or a document), or withdraws one by its
id. `infra/takedowns.fingerprints.jsonl` says what each tombstone covered when it was applied, as hashes only: the
payload's digest, the hash of the normalised text, and the hashed shingles that near duplicates are found by. So
another capture, or a copy under another URL, is known after the text itself is gone. Extract and dedup read both.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, Literal, TypeVar

from pydantic import Field, ValidationError, model_validator

from tasks.contracts.base import FrozenModel
from tasks.contracts.durable_files import canonical_json, sha256_json, write_bytes
from tasks.contracts.errors import InputError
from tasks.contracts.normal_form import normal_bytes
from tasks.contracts.urls import canonical_host, page_key

LIST: Final = Path("infra/takedowns.jsonl")
FINGERPRINTS: Final = Path("infra/takedowns.fingerprints.jsonl")
RULE: Final = "takedown"
NEAR_RULE: Final = "takedown_near"
SHINGLE_WORDS: Final = 5
"""Words in a stored shingle, as in dedup's default; fixed, since the text may be gone when a setting changes."""

Model = TypeVar("Model", bound=FrozenModel)
Kind = Literal["url", "host", "document"]


class Row(FrozenModel):
    """One row of the list: a tombstone, or the withdrawal of one."""

    id: str = Field(pattern=r"^[0-9a-f]{16}$")
    """Names the tombstone; a withdrawal has the id of what it withdraws."""
    kind: Kind | Literal["withdrawal"]
    value: str = ""
    """A URL, a host ("*.example.org" is the domain and all under it), or the SHA-256 of a normalised text."""
    reason: str = Field(min_length=1)
    date: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}$")
    """The day of the request."""
    asked_by: str | None = None

    @model_validator(mode="after")
    def _has_a_value(self) -> Row:
        if (self.kind == "withdrawal") == bool(self.value):
            raise ValueError("a tombstone has a value, a withdrawal has none")
        return self


class Fingerprint(FrozenModel):
    """One document (in one of its texts) that a tombstone covers; hashes only."""

    tombstone: str = Field(pattern=r"^[0-9a-f]{16}$")
    doc_id: str | None = None
    payload_digest: str | None = None
    text_sha256: str | None = None
    shingles: str = ""
    """Base64 of its sorted 32-bit shingle hashes, little-endian; "" where the text is shorter than a shingle."""
    shingle_count: int = 0
    """How many shingles the text has; more than are kept for a very long one."""

    def shingle_bytes(self) -> bytes:
        """Return the shingle hashes, 4 bytes each."""
        return base64.b64decode(self.shingles)


def tombstone_id(kind: str, value: str, date: str) -> str:
    """Return the id of a tombstone: 64 bits of SHA-256 over what it is."""
    return sha256_json([kind, value, date])[:16]


def text_sha256(text: str) -> str | None:
    """Return the hash of a text's normal form, None for a text without any: all empty pages are not one document."""
    normal = normal_bytes(text)
    return hashlib.sha256(normal).hexdigest() if normal else None


def _host_key(host: str) -> str:
    below, name = ("*.", host[2:]) if host.startswith("*.") else ("", host)
    return below + (canonical_host(name) or name.lower())


@dataclass(frozen=True)
class Takedowns:
    """The list in force: every tombstone that was not withdrawn, and what they cover."""

    tombstones: tuple[Row, ...] = ()
    fingerprints: tuple[Fingerprint, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.tombstones)

    @cached_property
    def _urls(self) -> dict[str, str]:
        return {page_key(row.value): row.id for row in reversed(self.tombstones) if row.kind == "url"}

    @cached_property
    def _hosts(self) -> dict[str, str]:
        return {_host_key(row.value): row.id for row in reversed(self.tombstones) if row.kind == "host"}

    @cached_property
    def _payloads(self) -> dict[str, str]:
        rows = reversed(self.fingerprints)
        return {row.payload_digest: row.tombstone for row in rows if row.payload_digest}

    @cached_property
    def _texts(self) -> dict[str, str]:
        named = {row.value: row.id for row in reversed(self.tombstones) if row.kind == "document"}
        return named | {row.text_sha256: row.tombstone for row in reversed(self.fingerprints) if row.text_sha256}

    def covers_address(self, url: str, host: str) -> str | None:
        """Return the id of the tombstone that names this URL or host, None where none does."""
        if self._hosts:
            name = whole = _host_key(host)
            while name:
                if found := self._hosts.get(f"*.{name}") or (self._hosts.get(name) if name == whole else None):
                    return found
                name = name.partition(".")[2]
        return self._urls.get(page_key(url)) if self._urls else None

    def covers(self, *, url: str, host: str, payload_digest: str | None, text: str) -> tuple[str, str] | None:
        """Return which tombstone covers a document and by what (address, payload, text), None where none does."""
        if why := self.covers_known(url=url, host=host, payload_digest=payload_digest, text_sha256=None):
            return why
        if self._texts and (digest := text_sha256(text)) and (found := self._texts.get(digest)):
            return found, "text"
        return None

    def covers_known(
        self, *, url: str, host: str, payload_digest: str | None, text_sha256: str | None
    ) -> tuple[str, str] | None:
        """Answer as `covers` does, of a document whose text is gone and whose normalised text's hash is known."""
        if found := self.covers_address(url, host):
            return found, "address"
        if payload_digest and (found := self._payloads.get(payload_digest)):
            return found, "payload"
        if text_sha256 and (found := self._texts.get(text_sha256)):
            return found, "text"
        return None


def read_takedowns(root: Path = Path()) -> Takedowns:
    """Read the list of a workspace; one that has none excludes nothing.

    Raises:
        InputError: a line cannot be read: an unreadable list would let through what must not be.
    """
    rows = read_rows(root)
    withdrawn = {row.id for row in rows if row.kind == "withdrawal"}
    tombstones = tuple(row for row in rows if row.kind != "withdrawal" and row.id not in withdrawn)
    alive = {row.id for row in tombstones}
    return Takedowns(tombstones, tuple(row for row in read_fingerprints(root) if row.tombstone in alive))


def read_rows(root: Path = Path()) -> list[Row]:
    """Return every row of the list, withdrawn ones and withdrawals too."""
    return _read(Row, root / LIST)


def read_fingerprints(root: Path = Path()) -> list[Fingerprint]:
    """Return every stored fingerprint, those of withdrawn tombstones too."""
    return _read(Fingerprint, root / FINGERPRINTS)


def append_row(row: Row, root: Path = Path()) -> None:
    """Add a row to the list."""
    path = root / LIST
    before = path.read_bytes() if path.exists() else b""
    write_bytes(path, before + canonical_json(row.model_dump(mode="json")) + b"\n")


def add_fingerprints(rows: Iterable[Fingerprint], root: Path = Path()) -> int:
    """Store fingerprints that are not stored yet, sorted, and return how many were new."""
    known = {canonical_json(row.model_dump(mode="json")) for row in read_fingerprints(root)}
    new = {canonical_json(row.model_dump(mode="json")) for row in rows} - known
    if new:
        write_bytes(root / FINGERPRINTS, b"".join(line + b"\n" for line in sorted(known | new)))
    return len(new)


def _read(model: type[Model], path: Path) -> list[Model]:
    if not path.is_file():
        return []
    found = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            found.append(model.model_validate_json(line))
        except ValidationError as error:
            raise InputError(
                "a line of the takedown list cannot be read",
                where=f"{path}, line {number}",
                expected=f"a JSON object with {', '.join(model.model_fields)}",
                found="; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:3]),
                fix="take the version from git, and change the list with `headwater takedown add` only",
            ) from error
    return found
