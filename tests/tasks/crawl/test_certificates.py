"""Crawls by TLS: only a server whose certificate is right is believed, and what each one showed is written down."""

import ssl
from dataclasses import dataclass
from pathlib import Path

import pytest
from fastwarc.warc import ArchiveIterator, WarcRecordType

from tasks.contracts.errors import InputError, NetworkError
from tasks.contracts.ledger import LedgerRow, read_ledger
from tasks.contracts.manifest import Counts
from tasks.crawl.input_files import SourceFile, open_hashed
from tasks.crawl.remote import Remote, Untrusted
from tasks.crawl.sites import crawl_sites
from tasks.crawl.stage import Params, run
from tasks.rights.evidence import CONTENT_TYPE, Evidence, read_evidence
from tests.tasks.crawl import tls
from tests.tasks.crawl.test_sites import crawl_of
from tests.tasks.crawl.web import Answer, Web, serving

D = ".test.example"
REFUSED = {
    "expired": "expired",
    "early": "not valid yet",
    "selfsigned": "self-signed",
    "stranger": "its issuer is not trusted",
    "othername": "made for another name: other.example",
    "parent": f"made for another name: {D[1:]}",
    "noname": "made for another name: none",
}


def page(host: str) -> Answer:
    links = f'<a href="/a">a</a> <a href="/away">b</a><p>{host}</p>'
    return Answer(links.encode())


@dataclass(frozen=True)
class Crawled:
    web: Web
    issued: dict[str, tls.Issued]
    counts: Counts
    rows: dict[str, LedgerRow]
    evidence: dict[str, Evidence]


def crawl(folder: Path, insecure: list[str]) -> Crawled:
    """Crawl one host for each kind of certificate; each has a page that leads to a page at the next."""
    root = tls.issue("Test Root", authority=True)
    stranger = tls.issue("Strange Root", authority=True)
    issued = {
        "good": tls.issue("good" + D, by=root),
        "wildcard": tls.issue("*" + D, by=root),
        "expired": tls.issue("expired" + D, by=root, days=(-20, -1)),
        "early": tls.issue("early" + D, by=root, days=(1, 20)),
        "selfsigned": tls.issue("selfsigned" + D),
        "stranger": tls.issue("stranger" + D, by=stranger),
        "othername": tls.issue("other.example", by=root),
        "parent": tls.issue(D[1:], by=root),
        "noname": tls.issue(by=root),
    }
    routes = {(name + D, path): page(name + path) for name in issued for path in ("/", "/a")}
    routes |= {
        (name + D, "/away"): Answer(b"", 302, {"Location": f"https://{other}{D}/from-{name}"})
        for name, other in (("good", "expired"), ("wildcard", "stranger"))
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "root.pem").write_bytes(root.pem())
    web = Web(dict(routes))
    with serving(web, tls.context(folder, {name + D: one for name, one in issued.items()})):
        settings = crawl_of(
            web.port,
            seeds=[f"https://{name}{D}/" for name in issued],
            ca_file=str(folder / "root.pem"),
            insecure_hosts=insecure,
            policy_files=False,
        )
        counts = crawl_sites(settings, source="sites", state=folder / "state", output=folder / "out")
    rows = {row.url or "": row for row in read_ledger(folder / "out" / "dropped" / "part-00000.parquet")}
    evidence = {}
    for part in sorted((folder / "out").glob("part-*.warc.gz")):
        for record in ArchiveIterator(part.open("rb"), record_types=WarcRecordType.metadata):
            if record.headers.get("Content-Type") == CONTENT_TYPE:
                seen = read_evidence(record.reader.read())
                assert seen is not None
                evidence[seen.url] = seen
    return Crawled(web, issued, counts, rows, evidence)


@pytest.fixture(scope="module")
def crawled(tmp_path_factory: pytest.TempPathFactory) -> Crawled:
    return crawl(tmp_path_factory.mktemp("certificates"), [])


@pytest.mark.parametrize(("name", "problem"), REFUSED.items())
def test_a_wrong_certificate_gives_no_page_and_says_why(crawled: Crawled, name: str, problem: str) -> None:
    row = crawled.rows[f"https://{name}{D}/"]
    assert row.rule == "certificate"
    assert row.detail is not None
    assert row.detail.endswith(f"certificate of {name}{D}: {problem}")
    assert not crawled.web.times(name + D), "no byte of a request reached the server"


def test_a_redirect_leads_to_no_unchecked_server(crawled: Crawled) -> None:
    for name, other in (("good", "expired"), ("wildcard", "stranger")):
        assert crawled.rows[f"https://{other}{D}/from-{name}"].rule == "certificate"


def test_every_page_by_tls_names_the_certificate_of_its_server(crawled: Crawled) -> None:
    assert set(crawled.evidence) == {
        f"https://{name}{D}{path}" for name in ("good", "wildcard") for path in ("/", "/a")
    }
    for url, seen in crawled.evidence.items():
        issued = crawled.issued[url.split("/")[2].removesuffix(D)]
        assert seen.certificate is not None
        assert (seen.certificate.sha256, seen.certificate.problem) == (issued.sha256, "")
    assert crawled.counts.in_ == crawled.counts.out + sum(crawled.counts.dropped.values())


def test_insecure_hosts_let_pass_what_they_name_and_the_evidence_says_what_was_wrong(tmp_path: Path) -> None:
    named = ["selfsigned", "othername"]
    crawled = crawl(tmp_path, [name + D for name in named])
    for name in named:
        seen = crawled.evidence[f"https://{name}{D}/a"].certificate
        assert seen is not None
        assert (seen.sha256, seen.problem) == (crawled.issued[name].sha256, REFUSED[name])
    refused = {url.split("/")[2].removesuffix(D) for url, row in crawled.rows.items() if row.rule == "certificate"}
    assert refused == set(REFUSED) - set(named)


def test_a_refused_certificate_is_asked_for_once(tmp_path: Path) -> None:
    """A network fault is tried four times; a certificate stays what it is."""
    connections = 0
    context = tls.context(tmp_path, {"alone" + D: tls.issue("alone" + D)})

    def count(_: ssl.SSLObject, __: str | None, ___: ssl.SSLContext) -> None:
        nonlocal connections
        connections += 1

    context.sni_callback = count
    with serving(Web({("alone" + D, "/"): page("alone")}), context) as web:
        settings = crawl_of(web.port, seeds=[f"https://alone{D}/"])
        with pytest.raises(NetworkError, match=r"certificate.*self-signed"):
            crawl_sites(settings, source="sites", state=tmp_path / "state", output=tmp_path / "out")
    assert connections == 1


def remote(ca_file: str = "") -> Remote:
    return Remote(user_agent="t", timeout=5.0, tries=4, longest_wait=0.0, ca_file=ca_file)


def test_an_archive_is_believed_only_with_a_right_certificate(tmp_path: Path) -> None:
    root = tls.issue("Test Root", authority=True)
    (tmp_path / "root.pem").write_bytes(root.pem())
    content = b"a WARC file"
    web = Web({("127.0.0.1", "/file"): Answer(content)})
    with serving(web, tls.context(tmp_path, {"127.0.0.1": tls.issue("127.0.0.1", by=root)})):
        url = f"https://127.0.0.1:{web.port}/file"
        assert remote(str(tmp_path / "root.pem")).get(url) == content
        with pytest.raises(Untrusted, match="certificate verify failed"):
            remote().get(url)
        with pytest.raises(Untrusted, match="certificate verify failed"):
            remote().download(url, tmp_path / "copy")
    assert web.counts["127.0.0.1", "/file"] == 1


def test_a_file_named_by_url_is_read_only_with_a_right_certificate(tmp_path: Path) -> None:
    """fsspec's own check, which trusts what the system does, or SSL_CERT_FILE."""
    web = Web({("127.0.0.1", "/file.warc"): Answer(b"a WARC file")})
    with serving(web, tls.context(tmp_path, {"127.0.0.1": tls.issue("127.0.0.1")})):
        url = f"https://127.0.0.1:{web.port}/file.warc"
        with pytest.raises(NetworkError, match="CERTIFICATE_VERIFY_FAILED"), open_hashed(SourceFile(url, "file.warc")):
            pass
    assert not web.log


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_a_file_of_roots_that_holds_none_is_refused_at_the_start(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "roots.pem"
    if content is not None:
        path.write_bytes(content)
    params = Params(source="sites", seeds=("https://h.example/",), contact="me@h.example", ca_file=str(path))
    with pytest.raises(InputError, match=r"crawl\.ca_file"):
        run(params=params, inputs={}, output=tmp_path / "out")
