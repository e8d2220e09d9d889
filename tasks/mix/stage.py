"""mix: how much of each group of documents goes into training.

Two passes over the shards: measure what each group has, then sample or repeat by a seeded hash of each text.
A kept document carries `mix.epochs` (how many times it goes into training) and `mix.group` (its group's index in
`mixture.json`); a document that is not sampled is a ledger row.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import Field, JsonValue, field_validator, model_validator

from tasks.contracts.base import Drop, StageParams
from tasks.contracts.document import Document, read_documents, read_rows, write_rows
from tasks.contracts.durable_files import write_json
from tasks.contracts.errors import CorpusTooSmallError
from tasks.contracts.files import MIXTURE_NAME
from tasks.contracts.ledger import LedgerRow, ledger_row
from tasks.contracts.manifest import Counts, Manifest, text_shards
from tasks.engine.shards import ShardWork, keep_or_drop
from tasks.engine.stage import Stage
from tasks.mix.shares import Group, Plan, complete_groups, copies, group_index, plan_mixture, shares

logger = logging.getLogger(__name__)

STAGE = "mix"
DOES = "chooses how much of each group is used, and how often"
RULE = "not_sampled"

_SIZES_SCHEMA = pa.schema(
    [
        pa.field("group", pa.int32(), nullable=False),
        pa.field("documents", pa.int64(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
    ]
)


class Params(StageParams):
    """The `mix` section of params.yaml."""

    groups: tuple[Group, ...] = ()
    """Groups with their weights, the first that takes a document wins; none means everything once."""
    temperature: float = Field(1.0, gt=0)
    """Where no group has a weight: its share is proportional to its size ** (1 / temperature)."""
    total_bytes: int | None = Field(None, ge=1)
    """UTF-8 bytes of text to put together, repeats counted; null means as much as there is once."""
    total_tokens: int | None = Field(None, ge=1)
    """The same in tokens, estimated as bytes / bytes_per_token, as the tokenizer is made only afterwards."""
    bytes_per_token: float = Field(3.5, gt=0)
    """For that estimate; data/tokenizer/metrics.json says what it came to in the end."""
    seed: int = 0
    """Seed of the sampling."""

    @model_validator(mode="after")
    def _one_total(self) -> Params:
        if self.total_bytes is not None and self.total_tokens is not None:
            raise ValueError("total_bytes and total_tokens say the same: give one of them")
        return self

    def total(self) -> float | None:
        """Return the bytes asked for, None where everything is to go in once."""
        return self.total_bytes if self.total_tokens is None else self.total_tokens * self.bytes_per_token

    @field_validator("groups")
    @classmethod
    def _names_are_unique(cls, groups: tuple[Group, ...]) -> tuple[Group, ...]:
        names = [group.name for group in groups]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two groups have the same name: {', '.join(twice)}")
        for group in groups:
            if group.name == "rest" and (group.sources or group.hosts or group.languages):
                raise ValueError('the group "rest" takes what no other group took: it has no conditions')
        return groups


def run(*, params: Params, inputs: Mapping[str, Path], output: Path) -> Manifest:
    """Sample and repeat the documents of `inputs["decontaminate"]` by group.

    Raises:
        CorpusTooSmallError: nothing is left to train on.
    """
    stage = Stage(name=STAGE, unit="documents", params=params, inputs=inputs, output=output)
    work = stage.work()
    groups = complete_groups(params.groups)
    documents, available = _measure(stage, work, groups)
    plan = plan_mixture(
        groups, available, params.total(), temperature=params.temperature, bytes_per_token=params.bytes_per_token
    )
    mixed = stage.map(
        partial(_mix_shard, groups=groups, plan=plan, seed=params.seed),
        work,
        params={**params.identity(), "epochs": list(plan.epochs)},
    )
    if not mixed.counts.out:
        raise CorpusTooSmallError(
            "the mixture is empty",
            where="params.yaml, mix",
            expected="at least one document with a weight above 0",
            found=f"{mixed.counts.in_} documents in, {sum(available)} bytes",
            fix="give a group that has documents a weight above 0, or raise mix.total_bytes",
        )
    made = _describe(params, groups, plan, documents, available, [output / f"{item.name}.parquet" for item in work])
    _say(made)
    write_json(output / MIXTURE_NAME, made)
    return stage.commit(mixed)


def _measure(stage: Stage, work: Sequence[ShardWork], groups: tuple[Group, ...]) -> tuple[list[int], list[int]]:
    """Return how many documents, and UTF-8 bytes of text, each group has."""
    dumped: list[JsonValue] = [
        group.model_dump(mode="json", exclude={"weight", "max_epochs", "max_tokens"}) for group in groups
    ]
    documents, sizes = [0] * len(groups), [0] * len(groups)
    measured = stage.map(partial(_measure_shard, groups=groups), work, step="sizes", params={"groups": dumped})
    for item in work:
        for row in read_rows(measured.table(item), _SIZES_SCHEMA):
            documents[row["group"]] += row["documents"]
            sizes[row["group"]] += row["bytes"]
    return documents, sizes


def _sizes(paths: Iterable[Path], groups: tuple[Group, ...]) -> tuple[list[int], list[int]]:
    """Return how many documents, and UTF-8 bytes of text, of each group stand in some parts."""
    documents, sizes = [0] * len(groups), [0] * len(groups)
    for path in paths:
        for document in read_documents(path):
            index = group_index(document, groups)
            documents[index] += 1
            sizes[index] += len(document.text.encode())
    return documents, sizes


def _measure_shard(work: ShardWork, folder: Path, *, groups: tuple[Group, ...]) -> Counts:
    documents, sizes = _sizes(work.inputs[:1], groups)
    rows = [{"group": i, "documents": documents[i], "bytes": sizes[i]} for i in range(len(groups))]
    write_rows(folder / f"{work.name}.parquet", rows, _SIZES_SCHEMA)
    return Counts(in_=sum(documents), out=sum(documents))


def _mix_shard(work: ShardWork, folder: Path, *, groups: tuple[Group, ...], plan: Plan, seed: int) -> Counts:
    def decide(documents: Iterable[Document]) -> Iterator[Document | LedgerRow]:
        for document in documents:
            index = group_index(document, groups)
            times = copies(document, plan.epochs[index], seed)
            if times:
                yield document.with_scores({"mix.epochs": times, "mix.group": index})
            else:
                reason = Drop(rule=RULE, score=plan.epochs[index], threshold=1.0, detail=f"group {groups[index].name}")
                yield ledger_row(STAGE, document, reason)

    return keep_or_drop(work, folder, decide)


def describe_again(params: Params, source: Path, mixed: Path) -> dict[str, JsonValue]:
    """Return what mixture.json must say: of the folder that the mixture was made from, and its own."""
    groups = complete_groups(params.groups)
    names = [shard.name for shard in text_shards(source)]
    documents, available = _sizes([source / name for name in names], groups)
    plan = plan_mixture(
        groups, available, params.total(), temperature=params.temperature, bytes_per_token=params.bytes_per_token
    )
    return _describe(params, groups, plan, documents, available, [mixed / name for name in names])


def _describe(
    params: Params,
    groups: tuple[Group, ...],
    plan: Plan,
    documents: Sequence[int],
    available: Sequence[int],
    parts: Iterable[Path],
) -> dict[str, JsonValue]:
    """Return what was asked for, what there was, what came out (in `parts`), and why it differs."""
    kept, resulting = [0] * len(groups), [0] * len(groups)
    for path in parts:
        for document in read_documents(path):
            index = int(document.scores["mix.group"])
            kept[index] += 1
            resulting[index] += int(document.scores["mix.epochs"]) * len(document.text.encode())
    names = [group.name for group in groups]
    weights = zip(names, plan.weights, available, strict=True)
    asked = shares({name: weight for name, weight, size in weights if size})
    got = shares(dict(zip(names, map(float, resulting), strict=True)))
    rows: list[JsonValue] = [
        {
            "name": name,
            "asked_share": asked.get(name, 0.0),
            "resulting_share": got[name],
            "why": plan.why[i],
            "available_documents": documents[i],
            "available_bytes": available[i],
            "planned_bytes": round(plan.bytes[i]),
            "resulting_documents": kept[i],
            "resulting_bytes": resulting[i],
            "resulting_tokens_estimated": round(resulting[i] / params.bytes_per_token),
            "epochs": round(resulting[i] / available[i], 6) if available[i] else 0.0,
        }
        for i, name in enumerate(names)
    ]
    total = params.total()
    return {
        "groups": rows,
        "asked_bytes": None if total is None else round(total),
        "resulting_bytes": sum(resulting),
        "resulting_tokens_estimated": round(sum(resulting) / params.bytes_per_token),
        "why": _why(total, sum(plan.bytes)),
    }


def _say(mixture: Mapping[str, Any]) -> None:
    for row in mixture["groups"]:
        if row["available_bytes"]:
            because = f" ({row['why']})" if row["why"] else ""
            asked, got = 100 * row["asked_share"], 100 * row["resulting_share"]
            logger.info("mix: %s: %.1f %% asked for, %.1f %% given%s", row["name"], asked, got, because)


def _why(asked: float | None, planned: float) -> str:
    """Say why the whole is smaller than asked for; "" where it is not."""
    return "every group has reached its limit" if asked is not None and planned < asked * (1 - 1e-9) else ""
