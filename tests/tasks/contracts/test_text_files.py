"""Files of text and JSON that people bring, or servers send, broken in every way: one error that names it."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from tasks.contracts.errors import InputError
from tasks.contracts.text_files import json_value
from tasks.decontaminate.protected_items import benchmark_texts
from tasks.filter.classifier import read_texts
from tasks.perplexity.reference import _file_lines

TEXT = b'{"text": "A line of some words."}\n' * 2000
NESTED = b'{"text": ' + b"[" * 200_000
READERS: dict[str, Callable[[Path], object]] = {
    "reference": lambda path: list(_file_lines(str(path))),
    "classifier": lambda path: list(read_texts(path)),
    "benchmark": lambda path: list(benchmark_texts(path)),
}


def broken(packed: bytes) -> bytes:
    return packed[: len(packed) // 2] + b"\xff" * 9 + packed[len(packed) // 2 :]


PLAIN = {"nested.jsonl": NESTED, "nested-array.jsonl": b"[" * 200_000, "none.jsonl": b"{", "odd.jsonl": b"[1, 2]"}
GZIP = {
    "damaged.jsonl.gz": broken(gzip.compress(TEXT, mtime=0)),
    "cut.jsonl.gz": gzip.compress(TEXT, mtime=0)[:-20],
    "other.jsonl.gz": b"x",
}
OTHERS = {
    "damaged.jsonl.xz": broken(lzma.compress(TEXT)),
    "cut.jsonl.xz": lzma.compress(TEXT)[:-20],
    "damaged.jsonl.bz2": broken(bz2.compress(TEXT)),
    "damaged.jsonl.zst": broken(zstandard.compress(TEXT)),
}


@pytest.mark.parametrize(
    ("reader", "name", "content"),
    [
        *((reader, name, content) for reader in READERS for name, content in PLAIN.items()),
        *(("classifier", name, content) for name, content in GZIP.items()),
        *(("reference", name, content) for name, content in {**GZIP, **OTHERS}.items()),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_broken_file_is_an_error_that_names_it(tmp_path: Path, reader: str, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as error:
        READERS[reader](tmp_path / name)
    assert name in str(error.value)


def test_json_that_goes_too_deep_is_no_json() -> None:
    assert json_value(b'{"a": [1]}') == {"a": [1]}
    for content in (NESTED, b"[" * 200_000 + b"]" * 200_000, b'{"a":' * 200_000):
        with pytest.raises(ValueError, match=r"nested|delimiter|Expecting"):
            json_value(content)
