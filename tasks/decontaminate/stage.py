"""decontaminate: keep every item that the model is scored on out of the training documents.

Protected are the tasks that `evaluate` will score (one list in params.yaml, `evaluate.tasks`) and the benchmark
files named here. The index of their n-grams is part of each shard's key, so a changed benchmark is never served
from an old shard. Two passes: count in how many documents each found n-gram stands, then remove.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, JsonValue

from tasks.contracts.base import Drop, Edit, StageParams, borrowed_from, not_identity
from tasks.contracts.document import ROWS_PER_GROUP, Document, read_rows, write_rows
from tasks.contracts.durable_files import sha256_file, sha256_json, write_bytes, write_json
from tasks.contracts.errors import HeadwaterError, InputError, ParamsError, raised
from tasks.contracts.files import PROTECTED_NAME, TASKS_FOLDER
from tasks.contracts.ledger import LedgerRow, ledger_row
from tasks.contracts.manifest import Counts, Manifest, text_shards
from tasks.decontaminate.forms import form_hash
from tasks.decontaminate.ngram_index import FILES, Index, IndexSettings, read_index, write_index
from tasks.decontaminate.protected_items import ItemText, benchmark_texts, task_texts
from tasks.decontaminate.protection import Key, Protection
from tasks.decontaminate.removal import Finding, RemovalSettings, inspect
from tasks.engine.shards import ShardWork, keep_or_drop
from tasks.engine.stage import Stage

logger = logging.getLogger(__name__)

STAGE = "decontaminate"
DOES = "takes out text of the benchmarks"
RULE = "benchmark_overlap"
LIBRARIES = ("numpy", "confusable-homoglyphs")
NOT_PROTECTED = "not_protected.jsonl"

_HITS_SCHEMA = pa.schema([pa.field("row", pa.int64(), nullable=False), pa.field("gram", pa.uint64(), nullable=False)])
_COMMON_SCHEMA = pa.schema(
    [pa.field("gram", pa.uint64(), nullable=False), pa.field("documents", pa.int64(), nullable=False)]
)


class Params(StageParams):
    """The `decontaminate` section of params.yaml."""

    benchmarks: tuple[str, ...] = not_identity(())
    """Benchmark files (JSONL) to protect besides the tasks that are scored; their content counts, not their path."""
    ngram: int = Field(13, ge=5)
    """Words of an n-gram; 13 as in GPT-3 (Brown et al. 2020, appendix C)."""
    min_words: int = Field(8, ge=3)
    """Fewest words of an item's text that is shorter than an n-gram, and is then looked for as a whole."""
    min_characters: int = Field(35, ge=1)
    """Fewest letters and digits of such a short text; a character of a script without spaces counts as three."""
    short_items: Literal["whole", "leave"] = "whole"
    """What becomes of an item of which every text is shorter: `whole` looks for it as a whole, operators included (a
    question from five words on, three with its answer, an expression from three tokens on); `leave` does not. What is
    not protected is counted by reason in protected.json and named in not_protected.jsonl."""
    common_in_documents: int = Field(10, ge=1)
    """An n-gram in more documents than this is a common phrase, which is no leak by itself."""
    common_coverage: float = Field(0.5, gt=0, le=1)
    """Share of an item's n-grams that a document must hold for its common phrases to count as a leak."""
    remove: Literal["span", "paragraph", "document"] = "paragraph"
    """What is taken out: the matching words, the lines they stand on, or the whole document."""
    max_removed: float = Field(0.3, gt=0, le=1)
    """A document of whose words a larger share matches is dropped as a whole."""
    min_words_left: int = Field(20, ge=0)
    """A document with fewer words left is dropped as a whole."""
    tasks: tuple[str, ...] = borrowed_from("evaluate.tasks", ())
    """The tasks that evaluate will score."""

    def named_files(self) -> tuple[str, ...]:
        """Return the benchmark files."""
        return self.benchmarks

    def faults(self) -> Iterator[HeadwaterError]:
        """Yield what is wrong with the benchmark files."""
        yield from raised(lambda: _benchmark_hashes(self.benchmarks))
        for path in self.benchmarks:
            yield from raised(partial(_check_benchmark, Path(path)))


def run(*, params: Params, inputs: Mapping[str, Path], output: Path) -> Manifest:
    """Remove from the documents of `inputs["holdout"]` what they share with protected items.

    Raises:
        InputError: a benchmark file cannot be read, or none of its items can be protected.
        NetworkError: the items of a hub task cannot be fetched.
    """
    stage = Stage(name=STAGE, unit="documents", params=params, inputs=inputs, output=output, libraries=LIBRARIES)
    files = _benchmark_hashes(params.benchmarks)
    how = _how(params)
    work = stage.work()
    with stage.scratch() as scratch:
        index = scratch / "index"
        # The items of an adaptation are those of its base, which has them in the same place.
        items = inputs["base" if "base" in inputs else "holdout"]
        protection = write_index(index, _protected(params, items), how)
        _check_some_are_protected(protection)
        shared = {name: index / name for name in FILES}
        find = partial(_find_in_shard, index=index, how=how)
        hits = stage.map(find, work, step="search", params=how.model_dump(mode="json"), shared=shared)
        found = hits.paired(work)
        common = scratch / "common.parquet"
        _write_common(common, found, params.common_in_documents)
        settings = RemovalSettings(
            remove=params.remove,
            common_coverage=params.common_coverage,
            max_removed=params.max_removed,
            min_words_left=params.min_words_left,
        )
        cleaned = stage.map(
            partial(_clean_shard, index=index, how=how, common=common, settings=settings),
            found,
            params={**settings.model_dump(mode="json"), **how.model_dump(mode="json")},
            shared={**shared, "common": common},
        )
        phrases = {row["gram"] for row in read_rows(common, _COMMON_SCHEMA)}
        too_common = _describe(params, index, protection, phrases, output)
    _say(protection, too_common)
    return stage.commit(cleaned, {**params.identity(), "benchmarks": files})


def describe_again(params: Params, source: Path, output: Path) -> None:
    """Write protected.json and not_protected.jsonl again, of the folder that the stage took in.

    Raises:
        InputError: a benchmark file cannot be read.
    """
    how = _how(params)
    with tempfile.TemporaryDirectory() as scratch:
        index = Path(scratch) / "index"
        protection = write_index(index, _protected(params, source), how)
        known = read_index(index, how)
        documents: Counter[int] = Counter()
        for shard in text_shards(source):
            with pq.ParquetFile(source / shard.name) as parquet:
                for batch in parquet.iter_batches(batch_size=ROWS_PER_GROUP, columns=["text"]):
                    documents.update(
                        gram for grams in known.search_texts(batch.column(0).to_pylist()) for gram in grams
                    )
        phrases = {gram for gram, count in documents.items() if count > params.common_in_documents}
        _describe(params, index, protection, phrases, output)


def _how(params: Params) -> IndexSettings:
    return IndexSettings(
        ngram=params.ngram,
        min_words=params.min_words,
        min_characters=params.min_characters,
        short_items=params.short_items,
    )


def _describe(params: Params, index: Path, protection: Protection, phrases: set[int], output: Path) -> set[Key]:
    """Write which items are protected, and which are not; return those that are too common for it."""
    too_common = _too_common(read_index(index, _how(params)), protection, phrases)
    protected: dict[str, JsonValue] = {
        "benchmarks": _benchmark_hashes(params.benchmarks),
        "index_sha256": _index_hash(index),
        "items": {task: asdict(found) for task, found in protection.counts(too_common).items()},
        "protected_texts": protection.texts,
        "tasks": list(params.tasks),
    }
    write_json(output / PROTECTED_NAME, protected)
    left_out = list(protection.left_out(too_common))
    lines = (json.dumps(asdict(one), ensure_ascii=False, sort_keys=True) + "\n" for one in left_out)
    write_bytes(output / NOT_PROTECTED, "".join(lines).encode("utf-8", "surrogatepass"))
    return too_common


def _check_some_are_protected(protection: Protection) -> None:
    """Raise InputError where a task or file has items and none of them is looked for."""
    for task, found in protection.counts().items():
        if found.not_protected == found.items:
            raise InputError(
                "no item of a benchmark can be protected, so the papers must not say that it is",
                where=task,
                expected="at least one item long enough to be looked for",
                found=found.said(),
                fix="set decontaminate.short_items to whole, lower decontaminate.min_words and min_characters, or take "
                "it out of decontaminate.benchmarks or evaluate.tasks",
            )


def _too_common(index: Index, protection: Protection, phrases: set[int]) -> set[Key]:
    """Return the items that only whole texts protect, all of which are common phrases of this corpus."""
    is_common: dict[Key, bool] = {}
    for number in set(index.whole.numbers.tolist()):
        one = index.protected(number)
        key = (one.task, one.split, one.item)
        is_common[key] = is_common.get(key, True) and form_hash(one.form) in phrases
    return {key for key, every in is_common.items() if every} - protection.by_ngrams


def _say(protection: Protection, too_common: set[Key]) -> None:
    for task, found in protection.counts(too_common).items():
        logger.log(
            logging.WARNING if found.not_protected else logging.INFO,
            "decontaminate: %s: %d items, %d protected by n-grams, %d as a whole, %d not protected%s",
            *(task, found.items, found.by_ngrams, found.whole, found.not_protected),
            f" ({found.said()}; named in data/{STAGE}/{NOT_PROTECTED})" if found.reasons else "",
        )


def _check_benchmark(path: Path) -> None:
    """Read a benchmark file to its end; raise InputError where that cannot be done."""
    for _ in benchmark_texts(path):
        pass


def _benchmark_hashes(paths: Sequence[str]) -> dict[str, JsonValue]:
    """Return file name → SHA-256; names stand in the ledger, so two files may not share one."""
    names = [Path(path).name for path in paths]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ParamsError(
            "two benchmark files have the same name, and the ledger could not tell them apart",
            where="params.yaml, decontaminate.benchmarks",
            expected="one file of each name",
            found=", ".join(twice),
        )
    return {Path(path).name: sha256_file(Path(path)) for path in sorted(paths) if Path(path).is_file()}


def _protected(params: Params, holdout: Path) -> Iterator[ItemText]:
    yield from task_texts(params.tasks, holdout / TASKS_FOLDER)
    for path in sorted(params.benchmarks, key=lambda path: Path(path).name):
        yield from benchmark_texts(Path(path))


def _find_in_shard(work: ShardWork, folder: Path, *, index: Path, how: IndexSettings) -> Counts:
    known = _index(index, how, _index_hash(index))
    rows: list[dict[str, int]] = []
    count = 0
    with pq.ParquetFile(work.inputs[0]) as parquet:
        for batch in parquet.iter_batches(batch_size=ROWS_PER_GROUP, columns=["text"]):
            for grams in known.search_texts(batch.column(0).to_pylist()):
                rows += [{"row": count, "gram": gram} for gram in grams]
                count += 1
    write_rows(folder / f"{work.name}.parquet", rows, _HITS_SCHEMA)
    return Counts(in_=count, out=count)


def _write_common(target: Path, found: Sequence[ShardWork], limit: int) -> None:
    """Write the n-grams that stand in more than `limit` documents of the corpus."""
    documents = Counter(row["gram"] for item in found for row in read_rows(item.inputs[1], _HITS_SCHEMA))
    rows = [{"gram": gram, "documents": count} for gram, count in sorted(documents.items()) if count > limit]
    logger.info("decontaminate: %d of %d n-grams found are common phrases", len(rows), len(documents))
    write_rows(target, rows, _COMMON_SCHEMA)


def _clean_shard(
    work: ShardWork, folder: Path, *, index: Path, how: IndexSettings, common: Path, settings: RemovalSettings
) -> Counts:
    known = _index(index, how, _index_hash(index))
    phrases = frozenset(row["gram"] for row in read_rows(common, _COMMON_SCHEMA))
    suspects = {row["row"] for row in read_rows(work.inputs[1], _HITS_SCHEMA)}

    def decide(documents: Iterable[Document]) -> Iterator[Document | LedgerRow]:
        for number, document in enumerate(documents):
            finding = inspect(document, known, phrases, settings) if number in suspects else None
            if finding is None:
                yield document
                continue
            yield from _rows(document, finding)
            if finding.text is not None:
                yield document.with_text(finding.text)

    return keep_or_drop(work, folder, decide)


def _rows(document: Document, finding: Finding) -> Iterator[LedgerRow]:
    """Yield one ledger row for each leak: of a dropped document the first drops it, the others are notes."""
    for number, leak in enumerate(finding.leaks):
        detail = leak.describe()
        if finding.text is not None:
            yield ledger_row(STAGE, document, Edit(rule=RULE, text=finding.text, score=leak.grams, detail=detail))
        else:
            row = ledger_row(STAGE, document, Drop(rule=RULE, score=leak.grams, detail=detail))
            yield row if number == 0 else replace(row, action="note")


@lru_cache(maxsize=1)
def _index(path: Path, how: IndexSettings, _content: str) -> Index:
    """Map the index into memory once a process; a cached one is used for the same content only."""
    return read_index(path, how)


def _index_hash(folder: Path) -> str:
    return sha256_json([sha256_file(folder / name) for name in FILES])
