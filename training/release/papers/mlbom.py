"""mlbom.cdx.json: a machine-readable bill of materials of the model, CycloneDX 1.6 (ECMA-424).

Written here, since cyclonedx-python-lib 11 has no model cards yet; its validator checks the result in the tests. The
libraries are those of constraints.txt, not those of this machine, and the serial number is made from the manifests'
hashes: equal releases have equal files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tasks.contracts.files import MODEL_FOLDER, TOKENIZER_NAME
from training.release.papers.facts import Facts
from training.release.papers.markdown import counted

MODEL, TEXT, SNAPSHOT, HELD_OUT, TOKENIZER = "model", "data:mix", "data:crawl", "data:holdout", "data:tokenizer"
# What the released weights were trained and measured with, besides everything that is pinned.
TRAINED_WITH = ("torch", "deepspeed", "transformers", "tokenizers", "safetensors", "lm_eval", "numpy")


def mlbom(facts: Facts) -> bytes:
    """Return mlbom.cdx.json."""
    libraries = [_library(name, version) for name, version in facts.libraries.items()]
    named = {_normal(str(library["name"])): str(library["bom-ref"]) for library in libraries}
    needed = [named[_normal(name)] for name in TRAINED_WITH if _normal(name) in named]
    found = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{facts.serial}",
        "version": 1,
        "metadata": {
            "lifecycles": [{"phase": "build"}],
            "tools": {"components": [{"type": "application", "name": "Headwater"}]},
            "component": _model(facts),
            **_supplier(facts),
        },
        "components": [*_data(facts), *libraries],
        "dependencies": [
            {"ref": MODEL, "dependsOn": sorted([TEXT, HELD_OUT, TOKENIZER, *needed])},
            {"ref": TEXT, "dependsOn": [SNAPSHOT]},
            {"ref": HELD_OUT, "dependsOn": [SNAPSHOT]},
            {"ref": TOKENIZER, "dependsOn": [TEXT]},
        ],
    }
    return json.dumps(found, indent=2, ensure_ascii=False).encode() + b"\n"


def _supplier(facts: Facts) -> dict[str, Any]:
    if not facts.statement.provider_name:
        return {}
    contact = facts.statement.provider_contact
    return {
        "supplier": {"name": facts.statement.provider_name, **({"contact": [{"name": contact}]} if contact else {})}
    }


def _hashes(sha256: str) -> list[dict[str, str]]:
    return [{"alg": "SHA-256", "content": sha256}]


def _properties(values: Mapping[str, object]) -> list[dict[str, str]]:
    return [{"name": f"headwater:{name}", "value": str(value)} for name, value in values.items()]


def _model(facts: Facts) -> dict[str, Any]:
    figures, trained = facts.training, facts.manifests["train"]
    files = {shard.name: shard for shard in trained.shards}
    weights = files.get(f"{MODEL_FOLDER}/model.safetensors")
    return {
        "type": "machine-learning-model",
        "bom-ref": MODEL,
        "name": facts.name,
        "version": str(facts.serial),
        "description": f"Language model of {figures['parameters']:,} parameters, trained from {facts.begun}.",
        "licenses": [{"license": {"name": facts.license}}],
        **({"hashes": _hashes(weights.sha256)} if weights else {}),
        "modelCard": {
            "modelParameters": {
                "approach": {"type": "self-supervised"},
                "task": "text-generation",
                "architectureFamily": "transformer",
                "modelArchitecture": facts.architecture,
                "datasets": [{"ref": TEXT}, {"ref": HELD_OUT}],
                "inputs": [{"format": "text"}],
                "outputs": [{"format": "text"}],
            },
            "quantitativeAnalysis": {"performanceMetrics": _metrics(facts)},
            "considerations": {
                "useCases": [facts.said("purposes")],
                "technicalLimitations": [
                    f"Read text in {', '.join(facts.languages) or 'unknown languages'} only.",
                    f"Not trained on sequences longer than {trained.params['seq_len']} tokens.",
                    f"Stated by the provider: {facts.said('limits')}",
                ],
                "ethicalConsiderations": [
                    {
                        "name": "Personal data in the training text",
                        "mitigationStrategy": f"Masked by patterns: {counted(facts.edits.masked['pii'])}",
                    },
                    {
                        "name": "Reservations of rights",
                        "mitigationStrategy": f"{facts.dropped('crawl').get('robots', 0):,} URLs not fetched, "
                        f"{facts.dropped('extract').get('opt_out', 0):,} pages dropped, "
                        f"{facts.taken_down:,} documents taken down",
                    },
                ],
            },
        },
        "properties": _properties(
            {
                "tensor_hash": figures["weights_sha256"],
                **{f"sha256:{file.name}": file.sha256 for file in facts.weight_files},
                "parameters": figures["parameters"],
                "steps": figures["steps"],
                "tokens_in_shards": facts.tokens["tokens"],
                "tokens_trained_on": figures["tokens_seen"],
                "gate_verdict": facts.gate["verdict"],
                "gate_policy_sha256": facts.gate["policy_sha256"],
                **{f"manifest_sha256:{stage}": sha256 for stage, sha256 in facts.hashes.items()},
            }
        ),
    }


def _metrics(facts: Facts) -> list[dict[str, Any]]:
    """Return the evaluation's figures, and the gate's with their intervals."""
    found: list[dict[str, Any]] = [
        {"type": metric, "value": str(value), "slice": task}
        for task, scored in sorted(facts.results["tasks"].items())
        for metric, value in sorted(scored.items())
        if isinstance(value, float)
    ]
    for rule in facts.gate["rules"]:
        if rule.get("value") is not None:
            bounds = {"lowerBound": str(rule["low"]), "upperBound": str(rule["high"])}
            one = {"type": f"gate.{rule['rule']}", "value": str(rule["value"]), "confidenceInterval": bounds}
            found.append(one | ({"slice": rule["task"]} if rule.get("task") else {}))
    return found


def _data(facts: Facts) -> list[dict[str, Any]]:
    total, tokens = facts.sources.total, facts.tokens
    described = {
        TEXT: (
            "mix",
            "training text",
            f"{total.documents:,} documents, {tokens['tokens']:,} tokens in the shards, copies included",
        ),
        SNAPSHOT: (
            "crawl",
            "crawl snapshot",
            f"{facts.manifests['crawl'].counts.out:,} {facts.manifests['crawl'].unit}",
        ),
        HELD_OUT: (
            "holdout",
            "held-out text",
            f"{facts.dropped('holdout').get('held_out', 0):,} documents that the model is measured on",
        ),
    }
    found: list[dict[str, Any]] = [
        {
            "type": "data",
            "bom-ref": ref,
            "name": f"{facts.name} {name}",
            "version": facts.hashes[stage],
            "description": "SHA-256 of the stage's manifest, which has those of its files",
            "hashes": _hashes(facts.hashes[stage]),
            "data": [{"type": "dataset", "name": name, "description": text}],
        }
        for ref, (stage, name, text) in described.items()
    ]
    tokenizer = next((s for s in facts.manifests["tokenizer"].shards if s.name == TOKENIZER_NAME), None)
    found.append(
        {
            "type": "file",
            "bom-ref": TOKENIZER,
            "name": TOKENIZER_NAME,
            "version": facts.hashes["tokenizer"],
            "hashes": _hashes(tokenizer.sha256 if tokenizer else facts.hashes["tokenizer"]),
            "properties": _properties({"vocab_size": tokens["vocab_size"]}),
        }
    )
    return found


def _library(name: str, version: str) -> dict[str, Any]:
    purl = f"pkg:pypi/{_normal(name)}@{version}"
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


def _normal(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")
