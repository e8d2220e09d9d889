"""What would stop a run and can be known before it begins: all of it is said at once, and nothing is started.

Settings are checked against their models; then each stage that would run says what this machine lacks for its own
(`StageParams.faults`), and the folders that a run writes are tried.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from flows.pipeline.due import due
from flows.workspace.extras import TRAIN, how_to_install, lacking
from flows.workspace.graph import Stage, stages_until
from flows.workspace.params import check_params, signing_key
from tasks.contracts.base import StageParams
from tasks.contracts.errors import HeadwaterError, InputError, raised, together
from tasks.contracts.workspace import state_folder

DVC = Path(".dvc")


def ready(
    settings: Mapping[str, Any], graph: Mapping[str, Stage], until: str | None = None, force: Collection[str] = ()
) -> dict[str, StageParams]:
    """Return every section's settings, checked, if a run with them can begin on this machine.

    Args:
        settings: params.yaml as it is to be; what stands on the disk may still be another one.

    Raises:
        ParamsError: naming everything that has to be set right first.
    """
    checked = check_params(settings, graph)
    stages = stages_until(graph, until)
    # A release that is up to date is signed too, and a stage that is up to date is not asked for its faults.
    faults = [*_workspace(stages), *raised(lambda: signing_key(settings))]
    of_stages = {stage.name: list(checked[stage.name].faults()) for stage in stages}
    lacks = lacking(TRAIN)
    if lacks or any(of_stages.values()):
        working = [one.stage for one in due(stages, settings, checked, force) if one.works]
        for name in working:
            for fault in of_stages[name]:
                fault.where = fault.where or f"params.yaml, {name}"
                faults.append(fault)
        faults.extend(_without_trainer(lacks, [graph[name] for name in working]) if lacks else ())
    if faults:
        raise together(list({str(fault): fault for fault in faults}.values()), "things keep this run from starting")
    return checked


def _workspace(stages: list[Stage]) -> Iterator[HeadwaterError]:
    """Yield what is wrong with the folders of a workspace."""
    if not DVC.is_dir():
        yield InputError(
            "DVC, which every run goes through, does not know this folder",
            where=str(DVC.resolve()),
            expected="the folder .dvc of the clone",
            fix="call headwater from the root of a clone, or `git checkout .dvc`",
        )
    for folder in dict.fromkeys([*(stage.output.parent for stage in stages), state_folder(), DVC]):
        yield from _unwritable(folder)


def _without_trainer(lacks: Sequence[str], working: Sequence[Stage]) -> Iterator[HeadwaterError]:
    """Yield that the training stages cannot run here, if one of them is to."""
    before = [stage.name for stage in working if stage.uses_ray]
    training = [stage.name for stage in working if not stage.uses_ray]
    if training:
        until = f", or end before: `headwater run --until {before[-1]}`" if before else ""
        yield InputError(
            "packages that the training stages need are not installed",
            where=", ".join(training),
            found=f"no {', '.join(lacks)}",
            fix=how_to_install(TRAIN) + until,
        )


def _unwritable(folder: Path) -> Iterator[HeadwaterError]:
    there = folder.resolve()
    while not there.exists() and there.parent != there:
        there = there.parent
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        yield InputError(
            "a folder that a run writes cannot be written",
            where=str(folder),
            expected="a folder in which this user may make files",
            found=f"{there}: {error.strerror or error}",
            fix="change its owner or rights, or point HEADWATER_STATE elsewhere for .headwater",
        )
