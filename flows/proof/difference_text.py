"""What `headwater diff` prints: the two releases, where they part, then a table for each kind of difference."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from flows.output import Text
from flows.proof.difference import COUNTS, FILES, INPUTS, SETTINGS, Difference, Side, StageChange
from flows.proof.difference_scores import GateFigure, ScoreChange
from flows.proof.difference_settings import SettingChange
from flows.proof.difference_sources import FILE, LISTS, TIME, Source, SourceChange
from flows.proof.release_files import RELEASE

NONE = "–"
HASH_DIGITS_SHOWN = 12
# The JSON of two lists that fit into a line of 80 columns beside the setting's name.
LONGEST_LIST_CHARACTERS = 30
COMMIT, SHA256 = 40, 64
MOST_NAMES_SHOWN = 4
CRAWLED, TRAINED_ON = "crawl", "mix"

Cell = str | Text


def lines(found: Difference, *, limit: int | None) -> Iterator[Any]:
    """Yield what to print, the first things first.

    Args:
        limit: rows of a table at most; None shows all.
    """
    yield from _heads(found)
    yield Text("")
    yield from _cause(found)
    for title, section in (
        ("Scores", _scores(found)),
        ("Gate", _gate(found)),
        ("Settings", _settings(found, limit)),
        ("Rules: the list of filters", _rules(found, limit)),
        ("Sources", _sources(found, limit)),
        ("Counts", _counts(found, limit)),
        ("Data: the files of each stage that has another output", _data(found)),
        ("Code", _code(found, limit)),
    ):
        shown = list(section)
        if shown:
            yield Text(f"\n{title}", "bold")
            yield from shown


def _heads(found: Difference) -> Iterator[Any]:
    for letter, side in (("A", found.a), ("B", found.b)):
        said = ", ".join([f"gate: {side.verdict or 'no report'}", *_beside(side)])
        yield Text.assemble((f"{letter}  {side.name}", "bold"), f"  {side.manifest_sha256[:HASH_DIGITS_SHOWN]}  {said}")
        yield Text(f"   {_place(side)}", "dim")
        if side.broken:
            yield Text("   NOT as its manifest says:", "bold red")
            yield from (Text(f"     {broken}") for broken in side.broken[:MOST_NAMES_SHOWN])
            yield Text(f"   `headwater verify {_place(side)}` names all that is wrong with it", "dim")


def _place(side: Side) -> str:
    """Return the release's folder, seen from here; a kept copy is called by its hash, which is said already."""
    folder = Path(side.folder)
    if folder.is_relative_to(Path.cwd()):
        folder = folder.relative_to(Path.cwd())
    return str(folder.parent if folder.name == side.manifest_sha256 else folder)


def _beside(side: Side) -> Iterator[str]:
    if side.signed:
        yield "signed"
    if side.marked:
        yield "marked by a takedown" + (f" ({_listed(side.takedowns)})" if side.takedowns else "")


def _cause(found: Difference) -> Iterator[Any]:
    first = next((stage for stage in found.stages if stage.first), None)
    if found.same:
        yield Text("Nothing differs: it is one release.", "bold")
    elif first is None and found.a.beside == found.b.beside:
        yield Text("Both have the manifest of one release, but not both folders hold what it lists.", "bold")
    elif first is None:
        yield Text("It is one release. What differs stands beside it: a takedown's mark, or a signature.", "bold")
    else:
        yield Text.assemble("They part at ", (first.stage, "bold"), f": {_reason(first, found)}.")
        later = [stage for stage in found.stages if not stage.same and not stage.first]
        own = [stage.stage for stage in later if SETTINGS in stage.why]
        if own:
            yield Text(f"Settings differ later in {', '.join(own)} too.")
        for stage in later:
            if not {SETTINGS, INPUTS} & {*stage.why}:
                yield Text(f"{stage.stage}: {_reason(stage, found)}.")
        same = found.a.weights_sha256 == found.b.weights_sha256
        yield Text("The weights are the same." if same else "The weights are not the same.")


def _reason(stage: StageChange, found: Difference) -> str:
    if SETTINGS in stage.why:
        own = f"{stage.stage}."
        differ = [one for one in found.settings if one.name.startswith(own) and not one.same and not _unset(one)]
        names = [one.name.removeprefix(own) for one in differ]
        names += [rule.rule for rule in found.rules if stage.stage == "filter" and not rule.same]
        return "its settings differ" + (f" ({_listed(names)})" if names else "")
    if FILES in stage.why:
        return _files_alone(stage)
    if COUNTS in stage.why:
        return "its files are the same, and its counts are not"
    return {"added": "only B has it", "removed": "only A has it"}.get("".join(stage.why), "its inputs differ")


def _files_alone(stage: StageChange) -> str:
    if stage.stage == "crawl":
        return "equal settings, another snapshot: it was fetched again, or other files were given"
    return "equal settings and inputs gave OTHER FILES, " + {
        "same": "by the same code and libraries: this stage is NOT DETERMINISTIC",
        "other": "by other code or libraries (see Code)",
    }.get(str(stage.code), "by other code or libraries, or it is NOT DETERMINISTIC; nothing here says which of the two")


def _scores(found: Difference) -> Iterator[Any]:
    if not found.scores:
        return
    table = _table("metric", ">A", ">B", ">B − A", "95 % interval", "")
    tasks: dict[str, list[ScoreChange]] = defaultdict(list)
    for score in found.scores:
        tasks[score.task].append(score)
    for task, scores in tasks.items():
        _row(table, task)
        for score in scores:
            interval = "" if score.low is None else f"{score.low:+.4f} to {score.high:+.4f}"
            figures = (_real(score.a), _real(score.b), _real(score.difference, "+"))
            _row(table, f"  {score.metric}", *figures, interval, _better(score))
    yield table
    for task, scores in tasks.items():
        a, b, shared = scores[0].items
        if scores[0].same_items is False:
            said = f"A was scored on {a:,} items, B on {b:,}; {shared:,} have the same name"
            if a == b == shared:
                said = "the items have the same names, but another text, or evaluate.num_fewshot or limit differs"
            yield Text(f"{task}: {said}", "dim")
    if any(score.same_items is False for score in found.scores):
        yield Text("On other items, neither figure says which release is better.")


def _better(score: ScoreChange) -> str:
    if score.same_items is False:
        return "other items"
    if score.same:
        return "equal"
    return {"a": "A is better", "b": "B is better", "unclear": "not clear"}.get(str(score.better), "")


def _gate(found: Difference) -> Iterator[Any]:
    if not found.gate:
        return
    table = _table("rule", "", "verdict", ">value", "interval", ">bound")
    for change in found.gate:
        _row(table, change.rule, "A", *_figure(change.a))
        _row(table, "", "B", *_figure(change.b))
    yield table


def _figure(figure: GateFigure | None) -> tuple[str, ...]:
    if figure is None:
        return (NONE,)
    interval = "" if figure.low is None or figure.high is None else f"{figure.low:.4f} to {figure.high:.4f}"
    bound = "" if figure.threshold is None else f"{figure.threshold:g}"
    return figure.verdict, "" if figure.value is None else f"{figure.value:.4f}", interval, bound


def _settings(found: Difference, limit: int | None) -> Iterator[Any]:
    unset = [one for one in found.settings if limit is not None and _unset(one)]
    rows = [one for one in found.settings if one not in unset]
    if rows:
        table = _table("setting", "A", "B")
        for change in rows[:limit]:
            _row(table, change.name, *_pair(change))
        yield table
        yield from _more(rows, limit)
    if unset:
        yield Text(f"{len(unset)} more exist in one of the two only, and are null there; --all names them", "dim")


def _unset(change: SettingChange) -> bool:
    """Whether it is a setting that one version knows and the other does not, and that nobody set."""
    return change.only_in is not None and change.a is None and change.b is None


def _rules(found: Difference, limit: int | None) -> Iterator[Any]:
    rows: list[tuple[str, ...]] = []
    for rule in found.rules:
        places = [NONE if place is None else f"place {place}" for place in (rule.a, rule.b)]
        word = "added" if rule.a is None else "removed" if rule.b is None else "moved" if rule.moved else ""
        rows.append((f"{rule.rule}  {word}".rstrip(), *(places if word or rule.same else ())))
        rows += [(f"  {setting.name}", *_pair(setting)) for setting in rule.settings]
    if rows:
        table = _table("filter", "A", "B")
        for row in rows[:limit]:
            _row(table, *row)
        yield table
        yield from _more(rows, limit)


def _sources(found: Difference, limit: int | None) -> Iterator[Any]:
    documents = found.documents
    if documents is not None and (limit is None or documents.only_a or documents.only_b):
        yield Text(
            f"documents: {documents.both:,} in both, {documents.only_a:,} only in A, {documents.only_b:,} only in B"
        )
    for kind in LISTS:
        changes = [change for change in found.sources if change.kind == kind]
        if changes:
            table = _table(kind, ">A", ">B", ">B − A")
            for change in changes[:limit]:
                _row(table, change.name, *_source_cells(change))
            yield table
            yield from _more(changes, limit)
    for change in found.sources:
        if change.kind in (FILE, TIME):
            a, b = (NONE if one is None else _value(one.value) for one in (change.a, change.b))
            what = f"fetched {change.name}" if change.kind == TIME else f"made from {change.name}"
            yield Text(f"{what}: {a}" if change.same else f"{what}: {a} → {b}")
    if all(stage.same for stage in found.stages if stage.stage in (CRAWLED, TRAINED_ON)):
        return
    silent: dict[str, list[str]] = defaultdict(list)
    for missing in found.not_told:
        silent[f"{missing.release.upper()}: {missing.why}"].append(missing.kind)
    for why, kinds in silent.items():
        yield Text(f"not compared: {', '.join(kinds)} ({why})", "dim")


def _source_cells(change: SourceChange) -> tuple[str, str, str]:
    cells = [NONE if one is None else _source(one) for one in (change.a, change.b)]
    if change.a is None or change.b is None:
        return cells[0], cells[1], "added" if change.a is None else "gone"
    pairs = [(change.a.documents, change.b.documents), (change.a.tokens, change.b.tokens)]
    return cells[0], cells[1], "\n".join(f"{b - a:+,}" for a, b in pairs if a is not None and b is not None)


def _source(source: Source) -> str:
    named = {"documents": source.documents, "tokens": source.tokens}
    said = [(f"{number:,}", name if number != 1 else name[:-1]) for name, number in named.items() if number is not None]
    return "\n".join(" ".join(words) for words in said)


def _counts(found: Difference, limit: int | None) -> Iterator[Any]:
    """Show what every stage took in and put out, and of the drop reasons those that changed most."""
    if not found.counts:
        return
    drops = [one for one in found.counts if one.rule is not None]
    largest = sorted(drops, key=lambda one: (-abs((one.b or 0) - (one.a or 0)), one.rule))[:limit]
    table = _table("count", ">A", ">B", ">B − A")
    before = ""
    for change in found.counts:
        if change.rule is not None and change not in largest:
            continue
        if change.stage != before:
            _row(table, f"{change.stage} ({change.unit})")
            before = change.stage
        gained = "" if change.a is None or change.b is None else f"{change.b - change.a:+,}"
        what = change.what if change.rule is None else f"− {change.rule}"
        _row(table, f"  {what}", _whole(change.a), _whole(change.b), gained)
    yield table
    yield from _more(drops, limit)


def _data(found: Difference) -> Iterator[Any]:
    rows = [stage for stage in found.stages if not stage.same]
    if not rows:
        return
    table = _table("stage", "differs by its", ">same", ">changed", ">new", ">gone")
    for stage in rows:
        files = stage.files
        numbers = [f"{number:,}" for number in (files.same, files.changed, files.new, files.gone)]
        name = Text(f"{stage.stage} ◄ first", "bold") if stage.first else Text(stage.stage)
        _row(table, name, " and ".join(stage.why).replace(FILES, "FILES ALONE"), *numbers)
    yield table
    for stage in rows:
        if FILES in stage.why or stage.stage == RELEASE:
            yield Text(f"{stage.stage}: {_listed(stage.differ)}", "dim")
    if len(rows) < len(found.stages):
        yield Text(f"the other {len(found.stages) - len(rows)} stages have the same output in both", "dim")


def _code(found: Difference, limit: int | None) -> Iterator[Any]:
    """Show versions, one row for all stages in which they are the same."""
    where: dict[tuple[str, str, str | None, str | None], list[str]] = defaultdict(list)
    for change in found.code:
        stage, _, name = change.name.rpartition(": ") if change.kind == "installed" else (change.name, "", "")
        if change.kind in ("library", "program"):
            stage, name = "", change.name
        where[change.kind, name, change.a, change.b].append(stage)
    if not where:
        return
    known = len(found.stages)
    table = _table("made with", "A", "B", "in")
    for (kind, name, a, b), stages in list(where.items())[:limit]:
        named = {"library": f"{name} (pinned)", "program": f"{name} in the release", "commit": "git commit"}
        listed = "every stage" if len(stages) == known else ", ".join(stages)
        _row(table, named.get(kind, f"{name} (installed)"), _version(a), _version(b), listed)
    yield table
    yield from _more(list(where), limit)


def _version(version: str | None) -> str:
    if version is None:
        return NONE
    digest, comma, rest = version.partition(",")
    return (digest[:HASH_DIGITS_SHOWN] if len(digest) in (COMMIT, SHA256) else digest) + comma + rest


def _pair(change: SettingChange) -> tuple[str, str]:
    """Return how to show both values: of long lists that have entries in common, only those that differ."""
    a, b = change.a, change.b
    if isinstance(a, list) and isinstance(b, list) and len(json.dumps([a, b])) > LONGEST_LIST_CHARACTERS:
        alone = [one for one in a if one not in b], [one for one in b if one not in a]
        if any(alone) and any(one in b for one in a):
            first, second = (
                f"{_value(one)} of {len(whole)}" if one else f"all its {len(whole)} are in {other}"
                for one, whole, other in zip(alone, (a, b), "BA", strict=True)
            )
            return first, second
    return NONE if change.only_in == "b" else _value(a), NONE if change.only_in == "a" else _value(b)


def _value(value: Any) -> str:
    if isinstance(value, str):
        return f"{value[:HASH_DIGITS_SHOWN]}…" if len(value) == SHA256 else value or '""'
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def _listed(names: Sequence[str], most: int | None = MOST_NAMES_SHOWN) -> str:
    more = 0 if most is None else len(names) - most
    return ", ".join(names[:most]) + (f" and {more:,} more" if more > 0 else "")


def _more(rows: Sequence[Any], limit: int | None) -> Iterator[Any]:
    if limit is not None and len(rows) > limit:
        yield Text(f"{len(rows) - limit:,} more rows; --limit N or --json shows them", "dim")


def _whole(number: int | None) -> str:
    return NONE if number is None else f"{number:,}"


def _real(number: float | None, sign: str = "") -> str:
    return NONE if number is None else f"{number:{sign}.4f}"


def _table(first: str, *columns: str) -> Table:
    """Return a table; a column named with `>` holds numbers, on the right, and is never broken.

    Nor is the first column, where another one can be.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    numbers = [name.startswith(">") for name in columns]
    table.add_column(first, overflow="fold", no_wrap=not all(numbers))
    for name, number in zip(columns, numbers, strict=True):
        table.add_column(name.removeprefix(">"), justify="right" if number else "left", overflow="fold", no_wrap=number)
    return table


def _row(table: Table, *cells: Cell) -> None:
    table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in cells))
