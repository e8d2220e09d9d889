"""README.md of an adapted release: what it was tuned from, on what, and how; the base's own papers stand in `base/`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from huggingface_hub.repocard_data import ModelCardData

from tasks.contracts.files import SOURCES_NAME
from tasks.contracts.manifest import Manifest
from tasks.contracts.release import (
    AB2013_NAME,
    BASE_FOLDER,
    DATA_CARD_NAME,
    EU_SUMMARY_NAME,
    GATE_NAME,
    LINEAGE_NAME,
    MANIFESTS_FOLDER,
    MODEL_CARD_NAME,
    VERIFIER_NAME,
)
from training.gate.stage import rules_met
from training.release.papers.markdown import page, table

METHODS: Mapping[str, str] = {
    "full": "all weights tuned on answers",
    "lora": "LoRA adapters tuned on answers and merged into the weights (Hu et al. 2021, arXiv 2106.09685)",
    "qlora": "LoRA adapters tuned on answers beside the base in NF4, and merged into its weights as NF4 holds them "
    "(Dettmers et al. 2023, arXiv 2305.14314)",
    "dpo": "LoRA adapters tuned on preferences (DPO, Rafailov et al. 2023, arXiv 2305.18290) and merged into the "
    "weights",
}
FIGURES = (
    "parameters", "adapter_parameters", "steps", "examples_seen", "tokens_seen", "answer_tokens", "first_loss",
    "train_loss", "merge_difference",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Adapted:
    """What is known of an adapted release.

    Attributes:
        manifests: of the adaptation's own stages, in the order of their chain.
        figures: the stage adapt's metrics.
        weights: file → SHA-256.
        gate: the gate's report.
    """

    name: str
    license: str
    base_name: str
    base_manifest: str
    manifests: Mapping[str, Manifest]
    figures: Mapping[str, Any]
    weights: Mapping[str, str]
    gate: Mapping[str, Any]


def adapted_card(told: Adapted) -> bytes:
    """Return README.md."""
    settings = told.manifests["adapt"].params
    files = told.manifests["examples"].params["files"]
    assert isinstance(files, dict), "examples names its files"
    front = ModelCardData(
        license=told.license,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["headwater", "provenance", str(settings["method"])],
        model_name=told.name,
    )
    drops = [
        (stage, f"`{rule}`", number)
        for stage, manifest in told.manifests.items()
        for rule, number in sorted(manifest.counts.dropped.items())
    ]
    counts = [(stage, one.unit, one.counts.in_, one.counts.out) for stage, one in told.manifests.items()]
    lines = ["---", front.to_yaml(line_break="\n"), "---", "", f"# {told.name}", ""]
    lines += [
        "> If a file `TAKEDOWN.md` stands beside this card, read it first: it names text that was taken down after "
        "this release was made.",
        "",
        f"Fine-tuned from {told.base_name} (manifest `{told.base_manifest}`), whose papers and chain of proof stand in "
        f"`{BASE_FOLDER}/`: {METHODS[str(settings['method'])]}. Every figure on this page was written by the pipeline "
        f"from the manifests in `{MANIFESTS_FOLDER}/`, none by hand.",
        "",
        "## How to ask it",
        "",
        "```python",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        'folder = "."  # where this file is',
        "tokenizer = AutoTokenizer.from_pretrained(folder)",
        "model = AutoModelForCausalLM.from_pretrained(folder)",
        'chat = [{"role": "user", "content": "What does it do?"}]',
        "text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)",
        'print(tokenizer.decode(model.generate(**tokenizer(text, return_tensors="pt"))[0]))',
        "```",
        "",
        "The chat template in `tokenizer_config.json` is plain text and has no token that the base has not.",
        "",
        "## What it was tuned on",
        "",
        *table(["file of examples", "SHA-256"], [(name, f"`{digest}`") for name, digest in sorted(files.items())]),
        *table(["stage", "counts", "in", "out"], counts, right=3),
    ]
    if drops:
        lines += ["What was dropped on the way, each with a reason in the ledgers:", ""]
        lines += table(["stage", "rule", "dropped"], drops)
    chosen = ("method", "epochs", "batch_size", "learning_rate", "rank", "alpha", "beta", "seed")
    lines += [
        "## How",
        "",
        *table(["setting", "value"], [(name, settings[name]) for name in chosen]),
        *table(["figure", "value"], [(name, told.figures[name]) for name in FIGURES if name in told.figures]),
        *table(
            ["hash", "value"],
            [
                *((f"SHA-256 of {name}", f"`{digest}`") for name, digest in sorted(told.weights.items())),
                ("tensor hash", f"`{told.figures['weights_sha256']}`"),
            ],
        ),
        f"## Gate: {told.gate['verdict']}",
        "",
        *table(
            ["rule", "verdict", "", ""],
            [(rule["rule"], rule["verdict"], rule["detail"], rule.get("task") or "") for rule in told.gate["rules"]],
        ),
        rules_met([rule["verdict"] for rule in told.gate["rules"]]),
        "",
        "## What else is in this folder",
        "",
        *table(
            ["file", "what it is"],
            [
                (f"`{GATE_NAME}`", "the gate's report"),
                (f"`{LINEAGE_NAME}`, `{MANIFESTS_FOLDER}/`", "the chain of hashes from these weights to the examples"),
                (f"`{BASE_FOLDER}/`", "the base, but for its weights: its chain goes on to the raw records"),
                *(
                    (f"`{BASE_FOLDER}/{name}`", "what the base says of the text that it has read")
                    for name in (MODEL_CARD_NAME, DATA_CARD_NAME, SOURCES_NAME, EU_SUMMARY_NAME, AB2013_NAME)
                ),
                (f"`{VERIFIER_NAME}`", "checks all of this folder offline: `python3 -I verify.py`"),
            ],
        ),
    ]
    return page(lines)
