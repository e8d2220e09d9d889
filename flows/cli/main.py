"""`headwater`: the one command.

Each subcommand shows an example in its help. Exit code 0 is yes, 1 a clear no, 2 wrong use.
"""

from __future__ import annotations

import importlib.metadata
import logging
import signal
import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer

from flows.cli import filters, lineage, params, policy, takedown
from flows.cli.adapt import adapt
from flows.cli.diff import diff
from flows.cli.doctor import doctor
from flows.cli.export import export
from flows.cli.gc import gc
from flows.cli.init import init, use_own_code
from flows.cli.plan import plan
from flows.cli.report import report
from flows.cli.run import run
from flows.cli.serve import serve
from flows.cli.sign import sign
from flows.cli.stage import stage
from flows.cli.trace import trace
from flows.cli.up import up
from flows.cli.verify import verify
from flows.output import Text, VisibleFormatter, console, errors
from flows.workspace.extras import not_installed
from flows.workspace.graph import load_graph
from flows.workspace.secret_urls import hide_secrets
from tasks.contracts.disk import disk_full
from tasks.contracts.errors import HeadwaterError, InputError
from tasks.contracts.manifest import absent
from tasks.contracts.redaction import without_secrets

app = typer.Typer(
    name="headwater",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for name, commands in {
    "params": params.app,
    "lineage": lineage.app,
    "filters": filters.app,
    "takedown": takedown.app,
    "policy": policy.app,
}.items():
    app.add_typer(commands, name=name)
for command in (init, plan, run, adapt, stage, up, doctor, report, gc, trace, verify, diff, sign, serve, export):
    app.command()(command)

ANYWHERE = ("--help", "--version", "init", "plan", "doctor", "verify", "diff", "sign", "serve", "export")
"""Commands that need no workspace: they look at a machine or at a release's folder, and run no code that lies there."""

READ_DATA = ("trace", "report", "policy", "lineage")
"""Commands that answer from data/ as it stands; takedown knows by itself where else to look."""


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
        told = error if isinstance(error, HeadwaterError) else disk_full(error) or not_installed(error)
        told = told or _incomplete(words)
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
    use_own_code(words)
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


def _ours(record: logging.LogRecord) -> bool:
    """Let through what Headwater says, and what libraries warn of; Prefect's own account goes to its server."""
    if record.name.startswith("prefect"):
        return False
    return record.levelno >= logging.WARNING or record.name.partition(".")[0] in ("flows", "tasks", "training")


if __name__ == "__main__":
    main()
