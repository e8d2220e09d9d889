"""`headwater policy check`: stored evidence judged again, on a crawl of a few pages that was really extracted."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows import policy
from flows.params import set_values
from tasks.contracts.document import write_documents
from tasks.contracts.errors import ManifestError, UsageError
from tasks.contracts.evidence import CONTENT_TYPE, Evidence, OptOutPolicy, RobotsVerdict, Signal
from tasks.contracts.manifest import Counts
from tasks.extract.stage import Params, run
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
