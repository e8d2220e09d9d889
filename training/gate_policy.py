"""The gate's policy: what a release must reach, fixed before the first training step.

`train` hashes it into its manifest and `gate` compares: a threshold that moves after the model was seen
is no threshold. It stands apart from both, so that they read the same fields with the same defaults.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field, ValidationError

from tasks.contracts.base import StageParams
from tasks.contracts.durable_files import sha256_json
from tasks.contracts.errors import ParamsError
from tasks.contracts.heldout import BITS_PER_BYTE, CONTINUATION


class Policy(StageParams):
    """The rules of the gate, with their margins and seeds."""

    floor_task: str = BITS_PER_BYTE
    """Task whose bits per byte must be below those of a byte-level 3-gram model of the same training text."""
    floor_margin: float = 0.0
    """By how many bits per byte the upper confidence bound must be below the 3-gram model; negative lets it be above,
    which is for trying the pipeline out, not for a release."""
    chance_task: str = CONTINUATION
    """Multiple-choice task whose accuracy must be above guessing."""
    chance: float = Field(0.25, ge=0, lt=1)
    """Accuracy of guessing: one right answer among four."""
    chance_effect: float = Field(0.1, gt=0, lt=1)
    """Accuracy above guessing that a small model may well reach: what the items have to be enough to show."""
    power: float = Field(0.5, ge=0, lt=1)
    """Probability with which the items must show that much. Where they are so few that such a model would be refused
    more often than not, an accuracy that is not above guessing says nothing of the model, and so does the verdict."""
    chance_metric: Literal["acc", "acc_norm", "acc_mutual_info"] = "acc_mutual_info"
    """Accuracy by the likeliest choice (acc), the likeliest for its length (acc_norm), or the one that the context
    makes most likelier than it is by itself (acc_mutual_info; Brown et al. 2020, section 2.4; Holtzman et al. 2021)."""
    regression_margin_bits: float = Field(0.02, ge=0)
    """Bits per byte by which a candidate may at most be worse than the champion."""
    regression_margin_accuracy: float = Field(0.05, ge=0, le=1)
    """Accuracy by which a candidate may at most be worse than the champion."""
    confidence: float = Field(0.95, gt=0.5, lt=1)
    """Confidence of the two-sided intervals."""
    bootstrap_samples: int = Field(2000, ge=200)
    """How many times the items are drawn again for an interval."""
    seed: int = Field(1, ge=0)
    """Seed of the bootstrap."""


def policy_sha256(policy: Policy, tasks: Sequence[str]) -> str:
    """Return the hash that stands for the gate's policy and the tasks that it scores."""
    own = {name: value for name, value in policy.identity().items() if name in Policy.model_fields}
    return sha256_json({"gate": own, "tasks": list(tasks)})


def read_policy(section: Mapping[str, Any]) -> Policy:
    """Read the gate's section as it stands in params.yaml, with the defaults of what it leaves out.

    Raises:
        ParamsError: an unknown key or an impossible value.
    """
    try:
        return Policy.model_validate(dict(section))
    except ValidationError as error:
        first = error.errors()[0]
        raise ParamsError(
            "the gate's policy cannot be read, and training does not start without one",
            where="params.yaml, gate." + ".".join(str(part) for part in first["loc"]),
            expected=first["msg"],
            found=repr(first["input"]),
        ) from error
