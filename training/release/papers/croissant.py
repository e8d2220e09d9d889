"""croissant.json: the training text's shards for machines, in MLCommons Croissant 1.1.

The text is no part of a release. Its shards (data/mix) are named by their SHA-256, with paths as if this file stood
beside them: whoever has the shards copies it there, and `mlcroissant` reads the documents.
"""

from __future__ import annotations

import json
from typing import Any

from tasks.contracts.files import PARQUET_PARTS
from training.release.papers.facts import Facts
from training.release.papers.markdown import counted, many
from training.release.papers.sources import NOT_STATED

CONFORMS_TO = "http://mlcommons.org/croissant/1.1"
PARQUET = "application/x-parquet"
SHARDS, DOCUMENTS = "shards", "documents"
# The columns of a document as Croissant types. `scores` is left out: Croissant has no type for a map.
FIELDS = {
    "doc_id": ("sc:Text", "stable id, hexadecimal"),
    "url": ("sc:Text", "where the page was"),
    "host": ("sc:Text", "its host"),
    "captured_at": ("sc:Text", "when it was fetched, RFC 3339 in UTC"),
    "record_id": ("sc:Text", "id of its WARC record, or of its row in a text source"),
    "warc_path": ("sc:Text", "file of the snapshot that holds the record"),
    "warc_offset": ("sc:Integer", "the record's first byte in that file"),
    "payload_digest": ("sc:Text", "digest of the HTTP payload"),
    "source": ("sc:Text", "how it was collected"),
    "title": ("sc:Text", "title of the page"),
    "author": ("sc:Text", "author, as the page names them"),
    "published": ("sc:Text", "day of publication, as the page names it"),
    "text": ("sc:Text", "the text, as the stage tokenize takes it"),
    "language": ("sc:Text", "ISO 639-1 code"),
    "language_score": ("sc:Float", "probability of the language"),
    "license": ("sc:Text", "licence that the page names"),
    "opt_out": ("sc:Text", "reservations that the page carries and that the policy lets stand"),
}
CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "name": {"@container": "@language"},
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}


def croissant(facts: Facts) -> bytes:
    """Return croissant.json."""
    total = facts.sources.total
    found: dict[str, Any] = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "@id": f"urn:uuid:{facts.serial}",
        "name": f"{facts.name}-training-text",
        "description": f"The training text of {facts.name}: {total.documents:,} documents of "
        f"{many(len(facts.sources.hosts), 'host')}. How it was made and from what stands in data_card.md.",
        "conformsTo": CONFORMS_TO,
        "license": [share.name for share in facts.sources.licenses if share.name != NOT_STATED],
        "inLanguage": list(facts.languages),
        "keywords": ["language modelling", "provenance", "headwater"],
        "isLiveDataset": False,
        "rai:dataCollection": f"{facts.crawl['source']}: {facts.manifests['crawl'].counts.out:,} "
        f"{facts.manifests['crawl'].unit}; not taken: {counted(dict(facts.dropped('crawl')))}",
        "rai:personalSensitiveInformation": [f"masked: {counted(facts.edits.masked['pii'])}"],
        "distribution": [*_files(facts), _file_set()],
        "recordSet": [_record_set()],
    }
    if facts.statement.provider_name:
        found["creator"] = {"@type": "sc:Organization", "name": facts.statement.provider_name}
    if facts.sources.last_captured:
        found["dateCreated"] = facts.sources.last_captured
        found["rai:dataCollectionTimeframe"] = [facts.sources.first_captured, facts.sources.last_captured]
    return json.dumps(found, indent=2, ensure_ascii=False).encode() + b"\n"


def _files(facts: Facts) -> list[dict[str, Any]]:
    return [
        {
            "@type": "cr:FileObject",
            "@id": shard.name,
            "name": shard.name,
            "contentUrl": shard.name,
            "contentSize": f"{shard.bytes} B",
            "encodingFormat": PARQUET,
            "sha256": shard.sha256,
        }
        for shard in facts.shards
    ]


def _file_set() -> dict[str, Any]:
    # Not `containedIn` the files above: mlcroissant 1.1 reads columns of local files only from a set without it.
    return {
        "@type": "cr:FileSet",
        "@id": SHARDS,
        "name": SHARDS,
        "encodingFormat": PARQUET,
        "includes": PARQUET_PARTS,
    }


def _record_set() -> dict[str, Any]:
    fields = []
    for column, (kind, description) in FIELDS.items():
        field: dict[str, Any] = {
            "@type": "cr:Field",
            "@id": f"{DOCUMENTS}/{column}",
            "name": column,
            "description": description,
            "dataType": kind,
            "source": {"fileSet": {"@id": SHARDS}, "extract": {"column": column}},
        }
        if column == "opt_out":
            field["repeated"] = True
        fields.append(field)
    return {
        "@type": "cr:RecordSet",
        "@id": DOCUMENTS,
        "name": DOCUMENTS,
        "key": {"@id": f"{DOCUMENTS}/doc_id"},
        "field": fields,
    }
