"""What one pipeline run made and what it reused, stage by stage: a table, tags and a note for its run in MLflow."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flows.history.chain import Link, Making

TABLE = "stages.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRow:
    """One stage of a pipeline run.

    Attributes:
        what: "made by this run", "reused from run …", "made elsewhere" or "failed".
        run: the run that made its output, None where no record here says which.
        manifest: the output's manifest's SHA-256, empty for a stage that failed.
    """

    stage: str
    what: str
    run: str | None
    manifest: str = ""
    unit: str = ""
    in_: int | None = None
    out: int | None = None


def rows(run: str, links: Mapping[str, Link], makers: Mapping[str, Making]) -> list[StageRow]:
    """Return a row for each output in the chain, in the order of the stages."""
    found = []
    for name, link in links.items():
        maker = makers[name].run if name in makers else None
        counts = link.manifest.counts
        found.append(
            StageRow(
                stage=name,
                what=what_of(maker, run),
                run=maker,
                manifest=link.sha256,
                unit=link.manifest.unit,
                in_=counts.in_,
                out=counts.out,
            )
        )
    return found


def failed_row(run: str, stage: str) -> StageRow:
    """Return the row of a stage that failed."""
    return StageRow(stage=stage, what="failed", run=run)


def what_of(maker: str | None, run: str) -> str:
    """Say who made an output, as seen from a run.

    >>> what_of("r1", "r2")
    'reused from run r1'
    """
    if maker is None:
        return "made elsewhere: no run record here"
    return "made by this run" if maker == run else f"reused from run {maker}"


def table(listed: Sequence[StageRow]) -> str:
    """Return the rows as MLflow's table, its JSON layout "split"."""
    columns = ["stage", "what", "unit", "in", "out", "dropped", "manifest"]
    data = [[row.stage, row.what, row.unit, row.in_, row.out, _dropped(row), row.manifest] for row in listed]
    return json.dumps({"columns": columns, "data": data})


def note(listed: Sequence[StageRow], places: Mapping[str, str]) -> str:
    """Return the rows as the Markdown that MLflow shows as the run's description.

    Args:
        places: stage → link to the run that made it.
    """
    lines = ["| stage | made by | in | out | dropped | manifest |", "| --- | --- | --: | --: | --: | --- |"]
    for row in listed:
        what = row.what.removeprefix("made by ")
        what = f"[{what}]({places[row.stage]})" if row.stage in places else what
        numbers = " | ".join("" if n is None else f"{n:,}" for n in (row.in_, row.out, _dropped(row)))
        lines.append(f"| {row.stage} | {what} | {numbers} | `{row.manifest[:12]}` |")
    return "\n".join([*lines, ""])


def _dropped(row: StageRow) -> int | None:
    return row.in_ - row.out if row.in_ is not None and row.out is not None else None
