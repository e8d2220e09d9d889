"""The takedown drill, on a copy of a finished workspace: `python -m tests.bench.check_takedown WORKSPACE --urls 50`.

Plants exact and near copies of some pages under another host, takes the originals' URLs down, runs again, and looks
for any word 8-gram that only the taken texts had. Prints one table; exit code 1 where a text is left. Where
decontaminate cut a benchmark's text out of another page, the words on both sides come to stand together and may be such
an 8-gram: those are counted apart, as joined. It changes the workspace that it is given.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import re
import subprocess
import sys
import time
import uuid
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.contracts.document import Document, read_documents
from tasks.contracts.ledger import LedgerRow, read_ledger
from tasks.contracts.manifest import read_manifest
from tasks.contracts.words import words
from tests.planted import plant_manifest

GRAM = 8
MIRROR = "copies.example"
LATER = ("dedup", "perplexity", "holdout", "decontaminate", "mix")
PLANTED = "part-99999.warc.gz"


@dataclass(slots=True)
class Drill:
    """What a drill found."""

    urls: int = 0
    planted: int = 0
    fingerprints: int = 0
    grams: int = 0
    left: dict[str, int] = field(default_factory=dict)
    joined: dict[str, int] = field(default_factory=dict)
    changed: dict[str, tuple[int, int]] = field(default_factory=dict)
    held: dict[str, tuple[int, int]] = field(default_factory=dict)
    hits: dict[str, int | None] = field(default_factory=dict)
    rules: dict[str, int] = field(default_factory=dict)
    marked: int = 0
    seconds: float = 0.0


def main() -> None:
    """Run the drill and print what it found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--urls", type=int, default=50)
    parser.add_argument("--until", default="release")
    chosen = parser.parse_args()
    found = drill(chosen.workspace.resolve(), chosen.urls, chosen.until)
    print(f"{found.urls} URLs taken down, {found.planted} copies planted, {found.fingerprints} fingerprints")
    print(f"dropped: {found.rules}; releases marked: {found.marked}; {found.seconds:.0f} s for the second run")
    print(f"{found.grams} word {GRAM}-grams that only these texts had")
    for stage in ("extract", "filter", *LATER):
        changed, of = found.changed[stage]
        print(
            f"{stage:<14} {found.held[stage][0]:>3} of {of} shards held them, {changed:>3} changed, "
            f"{found.hits.get(stage)} reused; {found.left[stage]} grams left, {found.joined[stage]} joined"
        )
    sys.exit(1 if any(found.left.get(stage) for stage in LATER) else 0)


def drill(workspace: Path, urls: int, until: str = "release", environment: dict[str, str] | None = None) -> Drill:
    """Plant, take down, run, and look."""
    data = workspace / "data"
    headwater = [sys.executable, "-m", "flows.cli.main"]
    inside = {**os.environ, "PYTHONPATH": str(workspace), "HEADWATER_STATE": str(workspace / ".headwater")}
    inside |= {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", **(environment or {})}

    def call(*command: str) -> str:
        done = subprocess.run(command, cwd=workspace, env=inside, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    found = Drill(urls=urls)
    candidates = [one for one in documents(data / "mix") if one.warc_path and len(one.text.split()) >= 150]
    picked = random.Random(1).sample(sorted(candidates, key=lambda one: one.doc_id), urls)
    found.planted = plant(picked, data / "crawl")
    call("dvc", "commit", "--force", "crawl")
    call(*headwater, "run", "--until", "mix")
    before = {stage: shards(data / stage) for stage in ("extract", "filter", *LATER)}
    names = {one.url for one in picked}
    taken_ids: set[str] = set()
    taken: set[str] = set()
    others: set[str] = set()
    for one in documents(data / "extract"):
        mine = one.url in names or MIRROR in one.host
        taken_ids |= {one.doc_id} if mine else set()
        (taken if mine else others).update(grams(one.text))
    only = taken - others
    found.grams = len(only)
    found.held = {stage: holding(data / stage, taken_ids, only) for stage in before}
    for url in sorted(names):
        call(*headwater, "takedown", "add", url, "--reason", "drill", "--date", "2026-01-31")
    applied = json.loads(call(*headwater, "takedown", "apply", "--json"))
    found.fingerprints, found.marked = applied["fingerprints_stored"], len(applied["releases"])
    started = time.monotonic()
    call(*headwater, "run", "--until", until)
    found.seconds = time.monotonic() - started
    for stage, old in before.items():
        new = shards(data / stage)
        found.changed[stage] = sum(new[name] != sha256 for name, sha256 in old.items()), len(old)
        found.left[stage], found.joined[stage] = remaining(data, stage, only)
        dropped = read_manifest(data / stage).counts.dropped
        found.rules |= {rule: number for rule, number in dropped.items() if rule.startswith("takedown")}
    found.hits = {name: record.get("shard_hits") for name, record in last_records(workspace).items()}
    return found


def documents(folder: Path) -> Iterator[Document]:
    """Yield a stage's documents, held-out ones too."""
    for path in sorted([*folder.glob("part-*.parquet"), *folder.glob("heldout/part-*.parquet")]):
        yield from read_documents(path)


def remaining(data: Path, stage: str, only: set[str]) -> tuple[int, int]:
    """Return how many of the grams are left in a stage's documents, and how many came to be there by a cut."""
    held = {one.doc_id: only & grams(one.text) for one in documents(data / "holdout")}
    cut = {row.doc_id for row in read_folder(data / "decontaminate" / "dropped") if row.action == "edit"}
    left: set[str] = set()
    joined: set[str] = set()
    for one in documents(data / stage):
        new = only & grams(one.text)
        by_cut = new - held.get(one.doc_id, set()) if stage in ("decontaminate", "mix") and one.doc_id in cut else set()
        left |= new - by_cut
        joined |= by_cut
    return len(left), len(joined)


def read_folder(folder: Path) -> Iterator[LedgerRow]:
    """Yield all rows of a stage's ledger."""
    for path in sorted(folder.glob("*.parquet")):
        yield from read_ledger(path)


def holding(folder: Path, ids: set[str], only: set[str]) -> tuple[int, int]:
    """Return how many parts hold a taken text, and how many there are."""
    paths = sorted(folder.glob("part-*.parquet"))
    held = [any(one.doc_id in ids or only & grams(one.text) for one in read_documents(path)) for path in paths]
    return sum(held), len(held)


def shards(folder: Path) -> dict[str, str]:
    """Return the hashes of a text stage's parts."""
    listed = read_manifest(folder).shards
    return {shard.name: shard.sha256 for shard in listed if re.fullmatch(r"part-\d+\.parquet", shard.name)}


def grams(text: str) -> set[str]:
    """Return the word 8-grams of a text."""
    found = words(text)
    return {" ".join(found[at : at + GRAM]) for at in range(len(found) - GRAM + 1)}


def last_records(workspace: Path) -> dict[str, dict[str, Any]]:
    """Return each stage's newest run record."""
    chain = (workspace / ".headwater" / "runs" / "chain.jsonl").read_text().splitlines()
    paths = [workspace / ".headwater" / "runs" / json.loads(line)["record"] for line in chain]
    return {record["stage"]: record for record in (json.loads(path.read_bytes()) for path in paths)}


def plant(picked: list[Document], crawl: Path) -> int:
    """Add a part with an exact copy and a near copy of each page under another host; return how many."""
    members: list[bytes] = []
    for number, one in enumerate(picked):
        assert one.warc_path is not None
        assert one.warc_offset is not None
        raw = member(crawl / one.warc_path, one.warc_offset)
        members.append(gzip.compress(renamed(raw, f"http://exact.{MIRROR}/{number}"), mtime=0))
        near = renamed(raw, f"http://near.{MIRROR}/{number}")
        members.append(gzip.compress(altered(near, one.text), mtime=0))
    (crawl / PLANTED).write_bytes(b"".join(members))
    old = read_manifest(crawl)
    counts = old.counts.model_copy(update={"in_": old.counts.in_ + len(members), "out": old.counts.out + len(members)})
    plant_manifest(crawl, stage="crawl", unit=old.unit, params=old.params, inputs={}, counts=counts)
    return len(members)


def member(path: Path, offset: int) -> bytes:
    """Return one WARC record's bytes."""
    with path.open("rb") as stream:
        stream.seek(offset)
        return zlib.decompressobj(31).decompress(stream.read())


def renamed(raw: bytes, url: str) -> bytes:
    """Return a record under another address and id, without its digests."""
    head, _, rest = raw.partition(b"\r\n\r\n")
    identity = uuid.uuid5(uuid.NAMESPACE_URL, url)
    kept = []
    for line in head.split(b"\r\n"):
        name = line.partition(b":")[0].lower()
        if name == b"warc-target-uri":
            line = b"WARC-Target-URI: " + url.encode()
        elif name == b"warc-record-id":
            line = f"WARC-Record-ID: <urn:uuid:{identity}>".encode()
        elif name.endswith(b"-digest"):
            continue
        kept.append(line)
    return b"\r\n".join(kept) + b"\r\n\r\n" + rest


def altered(raw: bytes, text: str) -> bytes:
    """Return a record with a few words of its text replaced by others of the same length: one in 150, at most."""
    head, _, http = raw.partition(b"\r\n\r\n")
    http_head, _, body = http.partition(b"\r\n\r\n")
    lines = http_head.split(b"\r\n")
    kept = [line for line in lines if not line.lower().startswith((b"content-encoding:", b"content-length:"))]
    body = body.removesuffix(b"\r\n\r\n")
    if any(line.lower() == b"content-encoding: gzip" for line in lines):
        body = zlib.decompressobj(31).decompress(body)
    changes = max(1, len(text.split()) // 150)
    singles = [word for word in re.findall(r" ([a-z]{6,12})(?= )", text) if text.count(word) == 1]
    singles = [word for word in singles if f" {word} ".encode() in body]
    assert singles, "a word that stands once in the text and as it is in the page"
    for word in singles[:: max(1, len(singles) // changes)][:changes]:
        body = body.replace(f" {word} ".encode(), b" " + b"x" * len(word) + b" ")
    http = b"\r\n".join([*kept, f"Content-Length: {len(body)}".encode()]) + b"\r\n\r\n" + body
    head = re.sub(rb"(?im)^content-length: \d+", f"Content-Length: {len(http)}".encode(), head)
    return head + b"\r\n\r\n" + http + b"\r\n\r\n"


if __name__ == "__main__":
    main()
