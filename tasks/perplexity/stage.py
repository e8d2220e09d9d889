"""The perplexity stage: how much each document reads like the reference, and which are dropped for reading unlike it.

Perplexity under a KenLM 5-gram of the document's language, cut into head, middle and tail by percentile within that
language, after CCNet (Wenzek et al. 2020, arXiv 1911.00359). Scoring and thresholds are apart: scores are kept by
shard, so moving a cut point scores nothing.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Final, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field, JsonValue, field_validator, model_validator

from tasks.contracts.base import Drop, StageParams, not_identity
from tasks.contracts.document import Document, read_documents, read_rows, write_rows
from tasks.contracts.durable_files import sha256_json, write_json
from tasks.contracts.errors import HeadwaterError, ParamsError, raised
from tasks.contracts.files import MODELS_NAME
from tasks.contracts.languages import checked
from tasks.contracts.ledger import LedgerRow, ledger_row
from tasks.contracts.manifest import Counts, Manifest
from tasks.engine.shards import MapResult, ShardWork, keep_or_drop
from tasks.engine.stage import Stage
from tasks.perplexity.kenlm_model import LmplzOptions, find_tool, given, load, log10_probability
from tasks.perplexity.model_text import fold_of, lines_of
from tasks.perplexity.reference import ANY, WHOLE_CORPUS, Fitted, Fitting, Reference, Scorer, by_code, fit, language_of
from tasks.perplexity.word_pieces import cut

logger = logging.getLogger(__name__)

STAGE: Final = "perplexity"
DOES = "drops what reads least like the reference"
LIBRARIES: Final = ("kenlm", "tokenizers")
VALUE: Final = "perplexity.value"
PERCENTILE: Final = "perplexity.percentile"

NO_MODEL: Final = "no_model"

Bucket = Literal["head", "middle", "tail"]

_SCORE_SCHEMA = pa.schema([pa.field("model", pa.string()), pa.field("value", pa.float64())])
_DECISION_SCHEMA = pa.schema(
    [
        pa.field("value", pa.float64()),
        pa.field("percentile", pa.float64()),
        pa.field("rule", pa.string()),
        pa.field("threshold", pa.float64()),
    ]
)


class Params(StageParams):
    """The `perplexity` section of params.yaml."""

    model: str | dict[str, str] | None = not_identity(None)
    """Path or address of a finished KenLM model (.arpa or binary), known by its content; null trains one.

    One for every language, or by language ({en: en.bin}), besides those that are trained on the reference.
    """
    reference: Reference = Reference()
    """What models are trained on where none is given."""
    by_language: bool = True
    """Train and score each language by itself; false trains one model for all of the reference."""
    without_model: str = "keep"
    """A document whose language has no model: keep it unscored, drop it, or score it by the language named here."""
    units: Literal["words", "pieces"] = "pieces"
    """What trained models count: words and punctuation, or pieces of words that are learnt from the reference.

    A given model counts words.
    """
    pieces: int = Field(8_000, ge=300, le=1 << 20)
    """How many different pieces are learnt, for each language; more want a larger reference."""
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

    _languages = field_validator("model", mode="before")(by_code)

    @field_validator("without_model")
    @classmethod
    def _keep_drop_or_code(cls, value: str) -> str:
        return value if value in ("keep", "drop") else checked(value)

    @model_validator(mode="after")
    def _in_order(self) -> Params:
        if self.head_percentile > self.middle_percentile:
            raise ValueError("head_percentile must not be above middle_percentile")
        if len(self.prune) > self.order or list(self.prune) != sorted(self.prune) or any(p < 0 for p in self.prune):
            raise ValueError("prune holds at most `order` counts, from 0 up, none below the one before it")
        return self

    def in_manifest(self) -> dict[str, JsonValue]:
        """Return the settings but for the reference: what was taken for one stands there, with the models' hashes."""
        return {name: value for name, value in self.identity().items() if name != "reference"}

    @classmethod
    def derived(cls) -> tuple[str, ...]:
        """Return "models": their hashes."""
        return ("models",)

    def named_files(self) -> tuple[str, ...]:
        """Return the models and reference files of this machine; what stands behind an address is not known."""
        models = [self.model] if isinstance(self.model, str) else list((self.model or {}).values())
        texts = [name for names in self.reference.files_of().values() for name in names]
        return tuple(name for name in [*models, *texts] if "://" not in name)

    def faults(self) -> Iterator[HeadwaterError]:
        """Yield missing files, and what training a model lacks where one has to be trained."""
        yield from super().faults()
        yield from raised(lambda: find_tool("lmplz") if self.to_train_on() else None)

    def to_train_on(self) -> Reference | None:
        """Return what models are trained on, None where finished ones are given for all documents.

        Raises:
            ParamsError: nothing says what a good document reads like.
        """
        if isinstance(self.model, str) or (self.model and self.reference == Reference()):
            return None
        if not self.reference.is_empty():
            return self.reference
        if self.reference.otherwise == "corpus":
            return WHOLE_CORPUS
        raise ParamsError(
            "nothing says what a good document reads like",
            where="params.yaml, perplexity",
            expected="a model, or a reference with sources, hosts or files",
            found="neither",
            fix="name a model in perplexity.model, or hosts in perplexity.reference.hosts",
        )

    def options(self) -> LmplzOptions:
        """Return how lmplz is called."""
        return LmplzOptions(
            order=self.order, prune=self.prune, discount_fallback=self.discount_fallback, memory=self.memory
        )


def run(*, params: Params, inputs: Mapping[str, Path], output: Path) -> Manifest:
    """Score every document, and drop those in buckets that are not kept."""
    stage = Stage(name=STAGE, unit="documents", params=params, inputs=inputs, output=output, libraries=LIBRARIES)
    work = stage.work()
    with stage.scratch() as scratch:
        fitted = _fitted(stage, params, work, scratch / "reference")
        models: dict[str, JsonValue] = {language: scorer.identity() for language, scorer in fitted.scorers.items()}
        scored = stage.map(
            partial(_write_scores, fitted, params.by_language, params.without_model),
            work,
            step="scores",
            params={
                "models": models,
                "sources": list(fitted.reference.sources),
                "hosts": list(fitted.reference.hosts),
                "by_language": params.by_language,
                "without_model": params.without_model,
            },
        )
        logger.info("perplexity: %d documents scored, %d shards reused", scored.counts.out, scored.hits)
        decided = _write_decisions(params, work, scored, scratch / "decisions")
        result = stage.map(_write_part, decided, params={}, code=["tasks.perplexity.stage"])
    write_json(output / MODELS_NAME, _describe(params, fitted))
    return stage.commit(
        result, {**params.identity(), "reference": _reference_identity(fitted.reference), "models": models}
    )


def _fitted(stage: Stage, params: Params, work: list[ShardWork], folder: Path) -> Fitted:
    """Return a scorer for each language: given models, and those trained on the reference."""
    named = {ANY: params.model} if isinstance(params.model, str) else params.model or {}
    scorers = {language: Scorer(models=(given(name),)) for language, name in sorted(named.items())}
    reference = params.to_train_on()
    if reference is None:
        return Fitted(reference=Reference(), scorers=scorers)
    how = Fitting(
        options=params.options(),
        least_words=params.min_reference_words,
        by_language=params.by_language,
        pieces=params.pieces if params.units == "pieces" else None,
    )
    trained = fit(stage, reference, how, work, folder)
    return Fitted(reference=trained.reference, scorers={**trained.scorers, **scorers})


def _write_scores(fitted: Fitted, by_language: bool, without_model: str, work: ShardWork, folder: Path) -> Counts:
    """Write the perplexity of one part's documents and whose model it is, a row a document."""
    scorers = fitted.scorers

    def rows() -> Iterator[dict[str, object]]:
        for document in read_documents(work.inputs[0]):
            wanted = (language_of(document, by_language), ANY, without_model)
            language = next((name for name in wanted if name in scorers), None)
            value = None if language is None else _perplexity(document, scorers[language], fitted.reference)
            yield {"model": language, "value": value}

    count = write_rows(folder / f"{work.name}.parquet", rows(), _SCORE_SCHEMA)
    return Counts(in_=count, out=count)


def _perplexity(document: Document, scorer: Scorer, reference: Reference) -> float:
    lines = lines_of(document.text)
    units = list(cut(lines, scorer.pieces))
    models = scorer.models
    if len(models) > 1 and reference.holds(document):
        models = (models[1 - fold_of(lines)],)
    judged = [log10_probability(load(model.path, model.identity), units) for model in models]
    mean = sum(total for total, _ in judged) / len(judged)
    return float(10.0 ** (-mean / judged[0][1]))


def _write_decisions(params: Params, work: list[ShardWork], scored: MapResult, folder: Path) -> list[ShardWork]:
    """Place every document among those of its model by its perplexity, and write what follows, a file a part.

    A percentile is the share of documents with a smaller perplexity, so equal ones are treated alike, and neither
    the order of documents nor the shards matter.
    """
    parts = [list(read_rows(scored.table(item), _SCORE_SCHEMA)) for item in work]
    by_model: dict[str, list[float]] = {}
    for row in (row for part in parts for row in part if row["model"] is not None):
        own = by_model.setdefault(row["model"], [])
        own += [] if math.isnan(row["value"]) else [row["value"]]
    everything = {model: np.sort(np.array(values, np.float64)) for model, values in by_model.items()}
    cuts = {
        model: {bucket: _value_at(values, percentile) for bucket, percentile in _starts(params).items()}
        for model, values in everything.items()
    }
    paired = []
    for item, part in zip(work, parts, strict=True):
        rows = []
        for row in part:
            model, value = row["model"], row["value"]
            percentile = rule = threshold = None
            if model is not None and math.isnan(value):  # it has no place, and reaches no threshold
                rule = "worst"
            elif model is not None:
                among = everything[model]
                percentile = 100.0 * float(np.searchsorted(among, value, side="left")) / len(among)
                rule = _rule(params, percentile)
                threshold = None if rule is None else cuts[model][rule]
            elif params.without_model != "keep":
                rule = NO_MODEL
            rows.append({"value": value, "percentile": percentile, "rule": rule, "threshold": threshold})
        path = folder / f"{item.name}.parquet"
        write_rows(path, rows, _DECISION_SCHEMA)
        paired.append(item.plus(path))
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


def _value_at(values: NDArray[np.float64], percentile: float) -> float | None:
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
                known = row["value"] is not None
                yield document.with_scores({VALUE: row["value"], PERCENTILE: row["percentile"]}) if known else document
            else:
                detail = f"language {document.language or 'unknown'} has no model"
                if row["percentile"] is not None:
                    detail = f"percentile {row['percentile']:.2f} of perplexity"
                elif row["value"] is not None:
                    detail = "its perplexity is no number"
                drop = Drop(rule=row["rule"], score=row["value"], threshold=row["threshold"], detail=detail)
                yield ledger_row(STAGE, document, drop)

    return keep_or_drop(work, folder, decide)


def _reference_identity(reference: Reference) -> dict[str, JsonValue]:
    """Return the reference without paths: the models' hashes already say what was read from files."""
    return reference.model_dump(mode="json", exclude={"files"})


def _describe(params: Params, fitted: Fitted) -> JsonValue:
    """Return what model.json says: which models scored, and what they were trained on."""
    trained = bool(fitted.reference != Reference())
    identities: dict[str, JsonValue] = {language: scorer.identity() for language, scorer in fitted.scorers.items()}
    return {
        "kind": "trained" if trained else "given",
        "order": params.order if trained else None,
        "units": params.units,
        "reference": _reference_identity(fitted.reference) if trained else None,
        "reference_files": sum(map(len, fitted.reference.files_of().values())),
        "languages": {
            language: [{"sha256": model.identity, "words": model.words} for model in scorer.models]
            for language, scorer in fitted.scorers.items()
        },
        "sha256": sha256_json(identities),
    }
