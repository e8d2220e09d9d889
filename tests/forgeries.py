"""Forgeries of a finished workspace's data/, each with every hash after it named anew, and the claim that finds it.

What a forger can do who knows the formats: change one thing, carry it through all later stages, and write all manifests
again. Only what a stage, or the crawl, said otherwise can give it away.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.contracts.document import DOCUMENT_SCHEMA
from tasks.contracts.durable_files import write_json
from tasks.contracts.ledger import LEDGER_SCHEMA
from tasks.contracts.manifest import MANIFEST_NAME, describe_file, manifest_hash, read_manifest

LATER = ("filter", "dedup", "perplexity", "holdout", "decontaminate", "mix")
ALL = ("extract", *LATER)
Row = dict[str, Any]


def rehash(data: Path) -> None:
    """Name all files and manifests anew, from the crawl on; what is linked to another place stays as it was there."""
    done: set[str] = set()
    waiting = sorted(path.parent.name for path in data.glob(f"*/{MANIFEST_NAME}") if path.parent.name != "release")
    while waiting:
        stage = next(s for s in waiting if not (set(read_manifest(data / s).inputs) & set(waiting)))
        waiting.remove(stage)
        done.add(stage)
        folder, manifest = data / stage, read_manifest(data / stage)
        if stage == "train" and "tokenize" in done:
            order = json.loads((folder / "order.json").read_bytes())
            replace_json(folder / "order.json", {**order, "tokenize_manifest": manifest_hash(data / "tokenize")})
        names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
        shards = tuple(describe_file(folder, name) for name in names if name != MANIFEST_NAME)
        inputs = {name: manifest_hash(data / name) for name in manifest.inputs}
        made = manifest.model_copy(update={"shards": shards, "inputs": inputs})
        replace_json(folder / MANIFEST_NAME, made.model_dump(mode="json", by_alias=True))


def replace_json(path: Path, value: Any) -> None:
    path.unlink(missing_ok=True)
    write_json(path, value)


def edit_json(path: Path, change: Callable[[Any], object]) -> None:
    value = json.loads(path.read_bytes())
    change(value)
    replace_json(path, value)


def edit_rows(path: Path, change: Callable[[list[Row]], object], schema: pa.Schema | None = None) -> None:
    """Change the rows of a Parquet file, which is written anew: a link to the old one keeps it."""
    table = pq.read_table(path)
    rows = table.to_pylist()
    change(rows)
    path.unlink()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema or table.schema), path)


def everywhere(
    data: Path, stages: tuple[str, ...], change: Callable[[Row], object], *, edited: bool | None = None
) -> None:
    """Change one document in all these stages: one that goes all the way, with an edit row in filter or without."""
    last = pq.read_table(data / "mix" / "part-00000.parquet")["doc_id"].to_pylist()
    ledger = pq.read_table(data / "filter/dropped/part-00000.parquet").to_pylist()
    edits = {row["doc_id"] for row in ledger if row["action"] == "edit"}
    doc_id = next(one for one in last if edited is None or (one in edits) == edited)
    for stage in stages:
        edit_rows(
            data / stage / "part-00000.parquet",
            lambda rows: [change(row) for row in rows if row["doc_id"] == doc_id],
            DOCUMENT_SCHEMA,
        )


def change_heldout(data: Path) -> None:
    """Change the first held-out text of each part."""
    for path in (data / "holdout/heldout").glob("*.parquet"):
        edit_rows(path, lambda rows: [row.update(text="x") for row in rows[:1]], DOCUMENT_SCHEMA)


def ledger(data: Path, stage: str, change: Callable[[list[Row]], object]) -> None:
    """Change the ledger of the first part that drops something."""
    for path in sorted((data / stage / "dropped").glob("*.parquet")):
        if any(row["action"] == "drop" for row in pq.read_table(path).to_pylist()):
            edit_rows(path, change, LEDGER_SCHEMA)
            return
    raise AssertionError(f"{stage} drops nothing here, so nothing would be forged")


def drops(rows: list[Row]) -> list[Row]:
    return [row for row in rows if row["action"] == "drop"]


def swap_parts(data: Path) -> None:
    for stage in LATER:
        for folder in (data / stage, data / stage / "dropped", data / stage / "heldout"):
            if folder.is_dir():
                one, two, between = (folder / f"part-0000{name}.parquet" for name in (0, 1, 9))
                one.rename(between)
                two.rename(one)
                between.rename(two)


def swap_ids(data: Path) -> None:
    first, second = (pq.read_table(data / f"mix/part-0000{part}.parquet")["doc_id"][0].as_py() for part in (0, 1))
    other = {first: second, second: first}
    for stage in ALL:
        for path in (data / stage).rglob("*.parquet"):
            edit_rows(path, lambda rows: [row.update(doc_id=other.get(row["doc_id"], row["doc_id"])) for row in rows])


def another_document(rows: list[Row]) -> None:
    drops(rows)[0]["doc_id"] = "f" * 32


def second_copy(data: Path) -> None:
    edit_rows(data / "mix/part-00000.parquet", lambda rows: rows.append(dict(rows[0])), DOCUMENT_SCHEMA)
    edit_json(data / "mix" / MANIFEST_NAME, lambda value: value["counts"].update(out=value["counts"]["out"] + 1))


def extra_part(data: Path) -> None:
    pq.write_table(pq.read_table(data / "mix/part-00000.parquet").slice(0, 0), data / "mix/part-00077.parquet")


def linked(data: Path) -> None:
    path = data / "mix/part-00000.parquet"
    path.rename(data.parent / "elsewhere.parquet")
    path.symlink_to(os.path.relpath(data.parent / "elsewhere.parquet", path.parent))


def flip(path: Path, at: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.unlink()
    path.write_bytes(content)


def replace_text(path: Path, change: Callable[[str], str]) -> None:
    text = change(path.read_text())
    path.unlink()
    path.write_text(text)


def drop_line(path: Path, number: int) -> None:
    replace_text(path, lambda text: "".join(line for k, line in enumerate(text.splitlines(True)) if k != number))


def paper(data: Path, change: Callable[[Path], object]) -> None:
    """Change a file of the release, and name it anew in the release's manifest."""
    folder = data / "release"
    change(folder)
    told = read_manifest(folder)
    shards = tuple(describe_file(folder, shard.name) for shard in told.shards)
    made = told.model_copy(update={"shards": shards})
    replace_json(folder / MANIFEST_NAME, made.model_dump(mode="json", by_alias=True))


def other_step(rows: list[Row]) -> None:
    rows[-1]["batch_sha256"] = "0" * 64


FORGERIES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a text poisoned in filter": (
        "documents",
        lambda data: everywhere(data, LATER, lambda row: row.update(text=row["text"] + "\nSend your money to us.")),
    ),
    "a text poisoned that a rule edited": (
        "documents",
        lambda data: everywhere(data, LATER, lambda row: row.update(text="Poison. " + row["text"]), edited=True),
    ),
    "a text poisoned in the last stage": (
        "documents",
        lambda data: everywhere(data, ("mix",), lambda row: row.update(text="x " + row["text"])),
    ),
    "a licence changed": (
        "documents",
        lambda data: everywhere(data, LATER, lambda row: row.update(license="https://forged.example/licence")),
    ),
    "a host changed": ("documents", lambda data: everywhere(data, ALL, lambda row: row.update(host="good.example"))),
    "a URL changed from extract on": (
        "documents",
        lambda data: everywhere(data, ALL, lambda row: row.update(url=row["url"] + "?x")),
    ),
    "a date changed from extract on": (
        "documents",
        lambda data: everywhere(data, ALL, lambda row: row.update(captured_at="1999-01-01T00:00:00Z")),
    ),
    "another place in the archive": (
        "documents",
        lambda data: everywhere(data, ALL, lambda row: row.update(warc_offset=row["warc_offset"] + 1)),
    ),
    "a score changed": (
        "documents",
        lambda data: everywhere(data, ("decontaminate", "mix"), lambda row: row.update(scores=[])),
    ),
    "two shards swapped": ("documents", swap_parts),
    "two ids swapped": ("documents", swap_ids),
    "a drop of another document": ("documents", lambda data: ledger(data, "filter", another_document)),
    "a drop's URL changed": (
        "documents",
        lambda data: ledger(data, "filter", lambda rows: drops(rows)[0].update(url="http://other.example/")),
    ),
    "a held-out text changed": ("documents", change_heldout),
    "a ledger row deleted": ("counted", lambda data: ledger(data, "filter", lambda rows: rows.remove(drops(rows)[0]))),
    "a ledger row of the crawl deleted": ("counted", lambda data: ledger(data, "crawl", lambda rows: rows.pop(0))),
    "a drop's rule changed": (
        "counted",
        lambda data: ledger(data, "filter", lambda rows: drops(rows)[0].update(rule="other")),
    ),
    "a drop turned into a note": (
        "counted",
        lambda data: ledger(data, "filter", lambda rows: drops(rows)[0].update(action="note")),
    ),
    "its own survivor": (
        "counted",
        lambda data: ledger(data, "filter", lambda rows: drops(rows)[0].update(survivor_id=drops(rows)[0]["doc_id"])),
    ),
    "a survivor that never was": (
        "documents",
        lambda data: ledger(data, "filter", lambda rows: drops(rows)[0].update(survivor_id="e" * 32)),
    ),
    "a document twice": ("counted", second_copy),
    "a part more": ("counted", extra_part),
    "a file replaced by a link to the same bytes": ("folders", linked),
    "a file in data/ that no stage made": ("folders", lambda data: (data / "extra.parquet").write_bytes(b"PAR1")),
    "a folder in data/ that no stage made": ("folders", lambda data: (data / "other").mkdir()),
    "a token changed": ("tokens", lambda data: flip(data / "tokenize/part-00000.bin", 2)),
    "a validation token changed": ("tokens", lambda data: flip(data / "tokenize/validation.bin", 2)),
    "an index of tokens changed": (
        "tokens",
        lambda data: edit_rows(
            data / "tokenize/part-00001.parquet", lambda rows: rows[0].update(url="http://other.example/")
        ),
    ),
    "the last step's record changed": ("batches", lambda data: edit_rows(data / "train/steps.parquet", other_step)),
    "the order's seed changed": (
        "batches",
        lambda data: edit_json(data / "train/order.json", lambda value: value.update(seed=99)),
    ),
    "the model's tokenizer changed": (
        "copied",
        lambda data: edit_json(data / "train/model/tokenizer.json", lambda value: value.update(version="9")),
    ),
    "another end of a text in the model's config": (
        "copied",
        lambda data: edit_json(data / "train/model/generation_config.json", lambda value: value.update(eos_token_id=5)),
    ),
    "another base of positions in the model's config": (
        "copied",
        lambda data: edit_json(data / "train/model/config.json", lambda v: v["rope_parameters"].update(rope_theta=1e6)),
    ),
    "another width in the model's config": (
        "copied",
        lambda data: edit_json(data / "train/model/config.json", lambda value: value.update(rms_norm_eps=0.1)),
    ),
    "more items protected": (
        "protected",
        lambda data: edit_json(
            data / "decontaminate/protected.json", lambda v: v["items"]["sample_quiz.jsonl"].update(items=26, whole=1)
        ),
    ),
    "an item named that is protected": (
        "protected",
        lambda data: replace_text(data / "decontaminate/not_protected.jsonl", lambda text: text + '{"task": "x"}\n'),
    ),
    "other items protected by the gate's report": (
        "judged",
        lambda data: edit_json(
            data / "gate/report.json", lambda v: v["protection"]["heldout_continuation"].update(items=999)
        ),
    ),
    "more text in the mixture": (
        "mixed",
        lambda data: edit_json(data / "mix/mixture.json", lambda value: value.update(resulting_bytes=10**9)),
    ),
    "another share in the mixture": (
        "mixed",
        lambda data: edit_json(data / "mix/mixture.json", lambda v: v["groups"][1].update(resulting_share=0.5)),
    ),
    "another seed of the evaluation": (
        "figures",
        lambda data: edit_json(data / "evaluate/results.json", lambda value: value["settings"].update(seed=7)),
    ),
    "scores of another document": (
        "figures",
        lambda data: replace_text(
            data / "evaluate/samples/heldout_continuation.jsonl",
            lambda text: re.sub(r'"doc_id": "[0-9a-f]{8}', '"doc_id": "00000000', text, count=1),
        ),
    ),
    "an evaluation item changed": (
        "items",
        lambda data: flip(data / "holdout/tasks/heldout_continuation.jsonl", 40),
    ),
    "a figure improved": (
        "figures",
        lambda data: edit_json(
            data / "evaluate/results.json", lambda v: v["tasks"]["heldout_bits_per_byte"].update(bits_per_byte=1.5)
        ),
    ),
    "an interval improved": (
        "judged",
        lambda data: edit_json(data / "gate/report.json", lambda value: value["rules"][0].update(low=-0.9)),
    ),
    "a verdict changed": (
        "judged",
        lambda data: edit_json(data / "gate/report.json", lambda value: value.update(verdict="maybe")),
    ),
    "a detail of the verdict changed": (
        "judged",
        lambda data: edit_json(data / "gate/report.json", lambda v: v["rules"][1].update(detail="all right")),
    ),
    "a token less in tokens.json": (
        "tokens_counted",
        lambda data: edit_json(data / "tokenize/tokens.json", lambda value: value.update(tokens=value["tokens"] - 1)),
    ),
    "bytes of the validation text": (
        "tokens_counted",
        lambda data: edit_json(data / "tokenize/tokens.json", lambda value: value.update(validation_bytes=10**6)),
    ),
    "a better tokenizer": (
        "tokenizer_measured",
        lambda data: edit_json(data / "tokenizer/metrics.json", lambda value: value.update(fertility=1.0)),
    ),
    "a better tokenizer of one host": (
        "tokenizer_measured",
        lambda data: edit_json(
            data / "tokenizer/groups.json", lambda v: next(iter(v["hosts"].values())).update(bytes_per_token=9.0)
        ),
    ),
    "more parameters": (
        "trained",
        lambda data: edit_json(data / "train/metrics.json", lambda value: value.update(parameters=7 * 10**9)),
    ),
    "a lower last loss": (
        "trained",
        lambda data: edit_json(data / "train/metrics.json", lambda value: value.update(validation_loss=0.5)),
    ),
    "a lower last loss in the summary": (
        "trained",
        lambda data: edit_json(data / "train/summary.json", lambda value: value.update(validation_loss=0.5)),
    ),
    "a better tokenizer in the summary": (
        "tokenizer_measured",
        lambda data: edit_json(data / "tokenizer/summary.json", lambda value: value.update(bytes_per_token=9.0)),
    ),
    "more tokens seen": (
        "trained",
        lambda data: edit_json(data / "train/metrics.json", lambda value: value.update(tokens_seen=10**9)),
    ),
    "a step missing in the table of losses": ("trained", lambda data: drop_line(data / "train/loss.csv", 2)),
    "another learning rate in the table of losses": (
        "trained",
        lambda data: replace_text(data / "train/loss.csv", lambda text: text[: text.rstrip().rindex(",")] + ",0.5\n"),
    ),
    "a paper that was improved": (
        "papers",
        lambda data: paper(data, lambda folder: replace_text(folder / "data_card.md", lambda t: t + "All licensed.\n")),
    ),
    "a source that was left out of sources.json": (
        "papers",
        lambda data: paper(
            data, lambda folder: edit_json(folder / "sources.json", lambda value: value["domains"].pop(0))
        ),
    ),
}
"""What was done → the claim of `headwater verify --deep` that must fail, and how it is done."""
