"""The stage release: a folder that anyone can load, with what it was made from written in it.

Hugging Face layout (config, safetensors, tokenizer), the papers written from the manifests (`training.release.papers`),
the gate's report, the manifests of every stage and the chain between them. Then it becomes the champion.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import Field, JsonValue

from tasks.contracts.base import StageParams, not_identity
from tasks.contracts.base_release import BASE_FOLDER
from tasks.contracts.durable_files import write_json
from tasks.contracts.errors import HeadwaterError, raised
from tasks.contracts.files import MODEL_FOLDER, REPORT_NAME
from tasks.contracts.languages import LanguageCode
from tasks.contracts.manifest import MANIFEST_NAME, Counts, Manifest, commit_manifest
from tasks.contracts.release import (
    EVALUATION_FOLDER,
    GATE_NAME,
    LINEAGE_NAME,
    MANIFESTS_FOLDER,
    SIGNATURE_NAME,
    VERIFIER_NAME,
)
from training.champions import promote
from training.release.local_tasks import write_local_tasks
from training.release.papers.facts import Facts, read_facts
from training.release.papers.statement import Statement
from training.release.papers.write import write_papers
from training.release.signing import configured_key, sign_release

logger = logging.getLogger(__name__)

DOES = "puts the model, its papers and its chain of proof into one folder"


class Params(StageParams):
    """Settings of the stage release."""

    name: str = Field("headwater-sample", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=96)
    """Name of the model: in its papers, and in the registry."""
    license: str = "other"
    """Licence of the weights, by its Hugging Face id; the licences of the sources are for you to judge."""
    language: LanguageCode | None = None
    """Language of the model card's front matter; null names those of the training text."""
    statement: Statement = Statement()
    """What only the owner can say, for the papers that ask for it; what is left out is marked as missing there."""
    signing_key: str | None = not_identity(None)
    """Path of the private key (PEM, elliptic curve) that signs releases, kept out of git; null signs none. The
    environment variable HEADWATER_SIGNING_KEY wins; HEADWATER_SIGNING_KEY_PASSWORD is the password, if it has one."""

    def faults(self) -> Iterator[HeadwaterError]:
        """Yield a signing key that cannot be used."""
        yield from raised(lambda: configured_key(self.signing_key))


def run(*, params: Params, inputs: Mapping[str, Path], output: Path) -> Manifest:
    """Assemble the release, make it the champion and sign its kept copy: data/ is the same bytes every time.

    Args:
        inputs: the folders of all stages before this one.

    Raises:
        InputError: a stage's folder is not given, or a file that the papers are written from cannot be read.
        ManifestError: a stage was run again and what comes after it was not.
        ParamsError: the signing key cannot be used.
    """
    key = configured_key(params.signing_key)
    assemble(params, inputs, output)
    files = sum(1 for path in output.rglob("*") if path.is_file())
    manifest = commit_manifest(
        output,
        stage="release",
        unit="files",
        params=params.identity(),
        inputs=inputs,
        counts=Counts(in_=files, out=files),
    )
    champion = promote(output)
    if key is not None and sign_release(champion.path, key):
        logger.info("release: signed, %s", champion.path / SIGNATURE_NAME)
    return manifest


def assemble(params: Params, inputs: Mapping[str, Path], output: Path) -> None:
    """Write every file of the release but its manifest."""
    facts = read_facts(
        inputs, name=params.name, license=params.license, language=params.language, statement=params.statement
    )
    output.mkdir(parents=True, exist_ok=True)
    shutil.copytree(inputs["train"] / MODEL_FOLDER, output, dirs_exist_ok=True)
    if (inputs["train"] / BASE_FOLDER).is_dir():
        shutil.copytree(inputs["train"] / BASE_FOLDER, output / BASE_FOLDER)
    shutil.copytree(inputs["evaluate"], output / EVALUATION_FOLDER, ignore=shutil.ignore_patterns(MANIFEST_NAME))
    shutil.copyfile(inputs["gate"] / REPORT_NAME, output / GATE_NAME)
    (output / MANIFESTS_FOLDER).mkdir(exist_ok=True)
    for stage, folder in inputs.items():
        shutil.copyfile(folder / MANIFEST_NAME, output / MANIFESTS_FOLDER / f"{stage}.json")
    write_local_tasks(inputs["holdout"], output)
    write_json(output / LINEAGE_NAME, _lineage(facts, params))
    shutil.copyfile(Path(__file__).with_name(VERIFIER_NAME), output / VERIFIER_NAME)
    write_papers(facts, output)


def _lineage(facts: Facts, params: Params) -> dict[str, JsonValue]:
    """Return the chain of hashes from the weights to the raw records, and the settings that name it."""
    return {
        "name": facts.name,
        "params": params.identity(),
        "files": {file.name: file.sha256 for file in facts.weight_files},
        "weights_sha256": facts.training["weights_sha256"],
        "stages": {
            stage: {"manifest_sha256": facts.hashes[stage], "inputs": dict(facts.manifests[stage].inputs)}
            for stage in facts.stages
        },
    }
