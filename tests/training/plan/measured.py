"""What runs needed: resident on a processor, and tensors on a rank of FSDP2 (tests/bench/bench_memory.py)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from training.plan.machine import PROCESSOR, Machine, devices
from training.plan.resident import FITTED, Residence, resident_bytes
from training.plan.speed import Run
from training.plan.strategies import BY_NAME
from training.train.hyperparameters import Params
from training.train.model import ModelSize

HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A run and what it needed.

    Attributes:
        peak: bytes of a rank at the worst moment.
        states, activations: of that, where they were told apart.
        held_out: whether nothing was fitted to it.
    """

    run: Run
    peak: int
    held_out: bool = True
    states: int = 0
    activations: int = 0

    def error(self, constants: Residence = FITTED) -> float:
        """Return what is reckoned to be resident over what was, less 1."""
        return resident_bytes(self.run, constants) / self.peak - 1

    def error_above(self, constants: Residence = FITTED) -> float:
        """Return the same of what is not the libraries'."""
        libraries = constants.libraries
        return (resident_bytes(self.run, constants) - libraries) / (self.peak - libraries) - 1


def resident() -> list[Measured]:
    """Return the rows of the processor; every other one is fitted to."""
    rows = json.loads((HERE / "resident.json").read_bytes())["rows"]
    made = []
    for number, row in enumerate(rows):
        params = Params.model_validate({name: row[name] for name in row if name != "peak"} | {"device": "cpu"})
        run = params.planned(params.chosen_strategy())
        assert run.machine.device is PROCESSOR, "asked for"
        made.append(Measured(run=run, peak=row["peak"], held_out=number % 2 == 1))
    return made


def tracked() -> list[Measured]:
    """Return the rows of FSDP2, as on H100s."""
    made = []
    for row in json.loads((HERE / "tracked.json").read_bytes())["rows"]:
        ranks, size = row["ranks"], ModelSize.model_validate(row["model"])
        run = Run(
            shape=size.shape(vocab_size=row["vocabulary"], seq_len=row["seq_len"]),
            machine=Machine(
                device=devices()["h100"], devices=min(8, ranks), nodes=max(1, ranks // 8), host_memory=1e13
            ),
            strategy=BY_NAME["fsdp"],
            seq_len=row["seq_len"],
            micro_batch=row["micro_batch"],
            checkpointing="full" if row["activation_checkpointing"] else "none",
        )
        made.append(Measured(run=run, peak=row["peak"], states=row["states"], activations=row["activations"]))
    return made
