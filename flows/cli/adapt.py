"""`headwater adapt`: tune a release on examples, under the same lineage, filters, gate and release."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from flows.output import JsonOption, console


def adapt(
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="JSONL files of examples; without any, examples.paths.", show_default=False),
    ] = None,
    method: Annotated[str | None, typer.Option(help="full, lora, qlora or dpo; else adapt.method.")] = None,
    base: Annotated[Path | None, typer.Option(help="Folder of the release to begin with; else adapt.base.")] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Write a setting into params.yaml first; repeatable."),
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Check everything, and run nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Tune a release on chats, instructions or preferences; the gate decides about what comes of it.

    What is given is written into params.yaml, the sections examples and adapt. Exit code 1 when the gate says no.

    Example: headwater adapt chats.jsonl --method lora
    """
    import json

    from flows.pipeline.adapt_run import prepare, run_adaptation
    from flows.workspace.adaptation import FOLDER
    from flows.workspace.params import merge_values, merged, read_params, wanted_changes
    from tasks.contracts.files import METRICS_NAME
    from tasks.contracts.manifest import manifest_hash

    wanted: dict[str, Any] = wanted_changes([], changes or [])
    given: dict[str, dict[str, Any]] = {"examples": {}, "adapt": {}}
    if files:
        given["examples"]["paths"] = [str(path) for path in files]
    given["adapt"] |= {"method": method} if method else {}
    given["adapt"] |= {"base": str(base)} if base else {}
    wanted = merged(wanted, {name: keys for name, keys in given.items() if keys})
    asked = prepare(merged(read_params(), wanted))
    if diff := merge_values(wanted) if wanted and not plan else "":
        console.lines(diff) if not as_json else None
    if plan:
        console.json({"ready": True}) if as_json else console.lines(
            "ready: nothing keeps this adaptation from starting"
        )
        return

    made = run_adaptation(asked)
    figures = FOLDER / "adapt" / METRICS_NAME
    metrics = json.loads(figures.read_bytes())
    if as_json:
        console.json({"made": str(made), "metrics": metrics})
        return
    kind = "released" if asked.tuning.merge else "left as an adapter"
    console.lines(f"{kind}: {made}" + (f", manifest {manifest_hash(made)}" if asked.tuning.merge else ""))
    console.lines(f"loss {metrics['first_loss']:.3f} → {metrics['train_loss']:.3f}; all figures: {figures}")
