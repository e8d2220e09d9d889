"""Extract: the crawl's WARC records to documents, one shard from each part file; plain-text sources pass through."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

from pydantic import Field

from tasks.contracts.base import Drop, StageParams
from tasks.contracts.document import Document, make_doc_id, write_documents
from tasks.contracts.errors import HeadwaterError, InputError
from tasks.contracts.files import DROPPED_FOLDER, is_part
from tasks.contracts.http_responses import REFUSALS
from tasks.contracts.ledger import LedgerRow, drops_by_rule, ledger_row, write_ledger
from tasks.contracts.manifest import Counts, Manifest, read_manifest
from tasks.engine.shards import ShardWork, keep_or_drop
from tasks.engine.stage import Stage
from tasks.extract.host_files import collect
from tasks.extract.language_id import identify, languages_by_line
from tasks.extract.taken_down_pages import take_down
from tasks.extract.warc_pages import Page, read_pages
from tasks.extract.worker import Extractor, Limits, shared_extractor
from tasks.extract.worker_messages import EngineName, Extracted, Mode, Settings
from tasks.rights.evidence import OWN_CRAWLS, OptOutPolicy, judge
from tasks.rights.robots import names_of
from tasks.rights.takedowns import read_takedowns

logger = logging.getLogger(__name__)

STAGE = "extract"
DOES = "makes text of pages; drops pages that reserve their use"
PAGES_PER_BATCH = 32
TRUNCATED = "extract.truncated_depth"
NOT_PAGES = ("not_html", "http_status", *REFUSALS.values())
FAILURES = ("timeout", "crashed", "out_of_memory", "parse_error")
CUT = "text below 256 nested elements may be missing, as it is not read"
LIBRARIES = ("trafilatura", "lxml", "justext", "fastwarc", "resiliparse", "py3langid", "brotli", "zstandard",
             "webencodings")  # fmt: skip


class Params(StageParams):
    """How pages become text."""

    engine: EngineName = "combined"
    """What finds the main text: combined (a small model over blocks), trafilatura, resiliparse or justext."""
    mode: Mode = "recall"
    """trafilatura's mode: default, precision (less, cleaner), recall (more) or fast (no second opinion)."""
    tables: bool = True
    """Whether the text of tables is kept."""
    comments: bool = False
    """Whether readers' comments are kept."""
    language_by_line: bool = False
    """Whether the languages of single lines are scored too (extract.line_language.CODE: its share of the text)."""
    max_page_bytes: int = Field(20_000_000, ge=1)
    """Largest page, in bytes after decompression; a larger one is dropped (too_large)."""
    page_seconds: float = Field(20.0, gt=0)
    """Longest time for one page, in seconds; then its process is ended and the page dropped (timeout)."""
    memory_mebibytes: int = Field(2048, ge=256)
    """Address space of the extraction process, in MiB; a page that needs more is dropped (out_of_memory)."""
    max_failure_rate: float = Field(0.2, ge=0, le=1)
    """Largest share of pages that may fail (timeout, crashed, out_of_memory, parse_error) before the stage does."""
    opt_out: OptOutPolicy = OptOutPolicy()
    """What each signal by which a page reserves its use does: drop it (opt_out), mark it (a note), or keep it."""


def run(*, params: Params, inputs: Mapping[str, Path], output: Path) -> Manifest:
    """Extract every part of the crawl into `output`.

    Raises:
        InputError: the crawl holds no HTML page and no document.
        HeadwaterError: more pages failed than `params.max_failure_rate` allows.
    """
    stage = Stage(name=STAGE, unit="records", params=params, inputs=inputs, output=output, libraries=LIBRARIES)
    crawl = stage.source
    manifest = read_manifest(crawl)
    source = str(manifest.params.get("source", "web"))
    user_agent = str(manifest.params.get("user_agent") or "")
    parts = [s for s in manifest.shards if is_part(s.name, ".warc.gz", ".parquet")]
    files: Mapping[Path, Path] = {}
    if source in OWN_CRAWLS:
        warcs = [crawl / shard.name for shard in parts if shard.name.endswith(".warc.gz")]
        files = collect(warcs, stage.state / "host_files")
    work = [_work(crawl / shard.name, shard.sha256, files.get(crawl / shard.name)) for shard in parts]
    judged = params.model_copy(update={"opt_out": params.opt_out.of_crawl(user_agent)})
    result = stage.map(
        partial(extract_shard, source=source, params=judged, robot=names_of(user_agent)),
        work,
        params={**params.identity(), "source": source, "robot": list(names_of(user_agent))},
    )
    _check(result.counts, params, where=str(crawl))
    result = take_down(stage, read_takedowns(), result)
    return stage.commit(result)


def _work(part: Path, sha256: str, host_files: Path | None) -> ShardWork:
    own = ShardWork(name=part.name.partition(".")[0], inputs=(part,), input_hashes=(sha256,))
    return own if host_files is None else own.plus(host_files)


def _check(counts: Counts, params: Params, *, where: str) -> None:
    pages = counts.in_ - sum(counts.dropped.get(rule, 0) for rule in NOT_PAGES)
    if not pages:
        others = ", ".join(f"{rule}: {n}" for rule, n in counts.dropped.items()) or "no record"
        raise InputError(
            "the crawl holds no HTML page",
            where=where,
            expected="at least one response record with status 2xx and an HTML content type",
            found=f"{counts.in_} records ({others})",
            fix="check crawl.source and its paths or seeds in params.yaml",
        )
    failed = {rule: counts.dropped[rule] for rule in FAILURES if rule in counts.dropped}
    rate = sum(failed.values()) / pages
    if rate > params.max_failure_rate:
        raise HeadwaterError(
            "too many pages could not be extracted",
            where=where,
            expected=f"at most {params.max_failure_rate:.0%} of {pages} pages (extract.max_failure_rate)",
            found=f"{rate:.1%}: " + ", ".join(f"{rule} {n}" for rule, n in failed.items()),
            fix="raise extract.page_seconds or extract.memory_mebibytes, or look at the pages in the ledger",
        )


def extract_shard(work: ShardWork, folder: Path, *, source: str, params: Params, robot: tuple[str, ...] = ()) -> Counts:
    """Make one shard from one part file of the crawl.

    Args:
        robot: names of the crawl's own robot.
    """
    if work.inputs[0].name.endswith(".parquet"):
        return keep_or_drop(work, folder, partial(_with_language, params=params))
    settings = Settings(
        engine=params.engine,
        mode=params.mode,
        tables=params.tables,
        comments=params.comments,
        language_by_line=params.language_by_line,
        robot=robot,
    )
    limits = Limits(seconds=params.page_seconds, memory_mebibytes=params.memory_mebibytes)
    return _write(work, folder, shared_extractor(settings, limits), source=source, params=params)


def _write(work: ShardWork, folder: Path, extractor: Extractor, *, source: str, params: Params) -> Counts:
    rows: list[LedgerRow] = []
    seen = 0

    def documents() -> Iterator[Document]:
        nonlocal seen
        pages = read_pages(work.inputs[0], params.max_page_bytes, *work.inputs[1:])
        while batch := list(islice(pages, PAGES_PER_BATCH)):
            seen += len(batch)
            for page, answer in _answered(batch, extractor):
                document = _document(page, answer, source, work.inputs[0].name)
                reason = answer if isinstance(answer, Drop) else _unwanted(document, params.opt_out)
                if reason is not None:
                    if reason.rule == "empty" and page.cut:
                        reason = replace(reason, detail=f"{reason.detail}; {page.cut}")
                    rows.append(ledger_row(STAGE, document, reason))
                    continue
                if page.cut:
                    rows.append(_note(document, "truncated", page.cut))
                if TRUNCATED in document.scores:
                    rows.append(_note(document, "truncated_depth", CUT))
                if document.opt_out and (verdict := judge(document.opt_out, params.opt_out)).action == "mark":
                    rows.append(_note(document, "opt_out", ", ".join(map(str, verdict.because))))
                yield document

    out = write_documents(folder / f"{work.name}.parquet", documents())
    write_ledger(folder / DROPPED_FOLDER / f"{work.name}.parquet", rows)
    return Counts(in_=seen, out=out, dropped=drops_by_rule(rows))


def _answered(batch: Iterable[Page], extractor: Extractor) -> Iterator[tuple[Page, Extracted | Drop]]:
    """Pair each page of a batch, in order, with what extraction gave or why it was not extracted."""
    pages = list(batch)
    answers = extractor.extract([page for page in pages if page.reason is None])
    for page in pages:
        yield page, page.reason or next(answers)


def _document(page: Page, answer: Extracted | Drop, source: str, warc: str) -> Document:
    document = Document(
        doc_id=make_doc_id(source, page.record_id),
        url=page.url,
        host=page.host,
        record_id=page.record_id,
        source=source,
        text="",
        captured_at=page.captured_at,
        warc_path=warc,
        warc_offset=page.offset,
        payload_digest=page.payload_digest,
    )
    if isinstance(answer, Drop):
        return document
    return replace(
        document,
        text=answer.text,
        title=answer.title,
        author=answer.author,
        published=answer.published,
        license=answer.license,
        opt_out=answer.opt_out,
        language=answer.language,
        language_score=answer.language_score,
        scores={
            **({TRUNCATED: 1.0} if answer.truncated_depth else {}),
            **_line_scores(answer.line_languages),
        },
    )


def _unwanted(document: Document, policy: OptOutPolicy) -> Drop | None:
    """Return why a document that could be read is not wanted: it opts out, or there is no text."""
    verdict = judge(document.opt_out, policy)
    if verdict.action == "drop":
        return Drop(rule="opt_out", detail=", ".join(map(str, verdict.because)))
    if not document.text.strip():
        cut = f"; {CUT}" if TRUNCATED in document.scores else ""
        return Drop(rule="empty", detail=f"no main text was found{cut}")
    return None


def _note(document: Document, rule: str, detail: str) -> LedgerRow:
    return LedgerRow(
        stage=STAGE,
        action="note",
        rule=rule,
        doc_id=document.doc_id,
        url=document.url,
        record_id=document.record_id,
        detail=detail,
    )


def _with_language(documents: Iterator[Document], *, params: Params) -> Iterator[Document | LedgerRow]:
    for document in documents:
        reason = _unwanted(document, params.opt_out)
        if reason is not None:
            yield ledger_row(STAGE, document, reason)
            continue
        if (verdict := judge(document.opt_out, params.opt_out)).action == "mark":
            yield _note(document, "opt_out", ", ".join(map(str, verdict.because)))
        if document.language is None:
            language, score = identify(document.text)
            document = replace(document, language=language, language_score=score)
        yield _line_scored(document, params)


def _line_scored(document: Document, params: Params) -> Document:
    if not params.language_by_line:
        return document
    return document.with_scores(_line_scores(languages_by_line(document.text)))


def _line_scores(shares: Mapping[str, float]) -> dict[str, float]:
    return {f"extract.line_language.{code}": share for code, share in shares.items()}
