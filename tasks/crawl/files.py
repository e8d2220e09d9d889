"""Finds and opens the files that `crawl.paths` names: local paths, globs, fsspec URLs."""

from __future__ import annotations

import hashlib
import io
import posixpath
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import fsspec

from tasks.contracts.errors import InputError, NetworkError
from tasks.contracts.redaction import PLACEHOLDER
from tasks.crawl.credentials import Placeholders, login

WEB = ("http://", "https://")
PASSING_STATUS = (408, 425, 429)  # RFC 9110 and 6585: refused now, perhaps not later


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One input file: how to open it, and its name without any folder. `opened` fills in what `${NAME}` stands for."""

    url: str
    name: str


class Hashed(io.RawIOBase):
    """A stream that hashes everything read through it."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.digest = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self.stream.read(len(buffer))
        buffer[: len(content)] = content
        self.digest.update(content)
        return len(content)

    def rest(self) -> str:
        """Read to the end and return the SHA-256 (hex) of the whole file."""
        while self.read(1 << 20):
            pass
        return self.digest.hexdigest()


def find_files(paths: Sequence[str], expected: str) -> list[SourceFile]:
    """Return the files that some paths, globs or URLs name, in the order given, each glob sorted.

    Raises:
        InputError: no paths, or one that names no file.
        NetworkError: a remote place cannot be listed.
    """
    if not paths:
        raise InputError(
            "no input files are named",
            where="params.yaml, crawl.paths",
            expected=f"a list of {expected}: paths, globs or URLs",
            found="nothing",
            fix="--set 'crawl.paths=[file, …]'",
        )
    files: dict[str, SourceFile] = {}
    for path in paths:
        remote = "://" in path
        try:
            web = path.lower().startswith(WEB)
            system, inner = fsspec.core.url_to_fs(_filled(path) if remote else str(Path(path).expanduser().resolve()))
            if any(mark in inner for mark in "*[") and not web:
                found = sorted(name for name in system.glob(inner) if not system.isdir(name))
            else:
                found = [inner] if web or system.isfile(inner) else []
        except (OSError, ImportError, ValueError) as error:
            raise NetworkError("an input place cannot be listed", where=path, found=str(error)[:300]) from error
        if not found:
            raise InputError(
                "an input file is missing",
                where="params.yaml, crawl.paths",
                expected=expected,
                found=f"no file at {path}",
                fix="correct the path (relative ones start at the workspace)",
            )
        for name in found:
            # The setting's own text where a secret was filled in: what the file system calls it may show the secret.
            url = path if web or (remote and PLACEHOLDER.search(path)) else system.unstrip_protocol(name)
            files[url] = SourceFile(url, posixpath.basename(urlsplit(url).path) or "index")
    return list(files.values())


def opened(file: SourceFile) -> Any:
    """Return a file for `with`, opened with the credentials that its place is given; a redirect to another has none."""
    options: dict[str, Any] = {}
    if file.url.lower().startswith(WEB) and (known := login(file.url)):
        import aiohttp

        options["auth"] = aiohttp.BasicAuth(*known, encoding="utf-8")
    return fsspec.open(_filled(file.url), "rb", **options)


def _filled(url: str) -> str:
    return Placeholders.of([url], "crawl.paths").filled(url)


@contextmanager
def open_hashed(file: SourceFile, start: int = 0) -> Iterator[tuple[BinaryIO, Hashed]]:
    """Give a file as a buffered stream from byte `start` on, and the object that hashes what is read from it.

    Raises:
        InputError: a local file cannot be opened.
        NetworkError: a remote one cannot be read.
    """
    try:
        with opened(file) as stream:
            if start:
                stream.seek(start)
            hashed = Hashed(stream)
            yield io.BufferedReader(hashed, 1 << 20), hashed
    except FileNotFoundError as error:
        raise _missing(file, error) from error
    except OSError as error:
        if error.errno is not None and file.url.startswith("file:"):
            raise
        raise NetworkError("an input file cannot be read", where=file.url, found=str(error)[:300]) from error
    except Exception as error:
        if type(error).__module__.split(".")[0] in ("aiohttp", "botocore", "fsspec", "requests"):
            raise NetworkError("an input file cannot be read", where=file.url, found=str(error)[:300]) from error
        raise


def _missing(file: SourceFile, error: FileNotFoundError) -> InputError | NetworkError:
    """Tell a file that is not there from a server that did not answer: fsspec calls both "not found"."""
    cause = error.__cause__
    if cause is None or not file.url.startswith(("http://", "https://")):
        return InputError("an input file is missing", where=file.url, found=str(error)[:300])
    found = f"{type(cause).__name__}: {cause}"[:300]
    status = getattr(cause, "status", None)
    if status is not None and 400 <= status < 500 and status not in PASSING_STATUS:
        fix = "correct the URL in crawl.paths, or fetch the file by hand where the server wants a login"
        return InputError("a server does not give an input file", where=file.url, found=found, fix=fix)
    fix = "check the network and run again, or fetch the file by hand and name it in crawl.paths"
    return NetworkError("an input file cannot be fetched", where=file.url, found=found, fix=fix)
