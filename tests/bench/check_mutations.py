"""Does `headwater verify` find every single change? `python -m tests.bench.check_mutations WORKSPACE --count 1000`.

Each time, one thing is changed in a copy of a finished workspace's data/ (its release, manifests, shards), by a bit, a
length, a swap, a missing or added file, an edited number, and the whole check is run. Prints one table by kind of
change; exit code 1 where one was not found. The workspace itself is not changed.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from flows.proof.verify import check_all
from tests.mutations import KINDS, mutate


def main() -> None:
    """Change, check, count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    workspace = chosen.workspace.resolve()
    os.environ["HEADWATER_STATE"] = str(workspace / ".headwater")
    generator = random.Random(chosen.seed)
    with tempfile.TemporaryDirectory(dir=workspace) as folder:
        os.chdir(folder)
        assert broken(workspace / "data") is None, "the workspace itself is whole"
        made: Counter[str] = Counter()
        places: Counter[str] = Counter()
        missed: list[tuple[str, str]] = []
        seconds = 0.0
        for number in range(chosen.count):
            kind = KINDS[number % len(KINDS)]
            shutil.copytree(workspace / "data", "data", copy_function=os.link)
            change = mutate(Path("data"), generator, kind=kind)
            started = time.perf_counter()
            place = broken(Path("data"))
            seconds += time.perf_counter() - started
            made[kind] += 1
            if place is None:
                missed.append((kind, change))
            else:
                places[place] += 1
            shutil.rmtree("data")
        os.chdir(workspace)
    write = sys.stdout.write
    write(f"{'change':<16}{'made':>7}{'found':>7}\n")
    for kind in KINDS:
        write(f"{kind:<16}{made[kind]:>7}{made[kind] - sum(one == kind for one, _ in missed):>7}\n")
    write(f"{'all':<16}{chosen.count:>7}{chosen.count - len(missed):>7}\n")
    write(f"first broken claim: {', '.join(f'{claim} {count}' for claim, count in places.most_common())}\n")
    write(f"{seconds / chosen.count:.2f} s a check\n")
    for _, change in missed:
        write(f"not found: {change}\n")
    sys.exit(1 if missed else 0)


def broken(data: Path) -> str | None:
    """Return the first claim that does not hold, None where all do."""
    for result in check_all(data / "release", data):
        if result.verdict == "fail":
            return result.claim
    return None


if __name__ == "__main__":
    main()
