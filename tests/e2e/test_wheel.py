"""A wheel is whole: where only it and its dependencies are, it makes a workspace that runs to its end.

First without the optional parts, as on a node that crawls and filters, then with them.
"""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import venv
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.e2e.workspace import Workspace

pytestmark = pytest.mark.e2e

PROJECT = "headwater"


def needed(requirements: Iterable[str], seen: set[tuple[str, str]]) -> Iterator[str]:
    """Yield the distributions that requirements without extras come to, with those that they require in turn."""
    for requirement in map(Requirement, requirements):
        for extra in ("", *requirement.extras):
            key = (canonicalize_name(requirement.name), extra)
            if key in seen or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
                continue
            seen.add(key)
            yield key[0]
            for below in importlib.metadata.requires(requirement.name) or []:
                parsed = Requirement(below)
                if parsed.marker is None or parsed.marker.evaluate({"extra": extra}):
                    parsed.marker = None
                    yield from needed([str(parsed)], seen)


class Bare:
    """A virtual environment that holds the wheel, and of this environment only what was let in."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        venv.create(folder, symlinks=True)
        self.bin = folder / "bin"
        self.packages = folder / "dependencies"
        self.packages.mkdir()
        (site,) = folder.glob("lib/python*/site-packages")
        (site / "dependencies.pth").write_text(f"{self.packages}\n")
        install = ["install", "--quiet", "--no-deps", "--no-index", str(wheel)]
        subprocess.run([sys.executable, "-m", "pip", "--python", str(self.bin / "python"), *install], check=True)

    def let_in(self, names: Iterable[str]) -> None:
        """Make distributions of this environment importable there, by links."""
        for name in names:
            distribution = importlib.metadata.distribution(name)
            for entry in {path.parts[0] for path in distribution.files or [] if path.parts[0] not in ("..", PROJECT)}:
                place = Path(str(distribution.locate_file(entry)))
                if place.exists() and not (self.packages / entry).exists():
                    (self.packages / entry).symlink_to(place)

    def workspace(self, folder: Path) -> Workspace:
        """Return a folder in which commands are this environment's; lmplz and ninja are programs beside them."""
        inside = Workspace(folder)
        del inside.environment["PYTHONPATH"]
        inside.environment["PATH"] = f"{self.bin}:{inside.environment['PATH']}"
        return inside


def test_a_wheel_makes_a_workspace_that_runs_to_its_end(tmp_path: Path) -> None:
    clone = Workspace.clone(tmp_path / "clone")
    offline = ("--no-deps", "--no-index", "--no-build-isolation")
    clone.run(sys.executable, "-m", "pip", "wheel", "--quiet", *offline, "--wheel-dir", "dist", ".")
    (wheel,) = (clone.folder / "dist").glob("*.whl")
    bare = Bare(tmp_path / "bare", wheel)
    bare.let_in(needed(importlib.metadata.requires(PROJECT) or [], set()))
    bare.workspace(tmp_path).run("headwater", "init", "corpus")
    corpus = bare.workspace(tmp_path / "corpus")

    names = corpus.run("git", "ls-files").splitlines()
    assert names == clone.run("git", "ls-files").splitlines()
    assert all((corpus.folder / name).read_bytes() == (clone.folder / name).read_bytes() for name in names)
    assert "Where pages come from" in corpus.run("headwater", "params", "show", "crawl")

    for absent in ("torch", "transformers", "deepspeed", "lm_eval", "mlflow"):
        assert "No module named" in corpus.run("python", "-c", f"import {absent}", code=1)
    said = corpus.run("headwater", "run", "--profile", "tiny", "--until", "mix")
    assert "MLflow is not installed" in said
    assert corpus.manifest("mix").counts.out > 0
    said = corpus.run("headwater", "run", code=2)
    assert "headwater[train]" in said

    bare.let_in(one.name for one in importlib.metadata.distributions() if one.name != PROJECT)
    said = corpus.run("headwater", "run")
    assert "Running stage 'train'" in said
    assert "Running stage 'mix'" not in said
    assert "verdict  pass" in said

    # What ran is the workspace's own code.
    (corpus.folder / "flows/report/page.py").write_text("raise SystemExit('a page of our own')\n")
    assert "a page of our own" in corpus.run("headwater", "report", code=1)
