"""A small stage for the tests of flows: copies no data, has every kind of setting."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field

from tasks.contracts.base import StageParams, borrowed_from, not_identity
from tasks.contracts.manifest import Counts, Manifest, commit_manifest


class Params(StageParams):
    """Settings of the toy stage."""

    words: int = Field(5, ge=1)
    """Fewest words that a document may have."""
    mode: Literal["fast", "precise"] = "fast"
    """How carefully to look."""
    workers: int = not_identity(2)
    """Processes; changes no byte."""
    tasks: tuple[str, ...] = borrowed_from("other.tasks", ())
    """What the other section lists."""


def run(*, params: Params, inputs: Mapping[str, Path], output: Path) -> Manifest:
    output.mkdir(parents=True)
    (output / "words.txt").write_text(str(params.words))
    counts = Counts(in_=3, out=2, dropped={"short": 1})
    return commit_manifest(
        output, stage="toy", unit="documents", params=params.identity(), inputs=inputs, counts=counts
    )
