"""The stage release: a folder that anyone can load, with what it was made from written in it.

Hugging Face layout (config, safetensors, tokenizer), a model card and a data card written from the manifests, the
gate's report, the manifests of every stage and the chain between them. Then it becomes the champion.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from pydantic import Field, JsonValue

from tasks.contracts.base import StageParams
from tasks.contracts.errors import InputError, ManifestError
from tasks.contracts.files import write_bytes, write_json
from tasks.contracts.manifest import (
    MANIFEST_NAME,
    Counts,
    Manifest,
    commit_manifest,
    manifest_hash,
    read_manifest,
    text_shards,
)
from training.champion import promote

logger = logging.getLogger(__name__)

TEXT_STAGES = ("crawl", "extract", "filter", "dedup", "perplexity", "holdout", "decontaminate", "mix")
STAGES = (*TEXT_STAGES, "tokenizer", "tokenize", "train", "evaluate", "gate")
HOSTS_SHOWN = 40


class Params(StageParams):
    """Settings of the stage release."""

    name: str = Field("headwater-sample", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=96)
    """Name of the model: in its card, and in the registry."""
    license: str = "other"
    """Licence of the weights, by its Hugging Face id; the licences of the sources are for you to judge."""
    language: str = "en"
    """Language of the model card's front matter, ISO 639-1."""


def run(*, params: Params, inputs: Mapping[str, Path], output: Path) -> Manifest:
    """Assemble the release and make it the champion.

    Args:
        inputs: the folders of all stages before this one.

    Raises:
        InputError: a stage's folder is not given.
        ManifestError: a stage was run again and what comes after it was not.
    """
    manifests = _chain(inputs)
    output.mkdir(parents=True, exist_ok=True)
    shutil.copytree(inputs["train"] / "model", output, dirs_exist_ok=True)
    shutil.copytree(inputs["evaluate"], output / "evaluation", ignore=shutil.ignore_patterns(MANIFEST_NAME))
    shutil.copyfile(inputs["gate"] / "report.json", output / "gate.json")
    for stage in STAGES:
        (output / "manifests").mkdir(exist_ok=True)
        shutil.copyfile(inputs[stage] / MANIFEST_NAME, output / "manifests" / f"{stage}.json")
    figures: dict[str, Any] = json.loads((inputs["train"] / "metrics.json").read_bytes())
    lineage: dict[str, JsonValue] = {
        "name": params.name,
        "params": params.identity(),
        "weights_sha256": figures["weights_sha256"],
        "stages": {
            stage: {"manifest_sha256": manifest_hash(inputs[stage]), "inputs": dict(manifests[stage].inputs)}
            for stage in STAGES
        },
    }
    write_json(output / "lineage.json", lineage)
    gate = json.loads((inputs["gate"] / "report.json").read_bytes())
    results = json.loads((inputs["evaluate"] / "results.json").read_bytes())
    tokens = json.loads((inputs["tokenize"] / "tokens.json").read_bytes())
    write_bytes(output / "README.md", model_card(params, manifests, figures, gate, results, tokens).encode())
    shutil.copyfile(Path(__file__).with_name("verify.py"), output / "verify.py")
    hosts = count_hosts(inputs["mix"])
    write_bytes(output / "data_card.md", data_card(params, manifests, tokens, hosts).encode())
    files = sum(1 for path in output.rglob("*") if path.is_file())
    manifest = commit_manifest(
        output,
        stage="release",
        unit="files",
        params=params.identity(),
        inputs={stage: inputs[stage] for stage in STAGES},
        counts=Counts(in_=files, out=files),
    )
    promote(output)
    return manifest


def _chain(inputs: Mapping[str, Path]) -> dict[str, Manifest]:
    """Read the manifests of all stages and check that each was made from the others as they are now."""
    missing = [stage for stage in STAGES if stage not in inputs]
    if missing:
        raise InputError(
            "a release needs the folders of every stage",
            where="dvc.yaml, release.deps",
            expected=", ".join(STAGES),
            found="without " + ", ".join(missing),
        )
    manifests = {stage: read_manifest(inputs[stage]) for stage in STAGES}
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
    return manifests


def count_hosts(mix: Path) -> dict[str, tuple[int, int]]:
    """Return host → (training documents, bytes of their text), largest first."""
    documents: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for shard in text_shards(mix):
        table = pq.read_table(mix / shard.name, columns=["host", "text"])
        for host, text in zip(table["host"].to_pylist(), table["text"].to_pylist(), strict=True):
            documents[host] += 1
            sizes[host] += len(text.encode())
    order = sorted(documents, key=lambda host: (-sizes[host], host))
    return {host: (documents[host], sizes[host]) for host in order}


def model_card(
    params: Params,
    manifests: Mapping[str, Manifest],
    figures: Mapping[str, Any],
    gate: Mapping[str, Any],
    results: Mapping[str, Any],
    tokens: Mapping[str, Any],
) -> str:
    """Return the model card, with Hugging Face's front matter; every figure is from a manifest or a stage's file."""
    trained = manifests["train"].params
    lines = ["---", f"language: {params.language}", f"license: {params.license}", "library_name: transformers"]
    lines += ["pipeline_tag: text-generation", "tags: [headwater]", "---", "", f"# {params.name}", ""]
    lines += [
        f"A decoder-only language model (Llama architecture) of {figures['parameters']:,} parameters, trained from "
        f"random weights on {figures['tokens_seen']:,} tokens in {figures['steps']:,} steps.",
        "",
        "```python",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        'folder = "."  # where this file is',
        "tokenizer = AutoTokenizer.from_pretrained(folder)",
        "model = AutoModelForCausalLM.from_pretrained(folder)",
        'print(tokenizer.decode(model.generate(**tokenizer("The function", return_tensors="pt"))[0]))',
        "```",
        "",
        "## Training",
        "",
        "| | |",
        "| --- | --- |",
        f"| vocabulary | {tokens['vocab_size']:,} |",
        f"| context | {trained['seq_len']} tokens |",
        f"| training loss, last step | {figures['train_loss']} nats a token |",
        f"| validation loss | {figures['validation_loss']} nats a token |",
        f"| ZeRO stage, ranks | {trained['zero_stage']}, {trained['num_ranks']} |",
        f"| SHA-256 of the weights | `{figures['weights_sha256']}` |",
        "",
        "## Evaluation",
        "",
        "| task | items | figures |",
        "| --- | --- | --- |",
    ]
    for task, scored in results["tasks"].items():
        shown = ", ".join(f"{name} {value:.4f}" for name, value in scored.items() if isinstance(value, float))
        lines.append(f"| {task} | {scored['items']} | {shown} |")
    lines += ["", f"## Gate: {gate['verdict']}", "", "| rule | verdict | |", "| --- | --- | --- |"]
    lines += [f"| {rule['rule']} | {rule['verdict']} | {rule['detail']} |" for rule in gate["rules"]]
    lines += ["", "What it was made from stands in `data_card.md`, `lineage.json` and `manifests/`.", ""]
    return "\n".join(lines)


def data_card(
    params: Params,
    manifests: Mapping[str, Manifest],
    tokens: Mapping[str, Any],
    hosts: Mapping[str, tuple[int, int]],
) -> str:
    """Return the data card: what went in, what each stage dropped and why, and where the training text is from."""
    lines = [f"# Data card of {params.name}", ""]
    lines += [
        f"Training text: {tokens['documents']:,} documents, {tokens['bytes']:,} bytes, {tokens['tokens']:,} tokens "
        "(repeated copies included).",
        "",
        "## Stages",
        "",
        "| stage | counts | in | out | dropped |",
        "| --- | --- | --- | --- | --- |",
    ]
    for stage in STAGES:
        manifest = manifests[stage]
        dropped = ", ".join(f"{rule}: {number:,}" for rule, number in sorted(manifest.counts.dropped.items()))
        lines.append(
            f"| {stage} | {manifest.unit} | {manifest.counts.in_:,} | {manifest.counts.out:,} | {dropped or 'none'} |"
        )
    lines += ["", "## Sources of the training text", "", "| host | documents | bytes |", "| --- | --- | --- |"]
    shown = list(hosts.items())[:HOSTS_SHOWN]
    lines += [f"| {host} | {number:,} | {size:,} |" for host, (number, size) in shown]
    if rest := list(hosts.items())[HOSTS_SHOWN:]:
        number, size = sum(n for _, (n, _) in rest), sum(s for _, (_, s) in rest)
        lines.append(f"| {len(rest)} more hosts | {number:,} | {size:,} |")
    crawl = manifests["crawl"]
    lines += ["", "## The snapshot", "", "| file of data/crawl | SHA-256 |", "| --- | --- |"]
    lines += [f"| {shard.name} | `{shard.sha256}` |" for shard in crawl.shards]
    lines.append("")
    return "\n".join(lines)
