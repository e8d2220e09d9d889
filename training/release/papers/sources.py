"""Where the training text is from: its documents, bytes and tokens by host, domain, language, licence and signal.

One pass over the mixture's small columns. The text itself is not read: the index of the token shards has the size of
every document, repeated copies included, so shares here are shares of what the model is trained on.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import tldextract

from tasks.contracts.errors import InputError

COLUMNS = ("doc_id", "host", "language", "license", "source", "opt_out", "captured_at")
GROUPS = ("host", "language", "license", "source", "opt_out")
NOT_STATED = "not stated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """One part of the training text. Bytes (UTF-8) and tokens count a repeated document as often as it is used."""

    name: str
    documents: int
    bytes: int
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """The training text by where it is from; every tuple has the most tokens first.

    Attributes:
        domains: registered domains, by the public suffix list.
        opt_outs: signals that the pages carried and that the policy let stand.
        first_captured, last_captured: when the earliest and the latest of the pages were fetched, RFC 3339 in UTC.
    """

    total: Share
    hosts: tuple[Share, ...]
    domains: tuple[Share, ...]
    languages: tuple[Share, ...]
    licenses: tuple[Share, ...]
    sources: tuple[Share, ...]
    opt_outs: tuple[Share, ...]
    first_captured: str | None
    last_captured: str | None


def read_sources(parts: Sequence[tuple[Path, Path]]) -> Sources:
    """Read the mixture's shards, each with the index of its token shard.

    Raises:
        InputError: a document has no tokens, or tokens have no document.
    """
    sums: dict[str, dict[str, list[int]]] = {column: {} for column in GROUPS}
    captured: list[str] = []
    for documents, index in parts:
        table = _sized(documents, index)
        for column in GROUPS:
            _add(sums[column], table, column)
        dates = pc.min_max(table["captured_at"])
        captured += [value.as_py() for value in (dates["min"], dates["max"]) if value.is_valid]
    by = {column: _ranked(found) for column, found in sums.items()}
    domains: dict[str, list[int]] = {}
    for host in by["host"]:
        _count(domains, registered_domain(host.name), (host.documents, host.bytes, host.tokens))
    whole = [0, 0, 0]
    for share in by["host"]:
        whole = [whole[0] + share.documents, whole[1] + share.bytes, whole[2] + share.tokens]
    return Sources(
        total=Share(name="all", documents=whole[0], bytes=whole[1], tokens=whole[2]),
        hosts=by["host"],
        domains=_ranked(domains),
        languages=by["language"],
        licenses=by["license"],
        sources=by["source"],
        opt_outs=tuple(share for share in by["opt_out"] if share.name),
        first_captured=min(captured, default=None),
        last_captured=max(captured, default=None),
    )


def sources_json(sources: Sources) -> bytes:
    """Return sources.json: all of it for programs, where the papers for people show the largest."""
    return json.dumps(asdict(sources), indent=1, ensure_ascii=False).encode() + b"\n"


def _sized(documents: Path, index: Path) -> pa.Table:
    """Return a shard's small columns with the tokens and bytes of each document, summed over its copies."""
    table = pq.read_table(documents, columns=list(COLUMNS))
    signals = pc.binary_join(table["opt_out"].cast(pa.list_(pa.string())), ", ")
    table = table.set_column(table.schema.get_field_index("opt_out"), "opt_out", signals)
    sizes = pq.read_table(index, columns=["doc_id", "length", "bytes"])
    sizes = sizes.group_by("doc_id").aggregate([("length", "sum"), ("bytes", "sum")])
    joined = table.join(sizes, "doc_id", join_type="full outer")
    if joined["host"].null_count or joined["length_sum"].null_count:
        raise InputError(
            "a token shard is not of the documents of its part",
            where=str(index),
            expected=f"tokens of each of the {table.num_rows} documents of data/mix, and no others",
            found=f"{joined['length_sum'].null_count} documents without tokens, "
            f"tokens of {joined['host'].null_count} other documents",
            fix="run tokenize again: `headwater run --force tokenize`",
        )
    return joined


def _add(sums: dict[str, list[int]], table: pa.Table, column: str) -> None:
    sizes = [("doc_id", "count"), ("bytes_sum", "sum"), ("length_sum", "sum")]
    found = table.group_by(column).aggregate(sizes)
    rows = (found[name].to_pylist() for name in ("doc_id_count", "bytes_sum_sum", "length_sum_sum"))
    for name, *numbers in zip(found[column].to_pylist(), *rows, strict=True):
        _count(sums, NOT_STATED if name is None else name, numbers)


def _count(sums: dict[str, list[int]], name: str, numbers: Iterable[int]) -> None:
    sums[name] = [a + b for a, b in zip(sums.get(name, [0, 0, 0]), numbers, strict=True)]


def _ranked(sums: dict[str, list[int]]) -> tuple[Share, ...]:
    shares = [Share(name=name, documents=row[0], bytes=row[1], tokens=row[2]) for name, row in sums.items()]
    return tuple(sorted(shares, key=lambda share: (-share.tokens, share.name)))


@cache
def _suffixes() -> tldextract.TLDExtract:
    # The list that the pinned library brings along: no download, no cache, the same answer everywhere.
    return tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)


def registered_domain(host: str) -> str:
    """Return the domain that was registered, by the public suffix list; a name under no known suffix keeps two labels.

    >>> registered_domain("docs.museum.example.co.uk"), registered_domain("a.sample.example"), registered_domain("::1")
    ('example.co.uk', 'sample.example', '::1')
    """
    found = _suffixes()(host)
    if found.suffix and found.domain:
        return f"{found.domain}.{found.suffix}"
    labels = host.split(".")
    named = len(labels) > 2 and not labels[-1].isdigit()
    return ".".join(labels[-2:]) if named else host
