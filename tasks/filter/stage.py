"""Filter: each document through the list of rules in params.yaml; what a rule drops or edits goes into the ledger."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import Field, JsonValue, model_validator

from tasks.contracts.base import Drop, Edit, Measured, StageParams
from tasks.contracts.document import Document, read_documents, read_rows, write_rows
from tasks.contracts.errors import HeadwaterError, raised
from tasks.contracts.files import DROPPED_FOLDER
from tasks.contracts.ledger import LedgerRow, ledger_row, read_ledger
from tasks.contracts.manifest import Counts, Manifest
from tasks.engine.shards import ShardWork, keep_or_drop
from tasks.engine.stage import Stage
from tasks.filter.broken_filters import Failure, said_of, wrong_answer, wrong_measurement
from tasks.filter.loading import OURS, LoadedFilter, check, load, load_entry, named_files
from tasks.filter.measurements import Known, Tally, kept_measurements, tallies

logger = logging.getLogger(__name__)

STAGE = "filter"
DOES = "drops what is not worth reading; masks personal data and secrets"
LIBRARIES = ("datatrove", "spacy", "numpy")
ERROR = ".error"
SCORES = "filter."  # how the names of scores begin that this stage measures
TRIED_DOCUMENTS = 20
_SCORES = pa.schema([pa.field("scores", pa.map_(pa.string(), pa.float64()), nullable=False)])


class Params(StageParams):
    """Which documents are worth keeping: the rules, their order and their thresholds."""

    rules: tuple[dict[str, Any], ...] = ()
    """The filters in the order they are asked: NAME: {settings}, or use: package.module:Class and with: {arguments}."""
    max_error_rate: float = Field(0.01, ge=0, le=1)
    """Largest share of documents that a rule may fail on (each becomes a ledger row) before the stage fails."""

    def in_manifest(self) -> dict[str, JsonValue]:
        """Return the settings with each rule's defaults, and the content of the files that it names, filled in."""
        return {
            "rules": [loaded.identity() for loaded in load(self.rules)],
            "max_error_rate": self.max_error_rate,
        }

    def named_files(self) -> tuple[str, ...]:
        """Return the lists and models that rules name."""
        return named_files(self.rules)

    def faults(self) -> Iterator[HeadwaterError]:
        """Yield files that are not there, and filters of other packages that cannot be made."""
        yield from super().faults()
        for index, entry in enumerate(self.rules):
            if "use" in entry:
                yield from raised(partial(load_entry, entry, index))

    @model_validator(mode="after")
    def _known_rules(self) -> Params:
        check(self.rules)
        return self


def run(*, params: Params, inputs: Mapping[str, Path], output: Path) -> Manifest:
    """Filter every shard of the extracted documents into `output`.

    Raises:
        ParamsError: a rule that cannot be loaded.
        HeadwaterError: rules failed on more documents than `params.max_error_rate` allows.
    """
    stage = Stage(name=STAGE, unit="documents", params=params, inputs=inputs, output=output, libraries=LIBRARIES)
    filters = load(params.rules)
    identity = params.in_manifest()
    work = stage.work()
    if params.max_error_rate < 1:
        _try_out(filters, stage.documents(work))
    work = _scored(stage, params, filters, work)
    places = stage.places(work, step="measured", params={"rules": [loaded.measured_identity() for loaded in filters]})
    result = stage.map(partial(filter_shard, rules=params.rules, places=places), work, params=identity)
    if result.made:
        logger.info(
            "filter: documents measured, of all asked about: %s", tallies([places[name] for name in result.made])
        )
    _check(result.counts, params, output, where=str(stage.source))
    return stage.commit(result, identity)


def _scored(stage: Stage, params: Params, filters: Sequence[LoadedFilter], work: list[ShardWork]) -> list[ShardWork]:
    """Add to each shard's inputs what model-based rules measured; another threshold does not measure again."""
    scoring = [loaded.score_identity() for loaded in filters if loaded.scores]
    if not scoring:
        return work
    score = partial(score_shard, rules=params.rules)
    made = stage.map(score, work, step="scores", params={"rules": list[JsonValue](scoring)})
    logger.info("filter: %d documents scored, %d shards reused", made.counts.out, made.hits)
    return made.paired(work)


def score_shard(work: ShardWork, folder: Path, *, rules: Sequence[Mapping[str, Any]]) -> Counts:
    """Write what model-based rules measure on each document of one part, as it was extracted: a row a document."""
    filters = [loaded for loaded in load(rules) if loaded.scores]
    rows = ({"scores": sorted(scores_of(filters, document).items())} for document in read_documents(work.inputs[0]))
    count = write_rows(folder / f"{work.name}.parquet", rows, _SCORES)
    return Counts(in_=count, out=count)


def scores_of(filters: Sequence[LoadedFilter], document: Document) -> dict[str, float]:
    """Return what model-based rules measure on a document; a rule that fails on it leaves its score out."""
    scores: dict[str, float] = {}
    for loaded in filters:
        if loaded.scores is not None:
            with suppress(Exception):  # the rule drops the document for its missing score, as an error
                scores |= loaded.scores(document)
    return scores


def _try_out(filters: Sequence[LoadedFilter], extracted: Iterator[Document]) -> None:
    """Ask somebody's own filters about the first documents: one that fails on all stops the stage before hours of work.

    Raises:
        HeadwaterError: naming each such filter, with its file and line.
    """
    own = [loaded for loaded in filters if loaded.name not in OURS]
    documents = list(islice(extracted, TRIED_DOCUMENTS)) if own else []
    broken = []
    for loaded in own:
        answers = [answer(loaded, document.with_scores(scores_of([loaded], document))) for document in documents]
        said = [one.detail for one in answers if isinstance(one, Drop) and one.rule == f"{loaded.name}{ERROR}"]
        if len(said) == TRIED_DOCUMENTS:
            broken.append(f"{loaded.name}: {said[0]}")
    if broken:
        raise HeadwaterError(
            f"a filter fails on every one of the first {TRIED_DOCUMENTS} documents",
            where="params.yaml, filter.rules",
            found="; ".join(broken),
            fix="correct its file, or take it off the list; `headwater filters try` asks it about a few documents",
        )


def _check(counts: Counts, params: Params, output: Path, *, where: str) -> None:
    failed = {rule: n for rule, n in counts.dropped.items() if rule.endswith(ERROR)}
    if sum(failed.values()) > params.max_error_rate * counts.in_:
        first: dict[str, str | None] = {}
        for path in sorted((output / DROPPED_FOLDER).glob("*.parquet")):
            for row in read_ledger(path):
                if row.rule in failed:
                    first.setdefault(row.rule, f"{row.detail} on {row.url}")
        raise HeadwaterError(
            "filters failed on too many documents",
            where=where,
            expected=f"at most {params.max_error_rate:.1%} of {counts.in_} documents (filter.max_error_rate)",
            found="; ".join(f"{rule} {n}, as {first[rule]}" for rule, n in failed.items()),
            fix="correct the filter's file, or take it off the list; `headwater filters try` shows the documents",
        )
    if counts.in_ and not counts.out:
        logger.warning("filter: no document is left; the rules of params.yaml drop all %d", counts.in_)


def filter_shard(
    work: ShardWork, folder: Path, *, rules: Sequence[Mapping[str, Any]], places: Mapping[str, Path]
) -> Counts:
    """Make one shard: the documents of one part that every rule keeps.

    Args:
        places: the parts' measurements in the shard cache, by their names.
    """
    filters = load(rules)
    tally = Tally()

    def decide(documents: Iterator[Document]) -> Iterator[Document | LedgerRow]:
        if len(work.inputs) > 1:
            rows = read_rows(work.inputs[1], _SCORES)
            documents = (
                document.with_scores(dict(row["scores"])) for document, row in zip(documents, rows, strict=True)
            )
        for document, known in zip(documents, measurements, strict=False):
            yield from judged(document, filters, known, tally)

    with kept_measurements(places[work.name], work.name, tally) as measurements:
        return keep_or_drop(work, folder, decide)


def apply(documents: Iterator[Document], *, filters: Sequence[LoadedFilter]) -> Iterator[Document | LedgerRow]:
    """Yield each document that all filters keep, and a ledger row for each drop and edit."""
    for document in documents:
        yield from judged(document, filters, Known(), Tally())


def judged(
    document: Document, filters: Sequence[LoadedFilter], known: Known, tally: Tally
) -> Iterator[Document | LedgerRow]:
    """Yield a ledger row for each edit of a document, then the document that is left, or the row of its drop.

    Args:
        known: what was measured of this document before; what is measured now is added.
        tally: counts both.
    """
    for place, loaded in enumerate(filters):
        before = known.of(place)
        given, measured = _asked(loaded, document, before)
        if before is None:
            known.add(place, measured)
        if measured is not None:
            (tally.known if before else tally.measured)[loaded.name] += 1
        reason = as_applied(given)
        if reason is None:
            continue
        yield ledger_row(STAGE, document, reason)
        if isinstance(reason, Drop):
            return
        document = document.with_text(reason.text)
    yield document


def edit_again(params: Params) -> Callable[[Document], Document | None]:
    """Return what makes the edits of this stage again, a document at a time: for those who check them."""
    filters = load(params.rules)

    def edited(document: Document) -> Document | None:
        if any(loaded.scores for loaded in filters):
            document = document.with_scores(scores_of(filters, document))
        kept = [one for one in apply(iter([document]), filters=filters) if isinstance(one, Document)]
        return kept[0] if kept else None

    return edited


def as_applied(reason: Drop | Edit | None) -> Drop | Edit | None:
    """Return an answer as the stage takes it: an edit that leaves nothing is a drop."""
    if isinstance(reason, Edit) and not reason.text.strip():
        return Drop(rule=f"{reason.rule}.empty", score=reason.score, detail=reason.detail)
    return reason


def answer(loaded: LoadedFilter, document: Document) -> Drop | Edit | None:
    """Ask one filter about one document; one that fails on it, or gives what is no answer, drops it, saying so.

    So does one that is decided from scores, where one of them is NaN: it reaches no threshold, whichever way the filter
    compares them.
    """
    return _asked(loaded, document, None)[0]


def _asked(
    loaded: LoadedFilter, document: Document, known: Measured | None
) -> tuple[Drop | Edit | None, Measured | None]:
    """Return a filter's answer as `answer` does, and what it was decided from: what is known, else measured now.

    A class of `use` has no measurement, nor has a rule that fails.
    """
    measured = known
    try:
        if loaded.measure is None or loaded.decide is None:
            given = loaded.call(document)
            said = wrong_answer(given, loaded.call if loaded.own_call is None else loaded.own_call)
        else:
            measured = loaded.measure(document) if measured is None else measured
            said = wrong_measurement(measured, loaded.own_measure or loaded.measure)
            given = None if said else loaded.decide(measured)
            said = said or wrong_answer(given, loaded.own_call or loaded.decide)
    except Failure as error:  # a filter may be anybody's code; the stage fails above max_error_rate
        own = getattr(getattr(loaded.own_call, "__func__", loaded.own_call), "__code__", None)
        said = said_of(error, own.co_filename if own else None)
    if said:
        return Drop(rule=f"{loaded.name}{ERROR}", detail=said), None
    if loaded.scores is not None and not isinstance(given, Drop):
        lost = [name for name, score in document.scores.items() if name.startswith(SCORES) and math.isnan(score)]
        if lost:
            named = f"{', '.join(lost)[:150]} is not a number"
            return Drop(rule=f"{loaded.name}.nan", score=math.nan, detail=named), measured
    return given, measured
