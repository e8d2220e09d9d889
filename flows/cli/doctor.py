"""`headwater doctor`: what this machine lacks for a run."""

from __future__ import annotations

import sys

from flows.output import JsonOption, Text, console


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
