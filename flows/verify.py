"""`headwater verify`: a release against its own claims, then the workspace that made it, back to the raw records.

The first part is `training.verify`, the program that stands in each release. The second asks the same of the stages'
folders and of the run records. `--deep` makes things again: digests of WARC records, texts, tokens, batches. Nothing
has to run for it, and nothing is written.
"""

from __future__ import annotations

import hashlib
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from flows.lineage.records import latest_record, read_chain, verify_chain
from flows.terminal import console
from tasks.contracts.errors import HeadwaterError, UsageError
from tasks.contracts.files import sha256_file
from tasks.contracts.manifest import MANIFEST_NAME, Manifest, read_manifest, text_shards
from training.signing import PUBLIC_KEY_VARIABLE, check_public_key, differences, find_signature, signer_of
from training.verify import (
    SIGNATURE,
    Break,
    NotCheckableError,
    Result,
    as_text,
    check_claim,
    check_release,
    conserved,
    report,
)

Item = TypeVar("Item")

SEED = 4
OWN_CRAWLS = ("sample", "sites")
"""Sources whose records we wrote; in others' archives a payload digest may mean what their writer took it for."""
COMPARED = ("text", "title", "author", "published", "license", "opt_out", "language", "language_score")


def verify(
    release: Annotated[Path, typer.Argument(metavar="[RELEASE_DIR]", help="The release.")] = Path("data/release"),
    deep: Annotated[bool, typer.Option("--deep", help="Make digests, texts, tokens and batches again.")] = False,
    sample: Annotated[int, typer.Option(min=1, help="Documents and steps that --deep makes again.")] = 100,
    expect: Annotated[
        str | None, typer.Option(metavar="SHA256", help="The manifest's SHA-256 as it was published.")
    ] = None,
    public_key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", envvar=PUBLIC_KEY_VARIABLE, help="Who made it must have signed it with this key."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False,
) -> None:
    """Check a release and the workspace that made it, offline; exit code 1 names the first broken link.

    Example: headwater verify --deep --sample 20
    """
    if not release.is_dir():
        raise UsageError("there is no such release", where=str(release), fix="name a release's folder, or run first")
    if public_key is not None:
        check_public_key(public_key)
    results = check_all(release, Path("data"), sample=sample if deep else None, expect=expect, public_key=public_key)
    told = report(release, results)
    console.json(told) if as_json else console.lines(as_text(told).rstrip("\n"))
    if told["verdict"] == "fail":
        raise typer.Exit(1)


def check_all(
    release: Path,
    data: Path,
    *,
    sample: int | None = None,
    expect: str | None = None,
    public_key: Path | None = None,
) -> list[Result]:
    """Check a release, the workspace's folders, and with `sample` a sample of what can be made again."""
    found = [
        check_claim("signature", one.text, lambda: signature(release, public_key)) if one.claim == "signature" else one
        for one in check_release(release, expect)
    ]
    checks: dict[str, tuple[str, Callable[[], Iterator[Break]]]] = {
        "folders": ("Every file of every stage is as the stage's manifest says.", lambda: folders(release, data)),
        "stages": ("The stages' manifests are those that the release was made from.", lambda: stages(release, data)),
        "records": ("No run record was changed, removed or added.", records),
        "recorded": ("A run record names the manifest of each stage and of the release.", lambda: recorded(data)),
    }
    if sample is not None:
        checks |= {
            "warc": ("Every WARC record has the digests that it was written with.", lambda: warc_digests(data)),
            "texts": (f"{sample} documents come out of their records again.", lambda: texts(data, sample)),
            "tokens": (f"{sample} documents give the tokens of their shard again.", lambda: tokens(data, sample)),
            "batches": (f"{sample} training steps saw what their hash says.", lambda: batches(data, sample)),
        }
    ours = _same_release(release, data)
    for name, (text, check) in checks.items():
        found.append(check_claim(name, text, lambda check=check: _guarded(check, ours)))  # type: ignore[misc]
    return found


def signature(release: Path, public_key: Path | None) -> Iterator[Break]:
    """Check the signature that stands in the release, or in this workspace's copy of it."""
    signed = find_signature(release)
    if public_key is None:
        if signed is None:
            raise NotCheckableError("no signature stands here")
        raise NotCheckableError(f"{signed} was made with the key {signer_of(signed)}: give its file, --public-key")
    if signed is None:
        yield Break(str(release / SIGNATURE), "a signature by the key that was given", "no signature")
        return
    yield from differences(release, signed, public_key)


def folders(release: Path, data: Path) -> Iterator[Break]:
    """Hash every file of every stage's folder."""
    for stage in _stages(release):
        folder = data / stage
        if not (folder / MANIFEST_NAME).is_file():
            yield Break(f"{folder}/{MANIFEST_NAME}", "a manifest", "no such file")
            continue
        manifest = read_manifest(folder)
        listed = {shard.name: shard for shard in manifest.shards}
        present = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_symlink() or p.is_file()}
        for name in sorted(present - set(listed) - {MANIFEST_NAME}):
            yield Break(f"{folder}/{name}", "no such file", "added")
        for name, shard in listed.items():
            path = folder / name
            if name not in present:
                yield Break(str(path), "a file", "missing")
            elif path.stat().st_size != shard.bytes:
                yield Break(f"{path}, bytes", str(shard.bytes), str(path.stat().st_size))
            elif (found := sha256_file(path)) != shard.sha256:
                yield Break(f"{path}, SHA-256", shard.sha256, found)
        yield from conserved(stage, manifest.model_dump(mode="json", by_alias=True))


def stages(release: Path, data: Path) -> Iterator[Break]:
    """Compare the stages' manifests with the release's copies."""
    for stage in _stages(release):
        told, found = (sha256_file(p) for p in (release / "manifests" / f"{stage}.json", data / stage / MANIFEST_NAME))
        if told != found:
            yield Break(f"{data / stage / MANIFEST_NAME}, SHA-256", told, found)


def records() -> Iterator[Break]:
    """Check the chain of run records."""
    if not read_chain():
        raise NotCheckableError("this workspace has no run records")
    for problem in verify_chain():
        yield Break("run records", "an unbroken chain", problem)


def recorded(data: Path) -> Iterator[Break]:
    """Look for the run that made each folder."""
    if not read_chain():
        raise NotCheckableError("this workspace has no run records")
    unknown = []
    for folder in sorted(path.parent for path in data.glob(f"*/{MANIFEST_NAME}")):
        if latest_record(folder.name, sha256_file(folder / MANIFEST_NAME)) is None:
            unknown.append(folder.name)
    for stage in unknown:
        where = f"{data}/{stage}/{MANIFEST_NAME}"
        yield Break(where, "a manifest that a run record names", "one made elsewhere, or changed")


def warc_digests(data: Path) -> Iterator[Break]:
    """Compute block and payload digests of every record again, and count the records."""
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    crawl = read_manifest(data / "crawl")
    files = _warc_files(crawl)
    answers = 0
    for name in files:
        with (data / "crawl" / name).open("rb") as stream:
            for record in ArchiveIterator(stream, parse_http=False):
                where = f"{data}/crawl/{name}, record {record.record_id}"
                answers += record.record_type in (WarcRecordType.response, WarcRecordType.resource)
                if "WARC-Block-Digest" in record.headers and not record.verify_block_digest():
                    yield Break(where, f"block digest {record.headers['WARC-Block-Digest']}", "another")
                if "WARC-Payload-Digest" in record.headers and record.is_http and _ours(crawl):
                    record.parse_http()
                    if not record.verify_payload_digest():
                        yield Break(where, f"payload digest {record.headers['WARC-Payload-Digest']}", "another")
    if answers != (expected := read_manifest(data / "extract").counts.in_):
        yield Break(f"{data}/crawl, records of pages", str(expected), str(answers))


def texts(data: Path, sample: int) -> Iterator[Break]:
    """Extract a sample of documents from their WARC records again."""
    from tasks.contracts.document import Document
    from tasks.extract.answers import Extracted, Settings
    from tasks.extract.records import read_pages
    from tasks.extract.worker import Limits, shared_extractor

    _warc_files(read_manifest(data / "crawl"))
    asked = read_manifest(data / "extract").params
    names = ("engine", "mode", "tables", "comments", "language_by_line")
    settings: dict[str, Any] = {name: asked[name] for name in names if name in asked}
    extractor = shared_extractor(Settings(**settings), Limits(seconds=60.0, memory_mebibytes=2048))
    wanted: dict[str, dict[str, Document]] = defaultdict(dict)
    for _, document in _documents(data / "extract", sample):
        wanted[str(document.warc_path)][document.record_id] = document
    largest = asked.get("max_page_bytes", 20_000_000)
    assert isinstance(largest, int), "extract.max_page_bytes is a number"
    for warc, documents in sorted(wanted.items()):
        pages = [page for page in read_pages(data / "crawl" / warc, largest) if page.record_id in documents]
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


def tokens(data: Path, sample: int) -> Iterator[Break]:
    """Encode a sample of the mixture's documents again and compare with every copy in the token shards."""
    import numpy as np

    from tasks.contracts.tokens import read_index, read_tokens_info
    from tasks.tokenization.byte_level import load_tokenizer

    info, tokenizer = read_tokens_info(data / "tokenize"), load_tokenizer(data / "tokenizer")
    by_part = defaultdict(list)
    for part, document in _documents(data / "mix", sample):
        by_part[part].append(document)
    for part, documents in sorted(by_part.items()):
        shard = (data / "tokenize" / part).with_suffix(".bin")
        ids = np.memmap(shard, np.dtype(info.dtype).newbyteorder("<"), "r")
        places = defaultdict(list)
        for one in read_index(shard.with_suffix(".parquet")):
            places[one.doc_id].append(one)
        for document in documents:
            again = [*tokenizer.encode(document.text, add_special_tokens=False).ids, info.eos_id]
            copies = int(document.scores.get("mix.epochs", 1))
            if len(places[document.doc_id]) != copies:
                found = str(len(places[document.doc_id]))
                yield Break(f"document {document.doc_id}, copies in {shard}", str(copies), found)
            for one in places[document.doc_id]:
                if ids[one.offset : one.offset + one.length].tolist() != again:
                    yield Break(f"{shard}, token {one.offset}", f"the tokens of document {document.doc_id}", "others")


def batches(data: Path, sample: int) -> Iterator[Break]:
    """Put together a sample of steps' batches again and compare with the hashes that the trainer wrote."""
    import pyarrow.parquet as pq

    from tasks.contracts.tokens import read_tokens_info
    from training.order import Order, TokenStream, read_packing

    order = Order.model_validate_json((data / "train" / "order.json").read_bytes())
    if order.tokenize_manifest != (found := sha256_file(data / "tokenize" / MANIFEST_NAME)):
        yield Break(f"{data}/train/order.json, tokenize_manifest", order.tokenize_manifest, found)
    packing = read_packing(data / "tokenize", order.shards, order.seq_len)
    stream = TokenStream(data / "tokenize", order.shards, order.dtype)
    eos = read_tokens_info(data / "tokenize").eos_id
    steps = pq.read_table(data / "train" / "steps.parquet").to_pylist()
    if len(steps) != order.steps * order.ranks:
        yield Break(f"{data}/train/steps.parquet, rows", str(order.steps * order.ranks), str(len(steps)))
    for row in _some(steps, sample):
        rows = packing.rows(order.sequences_at(row["step"], row["rank"]), stream, eos)
        again = hashlib.sha256(rows.tokens.tobytes()).hexdigest()
        if again != row["batch_sha256"]:
            yield Break(f"step {row['step']} of rank {row['rank']}, batch", row["batch_sha256"], again)


def _guarded(check: Callable[[], Iterator[Break]], ours: bool) -> Iterator[Break]:
    """Turn an error that says what is wrong with a file into a break."""
    if not ours:
        raise NotCheckableError("data/ holds another release than this one")
    try:
        yield from check()
    except HeadwaterError as error:
        yield Break(error.where or "workspace", error.expected or "what can be read", error.found or error.problem)


def _same_release(release: Path, data: Path) -> bool:
    current = data / "release"
    return release.resolve() == current.resolve() or (
        (current / MANIFEST_NAME).is_file()
        and sha256_file(release / MANIFEST_NAME) == sha256_file(current / MANIFEST_NAME)
    )


def _stages(release: Path) -> list[str]:
    return sorted(path.stem for path in (release / "manifests").glob("*.json"))


def _ours(crawl: Manifest) -> bool:
    return crawl.params.get("source") in OWN_CRAWLS


def _warc_files(crawl: Manifest) -> list[str]:
    names = [s.name for s in crawl.shards if s.name.startswith("part-") and s.name.endswith(".warc.gz")]
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


def _some(items: Sequence[Item], most: int) -> list[Item]:
    return random.Random(SEED).sample(items, min(most, len(items)))


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:197]}..."
