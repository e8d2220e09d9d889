"""One owner for each fact: what two modules would have to change together stands in one, and the others ask it.

A row of FACTS is a fact, what it looks like in the source, and who may say it. A copy of a fact elsewhere fails here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from tasks.contracts.workspace import ROOT

SOURCE = sorted(path for folder in ("flows", "tasks", "training") for path in (ROOT / folder).rglob("*.py"))


@dataclass(frozen=True)
class Fact:
    """What is said once: its name, the pattern that finds it in a module's text, and the modules that may say it."""

    name: str
    pattern: str
    owners: tuple[str, ...]


FACTS = (
    Fact(
        "when two texts are one",
        r'normalize\("NFK?C",.*\)\.(?:lower|casefold)\(',
        ("tasks/contracts/normal_form.py",),
    ),
    Fact(
        "which scripts have no spaces",
        r"(?i)u4e00|0x4e00|u0e00|0x0e00|u3040|0x3040",
        ("tasks/contracts/scripts.py",),
    ),
    Fact("how a URL is escaped", r"0-9A-Fa-f\]\{2\}", ("tasks/contracts/urls.py",)),
    Fact("which parameters only track", r'"gclid"', ("tasks/contracts/urls.py",)),
    Fact(
        "which hosts a pattern names",
        r"fnmatchcase",
        ("tasks/contracts/urls.py",),
    ),
    Fact("what a child process imports", "PYTHONPATH", ("tasks/contracts/workspace.py",)),
    Fact("where this Python's programs are", r'\["PATH"\]|get\("PATH"|"PATH":', ("tasks/contracts/workspace.py",)),
    Fact("the state folder", r"def state_folder", ("tasks/contracts/workspace.py",)),
)


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: fact.name)
def test_a_fact_is_said_by_its_owner_only(fact: Fact) -> None:
    said = {path.relative_to(ROOT).as_posix() for path in SOURCE if re.search(fact.pattern, _text(path))}
    assert said == set(fact.owners), f"{fact.name}: ask {' or '.join(fact.owners)}"


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")
