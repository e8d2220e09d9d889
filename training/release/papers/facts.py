"""Everything that the papers of a release say, read once from manifests, ledgers and shards.

The papers are pure functions of this object, so none can hold a figure that no file of the pipeline has.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from tasks.contracts.base_release import STARTED_FROM, BaseRelease
from tasks.contracts.durable_files import sha256_json
from tasks.contracts.errors import InputError, ManifestError
from tasks.contracts.files import (
    METRICS_NAME,
    MIXTURE_NAME,
    MODEL_CONFIG_NAME,
    MODEL_FOLDER,
    PROTECTED_NAME,
    REPORT_NAME,
    RESULTS_NAME,
    SOURCES_NAME,
    TASKS_FOLDER,
    TOKENS_NAME,
    is_part,
)
from tasks.contracts.manifest import (
    MANIFEST_NAME,
    Manifest,
    Shard,
    chain_order,
    manifest_hash,
    read_manifest,
    text_shards,
)
from tasks.contracts.tokens import index_name
from tasks.contracts.workspace import ROOT
from training.release.papers.ledgers import Edits, read_edits
from training.release.papers.sources import Sources, read_sources
from training.release.papers.statement import Statement, answer

CONSTRAINTS = "constraints.txt"
JUDGE = "gate"
"""The stage at the end of every chain that may be released."""
# The namespace of every name-based UUID (RFC 9562, version 5) in the papers: one for this software.
NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:headwater")
_PIN = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;#]+)", re.M)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of one release.

    Attributes:
        language, license: of the model card; no language means those of the training text.
        manifests, hashes: of each stage, by its name.
        crawl: what the snapshot was made from (`sources.json`).
        sources: the training text by host, language, licence, and so on.
        edits: what stages changed without dropping it, from the ledgers.
        mixture, tokens, protected, training, results, gate: the stages' own files of these figures.
        model: config.json of the trained model.
        libraries: pinned name → version.
        local_tasks: names of the tasks that the stage holdout made.
    """

    name: str
    license: str
    language: str | None
    statement: Statement
    manifests: Mapping[str, Manifest]
    hashes: Mapping[str, str]
    crawl: Mapping[str, Any]
    sources: Sources
    edits: Edits
    mixture: Mapping[str, Any]
    protected: Mapping[str, Any]
    tokens: Mapping[str, Any]
    training: Mapping[str, Any]
    model: Mapping[str, Any]
    results: Mapping[str, Any]
    gate: Mapping[str, Any]
    libraries: Mapping[str, str]
    local_tasks: tuple[str, ...] = ()

    @property
    def stages(self) -> list[str]:
        """All stages, each after those that it was made from."""
        return chain_order({stage: manifest.inputs for stage, manifest in self.manifests.items()})

    @property
    def text_stages(self) -> list[str]:
        """Those of them that put out pages or documents, in the same order."""
        return [stage for stage in self.stages if self.manifests[stage].holds_documents]

    @property
    def architecture(self) -> str:
        """The model's class, as transformers names it."""
        return str(self.model["architectures"][0])

    def said(self, name: str) -> str:
        """Return what the owner stated, or that it is missing."""
        return answer(self.statement, name)

    def dropped(self, stage: str) -> Mapping[str, int]:
        """Return rule → documents (or URLs, tokens) that a stage dropped."""
        return self.manifests[stage].counts.dropped

    @property
    def shards(self) -> tuple[Shard, ...]:
        """The shards of the training text."""
        listed = self.manifests["mix"].shards
        return tuple(shard for shard in listed if is_part(shard.name, ".parquet"))

    @property
    def weight_files(self) -> tuple[Shard, ...]:
        """The files of the weights, by their names in the release, with what `sha256sum` prints of them."""
        listed = self.manifests["train"].shards
        return tuple(
            shard.model_copy(update={"name": Path(shard.name).name})
            for shard in listed
            if shard.name.startswith(f"{MODEL_FOLDER}/") and shard.name.endswith(".safetensors")
        )

    @property
    def base(self) -> BaseRelease | None:
        """The release whose weights training began with; None where they were random."""
        named = self.manifests["train"].params.get(STARTED_FROM)
        return None if named is None else BaseRelease.model_validate(named)

    @property
    def begun(self) -> str:
        """What training began with, in words."""
        if self.base is None:
            return "random weights"
        return f"the weights of {self.base.name} (release {self.base.release})"

    @property
    def protection(self) -> Mapping[str, Mapping[str, Any]]:
        """Of each task and benchmark file: its items, and how many are protected in which way."""
        found: Mapping[str, Mapping[str, Any]] = self.protected.get("items", {})
        return found

    @property
    def languages(self) -> tuple[str, ...]:
        """ISO 639-1 codes: the card's own, or those of the training text, the most tokens first."""
        found = tuple(share.name for share in self.sources.languages if re.fullmatch(r"[a-z]{2,3}", share.name))
        return (self.language,) if self.language else found

    @property
    def serial(self) -> uuid.UUID:
        """One name for exactly this release, made from its stages' manifests and its own settings."""
        described: dict[str, JsonValue] = {
            "name": self.name,
            "license": self.license,
            "language": self.language,
            "statement": self.statement.model_dump(mode="json"),
            "stages": {**self.hashes},
        }
        return uuid.uuid5(NAMESPACE, sha256_json(described))

    @property
    def taken_down(self) -> int:
        """Documents that were left out because of a takedown."""
        dropped = (item for stage in self.text_stages for item in self.dropped(stage).items())
        return sum(number for rule, number in dropped if rule.startswith("takedown"))


def read_manifests(inputs: Mapping[str, Path]) -> dict[str, Manifest]:
    """Read the manifests of all stages, in the order of their chain, and check that each was made from the others.

    Raises:
        InputError: a stage's folder is not given.
        ManifestError: a stage was run again and what comes after it was not.
    """
    manifests = {stage: read_manifest(folder) for stage, folder in inputs.items()}
    chain = {name for manifest in manifests.values() for name in manifest.inputs} | {JUDGE}
    if missing := sorted(chain - manifests.keys()):
        raise InputError(
            "a release needs the folders of every stage",
            where="dvc.yaml, release.deps",
            expected=", ".join(sorted({*manifests, *chain})),
            found="without " + ", ".join(missing),
        )
    for stage, manifest in manifests.items():
        for name, recorded in manifest.inputs.items():
            if name in inputs and manifest_hash(inputs[name]) != recorded:
                raise ManifestError(
                    "the chain of manifests is broken: a stage was made from another version of its input",
                    where=f"data/{stage}/{MANIFEST_NAME}",
                    expected=f"{name} with manifest {recorded}",
                    found=manifest_hash(inputs[name]),
                    fix="run the pipeline: `headwater run` makes again what is out of date",
                )
    return {stage: manifests[stage] for stage in chain_order({name: one.inputs for name, one in manifests.items()})}


def read_facts(
    inputs: Mapping[str, Path], *, name: str, license: str, language: str | None, statement: Statement
) -> Facts:
    """Read what the papers say from the folders of all stages.

    Raises:
        InputError: a stage's folder or file is missing, or the index of a token shard is not of its documents.
        ManifestError: the chain of manifests is broken.
    """
    manifests = read_manifests(inputs)
    tokens = _read_json(inputs["tokenize"] / TOKENS_NAME)
    parts = [
        (inputs["mix"] / shard.name, inputs["tokenize"] / index_name(f"{Path(shard.name).stem}.bin"))
        for shard in text_shards(inputs["mix"])
    ]
    sources = read_sources(parts)
    if sources.total.tokens != tokens["tokens"]:
        raise InputError(
            "the tokens of the training text by source are not all of its tokens",
            where="data/mix and data/tokenize",
            expected=f"{tokens['tokens']} tokens, as in tokens.json",
            found=f"{sources.total.tokens} in the index of the token shards",
            fix="run tokenize again: `headwater run --force tokenize`",
        )
    return Facts(
        name=name,
        license=license,
        language=language,
        statement=statement,
        manifests=manifests,
        hashes={stage: manifest_hash(inputs[stage]) for stage in manifests},
        crawl=_read_json(inputs["crawl"] / SOURCES_NAME),
        sources=sources,
        edits=read_edits({stage: inputs[stage] for stage, manifest in manifests.items() if manifest.holds_documents}),
        mixture=_read_json(inputs["mix"] / MIXTURE_NAME),
        protected=_read_json(inputs["decontaminate"] / PROTECTED_NAME),
        tokens=tokens,
        training=_read_json(inputs["train"] / METRICS_NAME),
        model=_read_json(inputs["train"] / MODEL_FOLDER / MODEL_CONFIG_NAME),
        results=_read_json(inputs["evaluate"] / RESULTS_NAME),
        gate=_read_json(inputs["gate"] / REPORT_NAME),
        libraries=read_libraries(),
        local_tasks=tuple(sorted(path.stem for path in (inputs["holdout"] / TASKS_FOLDER).glob("*.yaml"))),
    )


def read_libraries() -> dict[str, str]:
    """Return the pinned libraries: what the release is made with by agreement, whatever this machine has.

    Raises:
        InputError: there is no constraints.txt, neither here nor beside the code.
    """
    for path in (Path(CONSTRAINTS), ROOT / CONSTRAINTS):
        if path.is_file():
            return dict(sorted(_PIN.findall(path.read_text())))
    raise InputError(
        "the versions of the libraries are not known",
        where=str(Path.cwd()),
        expected=CONSTRAINTS,
        found="no such file",
        fix="take it from the repository of this version",
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(
            "a file that the papers are written from cannot be read",
            where=str(path),
            found=str(error).splitlines()[0],
            fix=f"run the stage again: `headwater run --force {path.parent.name}`",
        ) from error
    return found
