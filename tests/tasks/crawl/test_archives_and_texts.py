"""WARC and text sources: re-sharded, counted, and clear about what is wrong."""

import gzip
import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from tasks.contracts.document import read_documents
from tasks.contracts.errors import InputError
from tasks.contracts.ledger import read_ledger
from tasks.contracts.manifest import Manifest, read_manifest
from tasks.crawl.stage import Params, run
from tests.tasks.crawl.test_warc_records import record


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HEADWATER_STATE", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def crawl(source: str, *paths: str, **more: object) -> tuple[Manifest, Path]:
    output = Path("out")
    shutil.rmtree(output, ignore_errors=True)
    params = Params.model_validate({"source": source, "paths": paths, **more})
    return run(params=params, inputs={}, output=output), output


def test_members_are_spread_over_parts_and_stay_the_same_bytes(workspace: Path) -> None:
    members = [gzip.compress(record(bytes([n]) * 50 + str(n).encode() * 300)) for n in range(40)]
    (workspace / "a.warc.gz").write_bytes(b"".join(members))
    manifest, output = crawl("warc", "a.warc.gz", shard_megabytes=len(members[0]) * 10 / 2**20)
    parts = sorted(output.glob("part-*.warc.gz"))
    assert len(parts) >= 4
    assert b"".join(part.read_bytes() for part in parts) == b"".join(members)
    assert manifest.counts.in_ == manifest.counts.out == 40
    assert manifest == read_manifest(output)


def test_damage_is_a_ledger_row(workspace: Path) -> None:
    (workspace / "a.warc.gz").write_bytes(gzip.compress(record()) + b"junk" + gzip.compress(record()))
    manifest, output = crawl("warc", "*.warc.gz")
    assert manifest.counts.dropped == {"damaged_record": 1}
    [row] = read_ledger(output / "dropped" / "part-00000.parquet")
    assert row.rule == "damaged_record"
    assert "a.warc.gz" in (row.detail or "")


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"", "an empty file"), (b"<html>hello</html>", "no WARC record"), (b"\x1f\x8b\x08garbage", "gzip"),
     (record(kind="request"), "1 request")],
)  # fmt: skip
def test_a_file_without_a_page_is_an_error_that_says_what_it_is(workspace: Path, content: bytes, says: str) -> None:
    (workspace / "odd.warc.gz").write_bytes(content)
    with pytest.raises(InputError) as error:
        crawl("warc", "odd.warc.gz")
    assert says in str(error.value)
    assert "odd.warc.gz" in str(error.value)


def test_a_missing_file_is_an_error() -> None:
    with pytest.raises(InputError, match=r"none\.warc"):
        crawl("warc", "none.warc.gz")
    with pytest.raises(InputError, match="no input files"):
        crawl("text")


DOLMA = {
    "id": "d1",
    "text": "Some text.",
    "source": "books",
    "added": "2020",
    "metadata": {"url": "http://b.example/x"},
}
FINEWEB = {"id": "f1", "text": "Other text.", "dump": "CC-1", "url": "https://c.example/", "date": "2024-01-01",
           "language": "en", "language_score": 0.9, "token_count": 3}  # fmt: skip


@pytest.mark.parametrize("kind", ["plain", "gz", "zst", "parquet"])
def test_text_layouts_are_understood_in_every_packing(workspace: Path, kind: str) -> None:
    rows = [DOLMA, FINEWEB]
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    if kind == "parquet":
        names = {name: None for row in rows for name in row}
        pq.write_table(pa.Table.from_pylist([{**names, **row} for row in rows]), workspace / "a.data")
    else:
        packed = {"plain": lines, "gz": gzip.compress(lines), "zst": zstandard.compress(lines)}[kind]
        (workspace / "a.data").write_bytes(packed)
    manifest, output = crawl("text", "a.data")
    first, second = read_documents(output / "part-00000.parquet")
    assert (first.source, first.url, first.host, first.captured_at) == (
        "books",
        "http://b.example/x",
        "b.example",
        "2020",
    )
    assert (second.source, second.language, second.language_score) == ("CC-1", "en", 0.9)
    assert manifest.unit == "documents"
    assert manifest.counts.out == 2


def test_bad_rows_are_ledger_rows_and_equal_ids_stay_apart(workspace: Path) -> None:
    lines = [json.dumps(DOLMA), "not json", json.dumps({**DOLMA, "text": 7}), json.dumps(DOLMA), "[1]"]
    (workspace / "a.jsonl").write_text("\n".join(lines))
    manifest, output = crawl("text", "a.jsonl")
    assert manifest.counts.dropped == {"bad_row": 3}
    assert len({document.doc_id for document in read_documents(output / "part-00000.parquet")}) == 2


def test_a_missing_text_column_names_the_columns_there_are(workspace: Path) -> None:
    (workspace / "a.jsonl").write_text(json.dumps({"body": "x", "id": 1}))
    with pytest.raises(InputError, match="columns body, id"):
        crawl("text", "a.jsonl")
    assert crawl("text", "a.jsonl", text_column="body")[0].counts.out == 1
