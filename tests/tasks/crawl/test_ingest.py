"""What an ingest takes in: each file once, each document with an id of its own, and what is finished stays finished."""

import codecs
import gzip
import json
import multiprocessing
import os
import re
import shutil
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import zstandard

from tasks.contracts.document import Document, read_documents
from tasks.contracts.durable_files import sha256_file
from tasks.contracts.errors import InputError
from tasks.contracts.ledger import LedgerRow, read_ledger
from tasks.contracts.manifest import Manifest
from tasks.crawl import archives, texts, work_units
from tasks.crawl.input_files import _short_names
from tasks.crawl.stage import Params, run
from tasks.crawl.warc_reader import read_records
from tasks.engine.session import RayParams, ray_session
from tasks.extract.warc_pages import read_pages
from tests.tasks.crawl.test_canonical import record

pytestmark = pytest.mark.usefixtures("workspace")


def crawl(source: str, *paths: str, name: str = "out", **more: object) -> tuple[Manifest, Path]:
    output = Path(name)
    shutil.rmtree(output, ignore_errors=True)
    params = Params.model_validate({"source": source, "paths": paths, **more})
    return run(params=params, inputs={}, output=output), output


def documents(output: Path) -> list[Document]:
    return [document for part in sorted(output.glob("part-*")) for document in read_documents(part)]


def rows(output: Path) -> list[LedgerRow]:
    return list(read_ledger(output / "dropped" / "part-00000.parquet"))


def write_rows(path: Path, *found: Mapping[str, object]) -> None:
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in found))


def test_files_of_one_name_give_ids_of_their_own() -> None:
    for folder in "abc":
        write_rows(Path(folder, "x.jsonl"), *({"text": f"{folder} {number}"} for number in range(5)))
    manifest, output = crawl("text", "a/x.jsonl", "b/x.jsonl", "c/x.jsonl")
    assert manifest.counts.out == len({document.doc_id for document in documents(output)}) == 15
    sources = json.loads((output / "sources.json").read_bytes())["sources"]
    assert [source["name"] for source in sources] == ["a/x.jsonl", "b/x.jsonl", "c/x.jsonl"]


ODD_NAMES = (
    "a#b", "a?b", "a[1]", "a[!b]", "a b", "a%20b", "a%b", "ü", "a*b", "a::b", "~a", "a\\b", "{a,b}", "[1]/x", "#/x",
    "?/[1]",
    "a&b;c", "${HOME}", "$HOME", "a@b:c", "file:x", "a+b", "-x", "a'b\"c", "a\nb", " a ", "a.gz#x", "https:/x", "c:/x",
)  # fmt: skip


@pytest.mark.parametrize("name", ODD_NAMES)
@pytest.mark.parametrize(
    ("source", "given"), [("text", "{}"), ("text", "./{}"), ("text", "file://{here}/{}"), ("warc", "{here}/{}")]
)
def test_a_file_is_found_by_its_very_name(name: str, given: str, source: str) -> None:
    # What the name would match as a pattern, or be cut to as an address, is there too.
    for other in ("a1", "ac", "a", "aXb", "1/x", "b"):
        write_rows(Path(other).with_name(f"{Path(other).name}.jsonl"), {"text": "another"})
    path = Path(f"{name}.{'jsonl' if source == 'text' else 'warc.gz'}")
    path.parent.mkdir(exist_ok=True, parents=True)
    if source == "text":
        write_rows(path, {"text": "words"})
    else:
        path.write_bytes(record())
    manifest, output = crawl(source, given.format(path, here=Path.cwd()))
    assert manifest.counts.out == 1
    if source == "text":
        assert [document.text for document in documents(output)] == ["words"]
    (found,) = json.loads((output / "sources.json").read_bytes())["sources"]
    assert (found["name"], found["sha256"]) == (path.name, sha256_file(path))


def test_patterns_still_find_files_also_in_folders_with_odd_names() -> None:
    for name in ("[1]/a.jsonl", "[1]/b.jsonl", "[1]/c/d.jsonl", "1/e.jsonl"):
        write_rows(Path(name), {"text": name})
    for pattern, found in (
        ("[1]/*.jsonl", ["[1]/a.jsonl", "[1]/b.jsonl"]),
        ("[1]/**/*.jsonl", ["[1]/a.jsonl", "[1]/b.jsonl", "[1]/c/d.jsonl"]),
        ("[1]/?.jsonl", ["[1]/a.jsonl", "[1]/b.jsonl"]),
        ("[1-2]/*.jsonl", ["1/e.jsonl"]),
        ("*/[ae].jsonl", ["1/e.jsonl", "[1]/a.jsonl"]),
    ):  # fmt: skip
        assert [document.text for document in documents(crawl("text", pattern)[1])] == found
    for nothing in ("[2]/*.jsonl", "[1]/x.jsonl", "a**b.jsonl", "file:///nowhere/*", "[1]"):
        with pytest.raises(InputError, match=re.escape(nothing)):
            crawl("text", nothing)


def test_files_of_one_path_on_several_hosts_have_names_of_their_own() -> None:
    urls = ["https://a.example/x.jsonl", "https://b.example/x.jsonl", "https://b.example/y.jsonl?n=1",
            "https://b.example/y.jsonl?n=2", "s3://c/x#1.jsonl", "file:///w/z?1.jsonl"]  # fmt: skip
    names = list(_short_names(urls).values())
    assert names == ["a.example/x.jsonl", "b.example/x.jsonl", "b.example/y.jsonl?n=1", "b.example/y.jsonl?n=2",
                     "x#1.jsonl", "z?1.jsonl"]  # fmt: skip


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32", "utf-32-be"])
@pytest.mark.parametrize("packing", ["plain", "gzip", "zstd"])
def test_lines_of_any_unicode_encoding_are_read(encoding: str, packing: str) -> None:
    texts = ["naïve", "\u2028語", "𠀀 " * 100_000, "\ufeff"]
    mark = {"utf-16-be": codecs.BOM_UTF16_BE, "utf-32-be": codecs.BOM_UTF32_BE}.get(encoding, b"")
    content = mark + "\n".join(json.dumps({"text": text}, ensure_ascii=False) for text in texts).encode(encoding)
    packs: dict[str, Callable[[bytes], bytes]] = {
        "plain": bytes,
        "gzip": gzip.compress,
        "zstd": zstandard.ZstdCompressor().compress,
    }
    Path("x.jsonl").write_bytes(packs[packing](content))
    manifest, output = crawl("text", "x.jsonl")
    assert [document.text for document in documents(output)] == texts
    assert manifest.counts.dropped == {}


def test_files_with_marks_that_were_put_behind_each_other_lose_no_row() -> None:
    one, empty = codecs.BOM_UTF8 + b'{"text": "a"}\n', codecs.BOM_UTF8
    Path("x.jsonl").write_bytes(one * 2 + empty * 5 + one + empty * 4 + b"\n" + empty)
    manifest, output = crawl("text", "x.jsonl")
    assert len(documents(output)) == manifest.counts.in_ == 3


def test_made_up_ids_stay_when_the_files_move_and_equal_rows_have_two() -> None:
    same = [{"text": "once"}, {"text": "twice"}, {"text": "twice"}]
    write_rows(Path("here/x.jsonl"), *same)
    before = [document.doc_id for document in documents(crawl("text", "here/x.jsonl")[1])]
    Path("there/deep").mkdir(parents=True)
    Path("here/x.jsonl").rename("there/deep/y.jsonl")
    after = [document.doc_id for document in documents(crawl("text", "there/deep/y.jsonl")[1])]
    assert before == after
    assert len(set(before)) == 3


@pytest.mark.parametrize("bytes_a_unit", [1, 1 << 20], ids=["a unit a file", "one unit"])
def test_equal_ids_of_several_files_stay_apart(bytes_a_unit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work_units, "LEAST_BYTES", bytes_a_unit)
    odd = [{"id": "again:1:0:7", "text": "odd"}, {"id": "content:7", "text": "odd"}, {"source": "text\n7", "text": "n"}]
    for folder in "abcd":
        again = [
            {"id": "7", "text": folder},
            {"id": "7", "text": "same"},
            {"id": "7", "text": "same"},
            {"text": "same"},
        ]
        write_rows(Path(folder, "x.jsonl"), *again, *odd)
    manifest, output = crawl("text", "*/x.jsonl", shard_megabytes=1e-6)
    assert manifest.counts.out == len({document.doc_id for document in documents(output)}) == 28


def test_one_file_by_several_names_is_taken_once_and_noted() -> None:
    Path("a").mkdir()
    Path("a/x.warc").write_bytes(record())
    Path("link.warc").symlink_to("a/x.warc")
    os.link("a/x.warc", "hard.warc")
    manifest, output = crawl("warc", "a/x.warc", "./a/../a/x.warc", "link.warc", "hard.warc", "*/x.warc")
    assert (manifest.counts.in_, manifest.counts.out) == (1, 1)
    [row] = rows(output)
    assert (row.action, row.rule) == ("note", "repeated_file")
    assert "5 times" in (row.detail or "")


@pytest.mark.parametrize("bytes_a_unit", [1, 1 << 20], ids=["a unit a file", "one unit"])
def test_a_copy_of_an_archive_is_a_row_for_each_record(bytes_a_unit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work_units, "LEAST_BYTES", bytes_a_unit)
    records = [record({"WARC-Record-ID": f"<urn:{n}>", "WARC-Target-URI": f"http://a.example/{n}"}) for n in range(3)]
    Path("a.warc").write_bytes(b"".join(records))
    shutil.copyfile("a.warc", "b.warc")
    manifest, output = crawl("warc", "a.warc", "b.warc")
    assert manifest.counts.dropped == {"duplicate_record": 3}
    pages = [page for part in sorted(output.glob("part-*")) for page in read_pages(part, 10**6)]
    assert [page.record_id for page in pages] == [f"<urn:{n}>" for n in range(3)]
    assert {row.url for row in rows(output)} == {page.url for page in pages}


def test_records_without_ids_get_ids_that_hold_their_content() -> None:
    for name in ("a", "b"):
        Path(f"{name}.warc").write_bytes(record({"WARC-Record-ID": None, "WARC-Target-URI": f"http://{name}.example/"}))
    _, output = crawl("warc", "a.warc", "b.warc")
    first = [page.record_id for part in sorted(output.glob("part-*")) for page in read_pages(part, 10**6)]
    assert len(set(first)) == 2
    _, output = crawl("warc", "b.warc", "a.warc")
    assert first == [page.record_id for part in sorted(output.glob("part-*")) for page in read_pages(part, 10**6)][::-1]


def test_a_file_that_holds_no_record_is_a_row_beside_others_that_do() -> None:
    Path("good.warc").write_bytes(record())
    Path("empty.warc").write_bytes(b"")
    Path("junk.warc").write_bytes(b"<html>no archive</html>")
    manifest, output = crawl("warc", "*.warc")
    assert manifest.counts.out == 1
    said = " ".join(row.detail or "" for row in rows(output))
    assert "empty.warc: no WARC record" in said
    assert "junk.warc: no WARC record" in said


def test_an_odd_first_line_does_not_stop_a_text_file() -> None:
    Path("a.jsonl").write_text('\ufeff[1]\nnot json\n{"body": "no text"}\n{"text": "good"}\n')
    manifest, output = crawl("text", "a.jsonl")
    assert [document.text for document in documents(output)] == ["good"]
    assert manifest.counts.dropped == {"bad_row": 3}


def test_a_line_longer_than_any_document_is_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "MOST_LINE_BYTES", 1000)
    write_rows(Path("a.jsonl"), {"text": "x" * 5000}, {"text": "good"})
    manifest, output = crawl("text", "a.jsonl")
    assert [document.text for document in documents(output)] == ["good"]
    assert manifest.counts.dropped == {"bad_row": 1}


def test_a_file_that_changes_while_it_is_read_stops_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("a.warc").write_bytes(record())

    def changing(*given: Any) -> object:
        Path("a.warc").write_bytes(record() + b"\r\n")
        return read_records(*given)

    monkeypatch.setattr("tasks.crawl.archives.read_records", changing)
    with pytest.raises(InputError, match="changed while it was read"):
        crawl("warc", "a.warc")


FILES = 6


def _killed_in(source: str, unit: int) -> None:
    """Take everything in, and be killed where the given unit is half written."""
    module, name = {"warc": (archives, "check_unchanged"), "text": (texts, "check_unchanged")}[source]
    check = getattr(module, name)

    def kill(file: object, identity: object) -> None:
        if f"{unit}." in str(file):
            os.kill(os.getpid(), signal.SIGKILL)
        check(file, identity)

    setattr(module, name, kill)
    work_units.LEAST_BYTES = 1
    crawl(source, "in/*", shard_megabytes=1e-6)


@pytest.mark.parametrize("source", ["warc", "text"])
def test_an_ingest_that_was_killed_goes_on(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("in").mkdir()
    for number in range(FILES):
        if source == "warc":
            fields: dict[str, str | None] = {
                "WARC-Record-ID": f"<urn:{number}>",
                "WARC-Target-URI": f"http://a.example/{number}",
            }
            Path(f"in/{number}.warc").write_bytes(record(fields))
        else:
            write_rows(Path(f"in/{number}.jsonl"), *({"text": f"{number} {line}"} for line in range(5)))
    monkeypatch.setattr(work_units, "LEAST_BYTES", 1)
    undisturbed, _ = crawl(source, "in/*", name="whole", shard_megabytes=1e-6)
    process = multiprocessing.get_context("fork").Process(target=_killed_in, args=(source, 4))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    made: list[Path] = []
    make = work_units.make

    def counted(folder: Path, fill: object) -> object:
        made.extend([] if folder.exists() else [folder])
        return make(folder, fill)  # type: ignore[arg-type]

    monkeypatch.setattr(archives if source == "warc" else texts, "make", counted)
    manifest, _ = crawl(source, "in/*", shard_megabytes=1e-6)
    assert len(made) == 2, "the units that were finished are not made again"
    assert manifest == undisturbed
    left = [path for path in Path(".headwater/crawl").rglob("*") if path.is_file()]
    assert left == [], "what is whole needs no state"


def _lost_once(job: Path) -> int:
    if not job.exists():
        job.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()


def test_a_lost_worker_does_not_end_an_ingest(tmp_path: Path) -> None:
    from tasks.crawl.processes import spread

    with ray_session(RayParams(num_cpus=2)):
        assert os.getpid() not in spread(_lost_once, [tmp_path / "a", tmp_path / "b"])


def test_other_content_or_settings_are_not_taken_for_what_is_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.crawl.stage.shutil.rmtree", lambda *_, **__: None)
    write_rows(Path("a.jsonl"), {"text": "one", "other": "two"})
    assert [one.text for one in documents(crawl("text", "a.jsonl", name="a")[1])] == ["one"]
    assert [one.text for one in documents(crawl("text", "a.jsonl", name="b", text_column="other")[1])] == ["two"]
    write_rows(Path("a.jsonl"), {"text": "six", "other": "two"})
    assert [one.text for one in documents(crawl("text", "a.jsonl", name="c")[1])] == ["six"]
