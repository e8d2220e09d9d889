"""One owner for each fact: what two modules would have to change together stands in one, and the others ask it.

A row of FACTS is a fact, what it looks like in the source, and who may say it. A copy of a fact elsewhere fails here.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.output import visible
from tasks.contracts import files, manifest, release, tokens
from tasks.contracts.workspace import ROOT
from training.release import verify

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
    Fact("how a part of a stage is called", r'(?:glob|startswith)\(f?"part-|f"part-', ("training/release/verify.py",)),
    Fact("settings that fix Parquet's bytes", r"ParquetWriter\(", ("tasks/contracts/document.py",)),
    Fact(
        "how drops are counted",
        r"dropped\.get\(row\.rule|Counter\(row\.rule",
        ("tasks/contracts/ledger.py",),
    ),
    Fact("what a child process imports", "PYTHONPATH", ("tasks/contracts/workspace.py",)),
    Fact("where this Python's programs are", r'\["PATH"\]|get\("PATH"|"PATH":', ("tasks/contracts/workspace.py",)),
    Fact("what a terminal would obey", r"202a", ("flows/output.py",)),
    Fact("the state folder", r"def state_folder", ("tasks/contracts/workspace.py",)),
)


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: fact.name)
def test_a_fact_is_said_by_its_owner_only(fact: Fact) -> None:
    said = {path.relative_to(ROOT).as_posix() for path in SOURCE if re.search(fact.pattern, _text(path))}
    assert said == set(fact.owners), f"{fact.name}: ask {' or '.join(fact.owners)}"


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


VERIFIER = ROOT / "training/release/verify.py"
OWNERS = (files, release, tokens, manifest)
NAMES = {
    str(value): name
    for owner in OWNERS
    for name, value in vars(owner).items()
    if name.endswith("_NAME") and isinstance(value, str)
}
FOLDERS = {
    str(value): name for owner in OWNERS for name, value in vars(owner).items() if name.endswith("_FOLDER") and value
}


@pytest.mark.parametrize("path", SOURCE, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_file_or_folder_that_others_read_is_named_by_its_owner_only(path: Path) -> None:
    if path == VERIFIER or path in {Path(owner.__file__ or "") for owner in OWNERS}:
        return
    said = [
        f"line {line}: {text!r}, which is {NAMES.get(text) or FOLDERS.get(text)} of tasks.contracts"
        for line, text, joined in _texts(ast.parse(_text(path)))
        if text in NAMES or (joined and text in FOLDERS)
    ]
    assert not said


def test_the_verifier_that_is_copied_into_a_release_uses_the_same_names() -> None:
    said = {text for _, text, _ in _texts(ast.parse(_text(VERIFIER)))}
    looking_like_names = {text for text in said if re.fullmatch(r"[\w.]+\.(?:json|md|sig|csv|parquet|yaml)", text)}
    assert {"_manifest.json", "lineage.json", "gate.json", "model.sig"} <= looking_like_names
    assert looking_like_names <= NAMES.keys()
    assert verify.SIGNATURE == release.SIGNATURE_NAME
    assert set(verify.BESIDE) == {release.TAKEDOWN_NOTICE_NAME, release.TAKEDOWN_MARK_NAME}
    assert verify.MANIFEST == manifest.MANIFEST_NAME


@given(st.text(st.characters(codec=None), max_size=20))
def test_what_the_verifier_prints_has_nothing_that_a_terminal_obeys(text: str) -> None:
    assert visible(verify.shown(text)) == verify.shown(text)


def _texts(tree: ast.AST) -> Iterator[tuple[int, str, bool]]:
    """Yield line, text and whether it is joined to a path, of each literal and of each part of a path in one."""
    documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    joined = {id(node.right) for node in ast.walk(tree) if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            yield node.lineno, node.value, id(node) in joined
            for part in node.value.split("/") if "/" in node.value and " " not in node.value else ():
                yield node.lineno, part, False


@pytest.mark.parametrize(
    ("kind", "pattern"),
    [
        ("a variable of the environment, or a setting of Scrapy", r'"(HEADWATER_[A-Z_]+)"'),
        ("a pattern", r're\.compile\(\s*rb?("[^"\n]+")'),
    ],
)
def test_what_has_a_meaning_of_ours_is_written_in_one_module(kind: str, pattern: str) -> None:
    said: dict[str, set[str]] = {}
    for path in SOURCE:
        for text in re.findall(pattern, _text(path)):
            said.setdefault(text, set()).add(path.relative_to(ROOT).as_posix())
    assert said
    assert {text: sorted(places) for text, places in said.items() if len(places) > 1} == {}, kind
