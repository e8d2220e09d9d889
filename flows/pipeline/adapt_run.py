"""`headwater adapt`: the stages of an adaptation in their order, each with manifest, run record and MLflow's mirror.

Nothing is taken as up to date but what the shard cache holds: an adaptation takes minutes, and the same examples,
settings and base give the same bytes. All that can be known to be wrong is said before the first stage.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.history.run_records import RUN_VARIABLE, new_run_name
from flows.pipeline.stage_run import run_checked
from flows.workspace.adaptation import BASE_DATA, FOLDER, adaptation
from flows.workspace.extras import TRAIN, how_to_install, lacking
from flows.workspace.graph import load_graph
from flows.workspace.locks import workspace_lock
from flows.workspace.params import check_params
from tasks.contracts.base import StageParams
from tasks.contracts.errors import HeadwaterError, InputError, ParamsError, did_you_mean, raised, together
from tasks.contracts.manifest import manifest_hash
from tasks.examples.stage import Params as ExamplesParams
from tasks.filter.stage import Params as FilterParams
from training.adapt.stage import ADAPTER_FOLDER
from training.adapt.starting_release import lineage_of, missing_data, read_whole_base
from training.adapt.tuning_settings import Params as AdaptParams
from training.champions import kept_copy
from training.release.verify import check_release


@dataclass(frozen=True, slots=True, kw_only=True)
class Adaptation:
    """What is to be done: which release is begun with, and the settings of each stage, checked."""

    base: Path
    settings: Mapping[str, Any]
    checked: Mapping[str, StageParams]

    @property
    def tuning(self) -> AdaptParams:
        """The settings of the stage adapt."""
        found = self.checked["adapt"]
        assert isinstance(found, AdaptParams), "the section of that stage"
        return found


def prepare(settings: Mapping[str, Any]) -> Adaptation:
    """Return what these settings ask for, if it can begin on this machine.

    Raises:
        ParamsError: naming everything that has to be set right first.
    """
    checked = check_params(settings, load_graph())
    tuning, examples, rules = checked["adapt"], checked["examples"], checked["filter"]
    assert isinstance(tuning, AdaptParams), "the section of that stage"
    assert isinstance(examples, ExamplesParams), "the section of that stage"
    assert isinstance(rules, FilterParams), "the section of that stage"
    base = Path(tuning.base)
    examples = examples.model_copy(update={"preference": tuning.preference})
    faults = [*_without_tuner(), *tuning.faults(), *examples.faults(), *raised(lambda: _known_filters(examples))]
    no_base = list(raised(lambda: _check_base(base)))
    faults += no_base or missing_data(base, {name: Path("data") / name for name in BASE_DATA})
    for name in ("evaluate", "gate", "decontaminate", "release"):
        faults += checked[name].faults()
    if faults:
        raise together(faults, "things keep this adaptation from starting")
    name = tuning.name or f"{lineage_of(base)['name']}-{tuning.method}"
    chosen = tuple(rule for rule in rules.rules if next(iter(rule)) in examples.filters)
    own: dict[str, StageParams] = {
        "examples": examples,
        "filter": rules.model_copy(update={"rules": chosen}),
        # A question or an answer without a paragraph is another one: an example that leaks goes as a whole.
        "decontaminate": checked["decontaminate"].model_copy(update={"remove": "document"}),
        "release": checked["release"].model_copy(update={"name": name[:96]}),
    }
    return Adaptation(base=_lasting(base), settings=settings, checked={**checked, **own})


def _lasting(base: Path) -> Path:
    """Return where the base stays while it is adapted: an adapted release gives its place to what comes of it."""
    if base.resolve() != (FOLDER / "release").resolve():
        return base
    kept = kept_copy(manifest_hash(base))
    if kept is None:
        raise InputError(
            "the base stands where the adapted release will, and no copy of it is kept here",
            where=str(base),
            fix=f"copy it elsewhere, and name that folder by adapt.base (`cp -r {base} FOLDER`)",
        )
    return kept


def _check_base(base: Path) -> None:
    """Raise InputError where the release cannot be begun with, or does not hold what it claims."""
    read_whole_base(base)
    broken = next((each for claim in check_release(base) for each in claim.breaks), None)
    if broken is not None:
        raise InputError(
            "the base is not what it claims to be",
            where=f"{base}: {broken.where}",
            expected=broken.expected,
            found=broken.found,
            fix=f"`headwater verify {base}` names every broken link; get the release again from where it is whole",
        )


def _known_filters(examples: ExamplesParams) -> None:
    from tasks.filter.loading import available

    if unknown := [name for name in examples.filters if name not in available()]:
        raise ParamsError(
            f"there is no filter {unknown[0]!r}",
            where="params.yaml, examples.filters",
            expected=", ".join(available()),
            found=", ".join(unknown),
            fix=did_you_mean(unknown[0], available()),
        )


def _without_tuner() -> Iterator[HeadwaterError]:
    if lacks := lacking(TRAIN):
        yield InputError(
            "packages that tuning needs are not installed", found=f"no {', '.join(lacks)}", fix=how_to_install(TRAIN)
        )


def run_adaptation(asked: Adaptation) -> Path:
    """Run the stages; return the release's folder, or the adapter's where it stays one.

    Raises:
        GateError: the gate says no.
        HeadwaterError: whatever else went wrong, after it was written to the run record.
    """
    os.environ.setdefault(RUN_VARIABLE, new_run_name())
    with workspace_lock("run"):
        # Of an earlier one a copy is kept; here it would stand beside stages that did not make it.
        shutil.rmtree(FOLDER / "release", ignore_errors=True)
        for name, stage in adaptation(asked.base).items():
            if name == "release" and not asked.tuning.merge:
                break
            run_checked(stage, asked.checked[name], asked.settings)
        else:
            return FOLDER / "release"
    return FOLDER / "adapt" / ADAPTER_FOLDER
