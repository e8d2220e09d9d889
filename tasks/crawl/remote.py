"""Fetches from a big archive politely: few connections that stay open, one pause for all when it is busy."""

from __future__ import annotations

import logging
import os
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from tasks.contracts.durable_files import disk_full_is_clear, sync_file, sync_folder
from tasks.contracts.errors import InputError, NetworkError, RefusedError
from tasks.contracts.redaction import without_secrets
from tasks.crawl.credentials import Placeholders, login
from tasks.crawl.retry_after import FIRST_WAIT_SECONDS, retry_after

logger = logging.getLogger(__name__)

# What may pass: too many requests, and a server that is overloaded, restarting or behind a broken gateway. Common
# Crawl answers 403 as well when it throttles, but says so in no other way than for a file that is not there.
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
CHUNK_BYTES = 1 << 18


class NotServed(Exception):
    """The server answered, and did not give what was asked for; another try would not help."""

    def __init__(self, status: int) -> None:
        super().__init__(f"answered {status}")
        self.status = status


class Unavailable(Exception):
    """No whole answer after every try."""


class Untrusted(Unavailable):
    """The server's certificate is not right; another try would not help."""


class _OwnRoots(HTTPAdapter):
    """Trusts the roots of a file besides those that requests trusts."""

    def __init__(self, ca_file: str) -> None:
        self._ca_file = ca_file
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make the connections' pool as requests does, with a context that has read the file."""
        super().init_poolmanager(*args, ssl_context=ssl.create_default_context(cafile=self._ca_file), **kwargs)


@dataclass(slots=True)
class Remote:
    """One archive's servers.

    Attributes:
        tries: requests for one thing, at most.
        ca_file: PEM file of roots that are trusted besides the usual ones; "" for none.
        longest_wait: of one pause, in seconds; a server that asks for more is not asked again.
        placeholders: what is filled into a URL when it is asked for. Passwords come from netrc, by requests itself,
            which sends them to no other host.
    """

    user_agent: str
    timeout: float
    tries: int
    longest_wait: float
    placeholders: Placeholders = field(default_factory=Placeholders)
    ca_file: str = ""
    _local: threading.local = field(default_factory=threading.local)
    _until: float = 0.0

    def _session(self) -> requests.Session:
        if not hasattr(self._local, "session"):
            session = requests.Session()
            session.headers.update({"User-Agent": self.user_agent, "Accept-Encoding": "identity"})
            if self.ca_file:
                session.mount("https://", _OwnRoots(self.ca_file))
            self._local.session = session
        opened: requests.Session = self._local.session
        return opened

    def get(
        self, url: str, *, params: Mapping[str, str] | None = None, first: int = 0, length: int | None = None
    ) -> bytes:
        """Return what stands at a URL, or `length` bytes of it from `first`.

        Raises:
            NotServed: the server refuses (404, 403, …).
            Unavailable: no answer, or never a whole one.
        """
        last = ""
        for attempt in range(self.tries):
            try:
                with self._opened(url, params, first, length) as response:
                    # A server without ranges sends the whole file from its start.
                    skip = first if length is not None and response.status_code == 200 else 0
                    content = self._read(response, skip, length)
                    stated = response.headers.get("Content-Length", "")
                whole = length if length is not None else int(stated) if stated.isdigit() else len(content)
                if len(content) == whole:
                    return content
                last = f"{len(content)} of {whole} bytes"
            except (requests.RequestException, _Busy) as error:
                last = self._failed(error, attempt)
        raise Unavailable(f"{last} (after {self.tries} tries)")

    def _read(self, response: requests.Response, skip: int, length: int | None) -> bytes:
        content = bytearray()
        for chunk in response.iter_content(CHUNK_BYTES):
            content += chunk
            if length is not None and len(content) >= skip + length:
                break
        return bytes(content[skip:] if length is None else content[skip : skip + length])

    def download(self, url: str, path: Path) -> None:
        """Fetch a whole file to `path`, going on where an earlier try or run stopped.

        Raises:
            NotServed, Unavailable: as `get`.
        """
        if path.exists():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.partial")
        last = ""
        for attempt in range(self.tries):
            have = partial.stat().st_size if partial.exists() else 0
            try:
                with self._opened(url, None, have, None) as response, disk_full_is_clear(path):
                    whole = self._append(response, partial, have)
            except (requests.RequestException, _Busy) as error:
                last = self._failed(error, attempt)
                continue
            except NotServed as error:
                if error.status != 416 or not have:
                    raise
                partial.unlink()  # there is no more than what stands here, and it was not whole: begin again
                continue
            if whole is None or partial.stat().st_size == whole:
                sync_file(partial)
                partial.replace(path)
                sync_folder(path.parent)
                return
            last = f"{partial.stat().st_size} of {whole} bytes"
        raise Unavailable(f"{last} (after {self.tries} tries)")

    def _append(self, response: requests.Response, partial: Path, have: int) -> int | None:
        """Write an answer behind what is there, and return the size that the whole file should have."""
        if response.status_code == 206:
            total = response.headers.get("Content-Range", "").rpartition("/")[2]
        else:
            have, total = 0, response.headers.get("Content-Length", "")
        with partial.open("r+b" if have else "wb") as stream:
            stream.seek(have)
            try:
                for chunk in response.iter_content(CHUNK_BYTES):
                    stream.write(chunk)
            finally:
                stream.flush()
                os.fsync(stream.fileno())
        return int(total) if total.isdigit() else None

    @contextmanager
    def _opened(
        self, url: str, params: Mapping[str, str] | None, first: int, length: int | None
    ) -> Iterator[requests.Response]:
        headers = {}
        if first or length is not None:
            headers["Range"] = f"bytes={first}-" + (str(first + length - 1) if length is not None else "")
        while (pause := self._until - time.monotonic()) > 0:
            time.sleep(min(pause, 1.0))
        login(url)  # so that this process knows the password, and keeps it out of what it says
        asked = self.placeholders.filled(url)
        with self._session().get(asked, params=params, headers=headers, timeout=self.timeout, stream=True) as response:
            if response.status_code in PASSING:
                raise _Busy(response)
            if response.status_code not in (200, 206):
                raise NotServed(response.status_code)
            # An answer that breaks off is kept as far as it came; its length is checked by whoever reads it.
            response.raw.enforce_content_length = False
            yield response

    def _failed(self, error: Exception, attempt: int) -> str:
        """Pause every connection, and return what went wrong."""
        asked = None
        found = without_secrets(f"{type(error).__name__}: {error}")
        # requests keeps OpenSSL's own error only in the text of urllib3's.
        if isinstance(error, requests.exceptions.SSLError) and "CERTIFICATE_VERIFY_FAILED" in found:
            raise Untrusted(found[:500]) from error
        if isinstance(error, _Busy):
            found = str(error)
            asked = retry_after(error.response.headers.get("Retry-After", ""), datetime.now(UTC))
            if asked is not None and asked > self.longest_wait:
                raise Unavailable(
                    f"{found}, Retry-After {asked:.0f} s, crawl.max_wait_seconds is {self.longest_wait:g}"
                )
        if attempt + 1 < self.tries:
            wait = asked if asked is not None else FIRST_WAIT_SECONDS * 2.0**attempt
            self._until = max(self._until, time.monotonic() + min(wait, self.longest_wait))
        return found[:300]


class _Busy(Exception):
    def __init__(self, response: requests.Response) -> None:
        super().__init__(f"answered {response.status_code}")
        self.response = response


def fail(url: str, error: NotServed | Unavailable) -> InputError | NetworkError:
    """Return the error of a run that cannot go on without `url`."""
    if isinstance(error, NotServed):
        fix = "check crawl.snapshot and crawl.data_url; https://commoncrawl.org lists the snapshots there are"
        return InputError("the archive does not have this", where=url, found=str(error), fix=fix)
    fix = "check the network and run again: what was fetched is kept"
    if isinstance(error, Untrusted):
        fix = "name the root certificate of this server in crawl.ca_file, if you trust it"
        return RefusedError("the archive cannot be read", where=url, found=str(error), fix=fix)
    return NetworkError("the archive cannot be read", where=url, found=str(error), fix=fix)
