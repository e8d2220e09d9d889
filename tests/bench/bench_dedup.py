"""Figures of dedup: `python -m tests.bench.bench_dedup [speed | backends | curve | scale | increment]…`.

Without a name all are printed. The texts are made here from a vocabulary with the frequencies of natural words
(rank r in proportion to 1 / (r + 10)), 400 words each on average, a fifth of them near duplicates of others;
`--input FOLDER` takes the shards of a text stage instead (speed only). Times are CPU seconds (`process_time` and
finished children). No figure is asserted.

- speed: all of dedup beside datatrove's MinHash (signature, buckets, cluster, filter) with its own settings, 14
  bands of 8 rows on word 5-grams, one process each, alternating
- backends: signatures alone
- curve: 4,000 planted pairs of Jaccard 0.3 to 1.0, found and theory side by side
- scale: 5,000, 20,000 and 80,000 documents on two Ray workers: CPU time a document, and the largest resident memory
- increment: one new shard beside a hundred old ones
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import multiprocessing
import os
import re
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from tasks.contracts.document import Document, make_doc_id, read_documents, write_documents
from tasks.contracts.ledger import read_ledger
from tasks.contracts.manifest import Counts, commit_manifest, read_manifest, text_shards
from tasks.contracts.normal_form import normal_bytes
from tasks.dedup.minhash import Sketch, found_with, hasher
from tasks.dedup.shingles import ShingleSets, shingle_sets
from tasks.dedup.stage import Params, run
from tasks.engine.session import RayParams, ray_session

PART = 500
WORDS = 400
VOCABULARY = 20_000
LIKE_DATATROVE = Params(num_perm=112, bands=14, rows=8)


def say(line: str = "") -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


class Texts:
    """Made-up texts, each a function of its number; every fifth is like the one before it but for a few words."""

    def __init__(self) -> None:
        rng = np.random.default_rng(7)
        letters = np.array(list("etaoinshrdlucmfwypvbgk"))
        self._vocabulary = np.array(["".join(rng.choice(letters, rng.integers(2, 10))) for _ in range(VOCABULARY)])
        weights = 1 / (np.arange(VOCABULARY) + 10)
        self._steps = np.cumsum(weights / weights.sum())

    def words(self, number: int) -> NDArray[Any]:
        rng = np.random.default_rng(number)
        count = int(rng.integers(WORDS // 2, WORDS * 3 // 2))
        return self._vocabulary[np.minimum(np.searchsorted(self._steps, rng.random(count)), VOCABULARY - 1)]

    def text(self, number: int) -> str:
        near = number % 5 == 4
        words = self.words(number - 1 if near else number)
        if near:
            rng = np.random.default_rng(-number % 2**32)
            words = words.copy()
            words[rng.integers(0, len(words), 1 + number % 8)] = "changed"
        lines = [" ".join(words[at : at + 12]) for at in range(0, len(words), 12)]
        return ".\n".join(lines)

    def document(self, number: int) -> Document:
        return as_document(self.text(number), number)


def as_document(text: str, number: int) -> Document:
    return Document(
        doc_id=make_doc_id("bench", str(number)),
        url=f"https://host{number % 50}.example/{number}",
        host=f"host{number % 50}.example",
        record_id=str(number),
        source="bench",
        text=text,
        captured_at=f"{datetime(2024, 1, 1) + timedelta(seconds=number):%Y-%m-%dT%H:%M:%SZ}",
    )


def write_stage(folder: Path, documents: Sequence[Document] | Iterator[Document], part: int = PART) -> None:
    waiting: list[Document] = []
    parts = total = 0

    def flush() -> None:
        nonlocal parts, total
        write_documents(folder / f"part-{parts:05d}.parquet", waiting)
        total, parts = total + len(waiting), parts + 1
        waiting.clear()

    for document in documents:
        waiting.append(document)
        if len(waiting) == part:
            flush()
    if waiting:
        flush()
    commit(folder, total)


def commit(folder: Path, total: int) -> None:
    commit_manifest(folder, stage="filter", unit="documents", params={}, inputs={}, counts=Counts(in_=total, out=total))


def measured(function: Callable[[], Any]) -> tuple[float, float]:
    """Return CPU and wall seconds."""
    before, wall = os.times(), time.perf_counter()
    function()
    after = os.times()
    return sum(after[:4]) - sum(before[:4]), time.perf_counter() - wall


@contextlib.contextmanager
def state(folder: Path) -> Iterator[None]:
    old = os.environ.get("HEADWATER_STATE")
    os.environ["HEADWATER_STATE"] = str(folder)
    try:
        yield
    finally:
        os.environ.pop("HEADWATER_STATE")
        if old is not None:
            os.environ["HEADWATER_STATE"] = old


def dedup(source: Path, output: Path, state_folder: Path, params: Params) -> None:
    shutil.rmtree(output, ignore_errors=True)
    with state(state_folder):
        run(params=params, inputs={"filter": source}, output=output)


def speed(place: Path, source: Path | None, count: int) -> None:
    """Print all of dedup beside datatrove's."""
    if source is None:
        source, texts = place / "texts", Texts()
        write_stage(source, (texts.document(n) for n in range(count)))
    shards = [source / shard.name for shard in text_shards(source)]
    count = read_manifest(source).counts.out
    rounds: dict[str, list[tuple[float, float]]] = {"headwater": [], "datatrove": []}
    for number in range(2):
        folder = place / f"round-{number}"
        rounds["headwater"].append(measured(partial(dedup, source, folder / "out", folder / "state", LIKE_DATATROVE)))
        documents = [document for shard in shards for document in read_documents(shard)]
        rounds["datatrove"].append(measured(partial(datatrove, documents, folder / "datatrove")))
    say(f"MinHash dedup of {count} documents, 14 bands of 8 rows on word 5-grams, one process")
    say(f"{'':12} {'CPU s':>8} {'documents/CPU s':>16} {'wall s':>8} {'dropped':>8}")
    best = {name: min(cpu for cpu, _ in figures) for name, figures in rounds.items()}
    dropped = {
        "headwater": count - read_manifest(place / "round-1/out").counts.out,
        "datatrove": count - int((place / "round-1/datatrove/kept").read_text()),
    }
    for name, figures in rounds.items():
        wall = min(wall for _, wall in figures)
        say(f"{name:12} {best[name]:8.2f} {count / best[name]:16.0f} {wall:8.2f} {dropped[name]:8d}")
    say(f"ratio of CPU time: {best['datatrove'] / best['headwater']:.1f} (Headwater also reads, verifies and writes)")


def datatrove(documents: Sequence[Document], folder: Path) -> None:
    """Run datatrove's four MinHash steps over texts in memory."""
    from datatrove.data import Document as Datum
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupFilter
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature

    config = MinhashConfig()
    data = [Datum(text=document.text, id=document.doc_id) for document in documents]
    kept = 0

    def count(data: Any, rank: int = 0, world_size: int = 1) -> Any:
        nonlocal kept
        for datum in data:
            kept += 1
            yield datum

    def execute(name: str, steps: list[Any], tasks: int = 1) -> None:
        LocalPipelineExecutor(
            pipeline=steps, tasks=tasks, workers=1, logging_dir=str(folder / "logs" / name), skip_completed=False
        ).run()

    signatures, buckets, removed = (str(folder / name) for name in ("signatures", "buckets", "removed"))
    execute("signatures", [data, MinhashDedupSignature(signatures, config=config)])
    execute("buckets", [MinhashDedupBuckets(signatures, buckets, config=config)], tasks=config.num_buckets)
    execute("cluster", [MinhashDedupCluster(buckets, removed, config=config)])
    execute("filter", [data, MinhashDedupFilter(removed), count])
    (folder / "kept").write_text(str(kept))


def backends() -> None:
    """Print what a signature costs, from the same shingle sets."""
    from datasketch import MinHash

    texts, count = Texts(), 2_000
    normals = [normal_bytes(texts.text(number)) for number in range(count)]
    batches: list[ShingleSets] = []

    def make_sets() -> None:
        batches.extend(shingle_sets(normals[at : at + 64], size=5) for at in range(0, count, 64))

    def plain() -> None:
        model = MinHash(num_perm=128, seed=1, hashfunc=int)
        for batch in batches[:8]:
            for values in batch:
                one = model.copy()
                one.update_batch(values.tolist())

    say(f"signatures of 128 permutations, {count} texts of {WORDS} words on average, microseconds of CPU a text")
    say(f"{'normal form and shingles':34} {measured(make_sets)[0] / count * 1e6:8.1f}")
    say(f"{'datasketch, one MinHash a text':34} {measured(plain)[0] / 512 * 1e6:8.1f}")
    for name in ("datasketch", "rensa"):
        sketch = Sketch(shingle_words=5, max_shingles=20_000, bands=16, rows=8, seed=1, backend=name)
        make = hasher(sketch)
        figure = min(measured(partial(list, map(make, batches)))[0] for _ in range(3))
        say(f"{name + ', as dedup calls it':34} {figure / count * 1e6:8.1f}")


def planted_pairs(texts: Texts, count: int) -> Iterator[tuple[str, str]]:
    """Yield pairs of texts whose Jaccard similarities spread over 0.3 to 1."""
    for number in range(count):
        words = texts.words(10**6 + number)
        wanted = 0.3 + 0.7 * number / max(1, count - 1)
        # Replacing a share p of the words far apart breaks 5 shingles each: J = (1 - 5p) / (1 + 5p).
        changes = round(len(words) * (1 - wanted) / (1 + wanted) / 5)
        other = words.astype(object)
        places = np.linspace(2, len(words) - 3, changes).astype(int) if changes else np.zeros(0, int)
        other[places] = [f"new{number}x{place}" for place in places]
        yield " ".join(words), " ".join(other)


def curve(place: Path, count: int, params: Params) -> None:
    """Print how many planted pairs were found, by their true similarity."""
    texts = Texts()
    pairs = list(planted_pairs(texts, count))
    source = place / "pairs"
    ordered = [as_document(text, 2 * n + side) for n, pair in enumerate(pairs) for side, text in enumerate(pair)]
    order = np.random.default_rng(0).permutation(len(ordered))
    write_stage(source, (ordered[place] for place in order))
    dedup(source, place / "out", place / "state", params)
    rows = [row for path in sorted((place / "out/dropped").iterdir()) for row in read_ledger(path)]
    found: set[int] = set()
    strangers = 0
    number_of = {document.doc_id: index // 2 for index, document in enumerate(ordered)}
    for row in rows:
        same = number_of[str(row.doc_id)] == number_of[str(row.survivor_id)]
        strangers += not same
        found |= {number_of[str(row.doc_id)]} if same else set()
    similarity = np.array([true_jaccard(*pair) for pair in pairs])
    hit = np.isin(np.arange(count), list(found))
    sketch = params.sketch()
    say(f"{count} planted pairs, backend {params.backend}, threshold {params.threshold}, {sketch.bands} bands of")
    say(f"{sketch.rows} rows: found, and the theory 1 - (1 - s^{sketch.rows})^{sketch.bands} of becoming a candidate")
    say(f"{'Jaccard':>12} {'pairs':>6} {'found':>7} {'theory':>7}")
    for low in np.arange(0.30, 1.0, 0.05):
        inside = (similarity >= low) & (similarity < low + 0.05 if low < 0.949 else similarity <= 1)
        if inside.any():
            theory = np.mean([found_with(s, sketch.bands, sketch.rows) for s in similarity[inside]])
            say(f"{low:6.2f}-{low + 0.05:.2f} {inside.sum():6d} {hit[inside].mean():7.3f} {theory:7.3f}")
    surely = similarity >= params.threshold + 0.1
    say(f"found at J >= {params.threshold + 0.1:.1f}: {hit[surely].mean():.4f} of {surely.sum()}")
    say(f"false pairs (J below the threshold): {int((hit & (similarity < params.threshold)).sum() + strangers)}")


def true_jaccard(left: str, right: str) -> float:
    """Return the Jaccard similarity of two texts' word 5-grams, without the product's code."""
    sets = [{tuple(w[at : at + 5]) for at in range(len(w) - 4)} for w in (left.lower().split(), right.lower().split())]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def scale(place: Path, sizes: Sequence[int]) -> None:
    """Print time and memory of corpora of growing sizes, each in a fresh process with a Ray session of its own."""
    say("two Ray workers, shards of 500 documents; largest resident memory of any worker, and of the driver")
    say(f"{'documents':>10} {'CPU s':>8} {'us/document':>12} {'worker MiB':>11} {'driver MiB':>11} {'ranges':>7}")
    texts = Texts()
    context = multiprocessing.get_context("spawn")
    for count in sizes:
        source = place / f"texts-{count}"
        write_stage(source, (texts.document(n) for n in range(count)))
        answers: Any = context.Queue()
        child = context.Process(target=_scale_one, args=(source, place / f"run-{count}", answers))
        child.start()
        cpu, worker, driver, ranges = answers.get()
        child.join()
        say(f"{count:10d} {cpu:8.2f} {cpu / count * 1e6:12.1f} {worker:11.0f} {driver:11.0f} {ranges:7d}")
        shutil.rmtree(source)


def _scale_one(source: Path, place: Path, answers: Any) -> None:
    with state(place / "state"), ray_session(RayParams(num_cpus=2)):
        own = time.process_time()
        dedup(source, place / "out", place / "state", Params())
        cpu, peaks = time.process_time() - own, []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if " ".join(process.cmdline()).startswith(("ray::Map", "ray::IDLE")):
                    cpu += sum(process.cpu_times()[:2])
                    peaks += re.findall(r"VmHWM:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text())
    driver = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    ranges = max(1, len(list((place / "state/shards").glob("*/*.groups.bin"))))  # a single one is not kept
    answers.put((cpu, max(map(int, peaks)) / 1024, driver, ranges))


def increment(place: Path, parts: int, size: int) -> None:
    """Print what one new shard costs beside many old ones, and whether the result is a full run's."""
    texts, source = Texts(), place / "old"
    write_stage(source, (texts.document(n) for n in range(parts * size)), size)
    full, _ = measured(lambda: dedup(source, place / "out", place / "state", Params()))
    shutil.copytree(place / "state", place / "state-before")
    again, _ = measured(lambda: dedup(source, place / "out", place / "state", Params()))
    say(f"{parts} shards of {size} documents: {full:.2f} CPU s in full, {again:.2f} again without a change")
    new = [texts.document(parts * size + n) for n in range(size)]
    # A hundredth of the new shard repeats old documents, captured later.
    new[: size // 100] = [as_document(texts.text(n * 997), 10**7 + n) for n in range(size // 100)]
    write_documents(source / f"part-{parts:05d}.parquet", new)
    (source / "_manifest.json").unlink()
    commit(source, (parts + 1) * size)
    shares, same = [], True
    for _ in range(3):
        for name in ("state", "state-fresh"):
            shutil.rmtree(place / name, ignore_errors=True)
        shutil.copytree(place / "state-before", place / "state")
        more, wall = measured(lambda: dedup(source, place / "out", place / "state", Params()))
        fresh, fresh_wall = measured(lambda: dedup(source, place / "fresh", place / "state-fresh", Params()))
        same &= (place / "out/_manifest.json").read_bytes() == (place / "fresh/_manifest.json").read_bytes()
        shares.append(more / fresh)
        say(f"with one new shard: {more:.2f} CPU s ({wall:.2f} wall); in full {fresh:.2f} ({fresh_wall:.2f} wall)")
    say(f"share of a full run: {np.median(shares):.1%} of CPU, the median of three; equal results: {same}")


def main() -> None:
    """Print the figures that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", choices=[[], "speed", "backends", "curve", "scale", "increment"])
    parser.add_argument("--documents", type=int, default=2_000, help="for speed")
    parser.add_argument("--input", type=Path, help="the folder of a text stage, for speed")
    parser.add_argument("--pairs", type=int, default=4_000, help="for curve")
    parser.add_argument("--backend", choices=["datasketch", "rensa"], default="datasketch", help="for curve")
    parser.add_argument("--sizes", type=int, nargs="*", default=[5_000, 20_000, 80_000], help="for scale")
    parser.add_argument("--parts", type=int, default=100, help="old shards, for increment")
    parser.add_argument("--part", type=int, default=PART, help="documents of a shard, for increment")
    arguments = parser.parse_args()
    logging.disable(logging.INFO)
    parts: dict[str, Callable[[Path], None]] = {
        "speed": lambda place: speed(place, arguments.input, arguments.documents),
        "backends": lambda place: backends(),
        "curve": lambda place: curve(place, arguments.pairs, Params(backend=arguments.backend)),
        "scale": lambda place: scale(place, arguments.sizes),
        "increment": lambda place: increment(place, arguments.parts, arguments.part),
    }
    for name in arguments.what or parts:
        with tempfile.TemporaryDirectory() as folder:
            parts[name](Path(folder))
        say()


if __name__ == "__main__":
    main()
