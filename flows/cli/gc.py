"""`headwater gc`: frees disk space."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.output import console


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
