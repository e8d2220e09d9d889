"""Is what trace says true? Checked against all rows of a finished workspace, its WARC files and its tokenizer.

    python -m tests.bench.check_provenance WORKSPACE --urls 1000 --documents 1000 --steps 200

Three checks, each on a random sample, none of which uses the trace index for the truth that it compares with:

1. URLs: of all that the crawl fetched or refused, a fifth of the sample dropped duplicates. What trace says of each is
   compared with every row of every ledger and shard that names the URL, the token shards' indexes, and the batches of
   all steps, computed forwards; and each must have come to an end: dropped by a rule, or in the shards.
2. documents: of those in the training mixture. The WARC record at `warc_path` and `warc_offset` is extracted again with
   the parameters in extract's manifest, by the stage's own process; the text must have the very bytes of data/extract,
   and, where no later stage says that it edited it, of data/mix.
3. steps: the documents of the batch are tokenised again from data/mix with data/tokenizer, and the batch is put
   together from them; its hash must be what the trainer recorded when it ran.

Prints a line for each check and each miss; the exit code is 1 on any miss.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from fastwarc.warc import ArchiveIterator, WarcRecordType

from flows.history.trace_index import open_index, stages_with_documents
from flows.proof.trace import Trace, Tracer
from flows.proof.trace_training import Training
from tasks.contracts.document import Document, read_documents
from tasks.contracts.files import HELD_OUT_FOLDER
from tasks.contracts.ledger import read_ledger
from tasks.contracts.manifest import read_manifest
from tasks.contracts.tokenizer_files import EOS, load_tokenizer
from tasks.contracts.tokens import index_name, read_index
from tasks.extract.stage import Params
from tasks.extract.warc_pages import Page, read_pages
from tasks.extract.worker import Extractor, Limits
from tasks.extract.worker_messages import Extracted, Settings

DATA = Path("data")
DUPLICATES = 0.2
Row = tuple[str, str, str, str, int]
"""Stage, action, rule, file and number of a row."""


def text_stages() -> list[str]:
    return [stage for stage in stages_with_documents(DATA) if stage not in ("crawl", "tokenize")]


def main() -> None:
    """Run the checks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--urls", type=int, default=1000)
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    os.chdir(asked.workspace)
    misses = 0
    checks = (check_urls, asked.urls), (check_documents, asked.documents), (check_steps, asked.steps)
    for check, number in checks:
        started = time.monotonic()
        line, found = check(number, random.Random(asked.seed))
        print(f"{line}, {len(found)} misses ({time.monotonic() - started:.1f} s)", *found[:20], sep="\n  ", flush=True)
        misses += len(found)
    sys.exit(1 if misses else 0)


def check_urls(number: int, chance: random.Random) -> tuple[str, list[str]]:
    """Trace URLs and compare with all rows that name them."""
    truth, duplicates = rows_by_url()
    some = chance.sample(sorted(duplicates), min(int(number * DUPLICATES), len(duplicates)))
    rest = sorted(set(truth) - set(some))
    urls = some + chance.sample(rest, min(number - len(some), len(rest)))
    tokens, steps = tokens_by_document(), steps_by_document()
    tracer, misses, ends = Tracer(open_index(DATA), DATA), [], Counter[str]()
    for url in urls:
        found = tracer.trace_names(url, limit=10_000)
        asked = [document for document in found.documents if document.survivor_of is None]
        rows = {
            (event.stage, event.action, event.rule or "", event.file, event.row)
            for document in asked
            for event in document.events
        }
        places = {
            (document.subject.doc_id, place.shard, place.offset, place.length)
            for document in asked
            for place in document.tokens
        }
        ids = {document.subject.doc_id for document in asked}
        seen = {(d.subject.doc_id, s.step, s.rank) for d in asked for place in d.tokens for s in place.seen}
        expected_places = {(doc_id, *place) for doc_id in ids for place in tokens.get(doc_id or "", ())}
        expected_seen = {(doc_id, *at) for doc_id in ids for at in steps.get(doc_id or "", ())}
        if not found.matched or rows != truth[url]:
            misses.append(f"{url}: rows {sorted(rows ^ truth[url])}")
        elif places != expected_places or seen != expected_seen:
            misses.append(f"{url}: tokens {sorted(places ^ expected_places)}, steps {sorted(seen ^ expected_seen)}")
        else:
            misses += ending(found)
        ends.update(re.split(r"[:;(]|, and", document.outcome)[0].strip() for document in asked)
    shown = ", ".join(f"{count} {end}" for end, count in ends.most_common())
    return f"{len(urls)} URLs traced, {len(some)} of them dropped duplicates ({shown})", misses


def ending(found: Trace) -> list[str]:
    """Return what is missing at the end of a trace: a document that just stops, or a survivor that is not shown."""
    shown = {document.subject.doc_id for document in found.documents}
    wrong = []
    for document in found.documents:
        if document.dropped is None and not document.tokens:
            wrong.append(f"{document.subject.url}: ends nowhere")
        wrong += [f"{document.subject.url}: no survivor" for event in document.events
                  if event.survivor_id and event.survivor_id not in shown]  # fmt: skip
    return wrong


def rows_by_url() -> tuple[dict[str, set[Row]], set[str]]:
    """Read every WARC file, ledger and shard: URL → the rows that name it, and the URLs of dropped duplicates."""
    found: dict[str, set[Row]] = {url: set() for path in sorted((DATA / "crawl").glob("part-*.warc.gz"))
                                  for url in fetched(path)}  # fmt: skip
    duplicates: set[str] = set()
    for stage in stages_with_documents(DATA):
        for path in sorted((DATA / stage / "dropped").glob("*.parquet")):
            for number, row in enumerate(read_ledger(path)):
                if row.url:
                    place = (stage, row.action, row.rule, f"dropped/{path.name}", number)
                    found.setdefault(row.url, set()).add(place)
                    if row.survivor_id:
                        duplicates.add(row.url)
    for stage in text_stages():
        for path in sorted((DATA / stage).glob("**/part-*.parquet")):
            name = path.relative_to(DATA / stage).as_posix()
            if not name.startswith("dropped/"):
                action = "held out" if name.startswith(HELD_OUT_FOLDER) else "kept"
                for number, url in enumerate(pq.read_table(path, columns=["url"])["url"].to_pylist()):
                    found.setdefault(url, set()).add((stage, action, "", name, number))
    return found, duplicates


def fetched(path: Path) -> Iterator[str]:
    """Yield the URLs of a WARC file's captures."""
    kinds = WarcRecordType.response | WarcRecordType.resource | WarcRecordType.revisit
    with path.open("rb") as stream:
        for record in ArchiveIterator(stream, record_types=kinds, parse_http=False):
            yield record.headers.get("WARC-Target-URI") or ""


def tokens_by_document() -> dict[str, list[tuple[str, int, int]]]:
    """Read the indexes of all token shards."""
    found: dict[str, list[tuple[str, int, int]]] = {}
    for path in sorted((DATA / "tokenize").glob("*.parquet")):
        for one in read_index(path):
            found.setdefault(one.doc_id, []).append((f"{path.stem}.bin", one.offset, one.length))
    return found


def steps_by_document() -> dict[str, set[tuple[int, int]]]:
    """Go through all steps forwards and note whose tokens each rank sees."""
    training = Training(DATA)
    order, packing = training.order, training.packing
    begins, names = stream_of(training)
    found: dict[str, set[tuple[int, int]]] = {}
    for step in range(order.steps):
        for rank in range(order.ranks):
            for number in order.sequences_at(step, rank):
                starts = packing.starts[int(packing.first[number]) : int(packing.first[number + 1])]
                for at in (np.searchsorted(begins, starts, side="right") - 1).tolist():
                    found.setdefault(names[at], set()).add((step, rank))
    return found


def stream_of(training: Training) -> tuple[np.ndarray, list[str]]:
    """Return where each copy of each document begins in the stream of all token shards, and its doc_id."""
    begins, names, base = [], list[str](), 0
    for shard in training.order.shards:
        for one in read_index(training.tokens / index_name(shard.name)):
            begins.append(base + one.offset)
            names.append(one.doc_id)
        base += shard.tokens
    return np.array(begins), names


def check_documents(number: int, chance: random.Random) -> tuple[str, list[str]]:
    """Extract records again."""
    params = Params.model_validate(read_manifest(DATA / "extract").params)
    settings = Settings(engine=params.engine, mode=params.mode, tables=params.tables, comments=params.comments,
                        language_by_line=params.language_by_line)  # fmt: skip
    edited = {row.doc_id for stage in text_stages() for path in (DATA / stage / "dropped").glob("*.parquet")
              for row in read_ledger(path) if row.action == "edit"}  # fmt: skip
    trained = {document.doc_id: document for document in documents("mix")}
    chosen = set(chance.sample(sorted(trained), min(number, len(trained))))
    by_warc: dict[str, dict[int, Document]] = {}
    for document in documents("extract"):
        if document.doc_id in chosen and document.warc_path is not None and document.warc_offset is not None:
            by_warc.setdefault(document.warc_path, {})[document.warc_offset] = document
    misses, compared, unedited = [], 0, 0
    with Extractor(
        settings, Limits(seconds=params.page_seconds, memory_mebibytes=params.memory_mebibytes)
    ) as extractor:
        for name, wanted in sorted(by_warc.items()):
            pages = [page for page in read_pages(DATA / "crawl" / name, params.max_page_bytes) if page.offset in wanted]
            for page, answer in zip(pages, extractor.extract(pages), strict=True):
                document = wanted.pop(page.offset)
                compared += 1
                if not same(page, answer, document):
                    misses.append(f"{document.url}: its record gives another text")
                elif document.doc_id not in edited:
                    unedited += 1
                    if trained[document.doc_id].text != document.text:
                        misses.append(f"{document.url}: changed after extract, and no ledger says by what")
            misses += [f"{document.url}: no record at {name}, byte {offset}" for offset, document in wanted.items()]
    size = f"{compared} documents extracted again ({unedited} of them not edited since)"
    return size, misses + ([f"{len(chosen) - compared} have no WARC record"] if compared < len(chosen) else [])


def documents(stage: str) -> Iterator[Document]:
    """Read a stage's documents."""
    for path in sorted((DATA / stage).glob("part-*.parquet")):
        yield from read_documents(path)


def same(page: Page, answer: object, document: Document) -> bool:
    """Tell whether a record is the document's and gives the very bytes of its text."""
    record = (page.record_id, page.url) == (document.record_id, document.url)
    return record and isinstance(answer, Extracted) and answer.text.encode() == document.text.encode()


def check_steps(number: int, chance: random.Random) -> tuple[str, list[str]]:
    """Tokenise the documents of steps again."""
    training, tokenizer = Training(DATA), load_tokenizer(DATA / "tokenizer")
    order, packing = training.order, training.packing
    texts = {document.doc_id: document.text for document in documents("mix")}
    begins, names = stream_of(training)
    recorded = {(row["step"], row["rank"]): row["batch_sha256"]
                for row in pq.read_table(DATA / "train" / "steps.parquet").to_pylist()}  # fmt: skip
    steps = sorted(chance.sample(range(order.steps), min(number, order.steps)))
    eos = tokenizer.token_to_id(EOS)
    assert eos is not None
    ids: dict[str, list[int]] = {}
    misses, used = [], set[str]()

    def tokens_at(start: int, length: int) -> list[int]:
        """Return tokens of the stream, from the document that stands there."""
        at = int(np.searchsorted(begins, start, side="right")) - 1
        name, within = names[at], start - int(begins[at])
        if name not in ids:
            ids[name] = [*tokenizer.encode(texts[name], add_special_tokens=False).ids, eos]
        used.add(name)
        return ids[name][within : within + length]

    for step in steps:
        for rank in range(order.ranks):
            numbers = order.sequences_at(step, rank)
            batch = np.full((len(numbers), order.seq_len + 1), eos, np.dtype(order.dtype).newbyteorder("<"))
            for row, sequence in enumerate(numbers):
                end = 0
                for piece in range(int(packing.first[sequence]), int(packing.first[sequence + 1])):
                    start, length = int(packing.starts[piece]), int(packing.lengths[piece])
                    if end == 0 and start > 0:
                        batch[row, 0] = tokens_at(start - 1, 1)[0]
                    found = tokens_at(start, length)
                    batch[row, end + 1 : end + 1 + len(found)] = found
                    end += length
            if hashlib.sha256(batch.tobytes()).hexdigest() != recorded.get((step, rank)):
                misses.append(f"step {step}, rank {rank}: its documents give other tokens than the trainer hashed")
    return f"{len(steps)} steps put together again from {len(used)} documents and the tokenizer", misses


if __name__ == "__main__":
    main()
