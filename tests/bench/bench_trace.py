"""Trace: how long the index of a large ledger takes, how large it is, and how long each kind of query takes.

    python -m tests.bench.bench_trace --rows 10000000

Makes a workspace in a temporary folder: ledgers of crawl, extract, filter and dedup with ROWS rows in all, a tenth as
many kept documents in extract and mix (their texts a few words: the index does not read texts), the token shards'
index of those, and an order of training over them. The index is made by a process of its own, whose time and memory
are the figures; each query opens the index anew, as a command does. "command" is the whole of `headwater trace`, the
start of Python included. No figure is asserted.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.contracts.document import DOCUMENT_SCHEMA, ROWS_PER_GROUP, make_doc_id
from tasks.contracts.durable_files import write_json
from tasks.contracts.ledger import LEDGER_SCHEMA
from tasks.contracts.manifest import Counts, manifest_hash
from tasks.contracts.tokens import INDEX_SCHEMA, TokenShard
from tests.planted import plant_manifest
from training.train.order import Order
from training.train.packing import read_packing

SHARES = {"crawl": 0.1, "extract": 0.1, "filter": 0.5, "dedup": 0.3}
HOSTS = 20_000
PER_FILE = 100_000
SEQ_LEN = 2048
BUILD = """
import json, resource, sys, time
from pathlib import Path
from flows.history.trace_index import open_index
from flows.proof.trace import Tracer
wall, cpu = time.monotonic(), time.process_time()
index = open_index(Path("data"))
names = time.monotonic() - wall
training = Tracer(index, Path("data")).training
training.seen("part-00000.bin", 0, 1)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"names": names, "wall": time.monotonic() - wall, "cpu": time.process_time() - cpu, "peak": peak}))
"""


def url_of(number: int) -> str:
    """Return the URL of a page; a few hosts have many pages, most have few."""
    host = (number * 2654435761 % HOSTS) ** 2 // HOSTS
    return f"https://site-{host}.example.org/archive/{number % 97}/page-{number}.html"


def record_of(number: int) -> str:
    """Return the record id of a page."""
    return f"<urn:uuid:{number * 0x9E3779B97F4A7C15F39CC0605CEDC835 % (1 << 128):032x}>"


def ids(numbers: range) -> list[str]:
    """Return the doc_ids of pages."""
    return [make_doc_id("sample", record_of(number)) for number in numbers]


def ledger(stage: str, numbers: range, documents: int) -> pa.Table:
    """Return the rows of pages that a stage dropped; dedup's name a kept document each."""
    size = len(numbers)
    known = stage != "crawl"
    rules = {"crawl": ("robots", "http_404", "timeout"), "extract": ("opt_out", "empty", "http_status")}
    named = rules.get(stage, ("length.min_words", "gopher_quality.below_alpha_threshold", "near_duplicate"))
    survivors = [make_doc_id("sample", record_of(n % documents)) if stage == "dedup" else None for n in numbers]
    columns = {
        "doc_id": ids(numbers) if known else [None] * size,
        "url": [url_of(number) for number in numbers],
        "record_id": [record_of(number) for number in numbers] if known else [None] * size,
        "stage": [stage] * size,
        "action": ["drop"] * size,
        "rule": [named[number % 3] for number in numbers],
        "score": np.linspace(0, 1, size),
        "threshold": np.full(size, 0.8),
        "survivor_id": survivors,
        "detail": [f"because of what was found on page {number}" for number in numbers],
    }
    return pa.table({field.name: pa.array(columns[field.name], field.type) for field in LEDGER_SCHEMA},
                    schema=LEDGER_SCHEMA)  # fmt: skip


def kept(numbers: range) -> pa.Table:
    """Return the rows of documents."""
    size = len(numbers)
    urls = [url_of(number) for number in numbers]
    columns: dict[str, Any] = {
        "doc_id": ids(numbers),
        "url": urls,
        "host": [url.split("/")[2] for url in urls],
        "record_id": [record_of(number) for number in numbers],
        "source": ["sample"] * size,
        "text": ["a few words"] * size,
        "language": [("en", "de", "fr")[number % 3] for number in numbers],
        "license": [None] * size,
        "payload_digest": [f"sha1:{number:032X}" for number in numbers],
        "opt_out": [[]] * size,
        "scores": [[("mix.epochs", 1.0)]] * size,
    }
    arrays = {f.name: pa.array(columns.get(f.name, [None] * size), f.type) for f in DOCUMENT_SCHEMA}
    return pa.table(arrays, schema=DOCUMENT_SCHEMA)


def chunks(numbers: range) -> Iterator[range]:
    """Cut numbers into the rows of files."""
    for start in range(0, len(numbers), PER_FILE):
        yield numbers[start : start + PER_FILE]


def write(path: Path, table: pa.Table) -> None:
    """Write one file with row groups as the stages write them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=ROWS_PER_GROUP, compression="zstd")


def make_workspace(data: Path, rows: int) -> None:
    """Write the stages' folders."""
    documents = max(1, rows // 10)
    start = documents
    before: dict[str, Path] = {}
    for stage in ("crawl", "extract", "filter", "dedup", "mix"):
        folder = data / stage
        size = int(rows * SHARES.get(stage, 0))
        for number, some in enumerate(chunks(range(start, start + size))):
            write(folder / "dropped" / f"part-{number:05}.parquet", ledger(stage, some, documents))
        start += size
        if stage in ("extract", "mix"):
            for number, some in enumerate(chunks(range(documents))):
                write(folder / f"part-{number:05}.parquet", kept(some))
        counts = Counts(in_=size + documents, out=documents, dropped={"all": size} if size else {})
        params: dict[str, Any] = {"source": "sample"} if stage == "crawl" else {}
        plant_manifest(folder, stage=stage, unit="documents", params=params, inputs=before, counts=counts)
        before = {stage: folder}
    make_training(data, documents)


def make_training(data: Path, documents: int) -> None:
    """Write the token shards' index (the shards themselves are holes) and an order of training over them."""
    folder, shards = data / "tokenize", []
    generator = np.random.default_rng(1)
    for number, some in enumerate(chunks(range(documents))):
        lengths = np.minimum(generator.lognormal(6.5, 1, len(some)).astype(np.int64) + 1, 100_000)
        ends = np.cumsum(lengths)
        columns = [pa.array(ids(some)), pa.array([url_of(n) for n in some]), pa.array(np.ones(len(some), np.int32)),
                   pa.array(ends - lengths), pa.array(lengths), pa.array(lengths * 4)]  # fmt: skip
        write(folder / f"part-{number:05}.parquet", pa.Table.from_arrays(columns, schema=INDEX_SCHEMA))
        shards.append(TokenShard(name=f"part-{number:05}.bin", tokens=int(ends[-1])))
    counts = Counts(in_=documents, out=documents)
    plant_manifest(folder, stage="tokenize", unit="documents", params={}, inputs={"mix": data / "mix"}, counts=counts)
    started = time.process_time()
    sequences = read_packing(folder, shards, SEQ_LEN).sequences
    print(f"packing alone: {time.process_time() - started:.1f} CPU s for {sequences:,} sequences")
    order = Order(seed=1, dtype="uint16", shards=tuple(shards), tokenize_manifest=manifest_hash(folder),
                  seq_len=SEQ_LEN, sequences=sequences, epochs=2, steps=2 * sequences // 64, batch_size=64,
                  micro_batch=8, gradient_accumulation=1, ranks=8)  # fmt: skip
    write_json(data / "train" / "order.json", order.model_dump(mode="json"))
    write_json(data / "train" / "metrics.json", {"weights_sha256": "0" * 64})
    plant_manifest(
        data / "train",
        stage="train",
        unit="tokens",
        params={},
        inputs={"tokenize": folder},
        counts=Counts(in_=0, out=0),
    )


def questions(rows: int) -> dict[str, Callable[[random.Random], str]]:
    """Return a name to ask for by kind of query."""
    documents = max(1, rows // 10)
    dedup = documents + int(rows * (SHARES["crawl"] + SHARES["extract"] + SHARES["filter"]))
    filtered = documents + int(rows * (SHARES["crawl"] + SHARES["extract"]))
    return {
        "URL, kept": lambda r: url_of(r.randrange(documents)),
        "URL, never fetched": lambda r: url_of(r.randrange(documents, documents + int(rows * SHARES["crawl"]))),
        "URL, dropped": lambda r: url_of(r.randrange(filtered, dedup)),
        "URL, duplicate": lambda r: url_of(r.randrange(dedup, documents + rows)),
        "doc_id": lambda r: make_doc_id("sample", record_of(r.randrange(documents))),
        "record id": lambda r: record_of(r.randrange(filtered, dedup)),
        "payload digest": lambda r: f"sha1:{r.randrange(documents):032X}",
        "host": lambda r: url_of(r.randrange(documents)).split("/")[2],
        "largest host": lambda _: "site-0.example.org",
        "never seen": lambda r: f"https://nowhere.example.org/{r.random()}",
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--queries", type=int, default=50)
    parser.add_argument("--commands", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="Where to work; a temporary folder when left out.")
    asked = parser.parse_args()
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="bench-trace-"))
    try:
        run(folder, asked.rows, asked.queries, asked.commands)
    finally:
        if asked.folder is None:
            shutil.rmtree(folder, ignore_errors=True)


def run(folder: Path, rows: int, queries: int, commands: int) -> None:
    """Make the workspace where it is missing, index it, and ask."""
    data, root = folder / "data", Path(__file__).resolve().parents[2]
    if not data.exists():
        make_workspace(data, rows)
    size = sum(path.stat().st_size for path in data.rglob("*.parquet"))
    print(f"{rows:,} ledger rows, {rows // 10:,} documents: {size / 1e6:,.0f} MB of Parquet")
    environment = os.environ | {"PYTHONPATH": str(root), "HEADWATER_STATE": str(folder / ".headwater")}
    shutil.rmtree(folder / ".headwater", ignore_errors=True)
    built = subprocess.run(
        [sys.executable, "-c", BUILD], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    cost = json.loads(built.stdout)
    index = sum(path.stat().st_size for path in (folder / ".headwater").rglob("*") if path.is_file())
    print(
        f"index: {cost['wall']:.1f} s ({cost['names']:.1f} s without the steps), {cost['cpu']:.1f} CPU s, "
        f"{index / 1e6:,.0f} MB, peak memory {cost['peak'] / 2**20:,.0f} MiB\n"
    )
    os.environ["HEADWATER_STATE"] = environment["HEADWATER_STATE"]
    from flows.history.trace_index import open_index
    from flows.proof.trace import HostTrace, Tracer

    print(f"{'query':<20}{'p50 ms':>9}{'max ms':>9}{'command s':>11}")
    for kind, ask in questions(rows).items():
        chance, taken, whole = random.Random(kind), [], []
        for _ in range(queries):
            query, started = ask(chance), time.perf_counter()
            found = Tracer(open_index(data), data).trace(query)
            taken.append(time.perf_counter() - started)
            assert isinstance(found, HostTrace) or bool(found.matched) == (kind != "never seen"), query
        for _ in range(commands):
            command, started = (
                [sys.executable, "-m", "flows.cli.main", "trace", ask(chance), "--json"],
                time.perf_counter(),
            )
            subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, check=False)
            whole.append(time.perf_counter() - started)
        shown = f"{max(whole):>11.2f}" if whole else ""
        print(f"{kind:<20}{statistics.median(taken) * 1e3:>9.1f}{max(taken) * 1e3:>9.1f}{shown}")
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"\npeak memory of the process that asked all of them: {peak / 2**20:,.0f} MiB")


if __name__ == "__main__":
    main()
