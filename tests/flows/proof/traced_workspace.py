"""A workspace made by hand, in which the fate of every page is planted: one page for each way to go or to stay."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.contracts.base import Drop, Edit
from tasks.contracts.document import Document, make_doc_id, write_documents
from tasks.contracts.durable_files import write_json
from tasks.contracts.ledger import LedgerRow, ledger_row, write_ledger
from tasks.contracts.manifest import Counts, commit_manifest, manifest_hash
from tasks.contracts.tokens import TokenRange, TokenShard, TokensInfo, write_index
from tasks.crawl.warc_writer import Note, Page, Writer
from tasks.rights.evidence import Evidence, RobotsVerdict, Signal
from tests.planted import plant_manifest
from training.champions import promote
from training.train.order import Order
from training.train.packing import TokenStream, read_packing

HOST = "site.example"
SOURCE = "sites"
SEQ_LEN = 16
TEXT_STAGES = ("extract", "filter", "dedup", "perplexity", "holdout", "decontaminate", "mix")
WORDS = [
    "river",
    "stone",
    "window",
    "garden",
    "letter",
    "mountain",
    "silver",
    "bread",
    "engine",
    "winter",
    "paper",
    "lamp",
    "forest",
    "bridge",
    "candle",
    "market",
    "harbour",
    "meadow",
    "ladder",
    "mirror",
    "pocket",
    "saddle",
    "thunder",
    "owl",
]


@dataclass(frozen=True)
class Planted:
    """A page and what becomes of it: the stage that drops it (None: none does), and by which rule."""

    name: str
    dropped_by: str | None = None
    rule: str | None = None
    survivor: str | None = None
    signals: tuple[Signal, ...] = ()
    edited_by: str | None = None
    epochs: int = 1
    part: int = 0

    @property
    def url(self) -> str:
        return f"http://{HOST}/{self.name}.html"


PAGES = (
    Planted("kept", edited_by="filter"),
    Planted("copy", "dedup", "near_duplicate", survivor="kept"),
    Planted(
        "refused", "extract", "opt_out", signals=(Signal("header", "noai"), Signal("ai.txt", "disallow", "*", "/"))
    ),
    Planted("short", "filter", "length.min_words"),
    Planted("odd", "perplexity", "worst"),
    Planted("twice", epochs=2, part=1),
    Planted("held", "holdout", "held_out", part=1),
    Planted("leaked", "decontaminate", "benchmark_overlap", part=1),
    Planted("spare", "mix", "not_sampled", part=1),
)
FORBIDDEN = f"http://{HOST}/private/page.html"
REVISIT = f"http://{HOST}/kept-again.html"
ROBOTS_TXT = f"http://{HOST}/robots.txt"


def text_of(name: str) -> str:
    """Return a page's text: some 60 words that no other page has in this order."""
    generator = np.random.default_rng(sum(name.encode()) * 7)
    return " ".join(WORDS[i] for i in generator.integers(0, len(WORDS), 60)) + f" {name}."


@dataclass
class Traced:
    """The workspace, and the documents by the names of their pages."""

    root: Path
    documents: dict[str, Document] = field(default_factory=dict)

    @property
    def data(self) -> Path:
        return self.root / "data"


def make(root: Path) -> Traced:
    """Write every stage's folder under `root / "data"`."""
    traced = Traced(root)
    _crawl(traced)
    before = traced.data / "crawl"
    present = {part: [page for page in PAGES if page.part == part] for part in (0, 1)}
    for stage in TEXT_STAGES:
        folder = traced.data / stage
        dropped: dict[str, int] = {}
        size = sum(map(len, present.values()))
        for part, pages in present.items():
            present[part] = _text_part(traced, stage, part, pages, dropped)
        commit_manifest(
            folder,
            stage=stage,
            unit="documents",
            params={"dedup": {"shingle_words": 5}, "extract": {"max_page_bytes": 1 << 20}}.get(stage, {}),
            inputs={before.name: before},
            counts=Counts(in_=size, out=size - sum(dropped.values()), dropped=dropped),
        )
        before = folder
    _tokenize(traced, present)
    _train(traced)
    _release(traced)
    return traced


def _crawl(traced: Traced) -> None:
    folder = traced.data / "crawl"
    folder.mkdir(parents=True)
    rows = [
        LedgerRow(stage="crawl", action="drop", rule="robots", url=FORBIDDEN, detail="Forbidden: robots.txt"),
    ]
    for part in (0, 1):
        stream = BytesIO()
        writer = Writer(stream)
        writer.write_info("2026-01-02T03:04:05Z", [("software", "test")])
        if part == 0:
            robots = Note(
                url=ROBOTS_TXT,
                status=200,
                content_type="text/plain",
                body=b"User-agent: *\nDisallow: /private",
                fetched_from=ROBOTS_TXT,
            )
            writer.write_note(robots, when="2026-01-02T03:04:05Z")
        for page in (page for page in PAGES if page.part == part):
            _page(traced, writer, stream, page.name, page.url, page.signals, f"part-{part:05}.warc.gz")
        if part == 1:
            rows.append(_revisit(traced, writer))
        (folder / f"part-{part:05}.warc.gz").write_bytes(stream.getvalue())
    write_ledger(folder / "dropped" / "part-00000.parquet", rows)
    commit_manifest(
        folder,
        stage="crawl",
        unit="urls",
        params={"source": SOURCE, "drop_query": ["utm_*"]},
        inputs={},
        counts=Counts(in_=len(PAGES) + 2, out=len(PAGES), dropped={"revisit": 1, "robots": 1}),
    )


def _page(
    traced: Traced, writer: Writer, stream: BytesIO, name: str, url: str, signals: Sequence[Signal], warc: str
) -> None:
    begin = stream.tell()
    body = f"<html><body><p>{text_of(name)}</p></body></html>".encode()
    page = Page(
        url=url,
        when="2026-01-02T03:04:05.678Z",
        address="192.0.2.7",
        request=b"GET / HTTP/1.1\r\n\r\n",
        status="200 OK",
        headers=[("Content-Type", "text/html"), ("X-Robots-Tag", "nosnippet")],
        body=body,
    )
    verdict = RobotsVerdict(record_id="<urn:uuid:robots>", user_agent="Headwater/0.1", allowed=True, agent="*")
    licenses = ("https://creativecommons.org/licenses/by/4.0/",)
    made = writer.write_page(page, Evidence(url=url, robots=verdict, signals=tuple(signals), licenses=licenses))
    traced.documents[name] = Document(
        doc_id=make_doc_id(SOURCE, made["record"]),
        url=url,
        host=HOST,
        record_id=made["record"],
        source=SOURCE,
        text=text_of(name),
        captured_at="2026-01-02T03:04:05Z",
        warc_path=warc,
        warc_offset=begin + made["response"],
        payload_digest=made["digest"],
        language="en",
        license=licenses[0],
        opt_out=tuple(map(str, signals)),
    )


def _revisit(traced: Traced, writer: Writer) -> LedgerRow:
    other = BytesIO()
    page = Page(
        url=REVISIT,
        when="2026-01-03T03:04:05Z",
        address="192.0.2.7",
        request=b"GET / HTTP/1.1\r\n\r\n",
        status="200 OK",
        headers=[("Content-Type", "text/html")],
        body=f"<html><body><p>{text_of('kept')}</p></body></html>".encode(),
    )
    made = Writer(other).write_page(
        page, Evidence(url=REVISIT, robots=RobotsVerdict(user_agent="Headwater/0.1", allowed=True))
    )
    original = traced.documents["kept"]
    writer.write_revisit(
        other.getvalue()[made["response"] :], original=original.record_id, url=original.url, when="2026-01-02T03:04:05Z"
    )
    return LedgerRow(
        stage="crawl", action="drop", rule="revisit", url=REVISIT, record_id=made["record"], survivor_id=original.doc_id
    )


def _text_part(
    traced: Traced, stage: str, part: int, pages: Sequence[Planted], dropped: dict[str, int]
) -> list[Planted]:
    folder, rows, left, held = traced.data / stage, [], [], []
    for page in pages:
        document = traced.documents[page.name]
        if page.edited_by == stage:
            edit = Edit(rule="c4", text=document.text.replace(".", ""), score=1.0, detail="1 line without its end")
            rows.append(ledger_row(stage, document, edit))
            traced.documents[page.name] = document.with_text(edit.text)
        if page.dropped_by != stage:
            left.append(page)
            continue
        assert page.rule is not None
        survivor = traced.documents[page.survivor].doc_id if page.survivor else None
        drop = Drop(rule=page.rule, score=0.91, threshold=0.8, survivor_id=survivor, detail=f"because of {page.name}")
        rows.append(ledger_row(stage, document, drop))
        dropped[page.rule] = dropped.get(page.rule, 0) + 1
        if stage == "holdout":
            held.append(document)
    for page in left:
        document = traced.documents[page.name]
        if stage == "perplexity":
            document = document.with_scores({"perplexity.value": 99.5})
        if stage == "mix":
            document = document.with_scores({"mix.epochs": float(page.epochs)})
        traced.documents[page.name] = document
    write_documents(folder / f"part-{part:05}.parquet", [traced.documents[page.name] for page in left])
    write_ledger(folder / "dropped" / f"part-{part:05}.parquet", rows)
    if stage == "holdout":
        write_documents(folder / "heldout" / f"part-{part:05}.parquet", held)
    return left


def ids_of(document: Document) -> list[int]:
    """Return a document's token ids: its bytes, none of which is the 0 that ends it."""
    return [*document.text.encode(), 0]


def _tokenize(traced: Traced, present: Mapping[int, Sequence[Planted]]) -> None:
    folder = traced.data / "tokenize"
    folder.mkdir()
    shards = []
    parts = {
        f"part-{part:05}": [(page.name, epoch) for epoch in (1, 2) for page in pages if page.epochs >= epoch]
        for part, pages in present.items()
    }
    for name, copies in {**parts, "validation": [("held", 1)]}.items():
        ranges, ids = [], list[int]()
        for page, epoch in copies:
            document = traced.documents[page]
            found = ids_of(document)
            ranges.append(
                TokenRange(
                    doc_id=document.doc_id,
                    url=document.url,
                    epoch=epoch,
                    offset=len(ids),
                    length=len(found),
                    bytes=len(found) - 1,
                )
            )
            ids += found
        (folder / f"{name}.bin").write_bytes(np.array(ids, "<u2").tobytes())
        write_index(folder / f"{name}.parquet", ranges)
        if name != "validation":
            shards.append(TokenShard(name=f"{name}.bin", tokens=len(ids)))
    validation = (folder / "validation.bin").stat().st_size // 2
    info = TokensInfo(
        dtype="uint16",
        vocab_size=256,
        eos_id=0,
        tokens=sum(s.tokens for s in shards),
        shards=tuple(shards),
        documents=2,
        bytes=1,
        validation_tokens=validation,
        validation_bytes=1,
    )
    write_json(folder / "tokens.json", info.model_dump(mode="json"))
    commit_manifest(
        folder,
        stage="tokenize",
        unit="documents",
        params={},
        inputs={"mix": traced.data / "mix"},
        counts=Counts(in_=2, out=2),
    )


def _train(traced: Traced, ranks: int = 2) -> None:
    """Write what a trainer would have recorded; the last quarter of a pass is never seen."""
    folder, tokens = traced.data / "train", traced.data / "tokenize"
    info = TokensInfo.model_validate_json((tokens / "tokens.json").read_bytes())
    packing = read_packing(tokens, info.shards, SEQ_LEN)
    order = Order(
        seed=5,
        dtype="uint16",
        shards=info.shards,
        tokenize_manifest=manifest_hash(tokens),
        seq_len=SEQ_LEN,
        sequences=packing.sequences,
        epochs=1,
        steps=packing.sequences * 3 // 4 // 4,
        batch_size=4,
        micro_batch=1,
        gradient_accumulation=2,
        ranks=ranks,
    )
    write_json(folder / "order.json", order.model_dump(mode="json"))
    write_json(folder / "metrics.json", {"weights_sha256": "ab" * 32})
    stream = TokenStream(tokens, order.shards, order.dtype)
    rows = []
    for step in range(order.steps):
        for rank in range(ranks):
            batch = packing.rows(order.sequences_at(step, rank), stream, 0).tokens.tobytes()
            rows.append({"step": step, "rank": rank, "batch_sha256": hashlib.sha256(batch).hexdigest()})
    schema = pa.schema([("step", pa.int64()), ("rank", pa.int32()), ("batch_sha256", pa.string())])
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), folder / "steps.parquet")
    commit_manifest(
        folder,
        stage="train",
        unit="tokens",
        params={},
        inputs={"tokenize": tokens},
        counts=Counts(in_=info.tokens, out=100, dropped={"after_last_step": info.tokens - 100}),
    )


def _release(traced: Traced) -> None:
    folder = traced.data / "release"
    folder.mkdir()
    stages = {stage: {"manifest_sha256": manifest_hash(traced.data / stage)} for stage in ("mix", "tokenize", "train")}
    described = {"name": "small", "weights_sha256": "ab" * 32, "stages": stages}
    (folder / "lineage.json").write_text(json.dumps(described))
    commit_manifest(
        folder,
        stage="release",
        unit="files",
        params={},
        inputs={"train": traced.data / "train"},
        counts=Counts(in_=1, out=1),
    )
    promote(folder)


def rewrite_ledger(traced: Traced, stage: str, rule: str) -> None:
    """Make a stage again, as a run with other settings would: its rows get another rule."""
    from tasks.contracts.ledger import read_ledger
    from tasks.contracts.manifest import MANIFEST_NAME, read_manifest

    folder = traced.data / stage
    manifest = read_manifest(folder)
    for path in sorted((folder / "dropped").glob("*.parquet")):
        write_ledger(path, [replace(row, rule=rule) for row in read_ledger(path)])
    (folder / MANIFEST_NAME).unlink()
    plant_manifest(folder, stage=stage, unit=manifest.unit, params=manifest.params, inputs={}, counts=manifest.counts)
