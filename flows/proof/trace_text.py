"""What `headwater trace` prints: a page through the stages, a host, a step, a release, a few lines each."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from rich.padding import Padding
from rich.table import Table

from flows.output import Text, one_line
from tasks.contracts.files import VALIDATION_NAME

if TYPE_CHECKING:
    from flows.proof.trace import DocumentTrace, Event, HostTrace, TokenPlace, Trace, TrainingFacts
    from flows.proof.trace_captures import Capture
    from flows.proof.trace_output import OutputTrace, SpanSource
    from flows.proof.trace_release import ReleaseSources
    from flows.proof.trace_texts import Match
    from flows.proof.trace_training import Batch

MOST_STEPS = 12


def trace_lines(found: Trace) -> Iterable[Any]:
    """Yield what became of all that a query matched."""
    if not found.matched:
        yield Text(f"never seen: {found.query}\nno URL, document, WARC record or payload has this name in data/")
        return
    yield Text.assemble((found.query, "bold"), f"  ({', '.join(found.matched)})")
    for record in found.records:
        yield Text(f"\nrecord of the crawl  {one_line(record.url or '')}")
        yield Text(f"  {one_line(record.content_type or '')}, {record.captured_at}")
        yield Text(f"  {record.record_id}\n  data/crawl/{record.warc}, byte {record.offset:,}", "dim")
    for capture in found.captures:
        yield Text("")
        yield _capture_lines(capture)
    for document in found.documents:
        yield Text("")
        yield from document_lines(document, found.training)
    shown = sum(document.survivor_of is None for document in found.documents)
    if found.total > shown:
        yield Text(f"\n{found.total - shown:,} more documents have this name; --limit N shows more of them")


def _capture_lines(capture: Capture) -> Any:
    lines = [Text.assemble(("capture  ", "bold"), one_line(f"{capture.captured_at}  {capture.url}"))]
    fetched = [f"status {capture.status or 'unknown'}", f"address {capture.address or 'not recorded'}"]
    lines.append(_field("fetched", ", ".join(fetched)))
    if capture.refers_to:
        lines.append(_field("revisit of", capture.refers_to))
    evidence = capture.evidence
    if evidence is None:
        lines.append(_field("evidence", "none was written down by the archive's crawler"))
    else:
        robots = evidence.robots
        decision = "allowed" if robots.allowed else "forbidden"
        rule = f" by “{robots.rule}” for {robots.agent}" if robots.rule else ""
        where = robots.record_id or "the host has no robots.txt"
        lines.append(_field("robots.txt", f"{decision}{rule} ({robots.user_agent}); {where}"))
        signals = [f"{signal}" + (f" ({signal.value})" if signal.value else "") for signal in evidence.signals]
        lines.append(_field("opt-out", ", ".join(signals or capture.header_signals) or "no signal"))
        lines.append(_field("licences", ", ".join(evidence.licenses) or "none named"))
        for name, record_id in evidence.files.items():
            lines.append(_field(name, record_id))
    lines.append(_field("record", f"{capture.record_id}, data/crawl/{capture.warc}, byte {capture.offset:,}"))
    lines.append(_field("payload", capture.payload_digest or "no digest"))
    return _group(lines)


def document_lines(document: DocumentTrace, training: TrainingFacts) -> Iterable[Any]:
    """Yield what each stage did to a document, and where its tokens went."""
    subject = document.subject
    head = "document  " if document.survivor_of is None else "survivor  "
    yield Text.assemble((head, "bold"), subject.doc_id or "none was made", f"\n{one_line(subject.url or '')}")
    yield Padding(Text(document.outcome, "bold"), (0, 0, 0, 2))
    if document.survivor_of is not None:
        yield _field("kept for", document.survivor_of)
    facts = document.facts
    if facts:
        said = [("title", facts["title"]), ("language", facts["language"]), ("licence", facts["license"])]
        for name, value in said:
            if value:
                yield _field(name, str(value))
        if facts["opt_out"]:
            yield _field("opt-out", ", ".join(facts["opt_out"]))
    for event in document.events:
        yield _field(event.stage, _event_text(event))
    for token in document.tokens:
        yield _field("tokens", _token_text(token, training))
    if document.tuned:
        shown = ", ".join(map(str, document.tuned[:MOST_STEPS]))
        more = len(document.tuned) - MOST_STEPS
        yield _field("adapt", f"step {shown}" + (f" … {more:,} more" if more > 0 else ""))
    if document.tokens and training.problem:
        yield _field("steps", training.problem)
    if document.duplicate_count:
        yield _field("duplicates", f"{document.duplicate_count:,} dropped in its favour")
        for one in document.duplicates:
            score = "" if one.score is None else f" {one.score:.3f}"
            yield _field("", f"{one.rule}{score}  {one.url or one.doc_id}")
    for release in document.releases:
        mark = "; a takedown affects it: read its TAKEDOWN.md" if release.takedown else ""
        yield _field("release", f"{release.name}, manifest {release.manifest_sha256[:16]}…{mark}")


def _event_text(event: Event) -> str:
    if event.action in ("kept", "held out"):
        scores = ", ".join(f"{name} {value:.6g}" for name, value in sorted(event.scores.items()))
        return event.action + (f"; {scores}" if scores else "")
    words = {"drop": "dropped", "edit": "edited", "note": "noted"}[event.action] + f": {event.rule}"
    if event.score is not None:
        words += f", score {event.score:.6g}"
    if event.threshold is not None:
        words += f", threshold {event.threshold:.6g}"
    if event.survivor_id:
        words += f", survivor {event.survivor_id}"
    return words + (f"; {event.detail}" if event.detail else "")


def _token_text(token: TokenPlace, training: TrainingFacts) -> str:
    place = f"{token.shard}, {token.offset:,} to {token.offset + token.length:,}"
    copy = f", copy {token.epoch}" if token.epoch > 1 else ""
    if token.shard == VALIDATION_NAME:
        return f"{place}{copy}; for validation only"
    if training.problem:
        return f"{place}{copy}"
    if not token.seen:
        return f"{place}{copy}; in no step of {training.steps:,}"
    steps = [f"{seen.step}" + (f"/{seen.rank}" if training.ranks > 1 else "") for seen in token.seen]
    more = f" … {len(steps) - MOST_STEPS:,} more" if len(steps) > MOST_STEPS else ""
    named = "step/rank" if training.ranks > 1 else ("step" if len(steps) == 1 else "steps")
    return f"{place}{copy}; {named} {', '.join(steps[:MOST_STEPS])}{more}; tensor hash {training.weights_sha256[:16]}…"


def host_lines(found: HostTrace) -> Iterable[Any]:
    """Yield the counts of a host, stage by stage, and its first documents."""
    yield Text.assemble((found.host, "bold"), "  (host)\n")
    table = _table(("stage", "left"), ("documents", "right"), ("what", "left"))
    for stage, counts in found.counts.items():
        ordered = sorted(counts.items(), key=lambda item: (item[0] != "kept", -item[1], item[0]))
        for number, (what, count) in enumerate(ordered):
            table.add_row("" if number else stage, f"{count:,}", Text(what))
    yield table
    yield Text("")
    for document in found.documents:
        yield Text.assemble(
            document.subject.url or document.subject.doc_id or "", "\n", (f"  {document.outcome}", "dim")
        )
    yield Text(f"\nits first {len(found.documents):,} documents; --limit N shows more of them", "dim")


def match_line(match: Match) -> Text:
    """Return which document a text is, and how near."""
    if match.equal:
        return Text(f"equal to a document's text (data/{match.stage}), as dedup compares: case and spaces aside\n")
    return Text(
        f"no text is equal; the nearest document has {match.contained:.1%} of its shingles "
        f"(Jaccard {match.jaccard:.3f}, data/{match.stage})\n"
    )


def step_lines(batches: Iterable[Batch], limit: int) -> Iterable[Any]:
    """Yield what a training step saw, rank by rank."""
    for batch in batches:
        yield Text(f"step {batch.step}, rank {batch.rank}: {len(batch.pieces)} pieces of documents", "bold")
        table = _table(
            ("row", "right"), ("document", "left"), ("shard", "left"), ("from", "right"), ("tokens", "right")
        )
        for piece in batch.pieces[:limit]:
            part = f"{piece.within:,}+{piece.tokens:,} of {piece.of:,}"
            table.add_row(
                str(piece.row), Text(f"{piece.doc_id}\n{one_line(piece.url)}"), piece.shard.partition(".")[0],
                f"{piece.offset:,}", part,
            )  # fmt: skip
        yield table
        if len(batch.pieces) > limit:
            yield Text(f"{len(batch.pieces) - limit:,} more; --limit N shows more of them", "dim")
        verdict = (
            "equal to what the trainer recorded" if batch.equal else f"NOT what the trainer recorded: {batch.recorded}"
        )
        yield Text(f"batch  sha256 {batch.sha256}\n       {verdict}", "" if batch.equal else "bold red")


def output_lines(found: OutputTrace, answer: str | None) -> Iterable[Any]:
    """Yield what of an output stands in the training text.

    Args:
        answer: the output, where the reader has not seen it yet.
    """
    if answer is not None:
        yield Text(f"{answer}\n")
    yield Text(
        f"{found.span_count:,} spans of {found.fewest_tokens} tokens or more stand word for word in the training text: "
        f"{found.covered:,} of {found.characters:,} characters",
        "bold",
    )
    for span in found.spans:
        yield Text(f"\n“{one_line(span.text)}”")
        least = "" if span.complete else "at least "
        shown = len(span.sources)
        more = f"; the first {shown:,}, --limit N shows more" if shown < span.document_count else ""
        documents = "document" if span.document_count == 1 else "documents"
        yield _field(
            "span", f"characters {span.begin:,} to {span.end:,}, {span.tokens:,} tokens; in {least}"
            f"{span.document_count:,} {documents}{more}"
        )  # fmt: skip
        for source in span.sources:
            yield _field("document", source.doc_id)
            yield _field("", source.url)
            yield _field("licence", source.license or "none named")
            yield _field("steps", _source_steps(source, found.training))
            if source.takedown:
                yield _field("takedown", "a release that holds it is marked: read its TAKEDOWN.md")
    if found.span_count > len(found.spans):
        yield Text(f"\n{found.span_count - len(found.spans):,} shorter spans; --limit N shows more of them", "dim")


def _source_steps(source: SpanSource, training: TrainingFacts) -> str:
    if training.problem:
        return training.problem
    steps = list(dict.fromkeys(str(seen.step) for seen in source.steps))
    more = f" … {len(steps) - MOST_STEPS:,} more" if len(steps) > MOST_STEPS else ""
    return f"{', '.join(steps[:MOST_STEPS])}{more}" if steps else f"in no step of {training.steps:,}"


def release_lines(sources: ReleaseSources, limit: int) -> Iterable[Any]:
    """Yield what a release was trained on."""
    yield Text(sources.name, "bold")
    yield _field("manifest", sources.manifest_sha256)
    yield _field("tensor hash", sources.weights_sha256)
    yield _field("documents", f"{sources.documents:,}")
    yield _field("tokens", f"{sources.tokens:,} in the shards; {sources.seen:,} trained on")
    if sources.examples:
        yield _field("examples", f"adapted on {sources.examples:,} besides")
    if sources.takedown:
        yield _field("takedown", "it is affected by one: read its TAKEDOWN.md")
    for by, groups in sources.groups.items():
        yield Text("")
        table = _table(
            (by.replace("license", "licence"), "left"), ("documents", "right"), ("tokens", "right"), ("share", "right")
        )
        for group in groups[:limit]:
            table.add_row(
                Text(group.name or "none named"), f"{group.documents:,}", f"{group.tokens:,}", f"{group.share:.1%}"
            )
        yield table
        if len(groups) > limit:
            rest = groups[limit:]
            yield Text(
                f"{len(rest):,} more, {sum(group.share for group in rest):.1%}; --limit N shows more of them", "dim"
            )


def _table(*columns: tuple[str, str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, side in columns:
        table.add_column(name, justify="right" if side == "right" else "left", overflow="fold")
    return table


def _field(name: str, value: str) -> Any:
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=15, no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row(Text(f"  {name}", "dim"), Text(one_line(value)))
    return grid


def _group(lines: list[Any]) -> Any:
    from rich.console import Group as Lines

    return Lines(*lines)
