"""One file name, one idea in the whole house; one class name, one idea in a package."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

from tests.conftest import ROOT

FOLDERS = ("flows", "tasks", "training")
EVERYWHERE = ("__init__", "__main__", "stage")
"""What each stage, package or program has."""
SAME_IDEA = {"verify": "the claims that a release makes, checked by `headwater verify` and by its own verify.py"}


def modules() -> list[Path]:
    return sorted(path.relative_to(ROOT) for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def test_no_two_modules_share_a_name() -> None:
    """Except a command and the module that answers it."""
    named = defaultdict(list)
    for path in modules():
        if path.stem not in (*EVERYWHERE, *SAME_IDEA) and path.parent != Path("flows/cli"):
            named[path.stem].append(str(path))
    assert not {stem: paths for stem, paths in named.items() if len(paths) > 1}


def test_no_two_classes_of_a_package_share_a_name() -> None:
    """`Params` is the one word for what each stage is set by, and is looked up by it."""
    named = defaultdict(set)
    for path in modules():
        package = "/".join(path.parts[:2])
        for node in ast.walk(ast.parse((ROOT / path).read_text())):
            if isinstance(node, ast.ClassDef) and node.name != "Params":
                named[package, node.name].add(str(path))
    assert not {name: sorted(paths) for name, paths in named.items() if len(paths) > 1}
