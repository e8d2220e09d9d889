"""The perplexity stage: how much each document reads like the reference, and which are dropped for reading unlike it.

Perplexity under a KenLM 5-gram, cut into head, middle and tail by percentile, after CCNet (Wenzek et al. 2020,
arXiv 1911.00359). Scoring and thresholds are apart: scores are kept by shard, so moving a cut point scores nothing.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, JsonValue, model_validator

from tasks.contracts.base import Drop, StageParams, not_identity
from tasks.contracts.document import Document, read_documents, read_rows, write_rows
from tasks.contracts.errors import ParamsError
from tasks.contracts.files import sha256_file, sha256_json, write_json
from tasks.contracts.ledger import LedgerRow, ledger_row
from tasks.contracts.manifest import Counts, Manifest, commit_manifest
from tasks.contracts.workspace import state_folder
from tasks.engine.shards import ShardWork, keep_or_drop, map_shards, work_for
from tasks.perplexity.model import LmplzOptions, given, load, log10_probability
from tasks.perplexity.reference import Fitted, Reference, fit
from tasks.perplexity.text import fold_of, lines_of

logger = logging.getLogger(__name__)

STAGE: Final = "perplexity"
VALUE: Final = "perplexity.value"
PERCENTILE: Final = "perplexity.percentile"

Bucket = Literal["head", "middle", "tail"]

_SCORE_SCHEMA = pa.schema([pa.field("value", pa.float64(), nullable=False)])
_DECISION_SCHEMA = pa.schema(
    [
        pa.field("value", pa.float64(), nullable=False),
        pa.field("percentile", pa.float64(), nullable=False),
        pa.field("rule", pa.string()),
        pa.field("threshold", pa.float64()),
    ]
)


class Params(StageParams):
    """The `perplexity` section of params.yaml."""

    model: str | None = not_identity(None)
    """Path or address of a finished KenLM model (.arpa or binary), known by its content; null trains one."""
    reference: Reference = Reference()
    """What a model is trained on when none is given."""
    order: int = Field(5, ge=2, le=6)
    """Longest n-gram, in words; 5 as in CCNet, 6 is the most that KenLM is built for."""
    prune: tuple[int, ...] = ()
    """Counts up to which n-grams are left out, from order 1 on ([0, 0, 1] leaves out single 3-grams and longer)."""
    discount_fallback: bool = True
    """Use fixed discounts where a small reference does not allow to estimate them."""
    memory: str = not_identity("512M", pattern=r"^[0-9]+(%|[bKMGT])$")
    """Memory that lmplz sorts in."""
    min_reference_words: int = Field(10_000, ge=1)
    """Words that each trained model's text must have at least."""
    head_percentile: float = Field(30, ge=0, le=100)
    """Documents below this percentile of perplexity are the head; 30 as in CCNet."""
    middle_percentile: float = Field(60, ge=0, le=100)
    """Documents from the head to below this percentile are the middle, the others the tail; 60 as in CCNet."""
    keep: tuple[Bucket, ...] = Field(("head", "middle", "tail"), min_length=1)
    """Buckets that stay."""
    max_percentile: float = Field(97, gt=0, le=100)
    """Documents from this percentile on are dropped, whatever is kept of the tail; 100 drops none."""

    @model_validator(mode="after")
    def _in_order(self) -> Params:
        if self.head_percentile > self.middle_percentile:
            raise ValueError("head_percentile must not be above middle_percentile")
        if len(self.prune) > self.order or list(self.prune) != sorted(self.prune) or any(p < 0 for p in self.prune):
            raise ValueError("prune holds at most `order` counts, from 0 up, none below the one before it")
        return self

    def options(self) -> LmplzOptions:
        """Return how lmplz is called."""
        return LmplzOptions(
            order=self.order, prune=self.prune, discount_fallback=self.discount_fallback, memory=self.memory
        )


def run(*, params: Params, inputs: Mapping[str, Path], output: Path) -> Manifest:
    """Score every document, and drop those in buckets that are not kept."""
    (source,) = inputs.values()
    work = work_for(source)
    internal = state_folder() / STAGE
    for name in ("reference", "scores", "decisions"):
        shutil.rmtree(internal / name, ignore_errors=True)
    if params.model is not None:
        fitted = Fitted(reference=Reference(), models=(given(params.model),))
    elif params.reference.is_empty():
        raise ParamsError(
            "nothing says what a good document reads like",
            where="params.yaml, perplexity",
            expected="a model, or a reference with sources, hosts or files",
            found="neither",
            fix="name a model in perplexity.model, or hosts in perplexity.reference.hosts",
        )
    else:
        least = params.min_reference_words
        fitted = fit(params.reference, params.options(), work, internal / "reference", least_words=least)
    models: list[JsonValue] = [model.identity for model in fitted.models]
    scored = map_shards(
        partial(_write_scores, fitted),
        work,
        stage=f"{STAGE}.scores",
        output=internal / "scores",
        params={
            "models": models,
            "sources": list(fitted.reference.sources),
            "hosts": list(fitted.reference.hosts),
        },
        code=["tasks.perplexity.stage", "tasks.perplexity.model", "tasks.perplexity.text"],
        libraries=["kenlm"],
    )
    logger.info("perplexity: %d documents scored, %d shards reused", scored.counts.out, scored.hits)
    result = map_shards(
        _write_part,
        _write_decisions(params, work, internal),
        stage=STAGE,
        output=output,
        params={},
        code=["tasks.perplexity.stage"],
    )
    write_json(output / "model.json", _describe(params, fitted))
    return commit_manifest(
        output,
        stage=STAGE,
        unit="documents",
        params={**params.identity(), "reference": _reference_identity(fitted.reference), "models": models},
        inputs=inputs,
        counts=result.counts,
        known=result.files,
    )


def _write_scores(fitted: Fitted, work: ShardWork, folder: Path) -> Counts:
    """Write the perplexity of one part's documents, a row a document."""
    loaded = [load(model.path, model.identity) for model in fitted.models]

    def rows() -> Iterator[dict[str, float]]:
        for document in read_documents(work.inputs[0]):
            lines = lines_of(document.text)
            judges = loaded
            if len(loaded) > 1 and fitted.reference.holds(document):
                judges = [loaded[1 - fold_of(lines)]]
            judged = [log10_probability(model, lines) for model in judges]
            mean = sum(total for total, _ in judged) / len(judged)
            yield {"value": 10.0 ** (-mean / judged[0][1])}

    count = write_rows(folder / f"{work.name}.parquet", rows(), _SCORE_SCHEMA)
    return Counts(in_=count, out=count)


def _write_decisions(params: Params, work: list[ShardWork], internal: Path) -> list[ShardWork]:
    """Place every document among all by its perplexity, and write what follows from that, a file a part.

    A percentile is the share of documents with a smaller perplexity, so equal ones are treated alike, and neither
    the order of documents nor the shards matter.
    """
    parts = [
        pq.read_table(internal / "scores" / f"{item.name}.parquet")["value"].to_numpy().astype(np.float64)
        for item in work
    ]
    everything = np.sort(np.concatenate([np.zeros(0), *parts]))
    cuts = {bucket: _value_at(everything, percentile) for bucket, percentile in _starts(params).items()}
    paired = []
    for item, values in zip(work, parts, strict=True):
        percentiles = 100.0 * np.searchsorted(everything, values, side="left") / max(len(everything), 1)
        rows = []
        for value, percentile in zip(values.tolist(), percentiles.tolist(), strict=True):
            rule = _rule(params, percentile)
            threshold = None if rule is None else cuts[rule]
            rows.append({"value": value, "percentile": percentile, "rule": rule, "threshold": threshold})
        path = internal / "decisions" / f"{item.name}.parquet"
        write_rows(path, rows, _DECISION_SCHEMA)
        paired.append(
            ShardWork(
                name=item.name,
                inputs=(*item.inputs, path),
                input_hashes=(*item.input_hashes, sha256_file(path)),
            )
        )
    return paired


def _starts(params: Params) -> dict[str, float]:
    """Return the percentile from which each drop reason applies."""
    return {
        "head": 0.0,
        "middle": params.head_percentile,
        "tail": params.middle_percentile,
        "worst": params.max_percentile,
    }


def _rule(params: Params, percentile: float) -> str | None:
    """Return the drop reason: "worst" from max_percentile on, else the bucket where it is not kept."""
    if percentile >= params.max_percentile:
        return "worst"
    bucket: Bucket = (
        "head" if percentile < params.head_percentile else "middle" if percentile < params.middle_percentile else "tail"
    )
    return None if bucket in params.keep else bucket


def _value_at(values: np.ndarray, percentile: float) -> float | None:
    """Return the smallest perplexity whose percentile is at least `percentile`, None where there is none."""
    if not len(values):
        return None
    place = int(np.ceil(percentile / 100.0 * len(values)))
    return float(values[place]) if place < len(values) else None


def _write_part(work: ShardWork, folder: Path) -> Counts:
    """Write one part's kept documents with their scores, and a ledger row for each of the others."""

    def decide(documents: Iterator[Document]) -> Iterator[Document | LedgerRow]:
        for document, row in zip(documents, read_rows(work.inputs[1], _DECISION_SCHEMA), strict=True):
            if row["rule"] is None:
                yield document.with_scores({VALUE: row["value"], PERCENTILE: row["percentile"]})
            else:
                detail = f"percentile {row['percentile']:.2f} of perplexity"
                drop = Drop(rule=row["rule"], score=row["value"], threshold=row["threshold"], detail=detail)
                yield ledger_row(STAGE, document, drop)

    return keep_or_drop(work, folder, decide)


def _reference_identity(reference: Reference) -> dict[str, JsonValue]:
    """Return the reference without paths: the models' hashes already say what was read from files."""
    return reference.model_dump(mode="json", exclude={"files"})


def _describe(params: Params, fitted: Fitted) -> JsonValue:
    """Return what model.json says: which models scored, and what they were trained on."""
    trained = params.model is None
    return {
        "kind": "trained" if trained else "given",
        "order": params.order if trained else None,
        "reference": _reference_identity(fitted.reference) if trained else None,
        "reference_files": len(fitted.reference.files),
        "models": [{"sha256": model.identity, "words": model.words} for model in fitted.models],
        "sha256": sha256_json([model.identity for model in fitted.models]),
    }
