"""`headwater`: the one command.

Each subcommand shows an example in its help. Exit code 0 is yes, 1 a clear no, 2 wrong use.
"""

from __future__ import annotations

import importlib.metadata
import json
import logging
import os
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from flows.cli.diff import diff
from flows.cli.filters import app as filters_app
from flows.cli.policy import app as policy_app
from flows.cli.sign import sign
from flows.cli.takedown import app as takedown_app
from flows.cli.trace import trace
from flows.cli.verify import verify
from flows.output import Text, VisibleFormatter, console, errors
from flows.workspace.graph import load_graph, select
from flows.workspace.secrets import hide_secrets
from tasks.contracts.disk import disk_full
from tasks.contracts.errors import HeadwaterError, InputError, UsageError, did_you_mean
from tasks.contracts.files import REPORT_NAME
from tasks.contracts.manifest import absent
from tasks.contracts.redaction import without_secrets
from tasks.contracts.release import RELEASE_FOLDER

app = typer.Typer(
    name="headwater",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
params_app = typer.Typer(help="Show and change params.yaml, the only settings.", no_args_is_help=True)
app.add_typer(params_app, name="params")
lineage_app = typer.Typer(help="MLflow's picture of the files on disk.", no_args_is_help=True)
app.add_typer(lineage_app, name="lineage")
app.add_typer(filters_app, name="filters")
app.add_typer(takedown_app, name="takedown")
app.add_typer(policy_app, name="policy")
app.command("trace")(trace)
app.command()(verify)
app.command("diff")(diff)
app.command()(sign)

ANYWHERE = ("--help", "--version", "doctor", "verify", "diff", "sign")
"""Commands that need no workspace: they look at a machine or at a release's folder."""

READ_DATA = ("trace", "report", "policy", "lineage")
"""Commands that answer from data/ as it stands; takedown knows by itself where else to look."""

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; turn an error that a person can act on into its message and exit code."""
    handler = logging.StreamHandler()
    handler.addFilter(_ours)
    handler.setFormatter(VisibleFormatter("%(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    hide_secrets()
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    words = sys.argv[1:] if arguments is None else arguments
    try:
        _in_a_workspace(words)
        try:
            app(args=arguments, prog_name="headwater")
        except SystemExit as done:
            incomplete = _incomplete(words) if done.code in (None, 0, 1) else None
            raise incomplete or done from None
    except Exception as error:  # noqa: BLE001 - each kind of it gets its own message below
        told = error if isinstance(error, HeadwaterError) else disk_full(error) or _incomplete(words)
        if told is None:
            # A bug; Python would print it with whatever stands in it.
            errors.lines(without_secrets(traceback.format_exc()))
            sys.exit(1)
        errors.print(Text.assemble(("error:", "bold red"), f" {told}"), soft_wrap=True)
        sys.exit(told.exit_code)
    except KeyboardInterrupt:
        errors.print("stopped; run the same command again to go on from here")
        sys.exit(130)


def _in_a_workspace(words: list[str]) -> None:
    """Refuse to answer where there is nothing to ask: an empty folder is not an empty corpus.

    What a killed run from a form left here is put back first.

    Raises:
        InputError: there is no dvc.yaml here, and the command reads a workspace; or DVC, which has called a stage,
            looked at files that have been put back since.
    """
    if not words or words[0] in ANYWHERE or "--help" in words:
        return
    load_graph()
    from flows.pipeline.tryout import undo_killed

    if undo_killed() and words[0] == "stage":
        raise InputError(
            "a run from a form was killed, and params.yaml and data/ have been put back as they were before it",
            fix="the same command again",
        )


def _incomplete(words: list[str]) -> InputError | None:
    """Return what to say of an answer from data/ when something is missing there, as after a run that was stopped."""
    sentences = absent(Path("data")) if words and words[0] in READ_DATA and "--help" not in words else []
    if not sentences:
        return None
    return InputError(
        "the answer is incomplete: not all of data/ is there",
        found="\n         ".join(sentences),
        fix="`headwater run` makes it again, or `dvc checkout` brings back what was made before",
    )


def _say_version(asked: bool) -> None:
    if asked:
        console.lines(f"headwater {importlib.metadata.version('headwater')}")
        raise typer.Exit


@app.callback()
def about(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Say which Headwater this is.")
    ] = False,
) -> None:
    """Raw web pages in, a released language-model checkpoint out, and proof of where every token came from."""


@app.command()
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
    with started_services(until, force or []):
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


@app.command()
def stage(name: Annotated[str, typer.Argument(help="A stage of dvc.yaml.")]) -> None:
    """Run one stage, without asking whether it is stale: what dvc.yaml's stages call.

    Example: headwater stage extract
    """
    from flows.pipeline.stage_run import run_stage

    run_stage(name)


@app.command()
def up() -> None:
    """Start the Prefect and MLflow servers and a worker with the deployments of prefect.yaml; Ctrl-C ends them.

    Example: headwater up
    """
    from flows.services.embedded import embedded_services

    console.print("starting Prefect, MLflow and a worker …")
    with embedded_services() as running:
        console.print(
            f"Prefect  {running.addresses.prefect_link}\n"
            f"MLflow   {running.addresses.mlflow_link}\n"
            "These addresses hold a secret that opens both in your browser. Ctrl-C ends them all.",
            soft_wrap=True,
        )
        running.wait()


@app.command()
def doctor(as_json: JsonOption = False) -> None:
    """Say what is missing on this machine; exit code 1 when a run would fail.

    Example: headwater doctor
    """
    from flows.workspace.doctor import examine

    findings = examine()
    if as_json:
        console.json([finding.model_dump() for finding in findings])
    else:
        for finding in findings:
            mark = ("ok", "green") if finding.ok else ("--", "yellow") if finding.optional else ("no", "bold red")
            console.print(Text.assemble(mark, f"  {finding.name}: {finding.found}"), soft_wrap=True)
            if not finding.ok and finding.fix:
                console.lines(f"    {finding.fix}")
    if any(not finding.ok and not finding.optional for finding in findings):
        sys.exit(1)


@app.command()
def report(as_json: JsonOption = False) -> None:
    """Write the report of this workspace as one HTML page and say where it is.

    Example: headwater report
    """
    from flows.report.page import build_report

    path = build_report(Path())
    console.json({"report": str(path)}) if as_json else console.lines(str(path))


@app.command()
def gc(keep_days: Annotated[float, typer.Option(help="Keep what was used in the last DAYS.", min=0)] = 7.0) -> None:
    """Free disk space: cached shards and models, and what killed runs left, unless used lately.

    Runs, releases, MLflow's and Prefect's history stay. A shard that is gone is made again when it is needed.

    Example: headwater gc --keep-days 1
    """
    from flows.workspace.cleanup import collect_garbage
    from flows.workspace.locks import workspace_lock

    with workspace_lock("run"):
        count, size = collect_garbage(keep_days)
    console.print(f"{count} removed, {size / 1e6:,.1f} MB freed")


@lineage_app.command("sync")
def lineage_sync(as_json: JsonOption = False) -> None:
    """Add to MLflow every run that it lacks, from the run records and manifests.

    Example: headwater lineage sync
    """
    from flows.mlflow.sync import sync

    counted = sync(Path())
    if as_json:
        console.json(counted)
        return
    console.print(
        f"{counted['added']} stage runs added, {counted['already']} were there; "
        f"{counted['no data']} without datasets, as their output has been replaced since",
        soft_wrap=True,
    )


@lineage_app.command("picture")
def lineage_picture(
    output: Annotated[Path | None, typer.Option(help="The file; .headwater/lineage.html when left out.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Write the chain from the crawl to the release as one HTML page, and say where it is.

    Example: headwater lineage picture --output lineage.html
    """
    from flows.report.picture import write_picture

    path = write_picture(Path(), output)
    console.json({"picture": str(path)}) if as_json else console.lines(str(path))


@params_app.command("show")
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


@params_app.command("apply")
def params_apply(profile: Annotated[str, typer.Argument(help="A file of infra/profiles/, without .yaml.")]) -> None:
    """Lay a profile over params.yaml and show what changed.

    Example: headwater params apply web
    """
    from flows.workspace.params import apply_profile, check_params

    change = apply_profile(profile, check=lambda settings: check_params(settings, load_graph()))
    console.lines(change or "params.yaml holds these values already")


@params_app.command("diff")
def params_diff() -> None:
    """Show how params.yaml differs from the version in git.

    Example: headwater params diff
    """
    import subprocess

    from flows.workspace.params import diff_text

    committed = subprocess.run(["git", "show", "HEAD:params.yaml"], capture_output=True, text=True, check=False).stdout
    change = diff_text(committed, Path("params.yaml").read_text(encoding="utf-8"))
    console.lines(without_secrets(change) or "params.yaml is as in git")


def _stop(_number: int, _frame: object) -> None:
    """End a run at Ctrl-C: let the stage put down its work, then leave without waiting for Prefect.

    Prefect's temporary server gets the same Ctrl-C and is gone, and its client would ask for it for minutes. The next
    `headwater up` marks the run as crashed.
    """
    import psutil

    own = psutil.Process()
    stages = [child for child in own.children() if "dvc" in child.cmdline()]
    psutil.wait_procs(stages, timeout=20)
    for child in own.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            child.terminate()
    errors.print("stopped; run the same command again to go on from here")
    os._exit(130)


def _ours(record: logging.LogRecord) -> bool:
    """Let through what Headwater says, and what libraries warn of; Prefect's own account goes to its server."""
    if record.name.startswith("prefect"):
        return False
    return record.levelno >= logging.WARNING or record.name.partition(".")[0] in ("flows", "tasks", "training")


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
        *([("release", RELEASE_FOLDER)] if "release" in stages else []),
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


if __name__ == "__main__":
    main()
