"""`headwater lineage`: MLflow's picture of the files on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.output import JsonOption, console

app = typer.Typer(help="MLflow's picture of the files on disk.", no_args_is_help=True)


@app.command("sync")
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


@app.command("picture")
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
