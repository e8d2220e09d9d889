"""holdout: keep a deterministic part of the corpus out of training, and make the evaluation tasks from it.

A document is held out when a seeded hash of its normalised text falls below a cut. So the split follows content:
the same text is on the same side however often it is crawled, and equal texts are never on both sides. It comes
after dedup, whose survivors stand for their clusters.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path

import pyarrow as pa
from pydantic import Field, model_validator

from tasks.contracts.base import Drop, StageParams
from tasks.contracts.document import Document, read_documents, read_rows, write_documents, write_rows
from tasks.contracts.draws import DRAW_RANGE, draw
from tasks.contracts.errors import CorpusTooSmallError
from tasks.contracts.files import HELD_OUT_FOLDER, TASKS_FOLDER
from tasks.contracts.ledger import LedgerRow, ledger_row
from tasks.contracts.manifest import Counts, Manifest
from tasks.contracts.normal_form import normal_form
from tasks.engine.shards import ShardWork, keep_or_drop
from tasks.engine.stage import Stage
from tasks.holdout.evaluation_items import (
    ContinuationItem,
    ContinuationSettings,
    TextItem,
    continuation_items,
    text_items,
)
from tasks.holdout.lm_eval_files import BITS_PER_BYTE, CONTINUATION, write_task

logger = logging.getLogger(__name__)

STAGE = "holdout"
DOES = "keeps documents apart to measure the model on"
RULE = "held_out"
RANK_SCHEMA = pa.schema([pa.field("rank", pa.uint64(), nullable=False)])


class Params(StageParams):
    """The `holdout` section of params.yaml."""

    fraction: float = Field(0.08, gt=0, lt=1)
    """Share of the documents that is held out of training."""
    min_documents: int = Field(40, ge=4)
    """Fewer held-out documents than this are an error: too little to measure a model on."""
    max_documents: int = Field(2000, ge=4)
    """No more held-out documents than this, however large the corpus."""
    seed: int = 0
    """Seed of the split and of the evaluation items."""
    text_items: int = Field(80, ge=1)
    """Most items of the bits-per-byte task, one a document."""
    text_characters: int = Field(2000, ge=100)
    """Most characters of a bits-per-byte item; a longer document is cut there."""
    continuation_items: int = Field(400, ge=1)
    """Most items of the continuation task."""
    items_per_document: int = Field(5, ge=1)
    """Most continuation items from one document."""
    context_words: int = Field(64, ge=8)
    """Words of context before a continuation (characters, in scripts without spaces)."""
    min_context_words: int = Field(24, ge=1)
    """Fewest words of context; a shorter document gives no continuation item."""
    continuation_words: int = Field(12, ge=2)
    """Words of a continuation."""
    choices: int = Field(4, ge=2)
    """Continuations to choose from: the true one and those of other documents."""
    min_items: int = Field(30, ge=1)
    """Fewer items than this in the continuation task are an error: its accuracy would say nothing."""

    @model_validator(mode="after")
    def _possible(self) -> Params:
        if self.min_documents > self.max_documents:
            raise ValueError(f"min_documents ({self.min_documents}) is above max_documents ({self.max_documents})")
        if self.min_context_words > self.context_words:
            raise ValueError(
                f"min_context_words ({self.min_context_words}) is above context_words ({self.context_words})"
            )
        return self


def run(*, params: Params, inputs: Mapping[str, Path], output: Path) -> Manifest:
    """Split the documents of `inputs["perplexity"]`, and write the evaluation tasks of the held-out part.

    Raises:
        CorpusTooSmallError: too few documents are held out, or too few items can be made from them.
    """
    stage = Stage(name=STAGE, unit="documents", params=params, inputs=inputs, output=output)
    work = stage.work()
    last = _last_rank(stage, params, work)
    split = stage.map(
        partial(_split_shard, last=last, fraction=params.fraction, seed=params.seed),
        work,
        params={"fraction": params.fraction, "seed": params.seed, "last": last},
    )
    held = [d for item in work for d in read_documents(output / HELD_OUT_FOLDER / f"{item.name}.parquet")]
    texts, questions = write_tasks(held, params, output / TASKS_FOLDER)
    logger.info("holdout: %d documents, %d texts, %d continuations", len(held), texts, questions)
    return stage.commit(split)


def rank(text: str, seed: int) -> int:
    """Return a 64-bit hash of a text's content: equal whatever its case, Unicode form or white space."""
    return draw(normal_form(text), seed=seed, purpose="holdout")


def held_out(documents: Iterable[Document], params: Params) -> list[Document]:
    """Return those of some documents that are held out, as the stage would choose them of these alone."""
    ranked = sorted((rank(document.text, params.seed), document.doc_id, document) for document in documents)
    below = [one for one in ranked if one[0] <= _bound(params.fraction)]
    if not below:
        return []
    last = below[: params.max_documents][-1][0]
    return [document for number, _, document in below if number <= last]


def _bound(fraction: float) -> int:
    return int(fraction * DRAW_RANGE) - 1


def _last_rank(stage: Stage, params: Params, work: list[ShardWork]) -> int:
    """Return the highest rank that is held out: that of the fraction, or less where max_documents says so."""
    bound = _bound(params.fraction)
    ranked = stage.map(
        partial(_rank_shard, bound=bound, seed=params.seed),
        work,
        step="ranks",
        params={"bound": bound, "seed": params.seed},
    )
    below = sorted(row["rank"] for item in work for row in read_rows(ranked.table(item), RANK_SCHEMA))
    if len(below) < params.min_documents:
        total = ranked.counts.in_
        enough = total >= 2 * params.min_documents
        raise CorpusTooSmallError(
            "too few documents are held out to measure a model on",
            where="params.yaml, holdout",
            expected=f"at least {params.min_documents} held-out documents (holdout.min_documents)",
            found=f"{len(below)} of {total} documents at holdout.fraction = {params.fraction}",
            fix=f"set holdout.fraction to about {min(0.5, 1.3 * params.min_documents / total):.2f}"
            if enough
            else "lower holdout.min_documents and raise holdout.fraction, as `headwater params apply small` does for "
            "some dozens of pages; or crawl more pages, or loosen the filters (data/*/dropped says what they removed)",
        )
    highest: int = below[: params.max_documents][-1]
    return highest


def _rank_shard(work: ShardWork, folder: Path, *, bound: int, seed: int) -> Counts:
    ranks = [rank(document.text, seed) for document in read_documents(work.inputs[0])]
    write_rows(folder / f"{work.name}.parquet", ({"rank": r} for r in ranks if r <= bound), RANK_SCHEMA)
    return Counts(in_=len(ranks), out=len(ranks))


def _split_shard(work: ShardWork, folder: Path, *, last: int, fraction: float, seed: int) -> Counts:
    held: list[Document] = []

    def decide(documents: Iterable[Document]) -> Iterator[Document | LedgerRow]:
        for document in documents:
            document_rank = rank(document.text, seed)
            if document_rank > last:
                yield document
                continue
            held.append(document)
            reason = Drop(rule=RULE, score=document_rank / DRAW_RANGE, threshold=fraction)
            yield ledger_row(STAGE, document, reason)

    counts = keep_or_drop(work, folder, decide)
    write_documents(folder / HELD_OUT_FOLDER / f"{work.name}.parquet", held)
    return counts


def write_tasks(held: list[Document], params: Params, folder: Path) -> tuple[int, int]:
    """Make the evaluation tasks from the held-out documents; return how many texts and how many questions they are.

    Raises:
        CorpusTooSmallError: too few items can be made from them.
    """
    texts, questions = make_tasks(held, params)
    if len(questions) < params.min_items or not texts:
        raise CorpusTooSmallError(
            "too few evaluation items can be made from the held-out documents",
            where="params.yaml, holdout",
            expected=f"at least {params.min_items} continuation items (holdout.min_items)",
            found=f"{len(questions)} continuation items and {len(texts)} texts from {len(held)} held-out documents",
            fix="raise holdout.fraction or holdout.items_per_document, or lower holdout.min_context_words and "
            "holdout.context_words; `headwater params apply small` does so for some dozens of pages",
        )
    write_task(folder, BITS_PER_BYTE, [asdict(item) for item in texts])
    write_task(folder, CONTINUATION, [asdict(item) for item in questions])
    return len(texts), len(questions)


def make_tasks(held: list[Document], params: Params) -> tuple[list[TextItem], list[ContinuationItem]]:
    """Return the items of both tasks, however few they are."""
    texts = text_items(held, max_items=params.text_items, max_characters=params.text_characters, seed=params.seed)
    settings = ContinuationSettings(
        max_items=params.continuation_items,
        items_per_document=params.items_per_document,
        context_words=params.context_words,
        min_context_words=params.min_context_words,
        continuation_words=params.continuation_words,
        choices=params.choices,
    )
    return texts, continuation_items(held, settings=settings, seed=params.seed)
