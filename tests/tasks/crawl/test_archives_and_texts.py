"""WARC and text sources: re-sharded, counted, and clear about what is wrong."""

import gzip
import json
import shutil
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from tasks.contracts.document import read_documents
from tasks.contracts.errors import HeadwaterError, InputError, NetworkError
from tasks.contracts.ledger import read_ledger
from tasks.contracts.manifest import Manifest, read_manifest
from tasks.crawl import stage
from tasks.crawl.stage import Params, run
from tests.tasks.crawl.test_warc_reader import record


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


@pytest.mark.parametrize(("much", "asked"), [(100, 1), (10**9, 0)])
def test_ray_starts_at_the_end_of_a_large_crawl(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, much: int, asked: int
) -> None:
    asks: list[bool] = []
    monkeypatch.setattr(stage, "session_is_near", lambda: asks.append(True))
    monkeypatch.setattr(stage, "MUCH_BYTES", much)
    (workspace / "a.warc.gz").write_bytes(gzip.compress(record()))
    crawl("warc", "a.warc.gz")
    assert len(asks) == asked


def test_damage_is_a_ledger_row(workspace: Path) -> None:
    (workspace / "a.warc.gz").write_bytes(gzip.compress(record()) + b"junk" + gzip.compress(record(b"other")))
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


@pytest.mark.parametrize("packed", [True, False], ids=["gzip", "plain"])
def test_a_truncated_file_gives_its_whole_records_and_a_row_for_the_last(workspace: Path, packed: bool) -> None:
    members = [record(str(n).encode() * 300) for n in range(3)]
    members = [gzip.compress(member) for member in members] if packed else members
    content = b"".join(members)
    (workspace / "cut.warc").write_bytes(content[: -len(members[-1]) // 2])
    manifest, output = crawl("warc", "cut.warc")
    assert (manifest.counts.in_, manifest.counts.out) == (3, 2)
    assert manifest.counts.dropped == {"damaged_record": 1}
    [row] = read_ledger(output / "dropped" / "part-00000.parquet")
    assert f"cut.warc, byte {len(members[0]) + len(members[1])}" in (row.detail or "")


def test_a_missing_file_is_an_error() -> None:
    with pytest.raises(InputError, match=r"none\.warc"):
        crawl("warc", "none.warc.gz")
    with pytest.raises(InputError, match="no input files"):
        crawl("text")


@pytest.fixture
def server() -> Iterator[str]:
    """A server whose files fail, each in the way of its name; its URL."""
    whole = b"".join(gzip.compress(record(str(n).encode() * 500)) for n in range(200))

    class Failing(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            name = self.path.strip("/").partition(".")[0]
            self.send_response(int(name) if name.isdigit() else 200)
            self.send_header("Content-Length", str(len(whole)) if name == "half" else "0")
            self.end_headers()

        def do_GET(self) -> None:
            self.do_HEAD()
            if "half" in self.path:
                self.wfile.write(whole[: len(whole) // 2])

        def log_message(self, *_: object) -> None:
            """Stay quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Failing) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("url", ["https://no-such-host.invalid/a.warc.gz", "https://127.0.0.1:9/a.warc.gz"])
def test_a_remote_file_without_a_network_is_an_error_that_may_pass(url: str) -> None:
    with pytest.raises(NetworkError) as caught:
        crawl("warc", url)
    assert caught.value.transient
    assert f"where: {url}" in str(caught.value)
    assert not Path("out/_manifest.json").exists()


def test_a_connection_that_ends_in_the_middle_of_a_file_is_no_damaged_record(server: str) -> None:
    with pytest.raises(NetworkError) as caught:
        crawl("warc", f"{server}/half.warc.gz")
    assert "half.warc.gz" in str(caught.value)
    assert not Path("out/_manifest.json").exists()


@pytest.mark.parametrize(
    ("status", "error"), [(404, InputError), (403, InputError), (429, NetworkError), (503, NetworkError)]
)
def test_what_a_server_answers_decides_whether_it_may_pass(
    server: str, status: int, error: type[HeadwaterError]
) -> None:
    with pytest.raises(error, match=str(status)) as caught:
        crawl("warc", f"{server}/{status}.warc.gz")
    assert f"where: {server}/{status}.warc.gz" in str(caught.value)


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
    rows: list[dict[str, Any]] = [DOLMA, FINEWEB]
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
