"""docs/ledger.md names every rule by which a stage may drop, edit or mark a document."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from tasks.contracts.http_responses import REFUSALS
from tasks.crawl.fetch import RULES as FETCH_RULES
from tasks.crawl.limits import LIMIT_RULES
from tasks.crawl.sites import PASSING
from tasks.dedup.survivors import RULES as DEDUP_RULES
from tests.conftest import ROOT

IN_TABLES = {*REFUSALS.values(), *FETCH_RULES.values(), *PASSING, *LIMIT_RULES, *DEDUP_RULES}
NAMES_OF_RULES = {"rule", "RULE", "NO_MODEL", "TOO_SHORT"}


def rules_in_code() -> Iterator[str]:
    """Yield the rules that are written out: `rule="…"`, and the constants that stages give as rules."""
    for path in (ROOT / "tasks").rglob("*.py"):
        if "filter" in path.parts or "sample" in path.parts:
            continue  # named after their filter; the sample has planted pages, not rules
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.keyword(arg="rule", value=ast.Constant(value=str(rule))):
                    yield rule
                case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=str(rule))):
                    if rule and name in NAMES_OF_RULES:
                        yield rule
                case ast.AnnAssign(target=ast.Name(id=name), value=ast.Constant(value=str(rule))):
                    if rule and name in NAMES_OF_RULES:
                        yield rule


def test_every_rule_is_explained() -> None:
    explained = set(re.findall(r"`([a-z_]+)`", (ROOT / "docs/ledger.md").read_text()))
    found = {*rules_in_code(), *IN_TABLES}
    assert {"opt_out", "held_out", "robots", "no_model", "revisit", "timeout", "near_duplicate"} <= found
    assert found <= explained, f"docs/ledger.md does not explain {sorted(found - explained)}"
