"""A small chain of stages made by hand, in which every figure is made from one number, so that it can be changed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.contracts.document import Document, write_documents
from tasks.contracts.durable_files import write_json
from tasks.contracts.ledger import LedgerRow, write_ledger
from tasks.contracts.manifest import Counts, Unit
from tasks.contracts.tokens import TokenRange, write_index
from tests.planted import plant_manifest

TEXT_STAGES = ("crawl", "extract", "filter", "dedup", "perplexity", "holdout", "decontaminate", "mix")
STAGES = (*TEXT_STAGES, "tokenizer", "tokenize", "train", "evaluate", "gate")
UNITS: Mapping[str, Unit] = {
    "crawl": "urls",
    "extract": "records",
    "tokenizer": "files",
    "train": "tokens",
    "evaluate": "items",
    "gate": "rules",
}
FILTERS = [
    {"url": {"deny_words": ["casino"], "lists": []}},
    {"pii": {"kinds": ["email"], "action": "mask"}},
    {"secrets": {}},
]
PARAMS: Mapping[str, dict[str, Any]] = {
    "crawl": {"source": "sites", "user_agent": "Testbot", "contact": "a@b.example", "policy_files": True},
    "extract": {"opt_out": {"noai": "drop", "nosnippet": "mark", "agents": ["Headwater"]}},
    "filter": {"rules": FILTERS},
}
RULES: Mapping[str, tuple[str, ...]] = {
    "crawl": ("robots", "http_404"),
    "extract": ("opt_out", "takedown"),
    "filter": ("length.min_words",),
    "dedup": ("near_duplicate",),
    "perplexity": ("worst",),
    "holdout": ("held_out",),
    "decontaminate": ("benchmark_overlap",),
    "mix": ("not_sampled",),
}
DAYS = ("2026-01-02T03:04:05Z", "2026-02-03T04:05:06Z")


def documents() -> list[list[Document]]:
    """Two shards: three hosts of two domains, one licence stated and one not, one signal let stand."""
    rows = [
        ("a", "docs.one.example", "https://opensource.org/license/mit", (), DAYS[1]),
        ("b", "www.one.example", None, ("meta:nosnippet",), DAYS[0]),
        ("c", "two.example", "https://opensource.org/license/mit", (), DAYS[0]),
    ]
    made = [
        Document(
            doc_id=doc_id, url=f"http://{host}/{doc_id}", host=host, record_id=doc_id, source="sites", text=doc_id * 9,
            captured_at=day, language="en", language_score=0.9, license=license, opt_out=signals,
        )
        for doc_id, host, license, signals, day in rows
    ]  # fmt: skip
    return [made[:2], made[2:]]


def make_chain(root: Path, number: int = 10_007, params: Mapping[str, dict[str, Any]] = PARAMS) -> dict[str, Path]:
    """Write the folder of every stage before `release`; another `number` changes every figure in them."""
    figures = Figures(number)
    folders = {stage: root / stage for stage in STAGES}
    for folder in folders.values():
        folder.mkdir(parents=True)
    write_texts(folders, figures)
    write_json(folders["crawl"] / "sources.json", {"source": "sites", "sources": [{"name": "x", "sha256": "0" * 64}]})
    write_json(folders["mix"] / "mixture.json", {"groups": [figures.group("main"), figures.group("rest")]})
    tasks: dict[str, Any] = {
        "heldout": {"acc": figures.real(), "bits": figures.real(), "items": figures.next(), "items_sha256": "x"}
    }
    protected: dict[str, Any] = {
        "tasks": ["heldout"],
        "benchmarks": {"quiz.jsonl": "f" * 64},
        "protected_texts": figures.next(),
    }
    write_json(folders["decontaminate"] / "protected.json", protected)
    write_json(folders["evaluate"] / "results.json", {"tasks": tasks, "settings": {}})
    write_json(folders["gate"] / "report.json", figures.report(tasks["heldout"]["acc"]))
    write_json(folders["tokenizer"] / "tokenizer.json", {})
    training = {name: figures.next() for name in ("parameters", "tokens_seen", "steps")}
    losses = {name: figures.real() for name in ("train_loss", "validation_loss")}
    write_json(folders["train"] / "metrics.json", {**training, **losses, "weights_sha256": "w1"})
    (folders["train"] / "model").mkdir()
    (folders["train"] / "model" / "model.safetensors").write_bytes(b"weights")
    write_json(folders["train"] / "model/config.json", {"architectures": ["LlamaForCausalLM"], "model_type": "llama"})
    before: dict[str, Path] = {}
    for stage, folder in folders.items():
        trained = {"seq_len": figures.next(), "strategy": "zero-3", "num_ranks": 1} if stage == "train" else {}
        own = trained or params.get(stage, {})
        dropped = {rule: figures.next() for rule in RULES.get(stage, ())}
        out = figures.next()
        counts = Counts(in_=out + sum(dropped.values()), out=out, dropped=dropped)
        unit = UNITS.get(stage, "documents")
        plant_manifest(folder, stage=stage, unit=unit, params=own, inputs=before, counts=counts)
        before = {stage: folder}
    return folders


class Figures:
    """A run of numbers that have no more than chance in common with those of another start."""

    def __init__(self, start: int) -> None:
        self.last = start

    def next(self) -> int:
        self.last += 1_013
        return self.last

    def real(self) -> float:
        return self.next() / 1_000_000

    def group(self, name: str) -> dict[str, Any]:
        whole = {key: self.next() for key in ("resulting_documents", "resulting_bytes")}
        return {"name": name, "why": "", "asked_share": self.real(), "resulting_share": self.real(), **whole}

    def report(self, accuracy: float) -> dict[str, Any]:
        bounds = {"low": self.real(), "high": self.real(), "threshold": self.real()}
        chance = {"rule": "chance", "task": "heldout", "verdict": "pass", "value": accuracy, **bounds, "detail": "fine"}
        policy = {"rule": "policy_changed", "task": None, "verdict": "pass", "value": None, "detail": "as fixed"}
        policy |= {"low": None, "high": None, "threshold": None}
        rest = {"champion": None, "confidence": self.real(), "policy_sha256": "p" * 64}
        return {"verdict": "pass", "rules": [chance, policy], **rest}


def write_texts(folders: Mapping[str, Path], figures: Figures) -> None:
    """Write the training text, its token index and every ledger."""
    tokens = size = 0
    for part, shard in enumerate(documents()):
        write_documents(folders["mix"] / f"part-{part:05d}.parquet", shard)
        ranges: list[TokenRange] = []
        for epoch in (1, 2):
            for document in shard[: len(shard) if epoch == 1 else 1]:
                one = {"length": figures.next(), "bytes": figures.next()}
                offset = sum(range.length for range in ranges)
                ranges.append(TokenRange(doc_id=document.doc_id, url=document.url, epoch=epoch, offset=offset, **one))
        write_index(folders["tokenize"] / f"part-{part:05d}.parquet", ranges)
        tokens += sum(range.length for range in ranges)
        size += sum(range.bytes for range in ranges)
    known: dict[str, Any] = {"documents": 3, "bytes": size, "tokens": tokens, "vocab_size": figures.next()}
    write_json(folders["tokenize"] / "tokens.json", known)
    for stage in TEXT_STAGES:
        rows = [LedgerRow(stage=stage, action="drop", rule=rule, doc_id="x") for rule in RULES[stage]]
        if stage == "filter":
            detail = f"email: {figures.next()}"
            rows.append(LedgerRow(stage=stage, action="edit", rule="pii", doc_id="a", detail=detail))
        if stage == "extract":
            rows[0] = LedgerRow(stage=stage, action="drop", rule="opt_out", doc_id="x", detail="meta:noai")
            rows.append(LedgerRow(stage=stage, action="note", rule="opt_out", doc_id="b", detail="meta:nosnippet"))
        write_ledger(folders[stage] / "dropped" / "part-00000.parquet", rows)
