"""What the stages after the mixture say of their own work, made again: counts, measurements, figures, papers.

Nothing is written beside a temporary folder. What only the training run itself knows (the losses) is compared where it
is said twice.
"""

from __future__ import annotations

import csv
import json
import math
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from flows.history.run_records import code_state, latest_record
from flows.workspace.graph import GRAPH_FILE, load_graph
from flows.workspace.params import PARAMS_FILE, read_params, stage_params
from tasks.contracts.durable_files import sha256_file
from tasks.contracts.files import (
    LOSS_NAME,
    METRICS_NAME,
    MIXTURE_NAME,
    MODEL_FOLDER,
    ORDER_NAME,
    PROTECTED_NAME,
    SUMMARY_NAME,
    TASKS_FOLDER,
    TOKENS_NAME,
)
from tasks.contracts.manifest import read_manifest
from training.release.verify import Break, NotCheckableError

LOSSES = ("train_loss", "validation_loss")


def protected(data: Path) -> Iterator[Break]:
    """Look again which benchmark items decontaminate could look for, and which not."""
    from tasks.decontaminate.stage import NOT_PROTECTED, Params, describe_again

    manifest = read_manifest(data / "decontaminate")
    if not GRAPH_FILE.is_file() or not PARAMS_FILE.is_file():
        raise NotCheckableError(f"{PARAMS_FILE}, which says where the benchmark files are, is not here")
    given = stage_params(read_params(), load_graph()["decontaminate"]).named_files()
    params = Params.model_validate({**manifest.params, "benchmarks": given}, strict=False)
    here = {Path(path).name: sha256_file(Path(path)) for path in given if Path(path).is_file()}
    if here != manifest.params["benchmarks"]:
        raise NotCheckableError("the benchmark files that it was made with are not here, or changed since")
    (source,) = (data / name for name in manifest.inputs)
    if remote := [name for name in params.tasks if not (source / TASKS_FOLDER / f"{name}.jsonl").is_file()]:
        raise NotCheckableError(f"the items of {', '.join(remote)} come from a hub, which is not asked here")
    with tempfile.TemporaryDirectory() as again:
        describe_again(params, source, Path(again))
        yield from _differing(
            data / "decontaminate" / PROTECTED_NAME, json.loads((Path(again) / PROTECTED_NAME).read_bytes())
        )
        named, made = data / "decontaminate" / NOT_PROTECTED, Path(again) / NOT_PROTECTED
        if sha256_file(named) != sha256_file(made):
            yield Break(f"{named}, SHA-256", sha256_file(made), sha256_file(named))


def mixed(data: Path) -> Iterator[Break]:
    """Measure again what there was of each group, and what the mixture took of it."""
    from tasks.mix.stage import Params, describe_again

    manifest = read_manifest(data / "mix")
    params = Params.model_validate(manifest.params, strict=False)
    (source,) = (data / name for name in manifest.inputs)
    yield from _differing(data / "mix" / MIXTURE_NAME, describe_again(params, source, data / "mix"))


def counts(data: Path) -> Iterator[Break]:
    """Count tokens, documents and bytes of the token shards again."""
    from tasks.contracts.tokenizer_files import load_tokenizer
    from tasks.tokenize.stage import describe

    again = describe(data / "tokenize", load_tokenizer(data / "tokenizer")).model_dump(mode="json")
    yield from _differing(data / "tokenize" / TOKENS_NAME, again)


def measured(data: Path) -> Iterator[Break]:
    """Measure the tokenizer on the mixture again."""
    from tasks.tokenizer.stage import Params, measure

    asked = {k: v for k, v in read_manifest(data / "tokenizer").params.items() if k in Params.model_fields}
    params = Params.model_validate(asked, strict=False)
    for name, again in measure(data / "tokenizer", data / "mix", params).items():
        yield from _differing(data / "tokenizer" / name, again)


def trained(data: Path) -> Iterator[Break]:
    """Compare training's figures with its order, its weights, its schedule and its table of losses."""
    from training.release.verify import weights_sha256
    from training.train.artifacts import DECIMALS
    from training.train.hyperparameters import Params
    from training.train.order import Order
    from training.train.packing import read_packing
    from training.train.schedule import learning_rate

    order = Order.model_validate_json((data / "train" / ORDER_NAME).read_bytes())
    asked = {name: v for name, v in read_manifest(data / "train").params.items() if name in Params.model_fields}
    params = Params.model_validate(asked, strict=False)
    rows = list(csv.DictReader((data / "train" / LOSS_NAME).read_text().splitlines()))
    table = f"{data}/train/{LOSS_NAME}"
    if [row["step"] for row in rows] != [str(step) for step in range(order.steps)]:
        yield Break(f"{table}, steps", f"each of {order.steps} steps once, in order", f"{len(rows)} rows")
        return
    for step, row in enumerate(rows):
        rate = learning_rate(
            step,
            peak=params.learning_rate,
            final=params.final_learning_rate,
            warmup=params.warmup_steps,
            steps=order.steps,
            schedule=params.schedule,
            decay_fraction=params.decay_fraction,
        )
        if row["learning_rate"] != f"{rate:.8g}":
            yield Break(f"{table}, learning rate of step {step}", f"{rate:.8g}", row["learning_rate"])
        due = step + 1 == order.steps or (step + 1) % params.validate_every == 0
        if row["validation_loss"] and not due:
            yield Break(f"{table}, validation loss of step {step}", "not measured then", row["validation_loss"])
    weights = sorted((data / "train" / MODEL_FOLDER).glob("*.safetensors"))
    told = {step: float(row["validation_loss"]) for step, row in enumerate(rows) if row["validation_loss"]}
    released = min(told, key=lambda step: told[step]) if params.release_best and told else len(rows) - 1
    losses = {name: round(float(value), DECIMALS) if (value := rows[released][name]) else None for name in LOSSES}
    again: dict[str, Any] = losses | ({} if released == len(rows) - 1 else {"weights_of_step": released})
    again |= {
        "parameters": sum(_parameters(path) for path in weights),
        "steps": order.steps,
        "tokens_seen": order.tokens_seen(read_packing(data / "tokenize", order.shards, order.seq_len)),
        "weights_sha256": weights_sha256(weights),
    }
    yield from _differing(data / "train" / METRICS_NAME, again)
    yield from _differing(data / "train" / SUMMARY_NAME, losses)


def papers(data: Path) -> Iterator[Break]:
    """Assemble the release again from the stages' folders, and compare every file.

    Other code writes other papers: what differs is a break where the run record says that the same code stands here.
    """
    from training.release.stage import Params, assemble

    manifest = read_manifest(data / "release")
    params = Params.model_validate(manifest.params, strict=False)
    with tempfile.TemporaryDirectory() as place:
        again = Path(place)
        assemble(params, {stage: data / stage for stage in manifest.inputs}, again)
        made = {p.relative_to(again).as_posix(): sha256_file(p) for p in again.rglob("*") if p.is_file()}
    listed = {shard.name: shard.sha256 for shard in manifest.shards}
    differing = sorted(name for name in made.keys() | listed.keys() if made.get(name) != listed.get(name))
    record = latest_record("release")
    if differing and (record is None or record.code.sha256 != code_state().sha256):
        raise NotCheckableError(f"other code than stands here made it, and it differs: {', '.join(differing)}")
    for name in differing:
        expected = f"{made[name]}, made from data/ again" if name in made else "no such file"
        yield Break(f"{data}/release/{name}, SHA-256", expected, listed.get(name, "missing"))


def _parameters(path: Path) -> int:
    from safetensors import safe_open

    with safe_open(path, "np") as tensors:
        return sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118


def _differing(path: Path, again: Mapping[str, Any]) -> Iterator[Break]:
    told = json.loads(path.read_bytes())
    for name in sorted(again.keys() | told.keys()):
        if told.get(name) != again.get(name):
            yield Break(f"{path}, {name}", _short(again.get(name)), _short(told.get(name)))


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 200 else f"{text[:197]}..."
