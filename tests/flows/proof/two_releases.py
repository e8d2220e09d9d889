"""Small releases made by the stage release itself, from stages written by hand, in which one thing can be changed."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from tasks.contracts.document import Document, write_documents
from tasks.contracts.durable_files import sha256_json, write_bytes, write_json
from tasks.contracts.ledger import LedgerRow, write_ledger
from tasks.contracts.manifest import Counts
from tasks.contracts.tokens import TokenRange, write_index
from tests.planted import plant_manifest
from tests.training.release.papers.chain import STAGES, TEXT_STAGES, UNITS
from training.release import stage as release

INPUTS: Mapping[str, tuple[str, ...]] = {
    "crawl": (),
    **{stage: (before,) for before, stage in pairwise(TEXT_STAGES)},
    "tokenizer": ("mix",),
    "tokenize": ("holdout", "mix", "tokenizer"),
    "train": ("tokenize", "tokenizer"),
    "evaluate": ("holdout", "train"),
    "gate": ("evaluate", "holdout", "mix", "train"),
}
PARAMS: Mapping[str, Mapping[str, Any]] = {
    "crawl": {"source": "sites", "user_agent": "Testbot"},
    "filter": {
        "max_error_rate": 0.01,
        "rules": [
            {"length": {"min_words": 50, "max_words": 1000}},
            {"url": {"deny_words": ["casino", "poker", "viagra", "xxx"]}},
            {"c4": {"stop_chars": None}},
            {"secrets": {}},
        ],
    },
    "dedup": {"threshold": 0.8},
    "perplexity": {"models": {"en": ["1" * 64]}},
    "mix": {"groups": [{"name": "books", "weight": 0.5}, {"name": "rest", "weight": 0.5}]},
    "train": {
        "seq_len": 16,
        "strategy": "zero-3",
        "num_ranks": 1,
        "model": {"layers": 2},
        "policy": {"seed": 1},
        "policy_sha256": "p1",
        "tasks": ["text", "choice"],
    },
    "evaluate": {"tasks": ["text", "choice"]},
    "gate": {"seed": 1, "tasks": ["text", "choice"]},
}
DROPPED: Mapping[str, Mapping[str, int]] = {
    "crawl": {"robots": 4},
    "filter": {"length.min_words": 7},
    "dedup": {"near_duplicate": 3},
}
BITS = (2.0, 2.25, 2.5, 3.0, 2.75, 2.125, 3.5, 2.375)
RIGHT = (1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0)
BYTES = 1000


def page(name: str, host: str, language: str = "en", license: str | None = None) -> Document:
    """Return a document; its id is made of its name."""
    return Document(
        doc_id=sha256_json(name)[:32],
        url=f"http://{host}/{name}",
        host=host,
        record_id=name,
        source="sites",
        text=name * 9,
        captured_at="2026-01-02T03:04:05Z",
        language=language,
        language_score=0.9,
        license=license,
    )


MIT = "https://opensource.org/license/mit"
PAGES = (page("a", "docs.one.example", license=MIT), page("b", "www.one.example"), page("c", "www.one.example"))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a release is made of; by default always the same bytes.

    Attributes:
        params, dropped: stage → what differs from PARAMS, DROPPED.
        files: "stage/name" → content: a file more in a stage's output.
        bits, right: what each item of the two tasks scored; `items` stands for the text of the items.
        floor: what the gate's rule found.
        constraints: constraints.txt.
    """

    pages: tuple[Document, ...] = PAGES
    params: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    dropped: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=lambda: {"pages.warc.gz": "a" * 64})
    bits: tuple[float, ...] = BITS
    right: tuple[float, ...] = RIGHT
    items: str = "items"
    num_fewshot: int | None = None
    floor: float = -0.5
    weights: str = "w1"
    constraints: str = "torch==2.13.0\nnumpy==2.4.0\n"
    release: Mapping[str, Any] = field(default_factory=dict)


def make(root: Path, plan: Plan) -> Path:
    """Write all stages' folders under `root / "data"`, and the release made from them; return its folder."""
    folders = {stage: root / "data" / stage for stage in STAGES}
    for folder in folders.values():
        folder.mkdir(parents=True)
    (root / "constraints.txt").write_text(plan.constraints)
    Path("constraints.txt").write_text(plan.constraints)
    _texts(folders, plan)
    _rest(folders, plan)
    for name, content in plan.files.items():
        write_bytes(root / "data" / name, content)
    for stage, folder in folders.items():
        dropped = dict({**DROPPED, **plan.dropped}.get(stage, {}))
        plant_manifest(
            folder,
            stage=stage,
            unit=UNITS.get(stage, "documents"),
            params={**PARAMS.get(stage, {}), **plan.params.get(stage, {})},
            inputs={name: folders[name] for name in INPUTS[stage]},
            counts=Counts(in_=len(plan.pages) + sum(dropped.values()), out=len(plan.pages), dropped=dropped),
        )
    output = root / "data" / "release"
    release.run(params=release.Params(**{"name": "first", **plan.release}), inputs=folders, output=output)
    return output


def _texts(folders: Mapping[str, Path], plan: Plan) -> None:
    write_documents(folders["mix"] / "part-00000.parquet", plan.pages)
    ranges: list[TokenRange] = []
    for one in plan.pages:
        size = len(one.text.encode())
        offset = sum(before.length for before in ranges)
        ranges.append(TokenRange(doc_id=one.doc_id, url=one.url, epoch=1, offset=offset, length=size // 3, bytes=size))
    write_index(folders["tokenize"] / "part-00000.parquet", ranges)
    total = {"tokens": sum(one.length for one in ranges), "bytes": sum(one.bytes for one in ranges)}
    write_json(folders["tokenize"] / "tokens.json", {**total, "documents": len(ranges), "vocab_size": 50})
    for stage in TEXT_STAGES:
        write_ledger(folders[stage] / "dropped" / "part-00000.parquet", [
            LedgerRow(stage=stage, action="drop", rule=rule, doc_id="x") for rule in DROPPED.get(stage, ())
        ])  # fmt: skip


def _rest(folders: Mapping[str, Path], plan: Plan) -> None:
    listed: list[Any] = [{"name": name, "sha256": sha256} for name, sha256 in plan.sources.items()]
    write_json(folders["crawl"] / "sources.json", {"source": "sites", "sources": listed})
    write_json(folders["mix"] / "mixture.json", {"groups": []})
    write_json(folders["decontaminate"] / "protected.json", {"tasks": [], "benchmarks": {}, "protected_texts": 0})
    write_json(folders["tokenizer"] / "tokenizer.json", {})
    figures = {"parameters": 9, "tokens_seen": 8, "steps": 7, "train_loss": 3.5, "validation_loss": 3.5}
    write_json(folders["train"] / "metrics.json", {**figures, "weights_sha256": plan.weights})
    write_bytes(folders["train"] / "model" / "model.safetensors", plan.weights.encode())
    write_json(folders["train"] / "model/config.json", {"architectures": ["LlamaForCausalLM"], "model_type": "llama"})
    bits = round(math.fsum(plan.bits) / len(plan.bits), 6)
    right = round(math.fsum(plan.right) / len(plan.right), 6)
    tasks: dict[str, Any] = {
        "text": {"bits_per_byte": bits, "byte_perplexity": round(2**bits, 6), "items": len(plan.bits)},
        "choice": {"acc": right, "items": len(plan.right)},
    }
    for task in tasks.values():
        task["items_sha256"] = sha256_json([plan.items, task["items"]])
    write_json(
        folders["evaluate"] / "results.json",
        {"tasks": tasks, "settings": {"limit": None, "num_fewshot": plan.num_fewshot}},
    )
    rows: dict[str, list[dict[str, Any]]] = {
        "text": [{"nats": round(bit * BYTES * math.log(2), 6), "bytes": BYTES} for bit in plan.bits],
        "choice": [{"acc": one} for one in plan.right],
    }
    for name, scored in rows.items():
        lines = [json.dumps({"item_id": f"{plan.items}-{number}", **one}) + "\n" for number, one in enumerate(scored)]
        write_bytes(folders["evaluate"] / "samples" / f"{name}.jsonl", "".join(lines).encode())
    rule: dict[str, Any] = {
        "rule": "floor",
        "task": "text",
        "verdict": "pass",
        "value": plan.floor,
        "low": -0.6,
        "high": -0.4,
    }
    report: dict[str, Any] = {
        "verdict": "pass",
        "rules": [{**rule, "threshold": 0.0, "detail": "fine"}],
        "champion": None,
    }
    report |= {"confidence": 0.95, "policy_sha256": "p1", "weights_sha256": plan.weights}
    write_json(folders["gate"] / "report.json", report)
