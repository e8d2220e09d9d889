"""`headwater trace`: from a URL forward to every release; from a release, a step or an output back to its documents."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.output import JsonOption, Text, console
from flows.proof.trace_text import host_lines, match_line, output_lines, release_lines, step_lines, trace_lines
from tasks.contracts.errors import InputError, UsageError

DATA = Path("data")


def trace(
    query: Annotated[
        str | None, typer.Argument(help="A URL, host, doc_id, WARC record id or payload digest.", show_default=False)
    ] = None,
    text: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Find the document that has this text, or the nearest one.")
    ] = None,
    step: Annotated[int | None, typer.Option(min=0, help="Show the documents of a training step, from 0.")] = None,
    rank: Annotated[int | None, typer.Option(min=0, help="With --step: of one rank only.")] = None,
    release: Annotated[
        str | None, typer.Option(metavar="NAME", help="Show a release's sources; its name, or its manifest's SHA-256.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Show at most this many documents, or rows of a table.")] = 20,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Find what of a model's output stands in its training text.")
    ] = None,
    prompt: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Ask the released model first, and trace what it answers.")
    ] = None,
    min_tokens: Annotated[
        int | None, typer.Option(min=1, help="With --output, --prompt: shortest span that is shown, in tokens (12).")
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="With --prompt: longest answer (200).")] = None,
    index: Annotated[bool, typer.Option("--index", help="Make the index now; any query makes it when needed.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Say where a page went: its captures, what each stage did to it and why, its tokens, steps and releases.

    An example that a release was adapted on is known by its file and line (chats.jsonl:17), its doc_id, or its text.

    Exit code 1 when nothing is known under the name, no span of an output is found, or a step's batch is not what the
    trainer recorded.

    Example: headwater trace http://python.sample.example/ast.html
    """
    from flows.history.trace_index import open_index

    asked = [name for name, value in (("QUERY", query), ("--text", text), ("--step", step), ("--release", release),
             ("--output", output), ("--prompt", prompt)) if value is not None]  # fmt: skip
    if len(asked) != 1 and not (index and not asked):
        raise UsageError(
            "trace answers one question at a time",
            expected="one of QUERY, --text, --step, --release, --output, --prompt, --index",
            found=", ".join(asked) or "none of them",
            fix="headwater trace --help",
        )
    if rank is not None and step is None:
        raise UsageError("--rank belongs to --step", found=f"--rank {rank} alone")
    if min_tokens is not None and output is None and prompt is None:
        raise UsageError("--min-tokens belongs to --output or --prompt", found=f"--min-tokens {min_tokens} alone")
    if max_tokens is not None and prompt is None:
        raise UsageError("--max-tokens belongs to --prompt", found=f"--max-tokens {max_tokens} alone")
    if output is not None or prompt is not None:
        _show_output(output, prompt, min_tokens, max_tokens, limit, as_json)
        return
    if release is not None:
        _show_release(release, limit, as_json)
        return
    if step is not None:
        _show_step(step, rank, limit, as_json)
        return
    opened = open_index(DATA)
    if not opened.parts:
        raise InputError(
            "there is nothing to trace", where=str(DATA), expected="a stage's folder", found="none", fix="headwater run"
        )
    if index:
        sizes = {stage: sum(part.description.entries.values()) for stage, part in opened.parts.items()}
        _print(as_json, {"index": sizes}, [Text(f"{stage:<14} {count:>12,} names") for stage, count in sizes.items()])
    elif text is not None:
        _show_text(opened, text, limit, as_json)
    else:
        _show_query(opened, query or "", limit, as_json)


def _examples() -> tuple[Any, Path] | None:
    """Return the index of an adaptation's examples, and its folder; None where there is none."""
    from flows.history.trace_index import open_index
    from flows.workspace.adaptation import FOLDER

    opened = open_index(FOLDER)
    return (opened, FOLDER) if opened.parts else None


def _show_query(index: Any, query: str, limit: int, as_json: bool) -> None:
    from flows.proof.trace import HostTrace, Tracer

    found = Tracer(index, DATA).trace(query, limit)
    if not isinstance(found, HostTrace) and not found.matched and (examples := _examples()):
        found = Tracer(*examples).trace(query, limit)
    if isinstance(found, HostTrace):
        _print(as_json, asdict(found), host_lines(found))
        return
    _print(as_json, asdict(found), trace_lines(found))
    if not found.matched:
        sys.exit(1)


def _show_text(index: Any, path: Path, limit: int, as_json: bool) -> None:
    from flows.proof.trace import Tracer
    from flows.proof.trace_examples import find_example
    from flows.proof.trace_texts import find_text

    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise UsageError("the file cannot be read", where=str(path), found=error.strerror) from error
    match, data = find_text(index, text), DATA
    if (match is None or not match.equal) and (examples := _examples()):
        other = find_example(examples[1], text)
        if other is not None:
            match, (index, data) = other, examples
    if match is None:
        lines = [Text("never seen: no document has this text, or shares a passage of five words with it")]
        _print(as_json, {"match": None, "trace": None}, lines)
        sys.exit(1)
    found = Tracer(index, data).trace_names(match.doc_id, limit)
    _print(as_json, {"match": asdict(match), "trace": asdict(found)}, [match_line(match), *trace_lines(found)])


def _show_step(step: int, rank: int | None, limit: int, as_json: bool) -> None:
    from flows.proof.trace_training import open_training

    training = open_training(DATA)
    if training is None:
        raise InputError("there is no finished training run here", where="data/train", fix="headwater run")
    ranks = range(training.order.ranks) if rank is None else [rank]
    batches = [training.batch(step, one) for one in ranks]
    _print(
        as_json,
        {"batches": [{**asdict(batch), "equal": batch.equal} for batch in batches]},
        step_lines(batches, limit),
    )
    if not all(batch.equal for batch in batches):
        sys.exit(1)


def _show_output(
    output: Path | None,
    prompt: str | None,
    min_tokens: int | None,
    max_tokens: int | None,
    limit: int,
    as_json: bool,
) -> None:
    from flows.history.trace_index import open_index
    from flows.proof.trace_output import FEWEST_TOKENS, OutputTracer, ask_release, read_output

    text = ask_release(prompt, DATA, max_tokens) if prompt is not None else read_output(output or Path())
    found = OutputTracer(DATA).trace(
        text, open_index(DATA), fewest_tokens=FEWEST_TOKENS if min_tokens is None else min_tokens, limit=limit
    )
    answer = {} if prompt is None else {"prompt": prompt, "output": text}
    _print(as_json, {**answer, **asdict(found)}, output_lines(found, None if prompt is None else text))
    if not found.spans:
        sys.exit(1)


def _show_release(name: str, limit: int, as_json: bool) -> None:
    from flows.proof.trace_release import find_release, release_sources

    sources = release_sources(find_release(name, DATA), DATA)
    _print(as_json, asdict(sources), release_lines(sources, limit))


def _print(as_json: bool, value: Mapping[str, Any], lines: Iterable[Any]) -> None:
    if as_json:
        console.json(value, default=lambda one: one.model_dump(mode="json"))
        return
    for line in lines:
        console.print(line)
