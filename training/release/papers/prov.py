"""prov.jsonld: which stage made what from what, in W3C PROV (PROV-O as JSON-LD).

Entities are named by hashes, so two releases made from one snapshot name the same snapshot, and their graphs can be
laid on top of each other. The context is inside: a reader needs no network.
"""

from __future__ import annotations

import json
from typing import Any

from tasks.contracts.stages import does
from training.release.papers.facts import Facts

CONTEXT = {
    "prov": "http://www.w3.org/ns/prov#",
    "rdfs": "http://www.w3.org/2000/01/rdf-schema#",
    "xsd": "http://www.w3.org/2001/XMLSchema#",
    "hw": "urn:headwater:term:",
    "label": "rdfs:label",
    "comment": "rdfs:comment",
    "used": {"@id": "prov:used", "@type": "@id"},
    "wasGeneratedBy": {"@id": "prov:wasGeneratedBy", "@type": "@id"},
    "wasDerivedFrom": {"@id": "prov:wasDerivedFrom", "@type": "@id"},
    "wasAttributedTo": {"@id": "prov:wasAttributedTo", "@type": "@id"},
    "wasAssociatedWith": {"@id": "prov:wasAssociatedWith", "@type": "@id"},
    "actedOnBehalfOf": {"@id": "prov:actedOnBehalfOf", "@type": "@id"},
    "in": {"@id": "hw:in", "@type": "xsd:integer"},
    "out": {"@id": "hw:out", "@type": "xsd:integer"},
    "dropped": {"@id": "hw:dropped", "@type": "xsd:integer"},
    "sha256": "hw:sha256",
    "tensorHash": "hw:tensorHash",
    "file": "hw:file",
    "firstCaptured": {"@id": "hw:firstCaptured", "@type": "xsd:dateTime"},
    "lastCaptured": {"@id": "hw:lastCaptured", "@type": "xsd:dateTime"},
}
SOFTWARE, PROVIDER = "urn:headwater:agent:software", "urn:headwater:agent:provider"


def prov(facts: Facts) -> bytes:
    """Return prov.jsonld."""
    graph = [*_agents(facts), *_stages(facts), *_release(facts)]
    return json.dumps({"@context": CONTEXT, "@graph": graph}, indent=2, ensure_ascii=False).encode() + b"\n"


def folder_id(facts: Facts, stage: str) -> str:
    """Return the name of a stage's folder: its manifest's hash."""
    return f"urn:headwater:manifest:sha256:{facts.hashes[stage]}"


def _activity_id(facts: Facts, stage: str) -> str:
    return f"urn:headwater:stage:{stage}:{facts.hashes[stage]}"


def _weights_id(facts: Facts) -> str:
    return f"urn:headwater:weights:tensors:{facts.training['weights_sha256']}"


def _agents(facts: Facts) -> list[dict[str, Any]]:
    return [
        {
            "@id": SOFTWARE,
            "@type": ["prov:Agent", "prov:SoftwareAgent"],
            "label": "Headwater",
            "actedOnBehalfOf": PROVIDER,
        },
        {"@id": PROVIDER, "@type": "prov:Agent", "label": facts.said("provider_name")},
    ]


def _stages(facts: Facts) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for stage in facts.stages:
        manifest = facts.manifests[stage]
        used = [folder_id(facts, name) for name in sorted(manifest.inputs)]
        activity, counts = _activity_id(facts, stage), manifest.counts
        if stage == "crawl":
            for source in facts.crawl.get("sources", []):
                if isinstance(source, dict) and "sha256" in source:
                    origin = f"urn:headwater:source:sha256:{source['sha256']}"
                    found.append(
                        {"@id": origin, "@type": "prov:Entity", "label": source["name"], "sha256": source["sha256"]}
                    )
                    used.append(origin)
        entity: dict[str, Any] = {
            "@id": folder_id(facts, stage),
            "@type": ["prov:Entity", "prov:Collection"],
            "label": f"data/{stage}",
            "sha256": facts.hashes[stage],
            "wasGeneratedBy": activity,
            "wasDerivedFrom": used,
        }
        if stage == "mix" and facts.sources.first_captured:
            entity |= {"firstCaptured": facts.sources.first_captured, "lastCaptured": facts.sources.last_captured}
        found.append(entity)
        found.append(
            {
                "@id": activity,
                "@type": "prov:Activity",
                "label": stage,
                "comment": does(stage),
                "used": used,
                "wasAssociatedWith": SOFTWARE,
                "in": counts.in_,
                "out": counts.out,
                "dropped": sum(counts.dropped.values()),
            }
        )
    return found


def _release(facts: Facts) -> list[dict[str, Any]]:
    """Return the weights, the release that holds them, and what made it."""
    release, made = f"urn:uuid:{facts.serial}", f"urn:headwater:stage:release:{facts.serial}"
    used = [_weights_id(facts), *(folder_id(facts, stage) for stage in facts.stages)]
    return [
        {
            "@id": _weights_id(facts),
            "@type": "prov:Entity",
            "label": "weights",
            "tensorHash": facts.training["weights_sha256"],
            "file": [{"label": file.name, "sha256": file.sha256} for file in facts.weight_files],
            "wasGeneratedBy": _activity_id(facts, "train"),
            "wasDerivedFrom": [
                *(folder_id(facts, name) for name in sorted(facts.manifests["train"].inputs)),
                *([] if facts.base is None else [f"urn:headwater:weights:tensors:{facts.base.weights_sha256}"]),
            ],
        },
        {
            "@id": release,
            "@type": ["prov:Entity", "prov:Collection"],
            "label": facts.name,
            "wasGeneratedBy": made,
            "wasDerivedFrom": used,
            "wasAttributedTo": PROVIDER,
        },
        {"@id": made, "@type": "prov:Activity", "label": "release", "used": used, "wasAssociatedWith": SOFTWARE},
    ]
