"""`headwater params`: shows and changes params.yaml, the only settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from flows.output import JsonOption, console
from flows.workspace.graph import load_graph
from tasks.contracts.errors import UsageError, did_you_mean
from tasks.contracts.redaction import without_secrets

app = typer.Typer(help="Show and change params.yaml, the only settings.", no_args_is_help=True)


@app.command("show")
def params_show(
    section: Annotated[str | None, typer.Argument(help="A section; all when left out.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show the settings in force, each with its meaning.

    Example: headwater params show train
    """
    from flows.workspace.params import check_params, read_params

    checked = check_params(read_params(), load_graph())
    if section:
        if section not in checked:
            hint = did_you_mean(section, checked)
            raise UsageError("there is no such section", expected=", ".join(checked), found=section, fix=hint)
        checked = {section: checked[section]}
    if as_json:
        console.json({name: model.model_dump(mode="json") for name, model in checked.items()})
        return
    for name, model in checked.items():
        table = Table(title=name, title_justify="left", title_style="bold", box=None, show_header=False, pad_edge=False)
        for key, field in type(model).model_fields.items():
            table.add_row(key, json.dumps(model.model_dump(mode="json")[key]), field.description or "")
        console.print(table)


@app.command("apply")
def params_apply(profile: Annotated[str, typer.Argument(help="A file of infra/profiles/, without .yaml.")]) -> None:
    """Lay a profile over params.yaml and show what changed.

    Example: headwater params apply web
    """
    from flows.workspace.params import apply_profile, check_params

    change = apply_profile(profile, check=lambda settings: check_params(settings, load_graph()))
    console.lines(change or "params.yaml holds these values already")


@app.command("diff")
def params_diff() -> None:
    """Show how params.yaml differs from the version in git.

    Example: headwater params diff
    """
    import subprocess

    from flows.workspace.params import diff_text

    committed = subprocess.run(["git", "show", "HEAD:params.yaml"], capture_output=True, text=True, check=False).stdout
    change = diff_text(committed, Path("params.yaml").read_text(encoding="utf-8"))
    console.lines(without_secrets(change) or "params.yaml is as in git")
