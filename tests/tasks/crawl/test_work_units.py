"""Big inputs taken in side by side: the same records, the same bytes, whatever is cut where and by how many workers."""

import gzip
import hashlib
import io
import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.contracts.document import read_documents
from tasks.contracts.ledger import read_ledger
from tasks.contracts.manifest import Manifest
from tasks.crawl import work_units
from tasks.crawl.stage import Params, run
from tasks.crawl.warc_reader import Record, read_records
from tasks.crawl.warc_writer import Page, Writer
from tasks.engine.session import RayParams, ray_session
from tasks.rights.evidence import Evidence, RobotsVerdict
from tests.tasks.crawl.test_warc_reader import record


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HEADWATER_STATE", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def noise(seed: int, size: int) -> bytes:
    return b"".join(hashlib.sha256(b"%d %d" % (seed, at)).digest() for at in range(size // 32 + 1))[:size]


def taken(source: str, *paths: str, name: str = "out", **more: object) -> tuple[Manifest, dict[str, str]]:
    output = Path(name)
    shutil.rmtree(output, ignore_errors=True)
    manifest = run(params=Params.model_validate({"source": source, "paths": paths, **more}), inputs={}, output=output)
    assert not list(output.glob(".unit*"))
    return manifest, {shard.name: shard.sha256 for shard in manifest.shards}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 3000), min_size=1, max_size=8),
    st.lists(st.integers(0, 6000), max_size=4),
    st.lists(st.sampled_from([b"", b"junk", b"\x1f\x8b\x08 no member", b"\0" * 40]), min_size=8, max_size=8),
)
def test_slices_hold_together_what_the_whole_holds(sizes: list[int], cuts: list[int], between: list[bytes]) -> None:
    members = [gzip.compress(record(noise(n, size))) for n, size in enumerate(sizes)]
    content = b"".join(member + gap for member, gap in zip(members, between, strict=False))
    whole = [found.member for found in read_records(io.BytesIO(content)) if isinstance(found, Record)]
    edges = [0, *sorted({cut for cut in cuts if 0 < cut < len(content)}), None]
    sliced: list[bytes] = []
    for start, stop in pairwise(edges):
        assert start is not None
        stream = io.BytesIO(content)
        stream.seek(start)
        sliced += [found.member for found in read_records(stream, start, stop) if isinstance(found, Record)]
    assert sliced == whole


def test_a_big_file_is_taken_in_slices_and_nothing_changes(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    members = [gzip.compress(record(noise(n, 2000))) for n in range(120)]
    members[50] = b"damage" + members[50]
    broken = bytearray(members[80])
    broken[-6] ^= 0xFF
    members[80] = bytes(broken)
    (workspace / "big.warc.gz").write_bytes(b"".join(members))
    small: dict[str, Any] = {"shard_megabytes": 0.005}
    whole, _ = taken("warc", "big.warc.gz", **small)
    rows = list(read_ledger(Path("out/dropped/part-00000.parquet")))
    content = b"".join(part.read_bytes() for part in sorted(Path("out").glob("part-*")))
    source = (Path("out") / "sources.json").read_bytes()
    monkeypatch.setattr(work_units, "LEAST_BYTES", 20_000)
    sliced, _ = taken("warc", "big.warc.gz", **small)
    assert sliced.counts == whole.counts
    assert whole.counts.in_ >= 120
    assert list(read_ledger(Path("out/dropped/part-00000.parquet"))) == rows
    assert b"".join(part.read_bytes() for part in sorted(Path("out").glob("part-*"))) == content
    assert (Path("out") / "sources.json").read_bytes() == source


def test_small_files_share_a_unit_and_big_ones_do_not(workspace: Path) -> None:
    for number in range(5):
        (workspace / f"{number}.warc.gz").write_bytes(gzip.compress(record(noise(number, 100))))
    manifest, _ = taken("warc", "*.warc.gz")
    assert [shard.name for shard in manifest.shards if shard.name.startswith("part-")] == ["part-00000.warc.gz"]
    assert manifest.counts.out == 5


def test_one_worker_and_several_write_the_same_bytes(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        members = [gzip.compress(record(noise(100 * number + n, 3000))) for n in range(20)]
        (workspace / f"{number}.warc.gz").write_bytes(b"".join(members))
        lines = [json.dumps({"id": str(n), "text": f"Text {number} {n} " * 50}) for n in range(40)]
        (workspace / f"{number}.jsonl").write_text("\n".join(lines))
    # A unit a file: every unit of text after the first holds ids of the ones before it.
    monkeypatch.setattr(work_units, "LEAST_BYTES", 1)
    small: dict[str, Any] = {"shard_megabytes": 0.01}
    alone = [taken("warc", "*.warc.gz", **small), taken("text", "*.jsonl", **small)]
    with ray_session(RayParams(num_cpus=2)):
        together = [taken("warc", "*.warc.gz", **small), taken("text", "*.jsonl", **small)]
    assert together == alone
    ids = [document.doc_id for part in sorted(Path("out").glob("part-*")) for document in read_documents(part)]
    assert len(ids) == len(set(ids)) == 120


def test_a_revisit_of_another_archive_is_a_row_that_names_what_it_repeats(workspace: Path) -> None:
    block = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n"
    head = (
        "WARC/1.0\r\nWARC-Type: revisit\r\nWARC-Record-ID: <urn:2>\r\nWARC-Target-URI: http://b.example/\r\n"
        f"WARC-Refers-To-Target-URI: http://a.example/\r\nContent-Length: {len(block)}\r\n\r\n"
    )
    revisit = gzip.compress(head.encode() + block + b"\r\n\r\n")
    (workspace / "a.warc.gz").write_bytes(gzip.compress(record()) + revisit)
    manifest, _ = taken("warc", "a.warc.gz")
    assert manifest.counts.dropped == {"revisit": 1}
    assert (manifest.counts.in_, manifest.counts.out) == (2, 1)
    [row] = read_ledger(Path("out/dropped/part-00000.parquet"))
    assert (row.url, row.record_id) == ("http://b.example/", "<urn:2>")
    assert "http://a.example/" in (row.detail or "")
    assert Path("out/part-00000.warc.gz").read_bytes().endswith(revisit), "the record itself is kept"


def test_evidence_stays_with_its_page_when_a_snapshot_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.BytesIO()
    writer = Writer(stream)
    for number in range(60):
        url = f"http://a.example/{number}"
        exchange = Page(url=url, when="2026-01-01T00:00:00Z", address=None, request=b"GET / HTTP/1.1\r\n\r\n",
                        status="200 OK", headers=[("Content-Type", "text/html")], body=noise(number, 700))  # fmt: skip
        writer.write_page(exchange, Evidence(url=url, robots=RobotsVerdict(user_agent="x", allowed=True)))
    Path("own.warc.gz").write_bytes(stream.getvalue())
    monkeypatch.setattr(work_units, "LEAST_BYTES", 1)
    manifest, _ = taken("warc", "own.warc.gz", shard_megabytes=0.0015)
    assert manifest.counts.out == 60
    parts = sorted(Path("out").glob("part-*"))
    assert len(parts) > 10
    assert b"".join(part.read_bytes() for part in parts) == stream.getvalue()
    for part in parts:
        found = [record for record in read_records(io.BytesIO(part.read_bytes())) if isinstance(record, Record)]
        kinds = [record.kind for record in found if record.kind != "request"]
        assert kinds == ["metadata", "response"] * (len(kinds) // 2), part.name
