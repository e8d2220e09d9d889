"""README.md of a release: the model card, with the front matter that Hugging Face reads.

Sections as in Mitchell et al., "Model Cards for Model Reporting" (FAT* 2019).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from huggingface_hub.repocard_data import EvalResult, ModelCardData

from tasks.contracts.base_release import BASE_FOLDER
from tasks.contracts.files import SOURCES_NAME, TASKS_FOLDER
from tasks.contracts.release import (
    AB2013_NAME,
    BILL_NAME,
    CROISSANT_NAME,
    DATA_CARD_NAME,
    EVALUATION_FOLDER,
    GATE_NAME,
    LINEAGE_NAME,
    MANIFESTS_FOLDER,
    PROV_NAME,
    SIGNATURE_NAME,
    VERIFIER_NAME,
)
from training.gate.stage import rules_met
from training.release.local_tasks import LOADER
from training.release.papers.facts import Facts
from training.release.papers.markdown import many, page, share_of, table
from training.train.model import FIRST_FAMILY, ModelSize, families, family

FILES = (
    (DATA_CARD_NAME, "what the training text is, where it is from and what was left out"),
    (SOURCES_NAME, "every host, domain, language and licence of it with documents, bytes and tokens, for programs"),
    ("eu_ai_act_summary.md, .json", "public summary of the training content, Regulation (EU) 2024/1689, Art. 53(1)(d)"),
    (AB2013_NAME, "California Civil Code § 3111 (AB 2013)"),
    (CROISSANT_NAME, "the training text's shards for machines: Croissant 1.1"),
    (BILL_NAME, "bill of materials for machines: CycloneDX 1.6"),
    (PROV_NAME, "which stage made what from what: W3C PROV"),
    (f"{TASKS_FOLDER}/", "the held-out tasks and their items, for lm-eval"),
    (f"{GATE_NAME}, {EVALUATION_FOLDER}/", "the gate's report and the score of every item"),
    (f"{LINEAGE_NAME}, {MANIFESTS_FOLDER}/", "the chain of hashes from these weights to the raw records"),
    (f"{BASE_FOLDER}/", "if it is here: the same chain of the release whose weights training began with"),
    (VERIFIER_NAME, "checks all of this folder offline: `python3 -I verify.py`"),
    (
        SIGNATURE_NAME,
        "if it is here: the publisher's signature over all of it, `model_signing verify key . --signature model.sig "
        "--public_key FILE`",
    ),
)


def model_card(facts: Facts) -> bytes:
    """Return README.md."""
    figures, tokens, trained = facts.training, facts.tokens, facts.manifests["train"].params
    lines = ["---", _front_matter(facts), "---", "", f"# {facts.name}", ""]
    lines += [
        "> If a file `TAKEDOWN.md` stands beside this card, read it first: it names text that was taken down after "
        "this release was made.",
        "",
        f"A decoder-only language model ({facts.architecture.removesuffix('ForCausalLM')} architecture) of "
        f"{figures['parameters']:,} parameters, trained from "
        f"{facts.begun}: {figures['tokens_seen']:,} tokens trained on in {figures['steps']:,} steps. Every figure on "
        "this page was written by the pipeline from the manifests in `manifests/`, none by hand.",
        "",
        "## How to load it",
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
        "## Intended use and limits",
        "",
        *table(
            ["asked", "answer"],
            [
                ("Provider", facts.said("provider_name")),
                ("Contact", facts.said("provider_contact")),
                ("Intended use", facts.said("purposes")),
                ("Limits, as the provider states them", facts.said("limits")),
                ("Licence of the weights", facts.license),
            ],
        ),
        "Limits that follow from how it was made:",
        "",
        f"- It has read text in {_languages(facts)} only, up to {facts.sources.last_captured or 'an unknown day'}.",
        "- It continues text. It was not trained to follow instructions, and nothing was done to make it safe to talk "
        "to.",
        "- It may repeat what it has read, false statements and prejudice included, and may state what is not so.",
        f"- It was not trained on sequences longer than {trained['seq_len']:,} tokens.",
        "",
        "## Training",
        "",
        *table(["figure", "value"], _training_rows(facts)),
        "## Training data",
        "",
        f"{facts.sources.total.documents:,} documents of {many(len(facts.sources.hosts), 'host')}: "
        f"{tokens['bytes']:,} bytes, {tokens['tokens']:,} tokens in the shards, repeated copies included. "
        f"{figures['tokens_seen']:,} tokens were trained on "
        f"({share_of(figures['tokens_seen'], tokens['tokens'])} of these; more than all is more than one pass).",
        "",
        *_base(facts),
        *_taken_out(facts),
        "## Evaluation",
        "",
        *table(["task", "metric", "items", "value", "interval"], _metric_rows(facts), right=2),
        *_protection(facts),
        *_score_it(facts),
        f"## Gate: {facts.gate['verdict']}",
        "",
        *_gate(facts),
        "## What else is in this folder",
        "",
        *table(["file", "what it is"], ((f"`{name}`", what) for name, what in FILES)),
    ]
    return page(lines)


def _front_matter(facts: Facts) -> str:
    data = ModelCardData(
        language=list(facts.languages) or None,
        license=facts.license,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["headwater", str(facts.model["model_type"]), "provenance"],
        datasets=[f"{facts.name}-training-text"],
        model_name=facts.name,
        eval_results=_eval_results(facts) or None,
    )
    return data.to_yaml(line_break="\n")


def _eval_results(facts: Facts) -> list[EvalResult]:
    results = []
    for task, scored in sorted(facts.results["tasks"].items()):
        for metric, value in sorted(scored.items()):
            if isinstance(value, float):
                results.append(
                    EvalResult(
                        task_type="text-generation",
                        dataset_type=task,
                        dataset_name=task,
                        metric_type=metric,
                        metric_name=metric,
                        metric_value=value,
                        metric_args=_interval(facts, task, value),
                    )
                )
    return results


def _interval(facts: Facts, task: str, value: float) -> dict[str, Any] | None:
    """Return the gate's interval where it is of this very figure, and not of a difference to another model."""
    for rule in facts.gate["rules"]:
        if rule.get("task") == task and rule.get("value") == value and rule.get("low") is not None:
            return {"low": rule["low"], "high": rule["high"], "confidence": facts.gate["confidence"]}
    return None


def _languages(facts: Facts) -> str:
    return ", ".join(f"`{language}`" for language in facts.languages) or "languages that were not told apart"


def _training_rows(facts: Facts) -> list[tuple[str, object]]:
    figures, trained = facts.training, facts.manifests["train"].params
    model = trained.get("model")
    size = model if isinstance(model, dict) else {}
    return [
        ("parameters", figures["parameters"]),
        *_architecture(model),
        ("layers, width, heads", ", ".join(str(size.get(key, "?")) for key in ("layers", "hidden_size", "heads"))),
        ("vocabulary", facts.tokens["vocab_size"]),
        ("context", f"{trained['seq_len']:,} tokens"),
        ("steps", figures["steps"]),
        ("tokens in the shards", facts.tokens["tokens"]),
        ("tokens trained on", figures["tokens_seen"]),
        ("learning rate, batch", f"{trained.get('learning_rate')}, {trained.get('batch_size')} sequences a step"),
        ("training loss, last step", f"{figures['train_loss']} nats a token"),
        ("validation loss", f"{figures['validation_loss']} nats a token"),
        ("strategy, ranks, seed", ", ".join(str(trained.get(key)) for key in ("strategy", "num_ranks", "seed"))),
        *((f"SHA-256 of {file.name}", f"`{file.sha256}`") for file in facts.weight_files),
        ("tensor hash", f"`{figures['weights_sha256']}` (names, types, shapes and values, however they are stored)"),
    ]


def _architecture(model: object) -> list[tuple[str, object]]:
    """Say what the model's family says of itself; nothing where the family is of another version."""
    name = model.get("family", FIRST_FAMILY) if isinstance(model, dict) else None
    if name not in families():
        return []
    size = ModelSize.model_validate(model, strict=False)
    spec = family(size.family)
    return [
        ("architecture", f"{spec.title}: {spec.parts}{', QK-norm' if size.qk_norm else ''} ({spec.paper})"),
        ("initial weights", spec.begins(size.residual_projections)),
    ]


def _base(facts: Facts) -> list[str]:
    """Say that another corpus is in the weights too."""
    if facts.base is None:
        return []
    return [
        f"Before that the weights learnt from the training text of {facts.base.name}: see the data card of that "
        f"release, whose manifest has the SHA-256 `{facts.base.release}`. Its chain stands in `{BASE_FOLDER}/`.",
        "",
    ]


def _taken_out(facts: Facts) -> list[str]:
    rows = []
    for stage in facts.text_stages:
        manifest = facts.manifests[stage]
        gone = sum(manifest.counts.dropped.values())
        if gone:
            rows.append((stage, manifest.unit, gone, share_of(gone, manifest.counts.in_)))
    lines = ["What was taken out on the way, each with a reason in the ledgers (by rule in `data_card.md`):", ""]
    lines += table(["stage", "counts", "taken out", "of what came in"], rows, right=2)
    lines += [f"Of these, {facts.taken_down:,} documents were left out because of a takedown.", ""]
    return lines


def _metric_rows(facts: Facts) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for task, scored in sorted(facts.results["tasks"].items()):
        for metric, value in sorted(scored.items()):
            if isinstance(value, float):
                rows.append((task, metric, scored["items"], f"{value:.4f}", _bounds(_interval(facts, task, value))))
    return rows


def _protection(facts: Facts) -> list[str]:
    """Say of which items it is known that the model did not learn from them."""
    if not facts.protection:
        return []
    missing = sum(found["not_protected"] for found in facts.protection.values())
    items = sum(found["items"] for found in facts.protection.values())
    said = f"{items - missing:,} of {items:,} items of the tasks and benchmark files are protected: text of them was "
    said += "taken out of the training text (`data_card.md`)."
    return [said + (f" {missing:,} are not, since they are too short or too common." if missing else ""), ""]


def _score_it(facts: Facts) -> list[str]:
    local = sorted(set(facts.results["tasks"]) & set(facts.local_tasks))
    if not local:
        return []
    return [
        "To score it again, from any folder and without a network (`lm_eval` 0.4, with its `hf` extra). The items are "
        f"held-out text; `{TASKS_FOLDER}/{LOADER}` loads them, so run `verify.py` first:",
        "",
        "```bash",
        "release=.  # where this file is",
        'lm_eval --model hf --model_args "pretrained=$release" --include_path "$release/tasks" '
        f"--tasks {','.join(local)}",
        "```",
        "",
    ]


def _gate(facts: Facts) -> list[str]:
    rows = [
        (
            rule["rule"],
            rule["verdict"],
            _figure(rule.get("value")),
            _bounds(rule),
            _figure(rule.get("threshold")),
            rule["detail"],
        )
        for rule in facts.gate["rules"]
    ]
    lines = table(["rule", "verdict", "value", "interval", "threshold", ""], rows)
    lines += [rules_met([rule["verdict"] for rule in facts.gate["rules"]]), ""]
    champion = facts.gate.get("champion")
    lines += [
        f"Intervals hold with a confidence of {facts.gate['confidence']}. The rules were fixed before the first "
        f"training step; their SHA-256 is `{facts.gate['policy_sha256']}`. "
        + (
            f"Compared with the champion {champion['name']} (`{champion['release']}`). "
            if champion
            else "There was no champion to compare with. "
        )
        + (
            f"Approved by {facts.gate['approver']}." if facts.gate.get("approver") else "No person's approval is on it."
        ),
        "",
    ]
    return lines


def _bounds(found: Mapping[str, Any] | None) -> str:
    if found is None or found.get("low") is None:
        return "–"
    return f"{_figure(found['low'])} to {_figure(found['high'])}"


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
