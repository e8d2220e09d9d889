"""Each benchmark still runs, on a few pages: what it prints is for docs/benchmarks.md, and not looked at here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.pages import sample_pages, write_warcs
from tests.conftest import ROOT

PAGES = 320
MAKES_ITS_OWN = ("dedup", "gpu", "memory", "recipe", "trace", "train")
SMALL = {
    "crawl": ["--rounds", "1"],
    "decontaminate": ["--count", "100", "--leaks", "16", "--items", "200"],
    "dedup": ["speed", "backends", "curve", "increment", "--documents", "100", "--pairs", "40", "--parts", "1"],
    "extract": ["--every", "20", "--stage-pages", "20"],
    "filters": ["--limit", "20", "--rounds", "1"],
    "gpu": ["--device", "cpu", "--models", "tiny", "--techniques", "loss in pieces", "--steps", "4", "--sequence", "32",
            "--batch", "2"],
    "memory": ["tracked", "--only", "0"],
    "perplexity": [],
    "recipe": ["--seeds", "1", "--steps", "4", "--batch", "2", "--sequence", "16", "--layers", "1", "--width", "64",
               "--recipes", "adamw", "muon-norm"],
    "structure": ["--count", "20"],
    "tokenizer": ["--sizes", "400"],
    "train": ["--layers", "1", "--width", "64", "--sequence", "16", "--batch", "2", "--turns", "1",
              "--strategies", "ddp"],
    "trace": ["--rows", "3000", "--queries", "2", "--commands", "1"],
}  # fmt: skip


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages") / "warc"
    found = sample_pages()
    write_warcs(found[:: len(found) // PAGES], PAGES, 1, folder)
    (file,) = folder.iterdir()
    return file


def test_every_benchmark_but_the_whole_is_here() -> None:
    benches = {path.stem.removeprefix("bench_") for path in (ROOT / "tests/bench").glob("bench_*.py")}
    assert benches - set(SMALL) == {"pipeline"}  # minutes long: `make bench` runs it


@pytest.mark.parametrize("name", SMALL)
def test_a_benchmark_runs(name: str, pages: Path) -> None:
    arguments = [*SMALL[name], *([] if name in MAKES_ITS_OWN else ["--pages", str(pages)])]
    result = subprocess.run(
        [sys.executable, "-m", f"tests.bench.bench_{name}", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert any(character.isdigit() for character in result.stdout)
