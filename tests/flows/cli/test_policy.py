"""`headwater policy check`: stored evidence judged again, on a crawl of a few pages that was really extracted."""

from __future__ import annotations

import gzip
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows.cli import policy
from flows.workspace.params import set_values
from tasks.contracts.document import make_doc_id, read_documents, write_documents
from tasks.contracts.errors import ManifestError, UsageError
from tasks.contracts.ledger import LedgerRow, write_ledger
from tasks.contracts.manifest import Counts
from tasks.extract import host_files
from tasks.extract.stage import Params, run
from tasks.rights.evidence import CONTENT_TYPE, READER, Evidence, OptOutPolicy, RobotsVerdict, Signal
from tests.conftest import ROOT
from tests.corpus import document, prose
from tests.planted import plant_manifest
from tests.tasks.extract.pages import PAGE, record


def evidence(number: int, *signals: Signal) -> bytes:
    """Return the metadata record that the crawl writes before a page."""
    seen = Evidence(
        url=f"https://a.example/{number}", robots=RobotsVerdict(user_agent="Headwater", allowed=True), signals=signals
    )
    content = seen.to_bytes()
    headers = {
        "WARC-Type": "metadata",
        "WARC-Record-ID": f"<urn:uuid:e{number}>",
        "WARC-Date": "2026-01-02T03:04:05Z",
        "WARC-Refers-To": f"<urn:uuid:{number}>",
        "Content-Type": CONTENT_TYPE,
        "Content-Length": str(len(content)),
    }
    head = "WARC/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items()) + "\r\n"
    return gzip.compress(head.encode() + content + b"\r\n\r\n", mtime=0)


@pytest.fixture(scope="module")
def extracted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two parts: plain, noai in a meta, a header's nosnippet, an empty page; ai.txt in the evidence, 404, noimageai."""
    plain = PAGE.encode()
    noai = plain.replace(b"<head>", b'<head><meta name="robots" content="noai">')
    folder = tmp_path_factory.mktemp("extracted")
    crawl = folder / "data" / "crawl"
    crawl.mkdir(parents=True)
    first = [record(1, plain), record(2, noai), record(3, plain, {"X-Robots-Tag": "nosnippet"}), record(4, b"<html>")]
    second = [
        evidence(5, Signal("ai.txt", "disallow", value="Disallow: /")),
        record(5, plain),
        record(6, plain, status="404 Not Found"),
        record(7, noai.replace(b"noai", b"noimageai")),
    ]
    for k, records in enumerate((first, second)):
        (crawl / f"part-{k:05d}.warc.gz").write_bytes(b"".join(records))
    counts = Counts(in_=7, out=7)
    plant_manifest(crawl, stage="crawl", unit="records", params={"source": "warc"}, inputs={}, counts=counts)
    shutil.copy2(ROOT / "dvc.yaml", folder)
    (folder / "params.yaml").write_text("extract:\n  opt_out: {noai: drop}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADWATER_STATE", str(folder / "state"))
        run(params=Params(), inputs={"crawl": crawl}, output=folder / "data" / "extract")
    return folder


@pytest.fixture
def crawled(workspace: Path, extracted: Path) -> Path:
    """A workspace of a test's own with that crawl and what was extracted from it."""
    shutil.copytree(extracted, workspace, dirs_exist_ok=True)
    return workspace


def check(*arguments: str, code: int) -> str:
    result = CliRunner().invoke(policy.app, ["check", *arguments], env={"COLUMNS": "100"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.stdout


def checked(*arguments: str, code: int = 1) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(check(*arguments, "--json", code=code))
    return found


def urls(found: dict[str, Any], kind: str) -> list[str]:
    return [change["url"].rpartition("/")[2] for change in found[kind]["changes"]]


def test_the_policy_that_made_the_data_changes_nothing(crawled: Path) -> None:
    found = checked(code=0)
    assert (found["pages"], found["reserving"], found["dropped_otherwise"], found["changes"]) == (6, 4, 1, 0)
    assert "nothing would change" in check(code=0)


def test_each_kind_of_change_names_its_pages_signals_and_hosts(crawled: Path) -> None:
    found = checked("--set", "noai=keep", "--set", "nosnippet=drop", "--set", "ai.txt=mark")
    assert urls(found, "newly_dropped") == ["3"]
    assert urls(found, "newly_kept") == ["2", "5"]
    assert found["newly_dropped"]["by_signal"] == {"header:nosnippet": 1}
    assert found["newly_kept"]["by_signal"] == {"ai.txt:disallow": 1, "meta:noai": 1}
    assert found["newly_kept"]["by_host"] == {"a.example": 2}
    assert [change["after"] for change in found["newly_kept"]["changes"]] == ["keep", "mark"]
    assert urls(checked("--set", "nosnippet=keep"), "no_longer_marked") == ["3"]
    shown = check("--set", "noai=keep", code=1)
    assert "https://a.example/2  drop → keep" in shown
    assert "newly dropped" not in shown


def test_what_is_foretold_is_what_extract_then_does(crawled: Path) -> None:
    chosen = {"noai": "mark", "noimageai": "keep", "nosnippet": "drop", "ai_txt": "mark"}
    sets = [part for name, action in chosen.items() for part in ("--set", f"{name}={action}")]
    found = checked(*sets)
    assert found["changes"] == 4
    set_values([f"extract.opt_out.{name}={action}" for name, action in chosen.items()])
    assert checked()["newly_kept"] == found["newly_kept"]
    shutil.rmtree("data/extract")
    params = Params(opt_out=OptOutPolicy.model_validate(chosen))
    run(params=params, inputs={"crawl": Path("data/crawl")}, output=Path("data/extract"))
    assert checked(code=0)["changes"] == 0


def test_a_policy_file_stands_for_itself(crawled: Path) -> None:
    Path("lax.yaml").write_text("{noai: keep, noimageai: keep, ai_txt: keep, nosnippet: keep}")
    found = checked("--policy", "lax.yaml")
    assert urls(found, "newly_kept") == ["2", "5", "7"]
    assert found["policy"]["agents"] == list(OptOutPolicy().agents)
    Path("gptbot.yaml").write_text("agents: [GPTBot]")
    assert checked("--policy", "gptbot.yaml", code=0)["changes"] == 0


def test_documents_of_a_text_source_are_judged_too(crawled: Path) -> None:
    shutil.rmtree("data")
    crawl = Path("data/crawl")
    marked = document(prose(1), name="1")
    documents = [marked, document(prose(2), name="2")]
    object.__setattr__(marked, "opt_out", ("header:nosnippet",))
    write_documents(crawl / "part-00000.parquet", documents)
    counts = Counts(in_=2, out=2)
    plant_manifest(crawl, stage="crawl", unit="documents", params={"source": "text"}, inputs={}, counts=counts)
    run(params=Params(), inputs={"crawl": crawl}, output=Path("data/extract"))
    assert checked(code=0)["reserving"] == 1
    assert urls(checked("--set", "nosnippet=drop"), "newly_dropped") == ["1"]


@pytest.mark.parametrize("wrong", ["noai", "noai=stop", "agents=drop", "nobody=drop"])
def test_a_wrong_signal_or_action_is_wrong_use(crawled: Path, wrong: str) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        check("--set", wrong, code=2)


@pytest.mark.parametrize("content", ["noai: stop", "nobody: drop", "- noai", "noai: [", None])
def test_a_wrong_policy_file_is_wrong_use(crawled: Path, content: str | None) -> None:
    if content is not None:
        Path("policy.yaml").write_text(content)
    with pytest.raises(UsageError, match="policy"):
        check("--policy", "policy.yaml", code=2)


def test_another_crawl_than_the_extracted_one_is_an_error(crawled: Path) -> None:
    counts = Counts(in_=8, out=8)
    plant_manifest(Path("data/crawl"), stage="crawl", unit="records", params={}, inputs={}, counts=counts)
    with pytest.raises(ManifestError, match="not made from the crawl"):
        check(code=1)


ROBOTS = b"User-agent: *\nContent-Signal: search=yes, ai-train=no\nAllow: /\n\nUser-agent: DeepSeekBot\nDisallow: /1\n"
TDMREP = b'{"location": "/", "tdm-reservation": true}'


def note(identity: str, url: str, content: bytes, status: int = 200) -> bytes:
    """Return a host's file as the crawl keeps it."""
    headers = {
        "WARC-Type": "metadata",
        "WARC-Record-ID": identity,
        "WARC-Date": "2026-01-02T03:04:05Z",
        "WARC-Target-URI": url,
        "Headwater-HTTP-Status": str(status),
        "Content-Type": "text/plain",
        "Content-Length": str(len(content)),
    }
    head = "WARC/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items()) + "\r\n"
    return gzip.compress(head.encode() + content + b"\r\n\r\n", mtime=0)


def old_evidence(number: int, signals: list[dict[str, str]], robots: str = "", **files: str) -> bytes:
    """Return evidence byte for byte as the crawl wrote it before its readers knew of Content-Signal."""
    seen = {
        "files": files,
        "licenses": [],
        "robots": {"agent": "", "allowed": True, "record_id": robots, "rule": "", "user_agent": "Headwater/0.1 (+a@b)"},
        "signals": signals,
        "url": f"https://a.example/{number}",
    }
    content = json.dumps(seen, sort_keys=True, ensure_ascii=False).encode() + b"\n"
    head = (
        f"WARC/1.1\r\nWARC-Type: metadata\r\nWARC-Record-ID: <urn:uuid:e{number}>\r\n"
        f"WARC-Refers-To: <urn:uuid:{number}>\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    return gzip.compress(head.encode() + content + b"\r\n\r\n", mtime=0)


def said(place: str, name: str, agent: str = "*", value: str = "") -> dict[str, str]:
    return {"agent": agent, "name": name, "place": place, "value": value}


@pytest.fixture
def crawled_before(workspace: Path) -> Path:
    """A crawl of two parts by the old code: the files of its host stand in the second, the pages in both."""
    crawl = workspace / "data" / "crawl"
    crawl.mkdir(parents=True)
    page = PAGE.encode()
    none = {"X-Robots-Tag": "max-image-preview:none"}
    first = [
        # Seen then: a robot of today's list, a value that is no word, a file that is not in the snapshot, nothing.
        old_evidence(1, [said("robots.txt", "disallow", "deepseekbot", "Disallow: /1")], "<urn:uuid:r>")
        + record(1, page),
        old_evidence(2, [said("header", "noindex")]) + record(2, page, none),
        old_evidence(3, [said("ai.txt", "disallow", value="Disallow: /")], **{"ai.txt": "<urn:uuid:lost>"})
        + record(3, page),
        old_evidence(4, []) + record(4, page),
    ]
    second = [
        old_evidence(5, [], "<urn:uuid:r>") + record(5, page),
        old_evidence(6, [], **{"tdmrep.json": "<urn:uuid:t>"}) + record(6, page),
        old_evidence(7, [], "<urn:uuid:gone>") + record(7, page),
        old_evidence(8, [], "<urn:uuid:closed>") + record(8, page),
        note("<urn:uuid:r>", "https://a.example/robots.txt", ROBOTS),
        note("<urn:uuid:t>", "https://a.example/.well-known/tdmrep.json", TDMREP),
        note("<urn:uuid:gone>", "https://a.example/robots.txt", ROBOTS, 404),
        note("<urn:uuid:closed>", "https://a.example/robots.txt", b"User-agent *\nDisallow /8\n"),
    ]
    for k, records in enumerate((first, second)):
        (crawl / f"part-{k:05d}.warc.gz").write_bytes(b"".join(records))
    params = {"source": "sites", "user_agent": "Headwater/0.1"}
    counts = Counts(in_=8, out=8)
    plant_manifest(crawl, stage="crawl", unit="urls", params=params, inputs={}, counts=counts)
    shutil.copy2(ROOT / "dvc.yaml", workspace)
    (workspace / "params.yaml").write_text("extract: {}\n")
    return workspace


def test_a_crawl_of_before_is_judged_by_what_is_read_today(crawled_before: Path) -> None:
    crawl, extract = Path("data/crawl"), Path("data/extract")
    run(params=Params(), inputs={"crawl": crawl}, output=extract)
    # data/extract as the old code left it: it dropped what it saw, by its own list of robots.
    dropped = {"3": "ai.txt:disallow", "2": "header:noindex"}
    _as_left_by_the_old_code(extract, dropped)
    found = checked()
    drop = {change["url"].rpartition("/")[2]: change["signals"] for change in found["newly_dropped"]["changes"]}
    assert drop == {
        "1": ["robots.txt:content-signal", "robots.txt:disallow@deepseekbot"],
        "5": ["robots.txt:content-signal"],
        "6": ["tdmrep.json:tdm-reservation"],
        "8": ["robots.txt:disallow@headwater"],
    }
    assert urls(found, "newly_kept") == ["2"], "max-image-preview: none reserves nothing"
    assert (found["pages"], found["reserving"]) == (8, 5)


def test_what_is_foretold_of_a_crawl_of_before_is_what_extract_then_does(crawled_before: Path) -> None:
    run(params=Params(), inputs={"crawl": Path("data/crawl")}, output=Path("data/extract"))
    assert checked(code=0)["changes"] == 0
    kept = {document.url.rpartition("/")[2] for part in sorted(Path("data/extract").glob("part-*.parquet"))
            for document in read_documents(part)}  # fmt: skip
    assert kept == {"2", "4", "7"}


def test_a_crawl_of_today_needs_no_second_look(crawled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def look(part: Path, folder: Path) -> object:
        raise AssertionError(part)

    monkeypatch.setattr(host_files, "_look", look)
    new = Evidence(url="u", reader=READER, robots=RobotsVerdict(user_agent="x", allowed=True))
    part = Path("part-00000.warc.gz")
    content = new.to_bytes()
    head = f"WARC/1.1\r\nWARC-Type: metadata\r\nWARC-Record-ID: <urn:uuid:e>\r\nContent-Type: {CONTENT_TYPE}\r\n"
    part.write_bytes(gzip.compress(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content + b"\r\n\r\n"))
    assert host_files.collect([part], Path("files")) == {}
    part.write_bytes(old_evidence(1, []))
    with pytest.raises(AssertionError):
        host_files.collect([part], Path("files"))


def _as_left_by_the_old_code(extract: Path, dropped: dict[str, str]) -> None:
    """Put all eight pages into data/extract but those that the old code dropped, with its ledger."""
    for k, numbers in enumerate((range(1, 5), range(5, 9))):
        name = f"part-{k:05d}.parquet"
        kept, rows = [], []
        for number in map(str, numbers):
            one = replace(
                document(prose(int(number)), name=number), doc_id=make_doc_id("sites", f"<urn:uuid:{number}>")
            )
            if number in dropped:
                rows.append(LedgerRow(stage="extract", action="drop", rule="opt_out", doc_id=one.doc_id,
                                      detail=dropped[number]))  # fmt: skip
            else:
                kept.append(one)
        write_documents(extract / name, kept)
        write_ledger(extract / "dropped" / name, rows)
