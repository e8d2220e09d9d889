"""Credentials by netrc and environment: they open what is closed, go nowhere else, and are written nowhere."""

import base64
import gzip
import hashlib
import json
import logging
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from warcio.archiveiterator import ArchiveIterator

from tasks.contracts.document import read_documents
from tasks.contracts.errors import HeadwaterError, InputError, NetworkError, ParamsError
from tasks.contracts.ledger import read_ledger
from tasks.crawl.credentials import Placeholders, login
from tasks.crawl.sites import crawl_sites
from tasks.crawl.stage import Params, run
from tests.leaks import leaks
from tests.tasks.crawl.test_common_crawl import FILES, SNAPSHOT, response
from tests.tasks.crawl.test_sites import crawl_of

USER, PASSWORD, SIGNATURE = "operator", "correct-horse-7f3a", "b4ttery%2Fstaple-91c2"
AUTHORIZATION = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
SECRETS = {"password": PASSWORD, "signature": SIGNATURE}
PAGE = b"<html><body><h1>Closed</h1><p>" + b"Words for members only. " * 20 + b"</p>%s</body></html>"


@dataclass
class Closed:
    """A server whose paths under /basic want a login and those under /signed a signature; the rest is open.

    Attributes:
        sent: (host, path, Authorization) of every request.
    """

    files: dict[str, bytes]
    moved: dict[str, str] = field(default_factory=dict)
    sent: list[tuple[str, str, str]] = field(default_factory=list)
    port: int = 0

    def refusal(self, path: str, authorization: str) -> int | None:
        if path.startswith("/basic") and authorization != AUTHORIZATION:
            return 401
        if path.startswith("/signed") and f"sig={unquote(SIGNATURE)}" not in unquote(path):
            return 403
        return None


@contextmanager
def serving(closed: Closed) -> Iterator[Closed]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            authorization = self.headers.get("Authorization", "")
            path = self.path.partition("?")[0]
            closed.sent.append((self.headers.get("Host", ""), self.path, authorization))
            status = closed.refusal(self.path, authorization)
            body = b""
            if status is None and path in closed.moved:
                status = 302
            elif status is None:
                body = closed.files.get(path, b"")
                status = 200 if path in closed.files else 404
            self.send_response(status)
            if status == 302:
                self.send_header("Location", closed.moved[path])
            html = body.startswith(b"<html")
            self.send_header("Content-Type", "text/html" if html else "application/octet-stream")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    closed.port = server.server_address[1]
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield closed
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def given(workspace: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace, with a netrc file outside it and the signature in the environment."""
    path = tmp_path_factory.mktemp("home") / "netrc"
    hosts = ("localhost", "closed.test.example", "other.test.example")
    path.write_text("".join(f"machine {host} login {USER} password {PASSWORD}\n" for host in hosts))
    path.chmod(0o600)
    monkeypatch.setenv("NETRC", str(path))
    monkeypatch.setenv("SIG", SIGNATURE)
    return workspace


def documents(number: int) -> bytes:
    rows = [{"id": f"{number}-{i}", "text": f"Row {i} of file {number}. " * 10} for i in range(3)]
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def parquet() -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"id": ["p1"], "text": ["A text in a table. " * 10]}), sink)
    return sink.getvalue().to_pybytes()


def test_text_files_behind_a_login_and_a_signature(given: Path, capfd: pytest.CaptureFixture[str]) -> None:
    files = {"/basic/a.jsonl": documents(1), "/signed/b.jsonl": documents(2), "/basic/c.parquet": parquet()}
    with serving(Closed(files)) as closed:
        base = f"http://localhost:{closed.port}"
        paths = (f"{base}/basic/a.jsonl", f"{base}/signed/b.jsonl?se=9&sig=${{SIG}}", f"{base}/basic/c.parquet")
        manifest = run(params=Params(source="text", paths=paths), inputs={}, output=given / "data" / "crawl")
    assert manifest.counts.out == 7
    assert not leaks(SECRETS, given, capfd.readouterr())


def test_warc_files_behind_a_login_and_a_signature(given: Path) -> None:
    first, second = (b"".join(response(f"http://h.example/{i}", PAGE % b"") for i in range(k, k + 3)) for k in (0, 3))
    with serving(Closed({"/basic/a.warc.gz": first, "/signed/b.warc.gz": second})) as closed:
        base = f"http://localhost:{closed.port}"
        paths = (f"{base}/basic/a.warc.gz", f"{base}/signed/b.warc.gz?sig=${{SIG}}")
        manifest = run(params=Params(source="warc", paths=paths), inputs={}, output=given / "data" / "crawl")
    assert manifest.counts.out == 6
    assert not leaks(SECRETS, given)


def test_a_secret_in_a_path_is_no_files_name(given: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "in-the-path-5512")
    with serving(Closed({"/in-the-path-5512/in-the-path-5512.jsonl": documents(1)})) as closed:
        url = f"http://localhost:{closed.port}/${{TOKEN}}/${{TOKEN}}.jsonl"
        run(params=Params(source="text", paths=(url,)), inputs={}, output=given / "data" / "crawl")
    sources = json.loads((given / "data" / "crawl" / "sources.json").read_bytes())
    assert [one["name"] for one in sources["sources"]] == ["${TOKEN}.jsonl"]
    assert not leaks({"token": "in-the-path-5512"}, given)


@pytest.mark.parametrize("path", ["/basic/missing.jsonl?sig=${SIG}", "/signed/${SIG}/x.jsonl"])
def test_an_error_does_not_show_them(given: Path, path: str) -> None:
    with serving(Closed({})) as closed, pytest.raises(HeadwaterError) as caught:
        url = f"http://localhost:{closed.port}{path}"
        run(params=Params(source="text", paths=(url,)), inputs={}, output=given / "data" / "crawl")
    assert SIGNATURE not in str(caught.value)
    assert "${SIG}" in str(caught.value)


def test_a_file_that_moved_to_another_host_gets_no_login(given: Path) -> None:
    with serving(Closed({"/basic/a.jsonl": documents(1)})) as other, serving(Closed({})) as closed:
        # The same files, on a host that netrc does not name.
        closed.moved["/basic/a.jsonl"] = f"http://127.0.0.1:{other.port}/basic/a.jsonl"
        url = f"http://localhost:{closed.port}/basic/a.jsonl?sig=${{SIG}}"
        with pytest.raises((InputError, NetworkError)):
            run(params=Params(source="text", paths=(url,)), inputs={}, output=given / "data" / "crawl")
    assert {authorization for _, _, authorization in closed.sent} == {AUTHORIZATION}
    assert other.sent
    assert {authorization for _, _, authorization in other.sent} == {""}
    assert not [path for _, path, _ in other.sent if SIGNATURE in path]


def test_common_crawl_behind_a_login_and_a_signature(given: Path, capfd: pytest.CaptureFixture[str]) -> None:
    name = FILES[0]
    file = b"".join(response(f"http://h.example/{i}", PAGE % b"") for i in range(3))
    listing = gzip.compress(name.encode())
    for place in ("basic", "signed"):
        files = {f"/{place}/{name}": file, f"/{place}/crawl-data/{SNAPSHOT}/warc.paths.gz": listing}
        with serving(Closed(files)) as closed:
            query = "?sig=${SIG}" if place == "signed" else ""
            url = f"http://localhost:{closed.port}/{place}{query}"
            params = Params(source="common_crawl", snapshot=SNAPSHOT, warc_files=1, data_url=url)
            manifest = run(params=params, inputs={}, output=given / place / "crawl")
        assert manifest.counts.out == 3
        for path in sorted((given / ".headwater").rglob("*.gz")):
            path.unlink()
    assert not leaks(SECRETS, given, capfd.readouterr())


def test_an_index_cannot_ask_for_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIG", SIGNATURE)
    monkeypatch.setenv("OTHER", "of-another-service")
    placeholders = Placeholders.of(["https://one.example/a?sig=${SIG}"], "crawl.data_url")
    assert placeholders.filled("https://one.example/b?x=${OTHER}") == "https://one.example/b?x=${OTHER}"
    assert placeholders.filled("https://two.example/b?x=${SIG}") == "https://two.example/b?x=${SIG}"
    assert placeholders.filled("https://one.example:8443/b?x=${SIG}") == "https://one.example:8443/b?x=${SIG}"
    assert placeholders.filled("https://one.example/b?x=$%7BSIG%7D") == f"https://one.example/b?x={SIGNATURE}"


def test_a_crawl_behind_a_login_and_a_signature(given: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A login for the own hosts only; what the site repeats of the signature in its links is hidden again."""
    links = f'<a href="/basic/two">2</a><a href="/signed/next?sig={SIGNATURE}&page=2">3</a>'
    links += '<a href="/moved">4</a><a href="http://joe:their-secret@closed.test.example/basic/three">5</a>'
    links += '<a href="http://evil.test.example/?stolen=${SIG}">6</a><a href="/open?x=${HOME}">7</a>'
    body = PAGE % links.encode()
    files = dict.fromkeys(("/basic/one", "/basic/two", "/basic/three", "/signed/start", "/signed/next", "/open"), body)
    files["/robots.txt"] = b"User-agent: *\nAllow: /\n"
    files["/signed/map.xml"] = b"<urlset><url><loc>http://closed.test.example/basic/two</loc></url></urlset>"
    with serving(Closed(files)) as closed:
        closed.moved["/moved"] = "http://joe:their-secret@other.test.example/basic/one"
        crawl = crawl_of(
            closed.port,
            seeds=["http://closed.test.example/basic/one", "http://closed.test.example/signed/start?sig=${SIG}"],
            sitemaps=["http://closed.test.example/signed/map.xml?sig=${SIG}"],
        )
        counts = crawl_sites(crawl, source="sites", state=given / ".headwater" / "crawl" / "k", output=given / "crawl")
    asked = {(host, path) for host, path, _ in closed.sent}
    assert ("closed.test.example", f"/signed/next?sig={SIGNATURE}&page=2") in asked
    assert {host for host, _ in asked} == {"closed.test.example"}
    rows = {row.url: row for row in read_ledger(given / "crawl" / "dropped" / "part-00000.parquet")}
    assert rows["http://closed.test.example/moved"].detail == "302 to http://other.test.example/basic/one"
    assert {row.rule for row in rows.values()} == {"redirect", "revisit"}
    assert counts.in_ == 7
    assert not [path for _, path, _ in closed.sent if "HOME" in path and "$%7BHOME%7D" not in path]
    # What a page says in its text is the page's; every URL of ours is clean.
    mine = {"their": "joe:their-secret", **SECRETS}
    assert not leaks(mine, given, capfd.readouterr(), ignore=body)


def test_a_crawl_that_fails_does_not_show_them(given: Path, capfd: pytest.CaptureFixture[str]) -> None:
    crawl = crawl_of(9, seeds=["http://closed.test.example/signed/start?sig=${SIG}"], timeout_seconds=2.0)
    with pytest.raises(NetworkError):
        crawl_sites(crawl, source="sites", state=given / ".headwater" / "crawl" / "k", output=given / "crawl")
    assert not leaks(SECRETS, given, capfd.readouterr())


def test_a_variable_that_is_not_there_is_named_before_anything_is_fetched(given: Path) -> None:
    with pytest.raises(ParamsError, match=r"crawl\.paths names \$\{NO_SUCH\}"):
        run(params=Params(source="warc", paths=("http://127.0.0.1:9/x?sig=${NO_SUCH}",)), inputs={}, output=given / "c")


def test_logins_are_read_by_host(
    given: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert login("https://LOCALHOST:8443/x") == (USER, PASSWORD)
    assert login("https://unknown.example/") is None
    with caplog.at_level(logging.INFO):
        logging.getLogger("any").info("sent %s", AUTHORIZATION)
    assert caplog.messages == ["sent Basic ***"]
    broken = given / "broken"
    broken.write_text(f"machine h.example login {USER} passwort {PASSWORD}\n")
    monkeypatch.setenv("NETRC", str(broken))
    with pytest.raises(ParamsError, match="netrc") as caught:
        login("https://h.example/")
    assert PASSWORD not in str(caught.value)
    broken.unlink()
    assert login("https://h.example/") is None


THEIRS = "http://joe:their-own-secret@h.example/{}"


def warc_file() -> bytes:
    """A WARC file of a stranger: responses, a revisit and a damaged record, in one spelling each, names in the URLs."""
    members = [response(THEIRS.format(number), PAGE % b"") for number in range(3)]
    lower = zlib.decompress(members[2], zlib.MAX_WBITS | 16).replace(
        b"WARC-Target-URI: http", b"warc-target-uri:  http"
    )
    revisit = (
        "WARC/1.0\r\nWARC-Type: revisit\r\nWARC-Date: 2026-01-02T03:04:05Z\r\nWARC-Record-ID: <urn:r>\r\n"
        f"WARC-Target-URI: <{THEIRS.format('again')}>\r\nWARC-Refers-To-Target-URI: {THEIRS.format(0)}\r\n"
        "WARC-Profile: http://netpreserve.org/warc/1.1/revisit/identical-payload-digest\r\nContent-Length: 0\r\n\r\n"
    )
    broken = f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: {THEIRS.format('cut')}\r\nContent-Length: x\r\n\r\n"
    texts = [lower, revisit.encode() + b"\r\n\r\n", broken.encode()]
    return b"".join([*members[:2], *(gzip.compress(text, mtime=0) for text in texts)])


@pytest.mark.parametrize("form", ["members", "plain", "one member"])
def test_names_and_passwords_of_archives_urls_are_left_out(workspace: Path, form: str) -> None:
    content = warc_file()
    if form != "members":
        content = b"".join(unpacked_members(content))
    (workspace / "a.warc.gz").write_bytes(gzip.compress(content) if form == "one member" else content)
    params = Params(source="warc", paths=("a.warc.gz",))
    manifest = run(params=params, inputs={}, output=workspace / "data" / "crawl")
    assert manifest.counts.out == 3
    assert manifest.counts.dropped == {"damaged_record": 1, "revisit": 1}
    (workspace / "a.warc.gz").unlink()
    assert not leaks({"theirs": "their-own-secret"}, workspace)
    stream = (workspace / "data" / "crawl" / "part-00000.warc.gz").open("rb")
    records = [record for record in ArchiveIterator(stream) if record.rec_type == "response"]
    assert [record.rec_headers["WARC-Target-URI"] for record in records] == [f"http://h.example/{i}" for i in range(3)]


def unpacked_members(content: bytes) -> Iterator[bytes]:
    while content:
        member = zlib.decompressobj(zlib.MAX_WBITS | 16)
        yield member.decompress(content)
        content = member.unused_data


def test_names_and_passwords_of_rows_urls_are_left_out(workspace: Path) -> None:
    rows = [
        {"id": THEIRS.format(1), "url": THEIRS.format(1), "text": "Some words. " * 9},
        {"id": "2", "metadata": {"url": THEIRS.format(2)}, "text": "Some words. " * 9, "source": THEIRS.format("")},
        {"id": "3", "url": THEIRS.format(3), "text": 7},
    ]
    (workspace / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run(params=Params(source="text", paths=("a.jsonl",)), inputs={}, output=workspace / "data" / "crawl")
    (workspace / "a.jsonl").unlink()
    assert not leaks({"theirs": "their-own-secret"}, workspace)
    urls = [one.url for one in read_documents(workspace / "data" / "crawl" / "part-00000.parquet")]
    assert urls == ["http://h.example/1", "http://h.example/2"]


def test_names_and_passwords_of_an_index_are_left_out(workspace: Path) -> None:
    url = THEIRS.format("page")
    member = response(url, PAGE % b"")
    capture = {"url": url, "mime": "text/html", "status": "200", "timestamp": "20260102030405", "filename": "f.warc.gz",
               "offset": "0", "length": str(len(member)), "digest": digest_of(member)}  # fmt: skip
    files = {"/data/f.warc.gz": member, f"/index/{SNAPSHOT}-index": json.dumps({**capture, "pages": 1}).encode()}
    with serving(Closed(files)) as closed:
        base = f"http://localhost:{closed.port}"
        params = Params(source="common_crawl", snapshot=SNAPSHOT, domains=("h.example",), data_url=f"{base}/data",
                        index_url=f"{base}/index")  # fmt: skip
        manifest = run(params=params, inputs={}, output=workspace / "data" / "crawl")
    assert manifest.counts.out == 1
    assert not leaks({"theirs": "their-own-secret"}, workspace / "data")


def digest_of(member: bytes) -> str:
    payload = zlib.decompress(member, zlib.MAX_WBITS | 16).partition(b"\r\n\r\n")[2].partition(b"\r\n\r\n")[2]
    return base64.b32encode(hashlib.sha1(payload.removesuffix(b"\r\n\r\n")).digest()).decode()
