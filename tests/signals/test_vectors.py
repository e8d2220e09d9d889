"""Every way in which a publisher can state an opt-out: the table vectors.jsonl, read as crawl and extract read.

A row has the standard, the place where it is said, the wording there, what says otherwise in other places (conflict),
the verdict under the default policy, and the source. `url` and `user_agent` are those below unless a row has its own.
Verdicts: `closed` (robots.txt forbids the fetch), `drop`, `mark`, `keep`, or the ledger's rule for an HTTP status.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scrapy.http import Headers, HtmlResponse

from tasks.contracts.http_responses import no_page
from tasks.crawl.hosts import HostRules, evidence_of
from tasks.extract.warc_pages import read_pages
from tasks.rights.evidence import OptOutPolicy, html_signals, judge
from tasks.rights.robots import Robots, names_of
from tests.conftest import ROOT
from tests.tasks.extract.pages import record

VECTORS = [json.loads(line) for line in Path(__file__).with_name("vectors.jsonl").read_text("utf-8").splitlines()]
URL, USER_AGENT = "http://h.example/a/page.html", "Headwater/0.1 (+mailto:nobody@h.example)"
PLACES = {"robots.txt", "header", "meta", "html", "tdmrep.json", "ai.txt", "status"}
COLUMNS = {"standard", "place", "wording", "conflict", "verdict", "source"}
FETCHED = {"drop", "mark", "keep"}


def said(row: dict[str, Any]) -> dict[str, Any]:
    """Return place → all that is said there, the wording and what says otherwise."""
    places: dict[str, Any] = dict(row["conflict"])
    place, wording = row["place"], row["wording"]
    return places | {place: wording + places[place] if place in places else wording}


def fields(places: dict[str, Any]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in places.get("header", [])]


def page(places: dict[str, Any]) -> str:
    return f"<html><head><title>x</title>{places.get('meta', '')}{places.get('html', '')}</head><body><p>x</p></body>"


def rules_of(places: dict[str, Any]) -> HostRules:
    rules = HostRules(read_at=0.0)
    if "robots.txt" in places:
        rules.robots = Robots(places["robots.txt"].encode())
    rules.tdmrep = places["tdmrep.json"].encode() if "tdmrep.json" in places else None
    rules.ai_txt = places["ai.txt"].encode() if "ai.txt" in places else None
    return rules


def verdict_of(row: dict[str, Any]) -> str:
    """Return what the crawl makes of a row when it fetches the page, or why it does not."""
    if row["place"] == "status":
        return no_page(int(row["wording"])) or "keep"
    places, url, agent = said(row), row.get("url", URL), row.get("user_agent", USER_AGENT)
    rules = rules_of(places)
    if not rules.decide(agent, url).allowed:
        return "closed"
    headers = Headers()
    for name, value in fields(places):
        headers.appendlist(name, value)
    received = HtmlResponse(url, headers=headers)
    evidence = evidence_of(url, received, page(places), rules, agent, None)
    return judge(evidence.signals, OptOutPolicy().of_crawl(agent)).action


def by_extract(row: dict[str, Any], folder: Path) -> str:
    """Return what extract makes of a row in an archive that has no evidence: what the record itself says."""
    places, agent = said(row), row.get("user_agent", USER_AGENT)
    held = record(1, page(places).encode())
    if lines := "".join(f"{name}: {value}\r\n" for name, value in fields(places)):
        held = _with_fields(page(places), lines)
    warc = folder / "part-00000.warc.gz"
    warc.write_bytes(held)
    [read] = read_pages(warc, 1 << 20)
    signals = {*read.signals, *map(str, html_signals(read.body.decode(), names_of(agent)))}
    return judge(signals, OptOutPolicy().of_crawl(agent)).action


def _with_fields(html: str, lines: str) -> bytes:
    # A name may stand there more than once, so as text and not by a mapping.
    return record(1, html.encode(), {"X-First": "1\r\n" + lines.removesuffix("\r\n")})


def rows(*standards: str) -> Iterator[dict[str, Any]]:
    return (row for row in VECTORS if row["standard"] in standards or not standards)


def test_the_table_is_one() -> None:
    assert len(VECTORS) >= 300
    asked = [json.dumps([said(row), row.get("url"), row.get("user_agent")]) for row in VECTORS]
    assert len(set(asked)) == len(asked), "a row stands there twice"
    for row in VECTORS:
        assert set(row) - {"url", "user_agent"} == COLUMNS
        assert {row["place"], *row["conflict"]} <= PLACES
        assert row["source"]
    assert {row["verdict"] for row in VECTORS} >= {
        "closed",
        "drop",
        "mark",
        "keep",
        "payment_required",
        "legal_reasons",
    }
    assert f"{len(VECTORS)} wordings" in (ROOT / "docs/provenance.md").read_text()
    for standard in {row["standard"] for row in VECTORS}:
        assert len({row["verdict"] for row in rows(standard)}) > 1, f"{standard}: every row has the same verdict"


@pytest.mark.parametrize("standard", sorted({row["standard"] for row in VECTORS}))
def test_the_crawl_reads_every_row(standard: str) -> None:
    wrong = [(verdict, row) for row in rows(standard) if (verdict := verdict_of(row)) != row["verdict"]]
    assert not wrong, "\n".join(f"{verdict}: {row}" for verdict, row in wrong)


def test_extract_reads_what_the_page_itself_says(tmp_path: Path) -> None:
    own = [row for row in VECTORS if {row["place"], *row["conflict"]} <= {"header", "meta", "html"}]
    assert len(own) > 150
    wrong = [(verdict, row) for row in own if (verdict := by_extract(row, tmp_path)) != row["verdict"]]
    assert not wrong, "\n".join(f"{verdict}: {row}" for verdict, row in wrong)


def test_nothing_of_the_table_is_left_with_a_lax_policy() -> None:
    lax = OptOutPolicy.model_validate(dict.fromkeys(set(OptOutPolicy.model_fields) - {"agents"}, "keep"))
    for row in VECTORS:
        if row["verdict"] in FETCHED and row["place"] != "status":
            places, url = said(row), row.get("url", URL)
            headers = Headers()
            for name, value in fields(places):
                headers.appendlist(name, value)
            seen = evidence_of(
                url, HtmlResponse(url, headers=headers), page(places), rules_of(places), USER_AGENT, None
            )
            assert judge(seen.signals, lax).action == "keep"
