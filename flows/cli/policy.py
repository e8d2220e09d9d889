"""`headwater policy`: the stored opt-out evidence, judged again.

What a page reserves was captured with it: the crawl's metadata records, its HTTP headers, its meta elements. So another
policy needs no fetch: each captured page is read and judged as the stage extract does it, and compared with what
data/extract did to it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from pydantic import ValidationError
from rich.table import Table
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from flows.output import Text, console
from flows.proof.opt_outs import ACTIONS, KINDS, Checked, as_dict, check_policy
from flows.workspace.graph import load_graph
from flows.workspace.params import read_params, stage_params
from tasks.contracts.errors import UsageError, did_you_mean
from tasks.rights.evidence import OptOutPolicy

_SHOWN = 8
app = typer.Typer(help="What pages say about being used, and what a policy makes of it.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keep `check` a subcommand while it is the only one."""


@app.command()
def check(
    policy: Annotated[
        Path | None, typer.Option("--policy", metavar="FILE.yaml", help="A policy instead of params.yaml's.")
    ] = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", metavar="SIGNAL=ACTION", help="drop, keep or mark; may be repeated.")
    ] = None,
    examples: Annotated[int, typer.Option(min=0, help="Pages shown of each kind of change.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts; it lists every page.")] = False,
) -> None:
    """Judge the stored opt-out evidence again, without fetching, and show what would change in data/extract.

    The policy is `extract.opt_out` of params.yaml, or a YAML file that holds such a section. Exit code 0 when nothing
    would change, 1 when something would.

    Example: headwater policy check --set nosnippet=drop
    """
    crawl, extract = Path("data/crawl"), Path("data/extract")
    chosen = chosen_policy(policy, sets or [])
    result = check_policy(crawl, extract, chosen)
    if as_json:
        console.json({"policy": chosen.model_dump(mode="json"), **as_dict(result)})
    else:
        _show(result, examples)
    if result.changes:
        sys.exit(1)


def chosen_policy(file: Path | None, sets: Sequence[str]) -> OptOutPolicy:
    """Return the policy of a file, or else of params.yaml, with some signals set otherwise.

    Raises:
        UsageError: the file cannot be read or is no policy; a signal or an action that there is not.
    """
    values = _policy_file(file) if file is not None else _policy_in_params()
    known = [name for name in OptOutPolicy.model_fields if name != "agents"]
    for assignment in sets:
        name, equals, action = assignment.partition("=")
        name = name.strip().replace("-", "_").replace(".", "_")
        action = action.strip()
        if not equals or name not in known or action not in ACTIONS:
            raise UsageError(
                "a signal's action cannot be read",
                expected=f"SIGNAL=drop, keep or mark; SIGNAL one of {', '.join(known)}",
                found=assignment,
                fix=did_you_mean(name, known) if name not in known else did_you_mean(action, ACTIONS),
            )
        values[name] = action
    try:
        return OptOutPolicy.model_validate(values)
    except ValidationError as error:
        wrong = error.errors()[0]
        raise UsageError(
            "this is no opt-out policy",
            where=f"{file}: {'.'.join(map(str, wrong['loc']))}",
            expected=f"drop, keep or mark for each of {', '.join(known)}; a list `agents`",
            found=str(wrong["msg"]),
        ) from error


def _policy_in_params() -> dict[str, Any]:
    params = cast(Any, stage_params(read_params(), load_graph()["extract"]))
    return dict(params.opt_out.model_dump())


def _policy_file(path: Path) -> dict[str, Any]:
    try:
        loaded = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        raise UsageError("a policy cannot be read", where=str(path), found=str(error)) from error
    if not isinstance(loaded, dict):
        raise UsageError(
            "a policy is a mapping of signals", where=str(path), expected="noai: drop", found=type(loaded).__name__
        )
    return loaded


def _show(result: Checked, examples: int) -> None:
    console.print(
        f"{result.pages:,} pages judged, {result.reserving:,} with a signal, {result.gone:,} dropped by extract for "
        "other reasons",
        soft_wrap=True,
    )
    if not result.changes:
        console.print("nothing would change")
        return
    found = as_dict(result)
    for kind, title in KINDS.items():
        of_kind = found[kind]
        if not of_kind["pages"]:
            continue
        console.print(Text(f"\n{title}: {of_kind['pages']:,}", style="bold"))
        table = Table(box=None, pad_edge=False, show_header=False)
        for what in ("by_signal", "by_host"):
            for name, number in list(of_kind[what].items())[:_SHOWN]:
                table.add_row(what.replace("_", " "), Text(name, overflow="fold"), f"{number:,}")
            if len(of_kind[what]) > _SHOWN:
                table.add_row("", f"… {len(of_kind[what]) - _SHOWN:,} more", "")
        console.print(table)
        for change in of_kind["changes"][:examples]:
            console.print(Text(f"  {change['url']}  {change['before']} → {change['after']}"), soft_wrap=True)
    console.print("\n`headwater run` applies a policy that stands in params.yaml (extract.opt_out).", soft_wrap=True)
