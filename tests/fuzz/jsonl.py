"""JSONL files of mutated lines, through the crawl: each line is a document or a ledger row, and every id is its own."""

from __future__ import annotations

import codecs
import gzip
import json
import re
from pathlib import Path
from random import Random

import zstandard

from tasks.contracts.document import read_documents
from tasks.contracts.errors import InputError
from tasks.contracts.ledger import read_ledger
from tasks.crawl.texts import AGAIN, MADE_UP, Columns, take_texts
from tests.fuzz.harness import Wrong, checked
from tests.fuzz.mutate import mutate

LINES = 1000
NAMES = ("id", "url", "source", "date", "title", "language", "language_score", "license", "metadata", "text")
ODD_VALUES: tuple[object, ...] = (
              None, 0, -1, 1e308, 10**400, True, [], {}, "", " ", "\0", "x\ny", "\u2028", "\ud800", "a" * 3000,
              {"url": {}}, f"{AGAIN}1:0:x", f"{MADE_UP}x", "http://[::1/x", "text\nid-3")  # fmt: skip


def make_line(rng: Random, number: int) -> tuple[bytes, str | None]:
    """Return a line, and the text that must come out of it; None where it may be damaged."""
    row: dict[str, object] = {"text": f"Line {number} says something.", "url": f"http://a.example/{number}"}
    kind = rng.random()
    if kind < 0.5:
        row["id"] = f"id-{number}"
    elif kind < 0.7:
        row["id"] = f"id-{rng.randrange(20)}"
    elif kind < 0.8:
        row = {"text": "The same again."}
    if rng.random() < 0.3:
        name = rng.choice(
            ("id", "url", "source", "date", "title", "language", "language_score", "license", "metadata", "text")
        )
        row[name] = rng.choice(ODD_VALUES)
    line = json.dumps(row).encode()
    if rng.random() < 0.4:
        return mutate(rng, line, rng.randrange(1, 4)), None
    text = row["text"]
    whole = isinstance(text, str) and b"\\ud800" not in line and b"0" * 300 not in line
    return line, text if whole and isinstance(text, str) else None


def batch(rng: Random, folder: Path, lines: int = LINES) -> int:
    """Read one file of lines."""
    made = [make_line(rng, number) for number in range(lines)]
    content = b"\n".join(line for line, _ in made)
    # A changed line may be two, or blank: of zeros alone, which fill up a tape, or of byte order marks alone, as they
    # stand where files were put behind each other.
    begun = (re.sub(b"^(?:%b)+" % codecs.BOM_UTF8, b"", line) for line in content.split(b"\n"))
    rows = [line for line in begun if line.strip(b"\0 \t\r\n\v\f")]
    packed = rng.choice((bytes, gzip.compress, zstandard.compress))(content)
    paths = [folder / "mutated.jsonl"]
    paths[0].write_bytes(packed)
    with checked(content):
        try:
            counts, _ = take_texts([str(p) for p in paths], columns=Columns(), megabytes=0.1, output=folder / "out")
        except InputError as error:
            raise Wrong(f"the run stopped: {error}", content) from error
        documents = [d for part in sorted((folder / "out").glob("part-*")) for d in read_documents(part)]
        ledger = list(read_ledger(folder / "out" / "dropped" / "part-00000.parquet"))
    if not counts.in_ == len(rows) == len(documents) + len(ledger):
        raise Wrong(f"{len(rows)} lines, {counts.in_} read, {len(documents)} documents, {len(ledger)} rows", content)
    if len({document.doc_id for document in documents}) != len(documents):
        raise Wrong("two documents of one id", content)
    missing = {text for _, text in made if text} - {document.text for document in documents}
    if missing:
        raise Wrong(f"whole lines gave no document: {sorted(missing)[:3]}", content)
    return lines
