"""`headwater filters`: the filters that there are, one of them tried on real documents, a classifier trained."""

from __future__ import annotations

import inspect
import json
import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import jinja2
import typer
from rich.table import Table

from flows.output import JsonOption, Text, console
from flows.workspace.assignments import split_assignment
from flows.workspace.graph import load_graph
from flows.workspace.params import read_params, stage_params
from tasks.contracts.durable_files import write_bytes
from tasks.contracts.errors import UsageError, raised

app = typer.Typer(help="Filters: list, look at and try them; train a classifier.", no_args_is_help=True)
_TEMPLATE = Path(__file__).with_name("filters.html.j2")
_MOST_ON_PAGE = 200


@app.command("list")
def list_filters(as_json: JsonOption = False) -> None:
    """List the filters, and which of them params.yaml uses.

    Example: headwater filters list
    """
    from tasks.filter.loading import available, rule_class

    listed = [name for rule in _rules() for name in rule]
    rows = []
    for name in available():
        # One broken file hides no other filter.
        broken = next(raised(lambda name=name: rule_class(name)), None)  # type: ignore[misc]
        what = f"broken: {broken.found}" if broken else _summary(rule_class(name))
        rows.append((name, name in listed, what))
    if as_json:
        console.json([{"name": name, "used": used, "what": what} for name, used, what in rows])
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("filter", no_wrap=True)
    table.add_column("in use", no_wrap=True)
    table.add_column("what it does", overflow="fold")
    for name, used, what in rows:
        table.add_row(name, "yes" if used else "", Text(what))
    console.print(table)
    console.print("\n`use: package.module:Class` takes any other, datatrove's among them.", soft_wrap=True)


@app.command()
def new(name: Annotated[str, typer.Argument(help="The new filter's name, such as exclamations.")]) -> None:
    """Write a filter to start from, with its doctest, and say what to do next.

    Example: headwater filters new exclamations
    """
    from tasks.filter.new_rule import FOLDER, rule_to_start_from

    if not FOLDER.is_dir():
        raise UsageError(
            "a filter is written in a workspace",
            where=str(Path.cwd()),
            expected=f"the folder {FOLDER.as_posix()}",
            fix="go to the workspace, or make one by `headwater init DIR`",
        )
    file = FOLDER / f"{name}.py"
    write_bytes(file, rule_to_start_from(name).encode())
    console.lines(
        f"{file.as_posix()} is a filter that works: change it, then try it and its doctest\n"
        f"  .venv/bin/headwater filters try {name} --set max_share=0.1\n"
        f"  .venv/bin/python -m pytest -q {file.as_posix()}\n"
        "and put it among filter.rules of params.yaml\n"
        f"  - {name}: {{max_share: 0.1}}"
    )


@app.command()
def show(name: Annotated[str, typer.Argument(help="A filter's name.")], as_json: JsonOption = False) -> None:
    """Show a filter's settings: their meaning, default, and value in params.yaml.

    Example: headwater filters show gopher_quality
    """
    from tasks.filter.loading import rule_class

    kind = rule_class(name, "headwater filters show")
    used = next((rule[name] or {} for rule in _rules() if name in rule), None)
    schema = kind.model_json_schema()["properties"]
    settings = [
        {
            "name": key,
            "meaning": " ".join((field.description or "").split()),
            "default": None if field.is_required() else schema[key].get("default"),
            "params": (used or {}).get(key),
        }
        for key, field in kind.model_fields.items()
    ]
    if as_json:
        console.json({"name": name, "used": used is not None, "settings": settings})
        return
    console.print(Text(f"{name}: {_summary(kind)}", style="bold"))
    console.print(Text("\n" + inspect.cleandoc(kind.__doc__ or "").split("\n>>>")[0].strip() + "\n"))
    console.print("in params.yaml\n" if used is not None else "not in params.yaml\n")
    for setting in settings:
        console.print(Text(str(setting["name"]), style="bold"))
        console.print(Text(textwrap.indent(textwrap.fill(str(setting["meaning"]), 76), "    ")))
        values = f"    default {json.dumps(setting['default'], ensure_ascii=False)}"
        if setting["params"] is not None:
            values += f"\n    params.yaml {json.dumps(setting['params'], ensure_ascii=False)}"
        console.print(Text(values, style="dim"))


@app.command("try")
def try_filter(
    name: Annotated[str, typer.Argument(help="A filter's name, or package.module:Class.")],
    shards: Annotated[Path, typer.Option("--input", help="A folder of shards, or one.")] = Path("data/extract"),
    most: Annotated[int, typer.Option("--sample", min=1, help="Most documents to try it on.")] = 500,
    sets: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Another setting than params.yaml's.")
    ] = None,
    examples: Annotated[int, typer.Option(min=0, help="Documents shown in the terminal.")] = 5,
    as_json: JsonOption = False,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page with the documents, too.")] = None,
) -> None:
    """Try a filter on real documents: what it drops and edits, why, alone and after the others of params.yaml.

    Example: headwater filters try gopher_quality --set min_doc_words=100 --html try.html
    """
    from tasks.filter.loading import load
    from tasks.filter.trial import attempt, effect_as_json, sample

    rules = _rules()
    settings, others = _settings(name, rules)
    settings |= dict(split_assignment(assignment, "KEY=VALUE", UsageError) for assignment in sets or [])
    (loaded,) = load([{"use": name, "with": settings} if ":" in name else {name: settings}])
    documents, total = sample(shards, most)
    trial = attempt(loaded, load(others), iter(documents))
    cases = sorted(trial.cases, key=lambda case: not case.marginal)
    result: dict[str, Any] = {
        "filter": loaded.name,
        "settings": dict(loaded.settings),
        "input": shards.as_posix(),
        "documents": {"tried": len(documents), "all": total},
        "alone": effect_as_json(trial.alone),
        "after_the_others": effect_as_json(trial.after),
        "cases": [asdict(case) for case in cases],
    }
    if html is not None:
        template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
        page = template.from_string(_TEMPLATE.read_text(encoding="utf-8"))
        write_bytes(html, page.render(**result, most=_MOST_ON_PAGE).encode())
    if as_json:
        console.json(result)
        return
    _print_trial(result, examples)
    if html is not None:
        console.print(f"\npage  {html}", soft_wrap=True)


@app.command("train-classifier")
def train_classifier(
    good: Annotated[list[Path], typer.Option(help="Good texts: JSONL or Parquet with `text`, or a text a line.")],
    bad: Annotated[list[Path], typer.Option(help="Bad texts, in the same forms.")],
    output: Annotated[Path, typer.Option(metavar="FILE", help="Where the model goes.")],
    language: Annotated[str, typer.Option(help="Whose words: datatrove's code.")] = "eng",
    bits: Annotated[int, typer.Option(min=8, max=24, help="2**BITS weights, 4 bytes each before compression.")] = 16,
    ngrams: Annotated[int, typer.Option(min=1, max=4, help="Longest run of words.")] = 2,
    as_json: JsonOption = False,
) -> None:
    """Train the model of the filter quality_classifier, and print how it does on texts that it has not seen.

    --good and --bad may be given more than once; each is a file or a folder of shards.

    Example: headwater filters train-classifier --good good.jsonl --bad bad.jsonl --output quality.json
    """
    from tasks.filter.classifier import train

    model = train(good, bad, output, language=language, bits=bits, ngrams=ngrams)
    held = model.held_out
    if as_json:
        console.json({"model": output.as_posix(), "held_out": held.model_dump()})
        return
    console.print(
        f"{output}: {output.stat().st_size:,} bytes\n"
        f"held out   {held.good:,} good and {held.bad:,} bad texts\n"
        f"precision  {held.precision:.3f}  (of what it calls good, at 0.5)\n"
        f"recall     {held.recall:.3f}\n"
        f"AUC        {held.auc:.3f}",
        soft_wrap=True,
    )


def _rules() -> list[dict[str, Any]]:
    params: Any = stage_params(read_params(), load_graph()["filter"])
    return [dict(rule) for rule in params.rules]


def _settings(name: str, rules: list[dict[str, Any]]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the settings that params.yaml has for a filter, and the other rules."""
    if ":" in name:
        same = [rule for rule in rules if rule.get("use") == name]
        settings = same[0].get("with") if same else {}
    else:
        same = [rule for rule in rules if name in rule]
        settings = same[0][name] if same else {}
    return dict(settings or {}), [rule for rule in rules if rule not in same]


def _summary(kind: type[Any]) -> str:
    """Return the first line of a rule's module."""
    module = inspect.getmodule(kind)
    return inspect.cleandoc((module.__doc__ if module else None) or "").split("\n")[0]


def _print_trial(result: dict[str, Any], examples: int) -> None:
    tried, total = result["documents"]["tried"], result["documents"]["all"]
    alone, after = result["alone"], result["after_the_others"]
    console.print(
        Text.assemble((result["filter"], "bold"), f" on {tried:,} of {total:,} documents of {result['input']}\n")
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("", no_wrap=False, overflow="fold")
    table.add_column("alone", justify="right", no_wrap=True)
    table.add_column("after the others", justify="right", no_wrap=True)
    table.add_row("asked about", f"{alone['asked']:,}", f"{after['asked']:,}")
    for action in ("kept", "edited", "dropped"):
        table.add_row(action, _share(alone, action), _share(after, action))
    for rule in dict.fromkeys([*alone["rules"], *after["rules"]]):
        table.add_row(Text(f"  {rule}", style="dim"), *(_share(effect, rule) for effect in (alone, after)))
    console.print(table)
    for case in result["cases"][:examples]:
        console.print()
        console.print(_case_text(case))
    left = len(result["cases"]) - examples
    if left > 0:
        console.print(f"\n{left:,} more; --html FILE shows them, --examples N more of them here", soft_wrap=True)


def _share(effect: dict[str, Any], what: str) -> str:
    """Return how many were kept, edited or dropped, or fell to a rule, and their share."""
    count = effect.get(what, effect["rules"].get(what, 0))
    return f"{count:,}  {count / max(1, effect['asked']):6.1%}"


def _case_text(case: dict[str, Any]) -> Text:
    what = "dropped" if case["action"] == "drop" else "edited"
    numbers = [f"score {case['score']:.4g}"] if case["score"] is not None else []
    numbers += [f"threshold {case['threshold']:.4g}"] if case["threshold"] is not None else []
    excerpt = case["excerpt"]
    text = Text.assemble((what, "bold yellow" if case["action"] == "edit" else "bold red"), " ", (case["rule"], "bold"))
    text.append("" if case["marginal"] else "  (the others change this)", "dim")
    text.append(f"\n{case['url']}", "dim")
    why = ", ".join([*numbers, *([str(case["detail"])] if case["detail"] else [])])
    text.append(f"\n{why}\n" if why else "\n")
    text.append(_one_line(excerpt["before"]), "dim")
    text.append(_one_line(excerpt["found"]), "reverse")
    if excerpt["becomes"] is not None:
        text.append(f" → {_one_line(excerpt['becomes']) or 'nothing'} ", "green")
    text.append(_one_line(excerpt["after"]), "dim")
    return text


def _one_line(text: str) -> str:
    """Return a text with its line ends as marks and without control characters."""
    marked = text.replace("\n", " ⏎ ")
    return "".join(character if character.isprintable() else " " for character in marked)
