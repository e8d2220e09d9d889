"""A data stage at work: what binds its name, settings, inputs, output and own code, so that each is said once.

A stage's `run` makes one and calls it; a test calls that `run`, as the runner does.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from tasks.contracts.base import StageParams
from tasks.contracts.conservation import source_of
from tasks.contracts.document import Document, read_documents
from tasks.contracts.manifest import Manifest, Unit, commit_manifest, holding
from tasks.contracts.workspace import state_folder
from tasks.engine.shards import MapResult, ShardFunction, ShardWork, entry_folders, map_shards, work_for


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One run of one data stage.

    Attributes:
        name: of its code's folder in tasks/, of its section of params.yaml and of its folder in data/.
        unit: what its counts count.
        inputs: name → stage folder that it reads.
        libraries: distributions whose versions decide a shard's bytes, besides the stage's code.
    """

    name: str
    unit: Unit
    params: StageParams
    inputs: Mapping[str, Path]
    output: Path
    libraries: Sequence[str] = ()

    @property
    def source(self) -> Path:
        """The folder whose documents it takes in: of several inputs the one that no other was made from.

        Raises:
            ManifestError: an input has no manifest.
        """
        (taken,) = source_of([holding(folder) for folder in self.inputs.values()])
        return taken.folder

    @property
    def state(self) -> Path:
        """Where it keeps what a later run can use again, under `.headwater/`."""
        return state_folder() / self.name

    def work(self, *inputs: str) -> list[ShardWork]:
        """Return a piece of work for each part of the inputs of these names (of `source`, without names).

        Raises:
            ManifestError: the inputs do not hold the same parts.
        """
        return work_for(*([self.inputs[name] for name in inputs] or [self.source]))

    def documents(self, work: Sequence[ShardWork]) -> Iterator[Document]:
        """Yield the documents of all parts, in order."""
        for item in work:
            yield from read_documents(item.inputs[0])

    def map(
        self,
        function: ShardFunction,
        work: Sequence[ShardWork],
        *,
        params: Mapping[str, JsonValue],
        step: str = "",
        output: Path | None = None,
        code: Sequence[str] = (),
        shared: Mapping[str, Path] | None = None,
    ) -> MapResult:
        """Make every shard of `work`, or take it from the shard cache: see `map_shards`.

        Args:
            params: the settings that decide the bytes.
            step: of a step before the last: its files stay in the shard cache, and `MapResult.paired` gives them to
                the next. The last step has no name and its files are the stage's output.
            output: where a step's files go instead, for who reads them all at once.
            code: the modules whose sources decide the bytes, where that is not all of the stage's folder.
            shared: other files that every shard reads.
        """
        return map_shards(
            function,
            work,
            stage=f"{self.name}.{step}" if step else self.name,
            output=output if step else self.output,
            params=params,
            code=code or [f"tasks.{self.name}"],
            libraries=self.libraries,
            shared=shared,
        )

    def places(self, work: Sequence[ShardWork], *, step: str, params: Mapping[str, JsonValue]) -> dict[str, Path]:
        """Return, for each piece of work, the place in the shard cache of what a step keeps beside its shards.

        It is for what a later run adds to: `new_entry` replaces it, so nothing that it holds may decide any output.

        Args:
            params: the settings that decide what is kept.
        """
        return entry_folders(
            work, stage=f"{self.name}.{step}", params=params, code=[f"tasks.{self.name}"], libraries=self.libraries
        )

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """Give a new folder for what is half-done, and remove it afterwards, also when something fails."""
        place = state_folder() / "scratch"
        place.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f"{self.name}-", dir=place))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def commit(self, made: MapResult, params: Mapping[str, JsonValue] | None = None) -> Manifest:
        """Write the manifest, after everything else of the output, and return it.

        Args:
            made: the last step's shards.
            params: what stands in the manifest instead of the settings that bear identity.

        Raises:
            ConservationError: counts do not add up, within the stage or with its inputs, or two documents have one id.
        """
        return commit_manifest(
            self.output,
            stage=self.name,
            unit=self.unit,
            params=self.params.identity() if params is None else params,
            inputs=self.inputs,
            counts=made.counts,
            known=made.files,
        )
