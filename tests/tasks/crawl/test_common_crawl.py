"""Common Crawl's layout on a server of our own: what is taken, what is checked, and that nothing is fetched twice."""

import base64
import gzip
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from fastwarc.warc import ArchiveIterator, WarcRecordType

from tasks.contracts.errors import InputError, NetworkError, ParamsError
from tasks.contracts.ledger import read_ledger
from tasks.contracts.manifest import Manifest
from tasks.crawl.stage import Params, run

SNAPSHOT = "CC-MAIN-2026-01"
FILES = [f"crawl-data/{SNAPSHOT}/segments/1.1/warc/CC-MAIN-{number:05d}.warc.gz" for number in range(6)]
PER_FILE = 12


def sha1(content: bytes) -> str:
    return base64.b32encode(hashlib.sha1(content).digest()).decode()


def response(url: str, body: bytes, digest: str | None = None) -> bytes:
    block = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + body
    head = (
        f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Date: 2026-01-02T03:04:05Z\r\nWARC-Record-ID: <urn:{url}>\r\n"
        f"Content-Length: {len(block)}\r\nContent-Type: application/http; msgtype=response\r\n"
        f"WARC-Target-URI: {url}\r\n"
        f"WARC-Payload-Digest: sha1:{sha1(body)}\r\nWARC-Block-Digest: sha1:{digest or sha1(block)}\r\n\r\n"
    )
    return gzip.compress(head.encode() + block + b"\r\n\r\n", mtime=0)


class Archive:
    """The files, the index and what goes wrong: path → status, or a function of how often it was asked."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.index: list[dict[str, str]] = []
        self.asked: Counter[str] = Counter()
        self.served: Counter[str] = Counter()
        self.answers: dict[str, Callable[[int], Any]] = {}
        self.slow = 0.0
        self.lock = Lock()
        for number, name in enumerate(FILES):
            content = b""
            for record in range(PER_FILE):
                host = ["a.one.example", "one.example", "two.example"][record % 3]
                url = f"https://{host}/{number}/{record}"
                body = f"<html><p>Page {number} {record}</p>".encode() * 20
                member = response(url, body)
                self.index.append(
                    {"urlkey": host, "timestamp": f"2026010203{record:02d}{number:02d}", "url": url,
                     "mime": "text/html", "mime-detected": "text/html", "status": "200",
                     "digest": sha1(body), "length": str(len(member)),
                     "offset": str(len(content)), "filename": name}
                )  # fmt: skip
                content += member
            self.files["/" + name] = content
        self.files[f"/crawl-data/{SNAPSHOT}/warc.paths.gz"] = gzip.compress("\n".join(FILES).encode() + b"\n")

    def query(self, fields: dict[str, list[str]]) -> bytes | None:
        domain = fields["url"][0].removeprefix("*.")
        assert fields["output"] == ["json"]
        assert fields["filter"] == ["=status:200"]
        lines = [one for one in self.index if one["urlkey"] == domain or one["urlkey"].endswith("." + domain)]
        if not lines:
            return None
        if "showNumPages" in fields:
            return json.dumps({"pages": -(-len(lines) // 10), "pageSize": 5, "blocks": 1}).encode()
        page = int(fields["page"][0])
        return b"".join(json.dumps(line).encode() + b"\n" for line in lines[page * 10 : page * 10 + 10])


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Archive]:
    monkeypatch.setenv("HEADWATER_STATE", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    holder = Archive()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            wanted = self.headers.get("Range", "")
            key = f"{parts.path} {wanted}".strip() if wanted else self.path
            time.sleep(holder.slow)
            with holder.lock:
                holder.asked[key] += 1
                count = holder.asked[key]
            content: bytes | None = holder.files.get(parts.path)
            if parts.path == f"/{SNAPSHOT}-index":
                content = holder.query(parse_qs(parts.query))
            answer = holder.answers[key](count) if key in holder.answers else None
            if isinstance(answer, tuple):
                self.reply(*answer)
                return
            if content is None:
                self.reply(404, {}, b'{"message": "No Captures found"}')
                return
            status, headers = 200, {}
            whole = len(content)
            if wanted:
                first, _, last = wanted.removeprefix("bytes=").partition("-")
                content = content[int(first) : int(last) + 1 if last else None]
                status = 206
                headers["Content-Range"] = f"bytes {first}-{int(first) + len(content) - 1}/{whole}"
            if isinstance(answer, bytes):
                content = answer
            cut = answer if isinstance(answer, int) else None
            self.reply(status, headers, content, cut)
            with holder.lock:
                holder.served[key] += 1

        def reply(self, status: int, headers: dict[str, str], content: bytes, cut: int | None = None) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content if cut is None else content[:cut])
            if cut is not None:
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            """Stay quiet."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

    server = Server(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    holder.url = f"http://127.0.0.1:{server.server_address[1]}"  # type: ignore[attr-defined]
    yield holder
    server.shutdown()
    server.server_close()
    thread.join(timeout=5)


def params(archive: Archive, **more: object) -> Params:
    place = {"data_url": archive.url, "index_url": archive.url}  # type: ignore[attr-defined]
    plain = {"source": "common_crawl", "snapshot": SNAPSHOT, "busy_tries": 3, "max_wait_seconds": 0.1, **place}
    return Params.model_validate({**plain, **more})


def take(archive: Archive, **more: object) -> tuple[Manifest, Path]:
    output = Path("out")
    shutil.rmtree(output, ignore_errors=True)
    return run(params=params(archive, **more), inputs={}, output=output), output


def urls(output: Path) -> list[str]:
    found = []
    for part in sorted(output.glob("part-*.warc.gz")):
        for record in ArchiveIterator(part.open("rb"), record_types=WarcRecordType.response):
            found.append(str(record.headers["WARC-Target-URI"]))
    return found


def rules(output: Path) -> dict[str, str]:
    return {str(row.url): row.rule for row in read_ledger(output / "dropped" / "part-00000.parquet")}


def test_files_are_chosen_by_the_seed_and_copied_byte_for_byte(archive: Archive) -> None:
    manifest, output = take(archive, warc_files=2)
    assert manifest.counts.out == 2 * PER_FILE
    content = b"".join(part.read_bytes() for part in sorted(output.glob("part-*")))
    sources = json.loads((output / "sources.json").read_text())["sources"]
    named = {hashlib.sha256(archive.files["/" + name]).hexdigest(): name for name in FILES}
    first = sorted(named[one["sha256"]] for one in sources)
    assert content == b"".join(archive.files["/" + name] for name in first)
    _, again = take(archive, warc_files=3)
    assert len(urls(again)) == 3 * PER_FILE
    fetched = {key: count for key, count in archive.asked.items() if key.endswith(".gz")}
    assert set(fetched.values()) == {1}, "neither the list nor a file is fetched again"
    assert len(fetched) == 4
    others = [named_files(take(archive, warc_files=2, seed=seed)[1]) for seed in range(1, 6)]
    assert any(other != named_files_of(first) for other in others)


def named_files(output: Path) -> set[str]:
    return {one["name"] for one in json.loads((output / "sources.json").read_text())["sources"]}


def named_files_of(paths: list[str]) -> set[str]:
    return {path.rpartition("/")[2] for path in paths}


def test_a_file_that_breaks_off_goes_on_where_it_stopped(archive: Archive) -> None:
    name = "/" + next(iter(sorted(FILES)))
    half = len(archive.files[name]) // 2
    archive.answers = {"/" + file: lambda count: half if count == 1 else None for file in FILES}
    manifest, _ = take(archive, warc_files=6)
    assert manifest.counts.out == 6 * PER_FILE
    assert archive.asked[name] == 1
    assert archive.asked[f"{name} bytes={half}-"] == 1


def test_a_record_of_a_file_that_differs_from_its_own_digest_is_a_ledger_row(archive: Archive) -> None:
    bad = response("https://one.example/bad", b"<p>changed on the way", digest=sha1(b"as it was"))
    archive.files["/" + FILES[0]] += bad
    manifest, output = take(archive, warc_files=6)
    assert manifest.counts.dropped == {"wrong_digest": 1}
    assert rules(output) == {"https://one.example/bad": "wrong_digest"}
    assert "https://one.example/bad" not in urls(output)


def test_domains_are_taken_by_the_index_with_all_their_hosts(archive: Archive) -> None:
    archive.index.append({**archive.index[0], "status": "404", "url": "https://one.example/gone"})
    archive.index.append({**archive.index[0], "mime-detected": "application/pdf", "url": "https://one.example/x.pdf"})
    manifest, output = take(archive, domains=["one.example", "nowhere.example"])
    assert manifest.counts.dropped == {"not_in_index": 1}
    found = urls(output)
    assert len(found) == manifest.counts.out == 6 * 8
    assert {urlsplit(url).hostname for url in found} == {"one.example", "a.one.example"}
    before = sum(archive.asked.values())
    assert urls(take(archive, domains=["one.example", "nowhere.example"])[1]) == found
    assert sum(archive.asked.values()) == before, "everything was kept"
    take(archive, domains=["one.example", "two.example"])
    assert max(archive.asked.values()) == 1


def test_fewer_pages_are_drawn_by_the_seed_and_the_same_ones_each_time(archive: Archive) -> None:
    first = urls(take(archive, domains=["one.example"], max_pages=10)[1])
    assert len(first) == 10
    assert urls(take(archive, domains=["one.example"], max_pages=10)[1]) == first
    assert set(first) <= set(urls(take(archive, domains=["one.example"], max_pages=20)[1]))
    assert urls(take(archive, domains=["one.example"], max_pages=10, seed=1)[1]) != first


@pytest.mark.parametrize(
    "answer",
    [b"[" * 200_000, b"[]", b"1", b'{"status": 200, "mime": 5}', b'{"status": "200", "mime": "text/html"}', b"<html>",
     b'{"status": "200", "mime": "text/html", "filename": "x", "offset": Infinity, "length": 1}'],
    ids=lambda answer: str(answer[:40]),
)  # fmt: skip
def test_an_index_that_answers_something_else_is_an_error(archive: Archive, answer: bytes) -> None:
    archive.query = lambda fields: b'{"pages": 1}' if "showNumPages" in fields else answer  # type: ignore[method-assign]
    with pytest.raises(InputError, match="the URL index answered something else"):
        take(archive, domains=["one.example"])


def ranged(line: dict[str, str]) -> str:
    first = int(line["offset"])
    return f"/{line['filename']} bytes={first}-{first + int(line['length']) - 1}"


def test_what_goes_wrong_with_a_record_is_tried_again_and_then_a_ledger_row(archive: Archive) -> None:
    lines = [line for line in archive.index if line["urlkey"] == "two.example"]
    gone, cut, cut_once, other, busy, wrong, junk = lines[:7]
    stranger = response("https://two.example/stranger", b"<p>x")
    for line, content in ((other, stranger), (junk, b"no gzip at all")):
        line["length"] = str(len(content))
        archive.answers[ranged(line)] = partial(lambda content, _: content, content)
    wrong["digest"] = sha1(b"something else")
    archive.answers[ranged(gone)] = lambda _: (404, {}, b"")
    archive.answers[ranged(cut)] = lambda _: 100
    archive.answers[ranged(cut_once)] = lambda count: 100 if count == 1 else None
    archive.answers[ranged(busy)] = lambda count: (503, {"Retry-After": "0"}, b"") if count < 3 else None
    manifest, output = take(archive, domains=["two.example"])
    assert rules(output) == {
        gone["url"]: "http_404",
        cut["url"]: "truncated",
        other["url"]: "wrong_record",
        wrong["url"]: "wrong_digest",
        junk["url"]: "damaged_record",
    }
    assert manifest.counts.in_ == len(lines)
    assert {cut_once["url"], busy["url"]} <= set(urls(output))
    assert archive.asked[ranged(cut)] == 3
    assert archive.asked[ranged(wrong)] == 2
    # The next run asks again for what failed, and for nothing else.
    archive.answers.clear()
    before = Counter(archive.asked)
    take(archive, domains=["two.example"])
    again = {key for key, count in archive.asked.items() if count > before[key]}
    assert again == {ranged(line) for line in (gone, cut, other, wrong, junk)}


def test_an_archive_that_stays_busy_is_an_error_that_may_pass(archive: Archive) -> None:
    for line in archive.index:
        archive.answers[ranged(line)] = lambda _: (503, {"Retry-After": "0"}, b"")
    with pytest.raises(NetworkError, match="cannot be read") as caught:
        take(archive, domains=["one.example"])
    assert "what was fetched is kept" in str(caught.value)
    assert sum(count for key, count in archive.asked.items() if "bytes=" in key) <= 3 * 40
    archive.answers.clear()
    later = ranged(archive.index[0])
    archive.answers[later] = lambda _: (429, {"Retry-After": "3600"}, b"")
    take(archive, domains=["one.example"])
    assert archive.asked[later] <= 4, "asked to wait an hour, it is not asked again"


@pytest.mark.parametrize(
    ("more", "error", "says"),
    [
        ({"warc_files": 7}, InputError, "at most 6"),
        ({"warc_files": 1, "snapshot": "CC-MAIN-1999-01"}, InputError, "404"),
        ({"domains": ["nowhere.example"]}, InputError, "no page of these domains"),
        ({"domains": ["not a domain"]}, InputError, "no domain"),
        ({}, ParamsError, "warc_files"),
        ({"warc_files": 1, "domains": ["one.example"]}, ParamsError, "either"),
        ({"warc_files": 1, "snapshot": ""}, ParamsError, "snapshot"),
        ({"warc_files": 1, "data_url": "http://127.0.0.1:9"}, NetworkError, "network"),
    ],
)
def test_what_cannot_work_says_why(
    archive: Archive, more: dict[str, object], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        take(archive, **more)


def _take_in_process(chosen: Params, output: Path) -> None:
    os.setsid()
    run(params=chosen, inputs={}, output=output)


def test_a_killed_run_goes_on_without_fetching_again(archive: Archive) -> None:
    archive.slow = 0.05
    chosen = params(archive, domains=["one.example"])
    process = multiprocessing.get_context("spawn").Process(target=_take_in_process, args=(chosen, Path("killed")))
    process.start()
    deadline = time.monotonic() + 60
    while sum("bytes=" in key for key in archive.served) < 20 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid or 0, signal.SIGKILL)
    process.join()
    [journal] = Path("state").glob("crawl/*/records.jsonl")
    kept = {json.loads(line)["key"] for line in journal.read_text().splitlines()}
    with journal.open("a") as stream:
        stream.write('{"key": "half a li')
    with journal.with_name("records.warc.gz").open("ab") as stream:
        stream.write(b"half a record")
    archive.slow = 0.0
    before = Counter(archive.asked)
    manifest, output = take(archive, domains=["one.example"])
    assert 8 <= len(kept) < 48
    assert manifest.counts.out == len(urls(output)) == 48
    again = {key for key, count in archive.asked.items() if count > before[key]}
    stored = {ranged(line) for line in archive.index if f"{line['filename']}:{line['offset']}" in kept}
    assert not again & stored
    assert not any("index" in key for key in again)
