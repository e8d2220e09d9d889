"""The dedup stage: of documents that say the same, one stays, and the ledger names it for every one that goes.

Four phases: signatures of each part (spread, cached by part), grouping and verification over the whole corpus
(one process, on hashes only), then each part is written from its own decision file, so that a part whose decisions
did not change is a hit in the shard cache.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from tasks.contracts.base import Drop, StageParams
from tasks.contracts.document import Document, read_rows, write_rows
from tasks.contracts.errors import ParamsError
from tasks.contracts.files import sha256_file
from tasks.contracts.ledger import LedgerRow, ledger_row
from tasks.contracts.manifest import Counts, Manifest, commit_manifest
from tasks.contracts.workspace import state_folder
from tasks.dedup.grouping import RULES, Grouping, group
from tasks.dedup.signatures import Scheme, Signatures, Sketch, write_signatures
from tasks.engine.shards import ShardWork, keep_or_drop, map_shards, work_for

logger = logging.getLogger(__name__)

STAGE: Final = "dedup"
CLUSTER_SIZE: Final = "dedup.cluster_size"

# Probability with which a pair exactly at the threshold becomes a candidate, where bands and rows are not given.
# A pair above it is found more surely still; the false candidates that this costs are removed by verification.
_FOUND_AT_THRESHOLD: Final = 0.95

_DECISION_SCHEMA = pa.schema(
    [
        pa.field("rule", pa.string()),
        pa.field("survivor_id", pa.string()),
        pa.field("similarity", pa.float64()),
        pa.field("cluster_size", pa.int64(), nullable=False),
    ]
)


class Params(StageParams):
    """The `dedup` section of params.yaml."""

    threshold: float = Field(0.8, gt=0, le=1)
    """Jaccard similarity of the shingle sets from which two documents are near duplicates, 0 to 1."""
    shingle_words: int = Field(5, ge=1, le=50)
    """Words in a shingle; 5 as in FineWeb (Penedo et al. 2024). Texts with fewer words are compared exactly only."""
    num_perm: int = Field(128, ge=8, le=4096)
    """MinHash permutations; the signature's length where bands and rows are not given."""
    bands: int | None = Field(None, ge=1, le=4096)
    """LSH bands; null chooses bands and rows from threshold and num_perm."""
    rows: int | None = Field(None, ge=1, le=4096)
    """Rows of a band; given together with bands, bands x rows at most num_perm."""
    max_shingles: int = Field(20_000, ge=100)
    """Shingles kept of one text (8 bytes each). A longer text is compared by a sample spread over all of it."""
    seed: int = Field(1, ge=0, lt=2**32)
    """Seed of the MinHash permutations."""
    hash_scheme: Scheme = "affine32"
    """datasketch's permutation scheme; "legacy" is what it did before 2.0."""

    @model_validator(mode="after")
    def _bands_fit(self) -> Params:
        if (self.bands is None) != (self.rows is None):
            raise ValueError("bands and rows are given together, or both left out")
        if self.bands is not None and self.rows is not None and self.bands * self.rows > self.num_perm:
            raise ValueError(f"bands x rows is {self.bands * self.rows}, more than num_perm, {self.num_perm}")
        return self

    def sketch(self) -> Sketch:
        """Return how texts are sketched under these settings."""
        if self.bands is not None and self.rows is not None:
            bands, rows = self.bands, self.rows
        else:
            bands, rows = choose_bands(self.threshold, self.num_perm)
        return Sketch(
            shingle_words=self.shingle_words,
            max_shingles=self.max_shingles,
            bands=bands,
            rows=rows,
            seed=self.seed,
            scheme=self.hash_scheme,
        )


def choose_bands(threshold: float, num_perm: int) -> tuple[int, int]:
    """Return (bands, rows): the most selective bands that still find 95 % of the pairs at the threshold.

    A pair of similarity s shares a band with probability 1 - (1 - s^rows)^bands (Leskovec, Rajaraman and Ullman,
    Mining of Massive Datasets, section 3.4.2).

    >>> choose_bands(0.8, 128)
    (18, 7)
    """
    for rows in range(num_perm, 0, -1):
        bands = num_perm // rows
        if 1 - (1 - threshold**rows) ** bands >= _FOUND_AT_THRESHOLD:
            return bands, rows
    raise ParamsError(
        "too few permutations to find near duplicates at this threshold",
        where="params.yaml, dedup.num_perm",
        expected="a larger num_perm, or a higher threshold",
        found=f"num_perm = {num_perm}, threshold = {threshold}",
    )


def run(*, params: Params, inputs: Mapping[str, Path], output: Path) -> Manifest:
    """Keep one document of each set of duplicates; the others become ledger rows that name it."""
    (source,) = inputs.values()
    work = work_for(source)
    sketch = params.sketch()
    internal = state_folder() / STAGE
    shutil.rmtree(internal, ignore_errors=True)
    signed = map_shards(
        partial(write_signatures, sketch),
        work,
        stage=f"{STAGE}.signatures",
        output=internal / "signatures",
        params={name: getattr(sketch, name) for name in sketch.__dataclass_fields__},
        code=["tasks.dedup.signatures", "tasks.dedup.shingles"],
        libraries=["datasketch", "numpy", "xxhash"],
    )
    logger.info("dedup: grouping %d documents in %d bands of %d rows", signed.counts.out, sketch.bands, sketch.rows)
    signatures = Signatures(internal / "signatures", [item.name for item in work])
    grouping = group(signatures, bands=sketch.bands, threshold=params.threshold)
    logger.info("dedup: %d pairs verified", grouping.verified)
    decisions = _write_decisions(signatures, grouping, work, internal / "decisions")
    result = map_shards(
        partial(_write_part, params.threshold),
        decisions,
        stage=STAGE,
        output=output,
        params={"threshold": params.threshold},
        code=["tasks.dedup.stage"],
    )
    return commit_manifest(
        output,
        stage=STAGE,
        unit="documents",
        params=params.identity(),
        inputs=inputs,
        counts=result.counts,
        known=result.files,
    )


def _write_decisions(
    signatures: Signatures, grouping: Grouping, work: list[ShardWork], folder: Path
) -> list[ShardWork]:
    """Write one decision file a part, a row a document in the part's own order, and pair it with the part."""
    sizes = grouping.cluster_sizes()
    order = np.lexsort((signatures.row, signatures.part))
    bounds = np.searchsorted(signatures.part[order], np.arange(len(work) + 1))
    paired = []
    for index, item in enumerate(work):

        def rows(documents: np.ndarray = order[bounds[index] : bounds[index + 1]]) -> Iterator[dict[str, object]]:
            for document in documents:
                rule = int(grouping.rule[document])
                dropped = rule >= 0
                yield {
                    "rule": RULES[rule] if dropped else None,
                    "survivor_id": signatures.doc_id(grouping.survivor[document]) if dropped else None,
                    "similarity": float(grouping.similarity[document]) if dropped else None,
                    "cluster_size": int(sizes[document]),
                }

        path = folder / f"{item.name}.parquet"
        write_rows(path, rows(), _DECISION_SCHEMA)
        paired.append(
            ShardWork(
                name=item.name,
                inputs=(*item.inputs, path),
                input_hashes=(*item.input_hashes, sha256_file(path)),
            )
        )
    return paired


def _write_part(threshold: float, work: ShardWork, folder: Path) -> Counts:
    """Write one part's survivors, and a ledger row for each document that another stands for."""

    def decide(documents: Iterator[Document]) -> Iterator[Document | LedgerRow]:
        for document, row in zip(documents, read_rows(work.inputs[1], _DECISION_SCHEMA), strict=True):
            if row["rule"] is not None:
                near = row["rule"] == "near_duplicate"
                drop = Drop(
                    rule=row["rule"],
                    score=row["similarity"],
                    threshold=threshold if near else None,
                    survivor_id=row["survivor_id"],
                )
                yield ledger_row(STAGE, document, drop)
            elif row["cluster_size"] > 1:
                yield document.with_scores({CLUSTER_SIZE: float(row["cluster_size"])})
            else:
                yield document

    return keep_or_drop(work, folder, decide)
