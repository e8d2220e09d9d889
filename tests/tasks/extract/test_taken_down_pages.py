"""A takedown changes the shards that it touches and no other."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.contracts.document import Document, make_doc_id, read_documents, write_documents
from tasks.contracts.ledger import read_ledger
from tasks.contracts.manifest import Counts, Manifest, commit_manifest
from tasks.engine.shards import reused
from tasks.extract.stage import Params, run
from tasks.rights.takedowns import Fingerprint, Row, add_fingerprints, append_row, text_sha256

PARTS, ROWS = 4, 3


@pytest.fixture(autouse=True)
def empty_workspace(workspace: Path) -> Path:
    return workspace


def page(part: int, row: int) -> Document:
    host = f"host{part}.example"
    return Document(
        doc_id=make_doc_id("test", f"{part}-{row}"),
        url=f"https://{host}/{row}",
        host=host,
        record_id=f"{part}-{row}",
        source="test",
        text=f"The text of page {row} in part {part}.",
        payload_digest=f"sha1:{part}{row}",
        language="en",
    )


def make_crawl(workspace: Path) -> Path:
    crawl = workspace / "crawl"
    for part in range(PARTS):
        write_documents(crawl / f"part-{part:05d}.parquet", [page(part, row) for row in range(ROWS)])
    counts = Counts(in_=PARTS * ROWS, out=PARTS * ROWS)
    commit_manifest(crawl, stage="crawl", unit="documents", params={"source": "text"}, inputs={}, counts=counts)
    return crawl


def extract(crawl: Path) -> Manifest:
    import shutil

    shutil.rmtree("out", ignore_errors=True)
    return run(params=Params(), inputs={"crawl": crawl}, output=Path("out"))


def shards(manifest: Manifest) -> dict[str, str]:
    return {shard.name: shard.sha256 for shard in manifest.shards}


def tombstone(number: int, kind: str, value: str) -> Row:
    return Row(id=f"{number:016x}", kind=kind, value=value, reason="asked", date="2026-01-31")


def test_only_the_shards_that_hold_something_covered_change(workspace: Path) -> None:
    crawl = make_crawl(workspace)
    before = shards(extract(crawl))
    append_row(tombstone(1, "url", page(1, 2).url))
    append_row(tombstone(2, "url", "https://elsewhere.example/"))
    copied, captured = page(2, 0), page(2, 1)
    add_fingerprints(
        [
            Fingerprint(tombstone=f"{2:016x}", text_sha256=text_sha256(copied.text.upper())),
            Fingerprint(tombstone=f"{2:016x}", payload_digest=captured.payload_digest),
        ]
    )
    manifest = extract(crawl)
    after = shards(manifest)
    changed = {name.removeprefix("dropped/") for name in before if before[name] != after[name]}
    assert changed == {"part-00001.parquet", "part-00002.parquet"}
    assert reused["extract"] == PARTS - 2
    assert manifest.counts == Counts(in_=PARTS * ROWS, out=PARTS * ROWS - 3, dropped={"takedown": 3})
    rows = {row.doc_id: row for part in (1, 2) for row in read_ledger(Path(f"out/dropped/part-{part:05d}.parquet"))}
    assert set(rows) == {page(1, 2).doc_id, copied.doc_id, captured.doc_id}
    assert rows[page(1, 2).doc_id].detail == f"tombstone {1:016x}, by its address"
    assert rows[captured.doc_id].detail == f"tombstone {2:016x}, by its payload"
    kept = {document.doc_id for document in read_documents(Path("out/part-00002.parquet"))}
    assert kept == {page(2, 2).doc_id}


def test_a_withdrawn_tombstone_gives_the_first_shards_back(workspace: Path) -> None:
    crawl = make_crawl(workspace)
    before = extract(crawl)
    append_row(tombstone(1, "host", "host3.example"))
    assert extract(crawl).counts.dropped == {"takedown": ROWS}
    append_row(Row(id=f"{1:016x}", kind="withdrawal", reason="a mistake", date="2026-02-01"))
    assert extract(crawl) == before


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(host=st.from_regex(r"[a-z]{3,12}\.invalid", fullmatch=True), text=st.text(min_size=1))
def test_a_tombstone_that_matches_nothing_changes_no_shard(workspace: Path, host: str, text: str) -> None:
    crawl = workspace / "crawl"
    before = shards(extract(crawl if crawl.exists() else make_crawl(workspace)))
    append_row(tombstone(1, "host", host))
    append_row(tombstone(2, "url", f"https://{host}/page"))
    add_fingerprints([Fingerprint(tombstone=f"{2:016x}", text_sha256=text_sha256(text), payload_digest="sha1:none")])
    assert shards(extract(crawl)) == before
    assert reused["extract"] == PARTS
