"""What hosts said, read anew: the robots.txt, ai.txt and tdmrep.json that older readers judged when they fetched.

A crawl writes into each page's evidence what the host's files reserve, as its readers saw it then, and keeps the files
as records of the same snapshot. So a crawl of before is judged by what today's readers see in those bytes. A host's
files may stand in another part than its pages: they are looked up once, for the crawls that need it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import islice
from multiprocessing import get_context
from os import sched_getaffinity
from pathlib import Path
from typing import Any

from fastwarc.warc import ArchiveIterator, WarcRecordType
from pydantic import JsonValue

from tasks.contracts.durable_files import canonical_json
from tasks.contracts.errors import InputError
from tasks.rights.evidence import CONTENT_TYPE, READER, Evidence, Signal, host_signals, most_telling, read_evidence
from tasks.rights.robots import AI_TXT, EVERYONE, ROBOTS_TXT, TDMREP, Robots, names_of, url_path

HOST_FILES = frozenset({ROBOTS_TXT, AI_TXT, TDMREP})
STATUS = "Headwater-HTTP-Status"
MOST_EVIDENCE_BYTES = 1 << 20
# Evidence stands before each page; so many records into a part, one has come.
_LOOKED_AT = 1000
# Starting a process takes as long as reading about so many compressed bytes.
_WORKER_BYTES = 4_000_000


@dataclass(frozen=True, slots=True)
class HostFile:
    """A file of a host, as it was answered."""

    status: int
    content: bytes


def collect(parts: Sequence[Path], folder: Path) -> dict[Path, Path]:
    """Write, for each part with evidence of older readers, the host files that it names; return part → that file.

    Args:
        parts: the WARC files of one crawl of our own.
        folder: where to write; it is made.

    Raises:
        InputError: a file is not WARC, or ends inside a record.
    """
    if not any(map(_is_old, parts)):
        return {}
    folder.mkdir(parents=True, exist_ok=True)
    size = sum(part.stat().st_size for part in parts)
    workers = min(len(parts), len(sched_getaffinity(0)), 1 + size // _WORKER_BYTES)
    look = partial(_look, folder=folder)
    if workers > 1:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            looks = list(pool.map(look, parts))
    else:
        looks = [look(part) for part in parts]
    held_by = {name: _found_in(part, folder) for part, (held, _) in zip(parts, looks, strict=True) for name in held}
    read = lru_cache(maxsize=4)(read_files)  # a host's pages stand side by side, and so do its files
    written = {}
    for part, (_, named) in zip(parts, looks, strict=True):
        files = {name: read(held_by[name])[name] for name in sorted(named) if name in held_by}
        if files:
            written[part] = folder / f"{part.name}.json"
            _write(written[part], files)
    for part in parts:
        _found_in(part, folder).unlink()
    return written


def _found_in(part: Path, folder: Path) -> Path:
    return folder / f"{part.name}.found.json"


def _write(path: Path, files: Mapping[str, HostFile]) -> None:
    packed: dict[str, JsonValue] = {
        name: [file.status, base64.b64encode(file.content).decode()] for name, file in files.items()
    }
    path.write_bytes(canonical_json(packed))


def read_files(path: Path | None) -> Mapping[str, HostFile]:
    """Read what `collect` wrote for a part; nothing where it wrote nothing."""
    if path is None:
        return {}
    packed: dict[str, list[Any]] = json.loads(path.read_bytes())
    return {name: HostFile(int(status), base64.b64decode(text)) for name, (status, text) in packed.items()}


def unreadable(part: Path, error: Exception) -> InputError:
    """Return the error that says of a part that it cannot be read to its end."""
    return InputError(
        "a WARC file of the crawl cannot be read to its end",
        where=part.name,
        expected="whole WARC records",
        found=str(error),
        fix="`dvc checkout data/crawl` restores it, or crawl again with `headwater run --force crawl`",
    )


def _records(part: Path) -> Iterator[Any]:
    try:
        with part.open("rb") as stream:
            yield from ArchiveIterator(stream, record_types=WarcRecordType.metadata, parse_http=False)
    except (OSError, ValueError, EOFError, RuntimeError) as error:
        raise unreadable(part, error) from error


def _is_old(part: Path) -> bool:
    seen = (_evidence(record) for record in islice(_records(part), _LOOKED_AT))
    first = next((one for one in seen if one is not None), None)
    return first is not None and first.reader < READER


def _look(part: Path, *, folder: Path) -> tuple[tuple[str, ...], frozenset[str]]:
    """Return the ids of a part's host files, which go into the folder, and of those that its old evidence names."""
    files: dict[str, HostFile] = {}
    named: set[str] = set()
    for record in _records(part):
        if (status := record.headers.get(STATUS)) is not None:
            url = record.headers.get("WARC-Target-URI") or ""
            if status.isdecimal() and url_path(url) in HOST_FILES:
                files[record.record_id or ""] = HostFile(int(status), record.reader.read())
        elif (seen := _evidence(record)) is not None and seen.reader < READER:
            named |= {seen.robots.record_id, *seen.files.values()}
    _write(_found_in(part, folder), files)
    return tuple(files), frozenset(named - {""})


def _evidence(record: Any) -> Evidence | None:
    if record.headers.get("Content-Type") != CONTENT_TYPE:
        return None
    return read_evidence(record.reader.read(MOST_EVIDENCE_BYTES))


def signals_of(evidence: Evidence, files: Mapping[str, HostFile]) -> Iterable[Signal]:
    """Return what evidence says by today's readers, where it is of older ones: what the page's host says.

    What the page itself says, its own record is asked. A host file that is not in the snapshot is taken as it was read.
    """
    if evidence.reader >= READER:
        return evidence.signals
    ids = {"robots.txt": evidence.robots.record_id, **evidence.files}
    found = {name: files[record] for name, record in ids.items() if record in files}
    content = {name: file.content for name, file in found.items() if 200 <= file.status < 300}
    anew = {"header", "meta", "html", *found}
    kept = [signal for signal in evidence.signals if signal.place not in anew]
    robots = _robots(content["robots.txt"]) if "robots.txt" in content else None
    kept += host_signals(robots, content.get("tdmrep.json"), content.get("ai.txt"), evidence.url)
    if robots is not None:
        agent = evidence.robots.user_agent
        decision = robots.decide(agent, evidence.url)
        if not decision.allowed:  # it was fetched, since the readers of then saw no rule that closes it
            name = decision.agent if decision.agent != EVERYONE else next(iter(names_of(agent)), EVERYONE)
            kept.append(Signal("robots.txt", "disallow", name, decision.rule))
    return most_telling(kept, names_of(evidence.robots.user_agent))


@lru_cache(maxsize=64)
def _robots(content: bytes) -> Robots:
    return Robots(content)
