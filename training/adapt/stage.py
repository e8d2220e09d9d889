"""The stage adapt: a release and the examples that are left go in, a tuned model in Hugging Face layout comes out.

Which example stood in which step is written down, what could not be learnt from is in the ledger, and the manifest
names all that decided the result: the base, the examples, the settings, and the gate's policy before the first step.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import JsonValue

from tasks.contracts.base import Drop
from tasks.contracts.document import Document, read_documents, write_rows
from tasks.contracts.durable_files import write_bytes, write_json
from tasks.contracts.errors import CorpusTooSmallError
from tasks.contracts.files import (
    DROPPED_FOLDER,
    LOSS_NAME,
    METRICS_NAME,
    MODEL_FOLDER,
    SPECIAL_TOKENS_NAME,
    STEPS_NAME,
    SUMMARY_NAME,
    TOKENIZER_CONFIG_NAME,
    TOKENIZER_NAME,
    part_name,
)
from tasks.contracts.ledger import LedgerRow, drops_by_rule, ledger_row, write_ledger
from tasks.contracts.manifest import Counts, Manifest, commit_manifest, manifest_hash, text_shards
from tasks.contracts.release import MODEL_CARD_NAME
from training.adapt.chat import TEMPLATE, TOO_LONG, Encoded, encode
from training.adapt.merging import COMPARED, check_equal, difference, merged
from training.adapt.starting_release import lineage_of, read_whole_base
from training.adapt.tuning import Tuned, quiet_libraries, tune
from training.adapt.tuning_settings import Params
from training.train.model import name_special_tokens, save_model, weights_sha256

logger = logging.getLogger(__name__)

STAGE = "adapt"
DOES = "tunes the base on them"
ADAPTER_FOLDER = "adapter"
"""Adapters in peft's layout, where there are some."""
STEPS_SCHEMA = pa.schema(
    [pa.field("step", pa.int64(), nullable=False), pa.field("doc_id", pa.string(), nullable=False)]
)
DECIMALS = 6


def run(*, params: Params, inputs: Mapping[str, Path], output: Path) -> Manifest:
    """Tune the base and write its folder.

    Args:
        inputs: `decontaminate` (the examples) and `base` (the release).

    Raises:
        InputError: the base cannot be begun with.
        CorpusTooSmallError: no example is left.
        ParamsError: the base has no layers of the names that adapters are asked for.
        TrainingError: the merged model is another function than the one that was tuned.
    """
    base = inputs["base"]
    read_whole_base(base)
    with quiet_libraries():
        return _run(params, inputs, output, base)


def _run(params: Params, inputs: Mapping[str, Path], output: Path, base: Path) -> Manifest:
    from transformers import AutoConfig, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = TEMPLATE
    context = int(AutoConfig.from_pretrained(base).max_position_embeddings)
    shards = text_shards(inputs["decontaminate"])
    documents = [one for shard in shards for one in read_documents(inputs["decontaminate"] / shard.name)]
    learnt, rows = _encoded(documents, tokenizer, params, context)
    write_ledger(output / DROPPED_FOLDER / part_name(0, ".parquet"), rows)
    if not learnt:
        raise CorpusTooSmallError(
            "no example is left to learn from",
            where=str(inputs["decontaminate"]),
            expected=f"an example of at most {context:,} tokens, the base's context",
            found=", ".join(f"{rule} {number:,}" for rule, number in drops_by_rule(rows).items()) or "none",
            fix="bring shorter examples, or adapt.too_long=cut",
        )
    tuned = tune(base, tokenizer, [one for _, one in learnt], params, device=params.runs_on())
    figures = _write_model(output, base, tuned, [one for _, one in learnt], params)
    _write_record(output, tuned, learnt, figures)
    return commit_manifest(
        output,
        stage=STAGE,
        unit="documents",
        params=params.in_manifest()
        | {"base_weights_sha256": str(lineage_of(base)["weights_sha256"]), "base_manifest": manifest_hash(base)},
        inputs={name: inputs[name] for name in ("decontaminate", "base")},
        counts=Counts(in_=len(documents), out=len(learnt), dropped=drops_by_rule(rows)),
    )


def _encoded(
    documents: Sequence[Document], tokenizer: Any, params: Params, context: int
) -> tuple[list[tuple[Document, Encoded]], list[LedgerRow]]:
    """Return the examples that are learnt from, and a ledger row for each that is not, or is cut."""
    learnt: list[tuple[Document, Encoded]] = []
    rows: list[LedgerRow] = []
    for document in documents:
        found = encode(
            document.text, tokenizer, context=context, preference=params.preference, too_long=params.too_long
        )
        if isinstance(found, Drop):
            rows.append(ledger_row(STAGE, document, found))
            continue
        if found.cut is not None:
            detail = f"cut to the first {context:,} of {found.cut:,} tokens"
            rows.append(
                LedgerRow(
                    stage=STAGE, action="edit", rule=TOO_LONG, doc_id=document.doc_id, url=document.url,
                    record_id=document.record_id, score=float(found.cut), threshold=float(context), detail=detail,
                )
            )  # fmt: skip
        learnt.append((document, found))
    return learnt, rows


def _write_model(
    output: Path, base: Path, tuned: Tuned, examples: Sequence[Encoded], params: Params
) -> dict[str, JsonValue]:
    """Write the model's folder, and the adapters'; return what is known of them."""
    model, figures = tuned.model, dict[str, JsonValue]()
    if params.adapters:
        adapter = output / ADAPTER_FOLDER
        model.save_pretrained(adapter)
        (adapter / MODEL_CARD_NAME).unlink(missing_ok=True)  # peft's own, which says nothing
        _name_base(adapter, base)
        whole = merged(model, base, adapter)
        texts = [one.row.get("input_ids") or one.row["prompt_ids"] for one in examples[:COMPARED]]
        figures["merge_difference"] = found = difference(model, whole, texts)
        check_equal(found)
        figures["adapter_parameters"] = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
        model = whole
    weights = {name: weight.detach().cpu() for name, weight in model.named_parameters()}
    save_model(output / MODEL_FOLDER, model.config, weights)
    for name in (TOKENIZER_NAME, TOKENIZER_CONFIG_NAME, SPECIAL_TOKENS_NAME):
        if (base / name).is_file():
            shutil.copyfile(base / name, output / MODEL_FOLDER / name)
    name_special_tokens(output / MODEL_FOLDER)
    path = output / MODEL_FOLDER / TOKENIZER_CONFIG_NAME
    write_json(path, json.loads(path.read_bytes()) | {"chat_template": TEMPLATE})
    return figures | {
        "parameters": sum(weight.numel() for weight in weights.values()),
        "weights_sha256": weights_sha256(weights.items()),
    }


def _name_base(adapter: Path, base: Path) -> None:
    """Say in peft's config which release the adapters belong to, by its name and its manifest."""
    path = adapter / "adapter_config.json"
    described = json.loads(path.read_bytes())
    described.pop("peft_version", None)  # identity only
    described["target_modules"] = sorted(described["target_modules"])  # a set, in whatever order
    described |= {"base_model_name_or_path": str(lineage_of(base)["name"]), "revision": manifest_hash(base)}
    write_json(path, described)


def _write_record(
    output: Path, tuned: Tuned, learnt: Sequence[tuple[Document, Encoded]], figures: Mapping[str, JsonValue]
) -> None:
    """Write what each step saw and how it went, and the figures."""
    write_rows(
        output / STEPS_NAME,
        ({"step": n, "doc_id": learnt[place][0].doc_id} for n, one in enumerate(tuned.steps) for place in one.examples),
        STEPS_SCHEMA,
    )
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["step", "train_loss", "learning_rate"])
    for number, step in enumerate(tuned.steps):
        writer.writerow([number, f"{step.loss:.{DECIMALS}f}", f"{step.learning_rate:.8g}"])
    write_bytes(output / LOSS_NAME, text.getvalue().encode())
    seen = [learnt[place][1] for step in tuned.steps for place in step.examples]
    summary: dict[str, JsonValue] = {
        "first_loss": round(tuned.steps[0].loss, DECIMALS),
        "train_loss": round(tuned.steps[-1].loss, DECIMALS),
    }
    write_json(output / SUMMARY_NAME, summary)
    counted = {
        "steps": len(tuned.steps),
        "examples_seen": len(seen),
        "tokens_seen": sum(one.tokens for one in seen),
        "answer_tokens": sum(one.learnt for one in seen),
    }
    write_json(output / METRICS_NAME, {**summary, **counted, **figures})
