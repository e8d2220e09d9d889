"""`headwater report`: the report of this workspace."""

from __future__ import annotations

from pathlib import Path

from flows.output import JsonOption, console


def report(as_json: JsonOption = False) -> None:
    """Write the report of this workspace as one HTML page and say where it is.

    Example: headwater report
    """
    from flows.report.page import build_report

    path = build_report(Path())
    console.json({"report": str(path)}) if as_json else console.lines(str(path))
