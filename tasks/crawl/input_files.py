"""Finds and opens the files that `crawl.paths` names: local paths, globs, fsspec URLs."""

from __future__ import annotations

import glob
import hashlib
import io
import logging
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

import fsspec

from tasks.contracts.durable_files import sha256_file
from tasks.contracts.errors import InputError, NetworkError, RefusedError
from tasks.contracts.http_responses import may_pass
from tasks.contracts.redaction import PLACEHOLDER
from tasks.crawl.credentials import Placeholders, login

logger = logging.getLogger(__name__)

WEB = ("http://", "https://")
LOCAL = "file://"
# What drivers of fsspec call a version of a file: HTTP, S3, Google Cloud, Azure.
_MARKS = ("ETag", "etag", "VersionId", "md5Hash", "content_md5", "LastModified", "last_modified", "mtime")


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One input file: how to open it, and its name, with as many folders as tell it from the others.

    `opened` fills in what `${NAME}` in the URL stands for.

    Attributes:
        repeated: how often it was named besides, by whatever spelling.
    """

    url: str
    name: str
    repeated: int = 0


@dataclass(frozen=True, slots=True)
class Identity:
    """What a file holds: the SHA-256 of a local one, what its server says of a remote one.

    Attributes:
        stamp: size and time of a local file when it was read for this.
    """

    content: str
    stamp: tuple[int, int] | None = None

    @property
    def sha256(self) -> str | None:
        """The SHA-256 (hex) of a local file."""
        return self.content if self.stamp else None


class Hashed(io.RawIOBase):
    """A stream that hashes everything read through it."""

    def __init__(self, stream: Any, hashing: bool = True) -> None:
        self.stream = stream
        self.hashing = hashing
        self.digest = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self.stream.read(len(buffer))
        buffer[: len(content)] = content
        if self.hashing:
            self.digest.update(content)
        return len(content)

    def rest(self) -> str:
        """Read to the end and return the SHA-256 (hex) of the whole file."""
        while self.read(1 << 20):
            pass
        return self.digest.hexdigest()


def find_files(paths: Sequence[str], expected: str) -> list[SourceFile]:
    """Return the files that some paths, globs or URLs name, each once, in the order given, each glob sorted.

    A file is one, whatever links and spellings lead to it; a copy is another file.

    Raises:
        InputError: no paths, one that names no file, or a place for which this machine has no driver.
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
    files: dict[object, str] = {}
    named: Counter[object] = Counter()
    for path in paths:
        found = _local(path) if _is_local(path) else _remote(path)
        if not found:
            raise InputError(
                "an input file is missing",
                where="params.yaml, crawl.paths",
                expected=expected,
                found=f"no file at {path}",
                fix="correct the path (relative ones start at the workspace)",
            )
        for url in found:
            key = _place(url)
            named[key] += 1
            files.setdefault(key, url)
    names = _short_names(list(files.values()))
    return [SourceFile(url, names[url], named[key] - 1) for key, url in files.items()]


def _is_local(path: str) -> bool:
    return path.startswith(LOCAL) or "://" not in path or Path(path).exists()


def _local(path: str) -> list[str]:
    """Return the local files that a path names, as `file://` and the path as it is; else those of a glob.

    A name may hold whatever a pattern or an address gives a meaning: what is there by that very name is meant.
    """
    given = path.removeprefix(LOCAL)
    tries = [given, unquote(given)] if path.startswith(LOCAL) else [given]
    for one in tries:
        place = _expanded(one)
        if place.is_file():
            return [f"{LOCAL}{place}"]
    place = _expanded(given)
    # So far as folders of that very name are there, they are meant too.
    literal = next(parent for parent in place.parents if parent.exists())
    pattern = str(place.relative_to(literal))
    if not glob.has_magic(pattern):
        return []
    try:
        return [f"{LOCAL}{one}" for one in sorted(literal.glob(pattern)) if one.is_file()]
    except ValueError:  # no pattern that can be, such as "a**b"
        return []


def _expanded(path: str) -> Path:
    try:
        return Path(path).expanduser().resolve()
    except RuntimeError:  # a name that begins with a tilde, and no user of that name
        return Path(path).resolve()


def _remote(path: str) -> list[str]:
    web = path.lower().startswith(WEB)
    try:
        system, inner = fsspec.core.url_to_fs(_filled(path))
        if web or system.isfile(inner):
            names = [inner]
        else:
            names = (
                sorted(name for name in system.glob(inner) if not system.isdir(name)) if glob.has_magic(inner) else []
            )
    except (OSError, ImportError, ValueError) as error:
        kind = NetworkError if isinstance(error, OSError) else InputError
        raise kind("an input place cannot be listed", where=path, found=str(error)[:300]) from error
    # The setting's own text where a secret was filled in: what the file system calls it may show the secret.
    return [path if web or PLACEHOLDER.search(path) else system.unstrip_protocol(name) for name in names]


def local_path(url: str) -> Path | None:
    """Return where a local file stands, None for a remote one."""
    return Path(url.removeprefix(LOCAL)) if url.startswith(LOCAL) else None


def _place(url: str) -> object:
    """Return what is the same for every name of one file."""
    path = local_path(url)
    if path is None:
        return url
    status = path.stat()
    return status.st_dev, status.st_ino


def _short_names(urls: Sequence[str]) -> dict[str, str]:
    """Return each file's name, with folders before it where several would have the same.

    >>> _short_names(["file:///w/a/x.jsonl", "file:///w/b/x.jsonl", "file:///w/y.jsonl"]).values()
    dict_values(['a/x.jsonl', 'b/x.jsonl', 'y.jsonl'])
    """
    parts = {url: [part for part in _path_of(url).split("/") if part] for url in urls}
    names = {url: one[-1] for url, one in parts.items()}
    for depth in range(2, 1 + max(map(len, parts.values()), default=0)):
        counted = Counter(names.values())
        same = [url for url in urls if counted[names[url]] > 1]
        if not same:
            break
        names |= {url: "/".join(parts[url][-depth:]) for url in same}
    counted = Counter(names.values())
    return {url: name if counted[name] == 1 else url.partition("://")[2] for url, name in names.items()}


def _path_of(url: str) -> str:
    """Return host and path of an address; only on the web do `?` and `#` end it."""
    return urlsplit(url).netloc + urlsplit(url).path if url.lower().startswith(WEB) else url.partition("://")[2]


def identify(files: Sequence[SourceFile]) -> list[Identity]:
    """Return what some files hold; a remote file of which its server says nothing is a new one each time.

    Raises:
        InputError: a local file is not there any more.
    """
    return [_identity(file) for file in files]


def _identity(file: SourceFile) -> Identity:
    marks: list[str] = []
    path = local_path(file.url)
    if path is not None:
        try:
            stamp = _stamp(path)
            return Identity(sha256_file(path), stamp)
        except FileNotFoundError as error:
            raise _missing(file, error) from error
    try:
        opener = opened(file)
        facts = opener.fs.info(opener.path)
        marks = [f"{name}={facts[name]}" for name in _MARKS if facts.get(name)]
        marks += [f"size={facts.get('size')}", file.url] if marks else []
    except Exception as error:  # noqa: BLE001 - whatever a server or a driver answers, the file is read all the same
        logger.debug("crawl: %s: its server says nothing of it: %s", file.name, type(error).__name__)
    return Identity(" ".join(marks) or uuid.uuid4().hex)


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def check_unchanged(file: SourceFile, identity: Identity) -> None:
    """Raise where a local file is not what it was when it was identified.

    Raises:
        InputError: another size or time of change.
    """
    path = local_path(file.url)
    if path is not None and _stamp(path) != identity.stamp:
        raise InputError(
            "an input file changed while it was read",
            where=str(path),
            expected="files that stay as they are during a run",
            found="another size or time of change",
            fix="run again when nothing writes to it any more",
        )


def opened(file: SourceFile) -> Any:
    """Return a file for `with`, opened with the credentials that its place is given; a redirect to another has none."""
    path = local_path(file.url)
    if path is not None:
        return path.open("rb")
    options: dict[str, Any] = {}
    if file.url.lower().startswith(WEB) and (known := login(file.url)):
        import aiohttp

        options["auth"] = aiohttp.BasicAuth(*known, encoding="utf-8")
    # Not by fsspec.open, which takes what stands in the name for a pattern.
    system, inner = fsspec.core.url_to_fs(_filled(file.url), **options)
    return fsspec.core.OpenFile(system, inner, mode="rb")


def _filled(url: str) -> str:
    return Placeholders.of([url], "crawl.paths").filled(url)


@contextmanager
def open_hashed(file: SourceFile, start: int = 0, *, hashing: bool = True) -> Iterator[tuple[BinaryIO, Hashed]]:
    """Give a file as a buffered stream from byte `start` on, and the object that hashes what is read from it.

    Args:
        hashing: whether it does; a file whose content is known already costs that time otherwise.

    Raises:
        InputError: a local file cannot be opened.
        NetworkError: a remote one cannot be read.
    """
    try:
        with opened(file) as stream:
            if start:
                stream.seek(start)
            hashed = Hashed(stream, hashing)
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
    if status is not None and 400 <= status < 500 and not may_pass(status):
        fix = "correct the URL in crawl.paths, or fetch the file by hand where the server wants a login"
        return InputError("a server does not give an input file", where=file.url, found=found, fix=fix)
    if "CERTIFICATE_VERIFY_FAILED" in found:
        fix = "name the server's own authority in the environment's SSL_CERT_FILE, or fetch the file by hand"
        return RefusedError("an input file cannot be fetched", where=file.url, found=found, fix=fix)
    fix = "check the network and run again, or fetch the file by hand and name it in crawl.paths"
    return NetworkError("an input file cannot be fetched", where=file.url, found=found, fix=fix)
