"""What can be made again from what stands before it: digests, texts, items, tokens, batches, scores, the verdict.

Nothing is written. What is cheap is made again for everything; texts, and the tokens of a large corpus, for a sample.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from tasks.contracts.base_release import STARTED_FROM
from tasks.contracts.durable_files import sha256_file
from tasks.contracts.files import (
    GENERATION_CONFIG_NAME,
    METRICS_NAME,
    MODEL_CONFIG_NAME,
    MODEL_FOLDER,
    ORDER_NAME,
    PARQUET_PARTS,
    REPORT_NAME,
    REPORT_TEXT_NAME,
    RESULTS_NAME,
    STEPS_NAME,
    SUMMARY_NAME,
    VALIDATION_NAME,
    is_part,
)
from tasks.contracts.manifest import MANIFEST_NAME, Manifest, read_manifest, text_shards
from tasks.contracts.warc import http_head
from tasks.rights.evidence import OWN_CRAWLS
from training.release.verify import ROUNDED, TORCH_TYPES, Break, NotCheckableError, figures_of

Item = TypeVar("Item")

SEED = 4
COMPARED = ("text", "title", "author", "published", "license", "opt_out", "language", "language_score")
ALL_TOKENS = 50_000_000
"""Training tokens up to which every document is encoded, and every batch put together, again: about a minute."""


def warc_digests(data: Path) -> Iterator[Break]:
    """Compute block and payload digests of every record again, and count the records."""
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    from tasks.contracts.digests import other_digest, sha1_digest

    crawl = read_manifest(data / "crawl")
    files = _warc_files(crawl)
    answers = 0
    for name in files:
        with (data / "crawl" / name).open("rb") as stream:
            for record in ArchiveIterator(stream, parse_http=False):
                where = f"{data}/crawl/{name}, record {record.record_id}"
                answers += record.record_type in (WarcRecordType.response, WarcRecordType.resource)
                block = record.reader.read()
                # Others' archives spell digests in many ways; ours in one.
                stated = record.headers.get("WARC-Block-Digest") or ""
                found = sha1_digest(block) if stated and _ours(crawl) else other_digest(stated, block)
                if found and found != stated:
                    yield Break(where, f"block digest {stated}", found)
                stated = record.headers.get("WARC-Payload-Digest") or ""
                of_ours = stated and record.is_http and _ours(crawl)
                if of_ours and stated != (own := sha1_digest(block[http_head(block).size :])):
                    yield Break(where, f"payload digest {stated}", own)
    if answers != (expected := read_manifest(data / "extract").counts.in_):
        yield Break(f"{data}/crawl, records of pages", str(expected), str(answers))


def texts(data: Path, sample: int) -> Iterator[Break]:
    """Extract a sample of documents from their WARC records again."""
    from tasks.contracts.document import Document
    from tasks.extract.host_files import collect
    from tasks.extract.warc_pages import Page, read_pages
    from tasks.extract.worker import Limits, shared_extractor
    from tasks.extract.worker_messages import Extracted, Settings
    from tasks.rights.robots import names_of

    crawl = read_manifest(data / "crawl")
    warcs = [data / "crawl" / name for name in _warc_files(crawl)]
    robot = names_of(str(crawl.params.get("user_agent") or ""))
    asked = read_manifest(data / "extract").params
    names = ("engine", "mode", "tables", "comments", "language_by_line")
    settings: dict[str, Any] = {name: asked[name] for name in names if name in asked}
    extractor = shared_extractor(Settings(**settings, robot=robot), Limits(seconds=60.0, memory_mebibytes=2048))
    wanted: dict[str, dict[str, Document]] = defaultdict(dict)
    for _, document in _documents(data / "extract", sample):
        wanted[str(document.warc_path)][document.record_id] = document
    largest = asked.get("max_page_bytes", 20_000_000)
    assert isinstance(largest, int), "extract.max_page_bytes is a number"
    with tempfile.TemporaryDirectory(prefix="headwater-") as folder:
        host_files = collect(warcs, Path(folder)) if _ours(crawl) else {}
        read: dict[str, list[Page]] = {}
        for warc, documents in wanted.items():
            part = data / "crawl" / warc
            found = read_pages(part, largest, host_files.get(part))
            read[warc] = [page for page in found if page.record_id in documents]
    for warc, documents in sorted(wanted.items()):
        pages = read[warc]
        for missing in sorted(set(documents) - {page.record_id for page in pages}):
            yield Break(f"document {documents[missing].doc_id}", f"record {missing} in {warc}", "no such record")
        for page, answer in zip(pages, extractor.extract(pages), strict=True):
            document = documents[page.record_id]
            where = f"document {document.doc_id}, record {page.record_id} of {warc}"
            if not isinstance(answer, Extracted):
                yield Break(where, "a text", f"dropped by {answer.rule}")
                continue
            facts = [(n, getattr(document, n), getattr(answer, n)) for n in COMPARED]
            facts += [("warc_offset", document.warc_offset, page.offset), ("url", document.url, page.url)]
            facts += [("payload_digest", document.payload_digest, page.payload_digest)]
            for name, kept, again in facts:
                if (tuple(kept) if isinstance(kept, list) else kept) != again:
                    yield Break(f"{where}, {name}", _short(kept), _short(again))


def all_tokens(data: Path) -> bool:
    """Say whether the corpus and the steps are few enough to make all of them again."""
    from tasks.contracts.tokens import read_tokens_info
    from training.train.order import Order

    try:
        order = Order.model_validate_json((data / "train" / ORDER_NAME).read_bytes())
        seen = order.steps * order.batch_size * order.seq_len
        return max(read_tokens_info(data / "tokenize").tokens, seen) <= ALL_TOKENS
    except Exception:  # noqa: BLE001 - what is wrong with them, the checks themselves say
        return False


def tokens(data: Path, sample: int | None) -> Iterator[Break]:
    """Encode documents again and compare them with every copy in the token shards; None encodes all.

    The indices are compared throughout: each document as often as the mixture says, pass by pass, without a gap.
    """
    import numpy as np

    from tasks.contracts.document import Document, read_documents
    from tasks.contracts.tokenizer_files import load_tokenizer
    from tasks.contracts.tokens import WIDTHS, read_index, read_tokens_info
    from tasks.tokenize.stage import Params

    info, tokenizer = read_tokens_info(data / "tokenize"), load_tokenizer(data / "tokenizer")
    parts = text_shards(data / "mix")
    chosen = set(_some(range(sum(part.rows or 0 for part in parts)), sample))
    number = 0

    def encoded(document: Document) -> list[int]:
        return [*tokenizer.encode(document.text, add_special_tokens=False).ids, info.eos_id]

    def compared(shard: Path, documents: list[Document], checked: list[bool], repeat: bool) -> Iterator[Break]:
        width = np.dtype(info.dtype).newbyteorder("<")
        ids: Any = np.memmap(shard, width, "r") if shard.stat().st_size else np.empty(0, width)
        copies = [int(one.scores.get("mix.epochs", 1)) if repeat else 1 for one in documents]
        expected = [
            (document, passes, look)
            for passes in range(1, max(copies, default=0) + 1)
            for document, times, look in zip(documents, copies, checked, strict=True)
            if times >= passes
        ]
        index = list(read_index(shard.with_suffix(".parquet")))
        if [one.doc_id for one in index] != [document.doc_id for document, _, _ in expected]:
            yield Break(f"{shard.with_suffix('.parquet')}, documents", "those of the mixture, pass by pass", "others")
            return
        at = 0
        for one, (document, passes, look) in zip(index, expected, strict=True):
            where = f"{shard}, token {one.offset}, document {document.doc_id}"
            told = (one.url, one.epoch, one.offset, one.bytes)
            right = (document.url, passes, at, len(document.text.encode()))
            if told != right:
                yield Break(f"{where}: url, pass, offset, bytes", str(right), str(told))
            if look and list(ids[one.offset : one.offset + one.length]) != encoded(document):
                yield Break(where, "the tokens of its text", "others")
            at += one.length
        if at * WIDTHS[info.dtype] != shard.stat().st_size:
            yield Break(f"{shard}, bytes", str(at * WIDTHS[info.dtype]), str(shard.stat().st_size))

    for part in parts:
        documents = list(read_documents(data / "mix" / part.name))
        checked = [number + k in chosen for k in range(len(documents))]
        number += len(documents)
        yield from compared((data / "tokenize" / part.name).with_suffix(".bin"), documents, checked, repeat=True)
    asked = read_manifest(data / "tokenize").params
    most = int(str(asked.get("max_validation_documents") or Params().max_validation_documents))
    held = _held_out(data)[:most]
    yield from compared(data / "tokenize" / VALIDATION_NAME, held, [sample is None] * len(held), repeat=False)


def _held_out(data: Path) -> list[Any]:
    from tasks.contracts.document import read_documents

    return [one for path in sorted((data / "holdout/heldout").glob(PARQUET_PARTS)) for one in read_documents(path)]


def batches(data: Path, sample: int | None) -> Iterator[Break]:
    """Put steps' batches together again and compare with the hashes that the trainer wrote; None takes every step."""
    import pyarrow.parquet as pq

    from tasks.contracts.tokens import read_tokens_info
    from training.train.hyperparameters import Params
    from training.train.order import Order
    from training.train.packing import TokenStream, read_packing
    from training.train.stage import make_order

    order = Order.model_validate_json((data / "train" / ORDER_NAME).read_bytes())
    if order.tokenize_manifest != (found := sha256_file(data / "tokenize" / MANIFEST_NAME)):
        yield Break(f"{data}/train/{ORDER_NAME}, tokenize_manifest", order.tokenize_manifest, found)
    packing = read_packing(data / "tokenize", order.shards, order.seq_len)
    info = read_tokens_info(data / "tokenize")
    asked = {k: v for k, v in read_manifest(data / "train").params.items() if k in Params.model_fields}
    if "seq_len" in asked:
        params = Params.model_validate(asked, strict=False)
        again = make_order(params, info, packing.sequences, order.tokenize_manifest)
        for name in Order.model_fields:
            if getattr(order, name) != getattr(again, name):
                expected, told = _short(getattr(again, name)), _short(getattr(order, name))
                yield Break(f"{data}/train/{ORDER_NAME}, {name}", expected, told)
    stream = TokenStream(data / "tokenize", order.shards, order.dtype)
    steps = pq.read_table(data / "train" / STEPS_NAME).to_pylist()
    expected_steps = [(step, rank) for step in range(order.steps) for rank in range(order.ranks)]
    if sorted((row["step"], row["rank"]) for row in steps) != expected_steps:
        found = f"{len(steps)} rows"
        yield Break(f"{data}/train/{STEPS_NAME}", f"each of {order.steps} steps of {order.ranks} ranks once", found)
        return
    for row in _some(steps, sample):
        rows = packing.rows(order.sequences_at(row["step"], row["rank"]), stream, info.eos_id)
        made = hashlib.sha256(rows.tokens.tobytes()).hexdigest()
        if made != row["batch_sha256"]:
            yield Break(f"step {row['step']} of rank {row['rank']}, batch", row["batch_sha256"], made)


def copies(data: Path) -> Iterator[Break]:
    """Put the learnt tokenizer and the model's configs beside the model again, as training does, and compare."""
    from safetensors import safe_open

    from tasks.contracts.tokens import read_tokens_info
    from training.train.artifacts import TOKENIZER_FILES
    from training.train.hyperparameters import Params
    from training.train.model import model_config, name_special_tokens, write_configs

    model = data / "train" / MODEL_FOLDER
    configs = (MODEL_CONFIG_NAME, GENERATION_CONFIG_NAME)
    recorded = read_manifest(data / "train").params
    asked = {k: v for k, v in recorded.items() if k in Params.model_fields}
    params, info = Params.model_validate(asked, strict=False), read_tokens_info(data / "tokenize")
    base = recorded.get(STARTED_FROM)
    context = max(params.seq_len, int(str(base["context"])) if isinstance(base, dict) else 0)
    with safe_open(next(iter(sorted(model.glob("*.safetensors")))), "np") as tensors:
        dtype = TORCH_TYPES[tensors.get_slice(next(iter(tensors.keys()))).get_dtype()]
    config = model_config(params.model, vocab_size=info.vocab_size, seq_len=context, eos_id=info.eos_id)
    with tempfile.TemporaryDirectory() as place:
        again = Path(place)
        for name in TOKENIZER_FILES:
            shutil.copyfile(data / "tokenizer" / name, again / name)
        write_configs(again, config, dtype)
        name_special_tokens(again)
        for name in (*TOKENIZER_FILES, *configs):
            if (made := sha256_file(again / name)) != (found := sha256_file(model / name)):
                source = f"{data}/tokenizer" if name in TOKENIZER_FILES else "the settings of train"
                yield Break(f"{model / name}, SHA-256", f"{made}, of {source}", found)


def items(data: Path) -> Iterator[Break]:
    """Make the evaluation's own items again from the held-out documents."""
    from tasks.holdout.stage import Params, write_tasks

    params = Params.model_validate(read_manifest(data / "holdout").params, strict=False)
    with tempfile.TemporaryDirectory() as folder:
        write_tasks(_held_out(data), params, Path(folder))
        for path in sorted(Path(folder).iterdir()):
            kept = data / "holdout/tasks" / path.name
            if sha256_file(path) != sha256_file(kept):
                yield Break(f"{kept}, SHA-256", sha256_file(path), sha256_file(kept))


def scores(data: Path) -> Iterator[Break]:
    """Make the evaluation's figures again from its items' scores, and compare those with the items of holdout."""
    from training.evaluate.stage import summary

    told = json.loads((data / "evaluate" / RESULTS_NAME).read_bytes())
    flat = json.loads((data / "evaluate" / METRICS_NAME).read_bytes())
    headline = json.loads((data / "evaluate" / SUMMARY_NAME).read_bytes())
    if (means := summary(told["tasks"])) != headline:
        yield Break(f"{data}/evaluate/{SUMMARY_NAME}", json.dumps(means), json.dumps(headline))
    settings = read_manifest(data / "evaluate").params
    if told["settings"] != settings:
        yield Break(f"{data}/evaluate/{RESULTS_NAME}, settings", str(settings), str(told["settings"]))
    if (asked := sorted(map(str, settings.get("tasks") or ()))) != sorted(told["tasks"]):  # type: ignore[arg-type]
        yield Break(f"{data}/evaluate/{RESULTS_NAME}, tasks", str(asked), str(sorted(told["tasks"])))
    for task, figures in told["tasks"].items():
        where = f"{data}/evaluate/{RESULTS_NAME}, {task}"
        rows = _lines(data / "evaluate/samples" / f"{task}.jsonl")
        if len(rows) != figures["items"]:
            yield Break(f"{where}, items", str(len(rows)), str(figures["items"]))
        again = figures_of(rows)
        for metric, value in figures.items():
            if not isinstance(value, float):
                continue
            if f"{task}.{metric}" in flat and flat[f"{task}.{metric}"] != value:
                yield Break(
                    f"{data}/evaluate/{METRICS_NAME}, {task}.{metric}", str(value), str(flat[f"{task}.{metric}"])
                )
            if metric in again and abs(again[metric] - value) > ROUNDED * max(1.0, abs(value)):
                yield Break(f"{where}, {metric}", f"{again[metric]:.6f}, from its items", str(value))
        source = data / "holdout/tasks" / f"{task}.jsonl"
        if source.is_file():
            yield from _same_items(source, rows, figures, where, settings.get("limit"))


def _same_items(source: Path, rows: Sequence[Any], figures: Any, where: str, limit: object) -> Iterator[Break]:
    if (found := sha256_file(source)) != figures["items_sha256"]:
        yield Break(f"{where}, items_sha256", found, figures["items_sha256"])
    given = {item["item_id"]: item for item in _lines(source)}
    scored = [row["item_id"] for row in rows]
    if len(set(scored)) != len(scored) or not set(scored) <= set(given) or (limit is None and len(scored) < len(given)):
        yield Break(f"{where}, items", f"the {len(given)} items of {source}, each once", f"{len(set(scored))} of them")
    for row in rows:
        item = given.get(row["item_id"])
        if item is not None and row.get("doc_id") != item.get("doc_id"):
            # Intervals are clustered by document.
            yield Break(f"{where}, document of item {row['item_id']}", str(item.get("doc_id")), str(row.get("doc_id")))
        if item is not None and "bytes" in row and "text" in item and row["bytes"] != len(item["text"].encode()):
            yield Break(f"{where}, bytes of item {row['item_id']}", str(len(item["text"].encode())), str(row["bytes"]))


def gate(data: Path) -> Iterator[Break]:
    """Judge the scored items again by the gate's own rules, and compare with its report."""
    from training.champions import champions
    from training.gate.stage import Params, judge, overall, protection, report_text
    from training.gate_policy import policy_sha256

    told = json.loads((data / "gate" / REPORT_NAME).read_bytes())
    params = Params.model_validate(read_manifest(data / "gate").params, strict=False)
    inputs = {name: data / name for name in read_manifest(data / "gate").inputs}
    beaten = told.get("champion")
    champion = next((one for one in champions() if beaten and one.release == beaten["release"]), None)
    if beaten and champion is None:
        raise NotCheckableError(f"the champion that it was compared with is not kept here: {beaten['name']}")
    rules = judge(params, inputs, champion)
    weights = json.loads((data / "train" / METRICS_NAME).read_bytes())["weights_sha256"]
    again = {
        "verdict": overall(rules),
        "weights_sha256": weights,
        "policy_sha256": policy_sha256(params, params.tasks),
        "confidence": params.confidence,
    }
    for name, value in again.items():
        if told.get(name) != value:
            yield Break(f"{data}/gate/{REPORT_NAME}, {name}", str(value), str(told.get(name)))
    if [rule.rule for rule in rules] != [rule["rule"] for rule in told["rules"]]:
        yield Break(f"{data}/gate/{REPORT_NAME}, rules", ", ".join(r.rule for r in rules), "others")
        return
    for rule, one in zip(rules, told["rules"], strict=True):
        for name, value in asdict(rule).items():
            if one.get(name) != value:
                yield Break(f"{data}/gate/{REPORT_NAME}, {rule.rule}, {name}", str(value), str(one.get(name)))
    if "protection" in told and told["protection"] != (items := protection(inputs)):
        yield Break(f"{data}/gate/{REPORT_NAME}, protection", _short(items), _short(told["protection"]))
    if "protection" not in told:
        yield Break(f"{data}/gate/{REPORT_NAME}", "how many items are protected", "nothing of it")
    elif (data / "gate" / REPORT_TEXT_NAME).read_text() != report_text(told, rules):
        yield Break(f"{data}/gate/{REPORT_TEXT_NAME}", "the text of report.json", "another")


def _lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_bytes().split(b"\n") if line.strip()]


def _ours(crawl: Manifest) -> bool:
    """Say whether we wrote the records; in others' archives a payload digest may mean what their writer took it for."""
    return crawl.params.get("source") in OWN_CRAWLS


def _warc_files(crawl: Manifest) -> list[str]:
    names = [s.name for s in crawl.shards if is_part(s.name, ".warc.gz")]
    if not names:
        raise NotCheckableError("the crawl is of plain texts: it holds no WARC record")
    return names


def _documents(folder: Path, sample: int) -> Iterator[tuple[str, Any]]:
    """Yield a seeded sample of a folder's documents, with the file each stands in."""
    from tasks.contracts.document import read_documents

    shards = text_shards(folder)
    chosen = set(_some(range(sum(shard.rows or 0 for shard in shards)), sample))
    number = 0
    for shard in shards:
        for document in read_documents(folder / shard.name):
            if number in chosen:
                yield shard.name, document
            number += 1


def _some(items: Sequence[Item], most: int | None) -> list[Item]:
    return list(items) if most is None else random.Random(SEED).sample(items, min(most, len(items)))


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:197]}..."
