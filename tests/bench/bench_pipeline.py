"""WARC files to deduplicated shards: Headwater and datatrove's local executor side by side.

`python -m tests.bench.bench_pipeline [--pages FILE.warc.gz …] [--count 20000] [--rounds 3] [--engines fast …]`

Both read the same WARC files with two workers, extract with trafilatura in the same mode, apply the Gopher, C4 and
FineWeb filters with their published thresholds, and remove near duplicates by MinHash (14 bands of 8 rows over word
5-grams). The rounds alternate. Headwater's time is that of `headwater run --until dedup` in a fresh workspace: all of
its start-up, manifests, ledgers and its mirror into MLflow are in it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

import yaml

from flows.history.run_records import RunRecord
from tasks.rights.evidence import OptOutPolicy
from tests.bench.measure import Cost, measure
from tests.bench.pages import pages_of, sample_pages, write_warcs
from tests.conftest import ROOT
from tests.e2e.workspace import Workspace

FILES = 8
RULES = ("gopher_repetition", "gopher_quality", "c4", "fineweb")
SIGNALS = [name for name in OptOutPolicy.model_fields if name != "agents"]
STAGES = ("crawl", "extract", "filter", "dedup")
ENGINES = {
    "precision": {"engine": "trafilatura", "mode": "precision"},
    "fast": {"engine": "trafilatura", "mode": "fast"},
    "resiliparse": {"engine": "resiliparse"},
    "combined": {"engine": "combined"},
}


def main() -> None:
    """Print docs/s, processor seconds and peak memory of both, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", nargs="*", type=Path, default=[], help="WARC files; the sample's pages without")
    parser.add_argument("--count", type=int, default=20_000, help="pages in all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--engines", nargs="*", choices=list(ENGINES), default=list(ENGINES))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        work = Path(name)
        pages = pages_of(arguments.pages) if arguments.pages else sample_pages()
        size = write_warcs(pages, arguments.count, FILES, work / "warc")
        say(
            f"{arguments.count:,} pages ({len(pages):,} different sources), {size / 1e6:,.0f} MB of WARC, {FILES} files"
        )
        del pages
        costs: dict[str, list[Cost]] = {}
        stages: dict[str, dict[str, float]] = {}
        for _ in range(arguments.rounds):
            for engine in arguments.engines:
                cost, stages[engine] = headwater(work, ENGINES[engine])
                costs.setdefault(engine, []).append(cost)
                report(f"headwater, {engine}", cost, arguments.count)
            costs.setdefault("datatrove", []).append(datatrove(work))
            report("datatrove, precision", costs["datatrove"][-1], arguments.count)
    peer = costs.pop("datatrove")
    say("\nmedian ratios to datatrove: docs/s (processor seconds; peak memory)")
    for engine, each in costs.items():
        ratio = {what: middle(peer, what) / middle(each, what) for what in ("wall", "cpu", "peak")}
        say(f"  {engine:<12} {ratio['wall']:5.2f}   ({ratio['cpu']:.2f} times fewer; {1 / ratio['peak']:.2f} of it)")
        seconds = ", ".join(f"{stage} {second:.0f} s" for stage, second in stages[engine].items())
        say(f"  {'':<12} last round: {seconds}")


def headwater(work: Path, extract: dict[str, str]) -> tuple[Cost, dict[str, float]]:
    """Run Headwater to the end of dedup in a new workspace; return its cost, and the wall seconds of each stage."""
    workspace = Workspace.clone(work / "workspace")
    published = yaml.safe_load((ROOT / "infra/profiles/web.yaml").read_text())["filter"]["rules"]
    changes = {
        "crawl": {"source": "warc", "paths": [str(work / "warc" / "*.warc.gz")], "shard_megabytes": 8},
        "extract": extract | {"opt_out": dict.fromkeys(SIGNALS, "keep")},
        "filter": {"rules": [rule for rule in published if next(iter(rule)) in RULES]},
        "dedup": {"threshold": 0.7, "num_perm": 112, "bands": 14, "rows": 8},
        "ray": {"num_cpus": 2},
    }
    (workspace.folder / "infra/profiles/bench.yaml").write_text(json.dumps(changes))
    workspace.run("headwater", "params", "apply", "bench")
    command = ["headwater", "run", "--until", "dedup"]
    cost = measure(command, folder=workspace.folder, environment=workspace.environment, log=work / "headwater.log")
    seconds = {}
    for stage in STAGES:
        (path,) = workspace.folder.glob(f".headwater/runs/*/{stage}.json")
        seconds[stage] = RunRecord.model_validate_json(path.read_bytes()).seconds
    shutil.rmtree(workspace.folder)
    return cost, seconds


def datatrove(work: Path) -> Cost:
    """Run the peer and return its cost."""
    command = [sys.executable, "-m", "tests.bench.datatrove_peer", str(work / "warc"), str(work / "peer")]
    workspace = Workspace(ROOT)
    cost = measure(command, folder=ROOT, environment=workspace.environment, log=work / "datatrove.log")
    shutil.rmtree(work / "peer")
    return cost


def report(what: str, cost: Cost, count: int) -> None:
    """Print one run."""
    say(
        f"{what:<24} {count / cost.wall:7.1f} docs/s  {cost.wall:7.1f} s  {cost.cpu:7.1f} processor s  "
        f"{cost.peak / 2**20:6,.0f} MiB"
    )


def middle(costs: list[Cost], what: str) -> float:
    """Return the median of one figure."""
    return statistics.median(float(getattr(cost, what)) for cost in costs)


def say(text: str) -> None:
    """Print at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
