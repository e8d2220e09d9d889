"""`headwater stage`: one stage, as dvc.yaml calls it."""

from __future__ import annotations

from typing import Annotated

import typer


def stage(name: Annotated[str, typer.Argument(help="A stage of dvc.yaml.")]) -> None:
    """Run one stage, without asking whether it is stale: what dvc.yaml's stages call.

    Example: headwater stage extract
    """
    from flows.pipeline.stage_run import run_stage

    run_stage(name)
