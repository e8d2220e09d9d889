"""Text files that are cut, damaged, put together or hold odd values: each row is a document or in the ledger."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from tasks.contracts.document import Document, read_documents
from tasks.contracts.ledger import LedgerRow, read_ledger
from tasks.contracts.manifest import Counts
from tasks.crawl.texts import Columns, take_texts

Pack = Callable[[bytes], bytes]
LINES = [
    json.dumps({"text": f"Line {n} says {Random(n).getrandbits(200):x}.", "id": f"id-{n}"}).encode() + b"\n"
    for n in range(1500)
]
CONTENT = b"".join(LINES)


def take(folder: Path, **files: bytes) -> tuple[Counts, list[Document], list[LedgerRow]]:
    paths = []
    for name, content in files.items():
        paths.append(folder / name)
        paths[-1].write_bytes(content)
    output = folder / "out"
    counts, _ = take_texts([str(path) for path in paths], columns=Columns(), megabytes=1, output=output)
    documents = [one for part in sorted(output.glob("part-*")) for one in read_documents(part)]
    rows = list(read_ledger(output / "dropped" / "part-00000.parquet"))
    assert counts.in_ == counts.out + len(rows) == len(documents) + len(rows)
    return counts, documents, rows


def in_pieces(pack: Pack) -> Pack:
    return lambda content: b"".join(pack(content[at : at + 4000]) for at in range(0, len(content), 4000))


PACKINGS: dict[str, Pack] = {
    "gzip": gzip.compress,
    "gzip members": in_pieces(gzip.compress),
    "zstd": zstandard.ZstdCompressor(write_checksum=True).compress,
    "zstd frames": in_pieces(zstandard.ZstdCompressor().compress),
}


def readable(packed: bytes, name: str) -> bytes:
    """Return what comes out of compressed bytes, fed one by one, before the first that cannot be read."""
    zstd = name.startswith("zstd")
    new = (lambda: zstandard.ZstdDecompressor().decompressobj()) if zstd else (lambda: zlib.decompressobj(31))
    decoder, content = new(), b""
    for at in range(len(packed)):
        if decoder.eof:
            decoder = new()
        try:
            content += decoder.decompress(packed[at : at + 1])
        except (zlib.error, zstandard.ZstdError):
            break
    return content


@pytest.mark.parametrize("share", [0.02, 0.5, 0.9, 0.9999])
@pytest.mark.parametrize("name", PACKINGS)
def test_a_file_that_was_cut_gives_the_rows_before_the_cut_and_says_that_there_were_more(
    tmp_path: Path, name: str, share: float
) -> None:
    packed = PACKINGS[name](CONTENT)
    packed = packed[: int(len(packed) * share)]
    _, documents, rows = take(tmp_path, cut=packed, whole=b'{"text": "another file"}\n')
    whole = readable(packed, name).count(b"\n")
    assert [one.record_id for one in documents[:-1]] == [f"id-{n}" for n in range(whole)]
    assert documents[-1].text == "another file"
    [row] = rows
    assert f"cut, row {whole}: the compressed file cannot be read further" in (row.detail or "")


@pytest.mark.parametrize("name", ["gzip", "zstd"])
def test_damage_costs_what_stands_behind_it_and_little_before(tmp_path: Path, name: str) -> None:
    packed = bytearray(PACKINGS[name](CONTENT))
    for at in (len(packed) // 2, len(packed) - 6):
        changed = packed.copy()
        changed[at] ^= 0xFF
        _, documents, rows = take(tmp_path, damaged=bytes(changed))
        found = readable(bytes(changed), name).splitlines(keepends=True)
        good = next((n for n, line in enumerate(found) if line != LINES[n]), len(found))
        kept = next((n for n, one in enumerate(documents) if one.record_id != f"id-{n}"), len(documents))
        assert kept >= good - 50, "the compressed bytes that are read at once hold fewer"
        assert "the compressed file cannot be read further" in (rows[-1].detail or "")


JOINED: dict[str, tuple[bytes, list[str], list[str]]] = {
    "gzip, then zstd": (gzip.compress(b'{"text": "a"}\n') + zstandard.compress(b'{"text": "b"}\n'), ["a", "b"], []),
    "zstd, then gzip": (zstandard.compress(b'{"text": "a"}') + gzip.compress(b'\n{"text": "b"}'), ["a", "b"], []),
    "gzip, then plain": (gzip.compress(b'{"text": "a"}\n') + b'{"text": "b"}\n', ["a", "b"], []),
    "a skippable frame first": (b"\x50\x2a\x4d\x18\4\0\0\0skip" + zstandard.compress(b'{"text": "a"}\n'), ["a"], []),
    "zeros behind": (gzip.compress(b'{"text": "a"}\n') + b"\0" * 512, ["a"], []),
    "something else behind": (gzip.compress(b'{"text": "a"}\n') + b"garbage", ["a"], ["not JSON"]),
    "nothing in a member": (gzip.compress(b"") + gzip.compress(b'{"text": "a"}\n'), ["a"], []),
}  # fmt: skip


@pytest.mark.parametrize("name", JOINED)
def test_files_put_behind_each_other_are_read_throughout(tmp_path: Path, name: str) -> None:
    content, texts, said = JOINED[name]
    _, documents, rows = take(tmp_path, joined=content)
    assert [one.text for one in documents] == texts
    assert len(rows) == len(said)
    assert all(words in (row.detail or "") for words, row in zip(said, rows, strict=True))


def strings(values: Sequence[bytes]) -> pa.Array:
    """Return a column of strings that nobody checked to be UTF-8, as other writers leave them."""
    binary = pa.array(values, pa.binary())
    return pa.Array.from_buffers(pa.string(), len(binary), binary.buffers())


ROWS = 3000
ODD_AT = 1500
FAR = 2**62
UNUSED: dict[str, pa.Array] = {
    "no UTF-8": strings([b"x"] * ODD_AT + [b"\xff"] + [b"x"] * (ROWS - ODD_AT - 1)),
    "a day out of the calendar": pa.array([0] * ODD_AT + [2**30] + [0] * (ROWS - ODD_AT - 1), pa.date32()),
    "an hour out of the calendar": pa.array([0] * ODD_AT + [FAR] + [0] * (ROWS - ODD_AT - 1), pa.timestamp("us")),
    "a time zone of nowhere": pa.array([0] * ROWS, pa.timestamp("us", tz="Nowhere/Land")),
}


@pytest.mark.parametrize("column", ["other", "date", "title", "id"])
@pytest.mark.parametrize("name", UNUSED)
def test_an_odd_value_beside_the_text_costs_no_document(tmp_path: Path, name: str, column: str) -> None:
    stream = io.BytesIO()
    pq.write_table(pa.table({"text": [f"text {n}" for n in range(ROWS)], column: UNUSED[name]}), stream)
    _, documents, rows = take(tmp_path, odd=stream.getvalue())
    assert [one.text for one in documents] == [f"text {n}" for n in range(ROWS)]
    assert not rows


def test_a_text_that_is_none_costs_its_own_row(tmp_path: Path) -> None:
    stream = io.BytesIO()
    texts = [f"text {n}".encode() for n in range(ROWS)]
    texts[ODD_AT] = b"\xff\xfe"
    pq.write_table(pa.table({"text": strings(texts), "url": ["http://a.example/"] * ROWS}), stream)
    _, documents, rows = take(tmp_path, odd=stream.getvalue())
    assert len(documents) == ROWS - 1
    [row] = rows
    assert (row.detail or "").startswith(f"odd, row {ODD_AT}: text cannot be read: ")
