"""`headwater run`: every stage that is not up to date, and what came of it."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from flows.output import console, errors
from flows.workspace.graph import load_graph, select
from tasks.contracts.disk import disk_full
from tasks.contracts.errors import HeadwaterError, UsageError
from tasks.contracts.files import REPORT_NAME


def run(
    sets: Annotated[
        list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change params.yaml first.")
    ] = None,
    profiles: Annotated[
        list[str] | None, typer.Option("--profile", help="Lay a file of infra/profiles/ over params.yaml before that.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="The last stage to run.")] = None,
    force: Annotated[list[str] | None, typer.Option(help="Run this stage again although nothing changed.")] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Say what would run and why; nothing is started or written.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --plan: print JSON for scripts.")] = False,
) -> None:
    """Run the pipeline: every stage that is not up to date, from raw pages to the release.

    Example: headwater run --profile web --set train.max_steps=400 --until evaluate
    """
    if as_json and not plan:
        raise UsageError("--json belongs to --plan", found="--json alone", fix="`headwater report --json` after a run")
    from flows.pipeline.preflight import ready
    from flows.services.embedded import prefect_is_clear, prefect_server
    from flows.workspace.dvc import keep_lock
    from flows.workspace.locks import workspace_lock
    from flows.workspace.params import change_values, wanted_changes

    graph = load_graph()
    for name in [*([until] if until else []), *(force or [])]:
        select(graph, name)
    if plan:
        _show_plan(wanted_changes(profiles or [], sets or []), until, force or [], as_json)
        return
    # The terminal shows the stages' own lines; Prefect's account of them goes to its server only.
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    with workspace_lock("run"):
        keep_lock()
        change = change_values(
            profiles or [], sets or [], check=lambda settings: ready(settings, graph, until, force or [])
        )
        wait_for_server = prefect_server()
    if change:
        console.lines(f"params.yaml\n{change}")
    from flows.pipeline.flow import finished, pipeline, started_services

    signal.signal(signal.SIGINT, _stop)
    with started_services(until):
        wait_for_server()
        with prefect_is_clear():
            outcome = pipeline(until=until, force=force or [], return_state=True)
    if finished:
        _print_summary(finished)
    if not outcome.is_completed():
        error = outcome.result(raise_on_failure=False)
        if isinstance(error, HeadwaterError):
            raise error
        full = disk_full(error) if isinstance(error, BaseException) else None
        raise full or HeadwaterError(str(error))
    _print_places(finished)


def _stop(_number: int, _frame: object) -> None:
    """End a run at Ctrl-C: let the stage put down its work, then leave without waiting for Prefect.

    Prefect's temporary server gets the same Ctrl-C and is gone, and its client would ask for it for minutes. The next
    `headwater up` marks the run as crashed.
    """
    import psutil

    from flows.workspace.warm import at_work

    own = psutil.Process()
    stages = [child for child in own.children() if "dvc" in child.cmdline()]
    for pid in at_work:
        with suppress(psutil.NoSuchProcess):
            stages.append(psutil.Process(pid))
    psutil.wait_procs(stages, timeout=20)
    for child in own.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            child.terminate()
    errors.print("stopped; run the same command again to go on from here")
    os._exit(130)


def _show_plan(changes: Mapping[str, Any], until: str | None, force: Collection[str], as_json: bool) -> None:
    from dataclasses import asdict

    from flows.pipeline.due import due
    from flows.pipeline.preflight import ready
    from flows.workspace.graph import stages_until
    from flows.workspace.params import merged, read_params, refuse_secrets

    settings = merged(read_params(), changes)
    refuse_secrets(settings)
    graph = load_graph()
    checked = ready(settings, graph, until, force)
    listed = due(stages_until(graph, until), settings, checked, force)
    if as_json:
        console.json([asdict(one) for one in listed])
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("stage", "plan"):
        table.add_column(column, no_wrap=True)
    table.add_column("why", overflow="fold")
    for one in listed:
        table.add_row(one.stage, one.kind, "\n".join(one.why))
    console.print(table)
    if not any(one.works for one in listed):
        console.print("\neverything is up to date: no stage has to run")


def _print_summary(stages: Sequence[str]) -> None:
    """Show what these stages took in and kept; of others, what stands in data/ is of an earlier run."""
    from flows.report.page import summary_rows

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("stage", no_wrap=True)
    for column in ("in", "kept", "dropped"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("why", overflow="fold")
    for row in summary_rows(Path(), stages):
        numbers = ["" if number is None else f"{number:,}" for number in (row.in_, row.kept, row.dropped)]
        table.add_row(row.stage, *numbers, row.reasons)
    console.print()
    console.print(table)


def _print_places(stages: Sequence[str]) -> None:
    from flows.report.page import build_report

    console.print()
    places: list[tuple[str, Any]] = [
        *([("verdict", _verdict())] if "gate" in stages else []),
        *([("release", "data/release")] if "release" in stages else []),
        ("report", os.path.relpath(build_report(Path()))),
        ("UIs", "`.venv/bin/headwater up` opens Prefect and MLflow"),
    ]
    for name, place in places:
        console.print(f"{name:<8} {place}", soft_wrap=True)


def _verdict() -> str:
    """Return what the gate said, in one line; a run that it stops says why instead."""
    told = json.loads(Path("data/gate", REPORT_NAME).read_bytes())
    rules = Counter(rule["verdict"] for rule in told["rules"])
    counted = ", ".join(f"{verdict} {number}" for verdict, number in rules.items())
    return f"{told['verdict']} (rules: {counted}; data/gate/report.md says by how much)"
