"""A stage more, added as CONTRIBUTING says and in no other way, is known to everything that speaks of stages."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tasks.contracts.document import read_documents
from tasks.contracts.ledger import read_ledger
from tests.conftest import ROOT
from tests.e2e.workspace import FirstRun, Workspace

pytestmark = pytest.mark.e2e

STAGE, RULE, DOES = "cap", "host_full", "keeps one host from outweighing the others"
"""The example of CONTRIBUTING: a text stage between dedup and perplexity that drops documents."""


@pytest.fixture(scope="module")
def extended(first_run: FirstRun, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A copy of the finished workspace in which CONTRIBUTING was followed and the pipeline ran again."""
    workspace = first_run.copy(tmp_path_factory.mktemp("extended") / "workspace")
    section = (ROOT / "CONTRIBUTING.md").read_text().split("## Add a stage\n", 1)[1].split("\n## ", 1)[0]
    for block in re.findall(r"```bash\n(.*?)```", section, re.S):
        workspace.run("bash", "-euc", block)
    workspace.run("headwater", "run", "--set", "cap.documents_per_host=5")
    assert workspace.manifest(STAGE).counts.dropped[RULE] > 20
    return workspace


def answer(workspace: Workspace, *arguments: str, code: int = 0) -> Any:
    """Return what a command says with --json, without the messages before it."""
    printed = workspace.run("headwater", *arguments, "--json", code=code)
    return json.loads(printed[printed.index("\n{") if not printed.startswith("{") else 0 :])


def test_the_folders_are_in_their_rings(extended: Workspace) -> None:
    assert "0 broken" in extended.run("lint-imports", "--no-cache")


def test_the_report_shows_it(extended: Workspace) -> None:
    page = Path(answer(extended, "report")["report"]).read_text()
    counts = extended.manifest(STAGE).counts
    assert f"<h3>{STAGE}</h3>" in page
    assert f'<li><span>host full</span><span class="number">{counts.dropped[RULE]} ·' in page


def test_trace_goes_through_it(extended: Workspace) -> None:
    data = extended.folder / "data"
    dropped = next(row for path in sorted((data / STAGE / "dropped").glob("*")) for row in read_ledger(path))
    kept = next(document for path in sorted((data / "mix").glob("part-*")) for document in read_documents(path))
    (lost,) = answer(extended, "trace", str(dropped.doc_id))["documents"]
    assert [(event["stage"], event["action"], event["rule"]) for event in lost["events"]][-1] == (STAGE, "drop", RULE)
    (found,) = answer(extended, "trace", kept.doc_id)["documents"]
    stages = [event["stage"] for event in found["events"] if event["action"] == "kept"]
    assert stages[stages.index("dedup") :][:3] == ["dedup", STAGE, "perplexity"]


def test_a_takedown_finds_its_shards(extended: Workspace) -> None:
    kept = next(
        document for path in sorted((extended.folder / "data/mix").glob("part-*")) for document in read_documents(path)
    )
    tombstones = (extended.folder / "infra/takedowns.jsonl").read_bytes()
    extended.run("headwater", "takedown", "add", kept.url, "--reason", "asked")
    plan = answer(extended, "takedown", "plan", code=1)
    (extended.folder / "infra/takedowns.jsonl").write_bytes(tombstones)
    assert plan["complete"]
    assert plan["shards"][STAGE]["affected"] == [
        path.name for path in sorted((extended.folder / "data" / STAGE).glob("part-*"))
        if kept.doc_id in pq.read_table(path, columns=["doc_id"])["doc_id"].to_pylist()
    ]  # fmt: skip
    assert STAGE in [one["stage"] for one in plan["rebuild_estimate"]]


def test_diff_names_it_first(extended: Workspace) -> None:
    champions = [json.loads(line) for line in (extended.folder / ".headwater/champions.jsonl").read_text().splitlines()]
    before, after = champions[0]["release"], champions[-1]["release"]
    assert f"They part at {STAGE}: only B has it." in extended.run("headwater", "diff", before, after, code=1)
    counts = answer(extended, "diff", before, after, code=1)["counts"]
    assert any(STAGE in json.dumps(row) and RULE in json.dumps(row) for row in counts)


def test_the_papers_speak_of_it(extended: Workspace) -> None:
    release, counts = extended.folder / "data/release", extended.manifest(STAGE).counts
    card = (release / "data_card.md").read_text()
    assert f"| {STAGE} | {DOES} | documents | {counts.in_} | {counts.out} | {counts.dropped[RULE]} |" in card
    assert f"| {STAGE} | `{RULE}` | {counts.dropped[RULE]} |" in card
    assert f"| {STAGE} | documents | {counts.dropped[RULE]} |" in (release / "README.md").read_text()
    assert f"{STAGE} {DOES}" in (release / "ab2013.md").read_text()
    assert f"manifest_sha256:{STAGE}" in (release / "mlbom.cdx.json").read_text()
    assert f'"label": "{STAGE}"' in (release / "prov.jsonld").read_text()


def test_every_claim_holds(extended: Workspace) -> None:
    told = answer(extended, "verify", "--deep", "--sample", "40")
    assert {claim["verdict"] for claim in told["claims"]} == {"pass", "not checkable here"}
    assert "PASS" in extended.run("python", "-I", "data/release/verify.py", "data/release")


def test_a_row_that_it_loses_is_a_broken_claim(extended: Workspace) -> None:
    """Whoever checks it must know that cap stands between dedup and perplexity."""
    part = sorted((extended.folder / "data" / STAGE / "dropped").glob("*.parquet"))[0]
    content = part.read_bytes()
    table = pq.read_table(part)
    pq.write_table(table.slice(1), part)
    try:
        told = answer(extended, "verify", code=1)
    finally:
        part.write_bytes(content)
    assert "counted" in [claim["claim"] for claim in told["claims"] if claim["verdict"] == "fail"]
