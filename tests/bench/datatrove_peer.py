"""datatrove's local executor, WARC files to deduplicated documents, as its users write it: the peer of bench_pipeline.

`python -m tests.bench.datatrove_peer WARC_FOLDER WORK_FOLDER` with two workers: trafilatura in its default (precision)
mode, the Gopher, C4 and FineWeb filters with their published thresholds, MinHash on word 5-grams.
"""

from __future__ import annotations

import sys
import types
from pathlib import Path

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.extractors import Trafilatura
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from datatrove.pipeline.readers import JsonlReader, WarcReader
from datatrove.pipeline.writers import JsonlWriter

WORKERS = 2


def without_libmagic() -> None:
    """Let the reader work where libmagic is missing: it asks only for records without a MIME type, all HTML here."""
    try:
        import magic  # noqa: F401
    except ImportError:
        stand_in = types.ModuleType("magic")
        stand_in.from_buffer = lambda *_args, **_options: "text/html"  # type: ignore[attr-defined]
        sys.modules["magic"] = stand_in
        WarcReader._requires_dependencies = ["warcio"]


def main(source: Path, work: Path) -> None:
    """Run the five steps one after the other."""
    files = len(list(source.glob("*.warc.gz")))
    config = MinhashConfig(n_grams=5, num_buckets=14, hashes_per_bucket=8)

    def run(name: str, pipeline: list[object], tasks: int) -> None:
        # "fork": the stand-in for libmagic must reach the workers, and starting them costs nothing.
        LocalPipelineExecutor(
            pipeline=pipeline, tasks=tasks, workers=WORKERS, logging_dir=str(work / "logs" / name), start_method="fork"
        ).run()

    folder = {name: str(work / name) for name in ("texts", "signatures", "buckets", "removals", "kept")}
    filters = [GopherRepetitionFilter(), GopherQualityFilter(), C4QualityFilter(), FineWebQualityFilter()]
    run("texts", [WarcReader(str(source)), Trafilatura(timeout=20), *filters, JsonlWriter(folder["texts"])], files)
    run("signatures", [JsonlReader(folder["texts"]), MinhashDedupSignature(folder["signatures"], config)], files)
    run("buckets", [MinhashDedupBuckets(folder["signatures"], folder["buckets"], config=config)], config.num_buckets)
    run("cluster", [MinhashDedupCluster(folder["buckets"], folder["removals"], config=config)], 1)
    kept = [JsonlReader(folder["texts"]), MinhashDedupFilter(folder["removals"]), JsonlWriter(folder["kept"])]
    run("kept", kept, files)


if __name__ == "__main__":
    without_libmagic()
    main(Path(sys.argv[1]), Path(sys.argv[2]))
