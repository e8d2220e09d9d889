"""Token shards: the files that `tokenize` writes and `training` reads.

A shard `part-00000.bin` is nothing but token ids, little-endian, of the width that `tokens.json` names, so that
a reader maps it into memory. Its index `part-00000.parquet` says which document each range is from. Documents
stand back to back, each ended by one end-of-sequence id (which belongs to the document's range): pass 1 holds
every document of the shard once, in order; pass 2 those whose `mix.epochs` is 2 or more, in order; and so on.
So the ranges of an index cover its shard without a gap, and `epoch` never falls.

    numpy.memmap(folder / shard.name, dtype=numpy.dtype(tokens.dtype).newbyteorder("<"), mode="r")
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa
from pydantic import Field, ValidationError

from tasks.contracts.base import FrozenModel
from tasks.contracts.document import read_rows, write_rows
from tasks.contracts.errors import ManifestError
from tasks.contracts.files import TOKENS_NAME, VALIDATION_NAME

LARGEST_UINT16_VOCABULARY = 1 << 16

Dtype = Literal["uint16", "uint32"]
WIDTHS: Mapping[Dtype, int] = {"uint16": 2, "uint32": 4}
"""Bytes that one token id takes in a shard."""

INDEX_SCHEMA = pa.schema(
    [
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("url", pa.string(), nullable=False),
        pa.field("epoch", pa.int32(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("length", pa.int64(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRange:
    """Where one copy of a document stands in a token shard.

    Attributes:
        epoch: 1 for the document's first copy in the training set, 2 for its second …
        offset: its first token, counted in tokens from the shard's start.
        length: its tokens, the end-of-sequence id included.
        bytes: its text's UTF-8 bytes.
    """

    doc_id: str
    url: str
    epoch: int
    offset: int
    length: int
    bytes: int


class TokenShard(FrozenModel):
    """One training shard."""

    name: str
    """File name inside the folder, "part-00000.bin"; its index is the same name with ".parquet"."""
    tokens: int = Field(ge=0)
    """How many token ids it holds."""


class TokensInfo(FrozenModel):
    """`tokens.json`: how to read the folder's `.bin` files, and how much is in them."""

    dtype: Dtype
    """Type of one token id, little-endian; "uint16" where the vocabulary allows."""
    vocab_size: int = Field(ge=1)
    """Number of ids of the tokenizer, special tokens included: every id is below it."""
    eos_id: int = Field(ge=0)
    """The id that ends every document."""
    tokens: int = Field(ge=0)
    """Training tokens over all shards, repeated copies included."""
    shards: tuple[TokenShard, ...]
    """The training shards, in order; an empty one has 0 tokens and a `.bin` of 0 bytes."""
    documents: int = Field(ge=0)
    """Training documents, each counted once."""
    bytes: int = Field(ge=0)
    """UTF-8 bytes of the training texts, repeated copies included."""
    validation_tokens: int = Field(ge=0)
    """Tokens in `validation.bin`, made from the held-out documents."""
    validation_bytes: int = Field(ge=0)
    """UTF-8 bytes of the held-out texts."""


def smallest_dtype(vocab_size: int) -> Dtype:
    """Return the narrowest type that holds every id below `vocab_size`.

    >>> smallest_dtype(65536), smallest_dtype(65537)
    ('uint16', 'uint32')
    """
    return "uint16" if vocab_size <= LARGEST_UINT16_VOCABULARY else "uint32"


def read_tokens_info(folder: Path) -> TokensInfo:
    """Read a tokenised folder's `tokens.json` and check that each `.bin` has the size it says.

    Raises:
        ManifestError: the file is missing or of another form, or a shard's size does not match it.
    """
    path = folder / TOKENS_NAME
    try:
        info = TokensInfo.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise ManifestError(
            "there are no token shards here",
            where=str(folder),
            expected=TOKENS_NAME,
            fix="run the stage tokenize, or `dvc checkout` if it was made already",
        ) from error
    except ValidationError as error:
        raise ManifestError(
            "the description of the token shards cannot be read",
            where=str(path),
            found=str(error).splitlines()[0],
            fix="run the stage tokenize again",
        ) from error
    sizes = {shard.name: shard.tokens for shard in info.shards} | {VALIDATION_NAME: info.validation_tokens}
    for name, tokens in sizes.items():
        found = (folder / name).stat().st_size if (folder / name).is_file() else None
        if found != tokens * WIDTHS[info.dtype]:
            raise ManifestError(
                "a token shard is missing or has another size than described",
                where=str(folder / name),
                expected=f"{tokens * WIDTHS[info.dtype]} bytes ({tokens} tokens, {info.dtype})",
                found="no file" if found is None else f"{found} bytes",
                fix="`dvc checkout` restores it, or run the stage tokenize again",
            )
    return info


def index_name(shard_name: str) -> str:
    """Return the name of a token shard's index.

    >>> index_name("part-00000.bin")
    'part-00000.parquet'
    """
    return Path(shard_name).with_suffix(".parquet").name


def write_index(path: Path, ranges: Iterable[TokenRange]) -> int:
    """Write a token shard's index, in order of offset, and return how many ranges there were."""
    return write_rows(path, (asdict(one) for one in ranges), INDEX_SCHEMA)


def read_index(path: Path) -> Iterator[TokenRange]:
    """Yield the ranges of a token shard, in order of offset."""
    return (TokenRange(**row) for row in read_rows(path, INDEX_SCHEMA))
