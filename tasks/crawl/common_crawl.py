"""Takes pages from Common Crawl, or a server of its layout: some WARC files of a snapshot, or some domains' records.

What was fetched stays under `.headwater/crawl/common_crawl-<snapshot>/`, each piece written whole, so a run that was
killed, or one that asks for more, fetches only what is missing. Every record is held against its length and digest.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import logging
import os
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from tasks.contracts.digests import other_digest
from tasks.contracts.durable_files import disk_full_is_clear, write_bytes
from tasks.contracts.errors import InputError, NetworkError
from tasks.contracts.files import DROPPED_FOLDER, part_name
from tasks.contracts.ledger import LedgerRow, drops_by_rule, write_ledger
from tasks.contracts.manifest import Counts
from tasks.contracts.redaction import without_userinfo
from tasks.contracts.text_files import json_value
from tasks.contracts.urls import canonical_host
from tasks.crawl.archives import take_archives
from tasks.crawl.credentials import joined
from tasks.crawl.remote import NotServed, Remote, Unavailable, Untrusted, fail
from tasks.crawl.streams import Damage
from tasks.crawl.warc_parts import PartWriter
from tasks.crawl.warc_reader import Record, header_fields, inflated, read_records

logger = logging.getLogger(__name__)

MOST_FAILURES_IN_A_ROW = 20  # by then it is not these records, it is the server
HTML = "text/html"


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What to take; see stage.Params for the fields of the same name."""

    snapshot: str
    data_url: str
    index_url: str
    warc_files: int
    domains: Sequence[str]
    max_pages: int
    seed: int
    connections: int
    megabytes: float


@dataclass(frozen=True, slots=True, order=True)
class Capture:
    """One line of the URL index: where a record stands."""

    filename: str
    offset: int
    length: int
    digest: str
    url: str
    timestamp: str

    @property
    def key(self) -> str:
        return f"{self.filename}:{self.offset}"


def take_common_crawl(
    selection: Selection, remote: Remote, *, state: Path, units: Path | None = None, output: Path
) -> tuple[Counts, list[JsonValue]]:
    """Fetch what is missing, write it into parts, and return the counts and what it was made of.

    Raises:
        InputError: the archive has no such snapshot or no page of these domains.
        NetworkError: it cannot be reached; what was fetched is kept.
    """
    if selection.domains:
        return _take_domains(selection, remote, state, output)
    paths = _chosen_files(selection, remote, state)
    local = []
    for number, path in enumerate(paths, start=1):
        place = state / "files" / path
        url = joined(selection.data_url, path)
        logger.info("crawl: WARC file %d/%d: %s", number, len(paths), url)
        try:
            remote.download(url, place)
        except (NotServed, Unavailable) as error:
            raise fail(url, error) from error
        local.append(str(place))
    return take_archives(local, megabytes=selection.megabytes, output=output, state=units, verify=True)


def _chosen_files(selection: Selection, remote: Remote, state: Path) -> list[str]:
    """Return the paths of `warc_files` of the snapshot's files; asked for more, the same ones and more."""
    listing = state / "warc.paths.gz"
    url = joined(selection.data_url, f"crawl-data/{selection.snapshot}/warc.paths.gz")
    try:
        remote.download(url, listing)
        paths = gzip.decompress(listing.read_bytes()).decode().split()
    except (NotServed, Unavailable) as error:
        raise fail(url, error) from error
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        listing.unlink()
        raise InputError("the list of WARC files cannot be read", where=url, found=str(error)[:200]) from error
    if selection.warc_files > len(paths):
        raise InputError(
            "the snapshot has fewer WARC files than asked for",
            where="params.yaml, crawl.warc_files",
            expected=f"at most {len(paths)}",
            found=str(selection.warc_files),
        )
    # A path that leads out of the folder would be the archive's mistake, or somebody's.
    safe = [path for path in paths if not path.startswith("/") and ".." not in path.split("/")]
    return sorted(sorted(safe, key=lambda path: _drawn(selection.seed, path))[: selection.warc_files])


def _drawn(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}\n{name}".encode()).digest()


def _take_domains(selection: Selection, remote: Remote, state: Path, output: Path) -> tuple[Counts, list[JsonValue]]:
    rows: list[LedgerRow] = []
    found: set[Capture] = set()
    for domain in selection.domains:
        captures = list(_captures(domain, selection, remote, state))
        if not captures:
            rows.append(_row("not_in_index", domain, f"{selection.snapshot} has no HTML page of {domain}"))
        found |= set(captures)
    newest: dict[str, Capture] = {}
    for capture in sorted(found, key=lambda one: (one.timestamp, one.key)):
        newest[capture.url] = capture
    drawn = sorted(newest.values(), key=lambda one: _drawn(selection.seed, one.url))[: selection.max_pages]
    captures = sorted(drawn)
    store = _Store(state)
    _fetch(captures, store, selection, remote)
    kept = 0
    sources: list[JsonValue] = []
    hashes: dict[str, Any] = {}
    ids: set[str] = set()
    with PartWriter(output, selection.megabytes) as parts:
        for capture in captures:
            member = store.read(capture)
            problem = store.failures.get(capture.key) if member is None else mismatch(member, capture)
            if member is not None and problem is None:
                taken = _as_page(member, ids)
                member, problem = (taken, None) if isinstance(taken, bytes) else (None, taken)
            if member is None or problem is not None:
                rule, detail = problem or ("not_fetched", "")
                rows.append(_row(rule, capture.url, f"{capture.key}: {detail}"))
                continue
            parts.add(member)
            kept += 1
            hashes.setdefault(capture.filename, hashlib.sha256()).update(member)
    store.close()
    if not kept:
        reasons = sorted({f"{row.rule}: {row.detail}" for row in rows})
        raise InputError(
            "no page of these domains could be taken",
            where=joined(selection.index_url, f"{selection.snapshot}-index"),
            expected="at least one record",
            found="; ".join(reasons[:3]),
            fix="check crawl.domains and crawl.snapshot",
        )
    write_ledger(output / DROPPED_FOLDER / part_name(0, ".parquet"), rows)
    # Of a file only some ranges were read: the hash is of those, in order.
    sources += [{"name": name, "sha256": digest.hexdigest()} for name, digest in sorted(hashes.items())]
    return Counts(in_=kept + len(rows), out=kept, dropped=drops_by_rule(rows)), sources


def _as_page(member: bytes, ids: set[str]) -> bytes | tuple[str, str]:
    """Return a record in the form in which all enter a snapshot, or (rule, detail) of why it is no page of it."""
    found = list(read_records(BytesIO(member)))
    [one] = found if len(found) == 1 else [None]
    if not isinstance(one, Record):
        return (
            "damaged_record",
            "; ".join(each.detail for each in found if isinstance(each, Damage)) or "not one record",
        )
    if one.segmented:
        return ("segmented_record", "a piece of a longer record")
    if one.record_id in ids:
        return ("duplicate_record", "an earlier record has this id")
    ids.add(one.record_id)
    return one.member


def _row(rule: str, url: str, detail: str) -> LedgerRow:
    return LedgerRow(stage="crawl", action="drop", rule=rule, url=url, detail=detail[:500])


def _captures(domain: str, selection: Selection, remote: Remote, state: Path) -> Iterator[Capture]:
    """Yield a domain's HTML captures with status 200, all its hosts, by the snapshot's URL index, page by page."""
    host = canonical_host(domain.removeprefix("*."))
    if host is None:
        raise InputError("this is no domain", where="params.yaml, crawl.domains", expected="example.org", found=domain)
    url = joined(selection.index_url, f"{selection.snapshot}-index")
    query = {"url": f"*.{host}", "output": "json", "filter": "=status:200"}
    folder = state / "index" / hashlib.sha256(f"{url}\n{host}".encode()).hexdigest()[:16]
    try:
        count = _indexed(folder / "pages.json", url, {**query, "showNumPages": "true"}, remote)
        told = json_value(count.splitlines()[0]) if count.strip() else {"pages": 0}
        pages = int(told["pages"] if isinstance(told, dict) else told)
        for page in range(pages):
            content = _indexed(folder / f"{page:05d}.jsonl", url, {**query, "page": str(page)}, remote)
            for line in content.splitlines():
                capture = _capture(json_value(line))
                if capture is not None:
                    yield capture
    except (NotServed, Unavailable) as error:
        raise fail(url, error) from error
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        raise InputError("the URL index answered something else", where=url, found=str(error)[:200]) from error


def _indexed(path: Path, url: str, query: dict[str, str], remote: Remote) -> bytes:
    """Return one answer of the index, kept from an earlier run where there was one."""
    if not path.exists():
        try:
            content = remote.get(url, params=query)
        except NotServed as error:
            if error.status != 404:
                raise
            content = b""  # how the index says that it knows no such URL
        write_bytes(path, content)
    return path.read_bytes()


def _capture(line: dict[str, Any]) -> Capture | None:
    if str(line.get("status")) != "200" or HTML not in (line.get("mime-detected") or line.get("mime") or ""):
        return None
    return Capture(
        filename=str(line["filename"]),
        offset=int(line["offset"]),
        length=int(line["length"]),
        digest=str(line["digest"]).removeprefix("sha1:"),
        url=without_userinfo(str(line["url"])),
        timestamp=str(line["timestamp"]),
    )


class _Store:
    """The records fetched so far, in one file, and a journal that says where each stands."""

    def __init__(self, state: Path) -> None:
        state.mkdir(parents=True, exist_ok=True)
        self.path = state / "records.warc.gz"
        self.places: dict[str, tuple[int, int]] = {}
        self.failures: dict[str, tuple[str, str]] = {}
        journal = state / "records.jsonl"
        size = self.path.stat().st_size if self.path.exists() else 0
        finished = 0
        whole: list[str] = []
        for line in journal.read_text().splitlines(keepends=True) if journal.exists() else []:
            # A line is written after the bytes it speaks of; what is behind the last whole one was not finished.
            entry = json.loads(line) if line.endswith("\n") else None
            if entry is not None and entry["at"] + entry["length"] <= size:
                self.places[entry["key"]] = (entry["at"], entry["length"])
                finished = max(finished, entry["at"] + entry["length"])
                whole.append(line)
        self.stream = self.path.open("r+b" if size else "w+b")
        self.stream.truncate(finished)
        self.stream.seek(finished)
        journal.write_text("".join(whole))
        self.journal = journal.open("a")

    def add(self, capture: Capture, member: bytes) -> None:
        with disk_full_is_clear(self.path):
            at = self.stream.seek(0, os.SEEK_END)
            self.stream.write(member)
            self.stream.flush()
            self.journal.write(json.dumps({"key": capture.key, "at": at, "length": len(member)}) + "\n")
            self.journal.flush()
        self.places[capture.key] = (at, len(member))

    def read(self, capture: Capture) -> bytes | None:
        if capture.key not in self.places:
            return None
        at, length = self.places[capture.key]
        self.stream.seek(at)
        return self.stream.read(length)

    def close(self) -> None:
        self.stream.close()
        self.journal.close()


def _fetch(captures: Sequence[Capture], store: _Store, selection: Selection, remote: Remote) -> None:
    """Fetch the records that are not stored yet, a few at a time.

    Raises:
        NetworkError: many in a row could not be fetched.
    """
    missing = iter([capture for capture in captures if capture.key not in store.places])
    in_a_row = done = 0
    with ThreadPoolExecutor(selection.connections) as pool:
        # Small batches: an error ends the run after the requests that are under way, not after all of them.
        while batch := list(islice(missing, selection.connections * 8)):
            for capture, got in zip(batch, pool.map(lambda one: _get(one, selection, remote), batch), strict=True):
                if isinstance(got, bytes):
                    store.add(capture, got)
                    in_a_row = 0
                else:
                    store.failures[capture.key] = got
                    in_a_row += got[0] in ("not_fetched", "certificate")
                done += 1
                if done % 500 == 0:
                    logger.info("crawl: %d records fetched", done)
                if in_a_row >= MOST_FAILURES_IN_A_ROW or (in_a_row and in_a_row == len(captures)):
                    url = joined(selection.data_url, capture.filename)
                    raise NetworkError(
                        "the archive cannot be read",
                        where=url,
                        found=f"{in_a_row} records in a row failed, the last: {store.failures[capture.key][1]}",
                        fix="run again later: what was fetched is kept",
                    )


def _get(capture: Capture, selection: Selection, remote: Remote) -> bytes | tuple[str, str]:
    """Return a record's bytes, tried again once where they are not what the index says; else (rule, detail)."""
    problem = ("not_fetched", "")
    for _ in range(2):
        try:
            url = joined(selection.data_url, capture.filename)
            member = remote.get(url, first=capture.offset, length=capture.length)
        except NotServed as error:
            return (f"http_{error.status}", str(error))
        except Untrusted as error:
            return ("certificate", str(error))
        except Unavailable as error:
            return ("truncated" if " of " in str(error) else "not_fetched", str(error))
        found = mismatch(member, capture)
        if found is None:
            return member
        problem = found
    return problem


def mismatch(member: bytes, capture: Capture) -> tuple[str, str] | None:
    """Return (rule, detail) of how a record differs from its line in the index; None where it does not."""
    try:
        head, _, rest = inflated(member).partition(b"\r\n\r\n")
        fields = header_fields(head)
        block = rest[: int(fields["content-length"])]
    except (ValueError, KeyError) as error:
        return ("damaged_record", f"{type(error).__name__}: {error}"[:200])
    url = without_userinfo(fields.get("warc-target-uri", "").strip("<> "))
    if fields.get("warc-type") != "response" or url != capture.url:
        return ("wrong_record", f"{fields.get('warc-type')} of {url}"[:300])
    payload = block.partition(b"\r\n\r\n")[2]
    if found := other_digest(f"sha1:{capture.digest}", payload):
        return ("wrong_digest", f"{found}, the index says sha1:{capture.digest}")
    return None
