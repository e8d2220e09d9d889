"""What a finished training leaves: the model's folder, the record of its steps, its figures; all but the manifest."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import JsonValue

from tasks.contracts.document import write_rows
from tasks.contracts.durable_files import write_bytes, write_json
from tasks.contracts.errors import TrainingError
from tasks.contracts.files import (
    LOSS_NAME,
    METRICS_NAME,
    MODEL_FOLDER,
    ORDER_NAME,
    SAMPLES_NAME,
    SPECIAL_TOKENS_NAME,
    STEPS_NAME,
    SUMMARY_NAME,
    TOKENIZER_CONFIG_NAME,
    TOKENIZER_NAME,
)
from training.train.checkpoint import LOSSES_NAME, RESULT_NAME, read_log
from training.train.model import name_special_tokens
from training.train.order import Order

STEPS_SCHEMA = pa.schema(
    [
        pa.field("step", pa.int64(), nullable=False),
        pa.field("rank", pa.int32(), nullable=False),
        pa.field("batch_sha256", pa.string(), nullable=False),
    ]
)
TOKENIZER_FILES = (TOKENIZER_NAME, TOKENIZER_CONFIG_NAME, SPECIAL_TOKENS_NAME)
DECIMALS = 6


def write_output(output: Path, work: Path, order: Order, tokenizer: Path, trained: int) -> None:
    """Write everything but the manifest.

    Args:
        work: where the ranks left their result and their records.
        tokenizer: the folder of the tokenizer that the text was encoded with.
        trained: tokens that all steps saw.

    Raises:
        TrainingError: a step is recorded twice, or not at all.
    """
    result = json.loads((work / RESULT_NAME).read_bytes())
    losses = list(read_log(work / LOSSES_NAME))
    batches = [row for rank in range(order.ranks) for row in read_log(work / f"steps-rank-{rank:05d}.jsonl")]
    _check_whole(losses, batches, order)
    shutil.copytree(work / "result" / MODEL_FOLDER, output / MODEL_FOLDER)
    for name in TOKENIZER_FILES:
        if (tokenizer / name).is_file():
            shutil.copyfile(tokenizer / name, output / MODEL_FOLDER / name)
    if (output / MODEL_FOLDER / TOKENIZER_NAME).is_file():
        name_special_tokens(output / MODEL_FOLDER)
    if (work / SAMPLES_NAME).is_file() and (work / SAMPLES_NAME).stat().st_size:
        shutil.copyfile(work / SAMPLES_NAME, output / SAMPLES_NAME)
    write_bytes(output / LOSS_NAME, _loss_table(losses).encode())
    write_rows(output / STEPS_NAME, sorted(batches, key=lambda row: (row["step"], row["rank"])), STEPS_SCHEMA)
    write_json(output / ORDER_NAME, order.model_dump(mode="json"))
    summary: dict[str, JsonValue] = {name: _rounded(result[name]) for name in ("train_loss", "validation_loss")}
    write_json(output / SUMMARY_NAME, summary)
    write_json(
        output / METRICS_NAME,
        {
            **summary,
            "parameters": result["parameters"],
            "steps": order.steps,
            **({} if result["step"] == order.steps - 1 else {"weights_of_step": result["step"]}),
            "tokens_seen": trained,
            "weights_sha256": result["weights_sha256"],
        },
    )


def _check_whole(losses: Sequence[Mapping[str, Any]], batches: Sequence[Mapping[str, Any]], order: Order) -> None:
    """Every step of every rank is recorded exactly once, or the record is worth nothing."""
    steps = [row["step"] for row in losses]
    seen = sorted((row["step"], row["rank"]) for row in batches)
    expected = [(step, rank) for step in range(order.steps) for rank in range(order.ranks)]
    if steps != list(range(order.steps)) or seen != expected:
        raise TrainingError(
            "the record of the steps is not whole",
            expected=f"{order.steps} steps of {order.ranks} rank(s), each once",
            found=f"{len(steps)} losses, {len(seen)} batch hashes",
            fix="run the stage again with `headwater run --force train`",
        )


def _loss_table(losses: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["step", "train_loss", "validation_loss", "learning_rate"])
    for row in losses:
        measured = "" if row["validation_loss"] is None else f"{row['validation_loss']:.{DECIMALS}f}"
        writer.writerow([row["step"], f"{row['train_loss']:.{DECIMALS}f}", measured, f"{row['learning_rate']:.8g}"])
    return text.getvalue()


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, DECIMALS)
