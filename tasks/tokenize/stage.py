"""tokenize: documents to token shards that training maps into memory, with an index back to each document.

Part k of the mixture gives part-k.bin and part-k.parquet. Each document is followed by the end-of-sequence id.
A part holds pass 1 (every document once), then pass 2 (those with mix.epochs ≥ 2), and so on: the copies' order
is per part, so that a part is made without the others. Held-out documents become `validation.bin`, and never
stand in a training shard. Read `tasks.contracts.tokens` for the layout.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path

import numpy as np
from pydantic import Field
from tokenizers import Tokenizer

from tasks.contracts.base import StageParams, not_identity
from tasks.contracts.document import Document, read_documents
from tasks.contracts.durable_files import atomic_path, sha256_file, write_json
from tasks.contracts.errors import CorpusTooSmallError
from tasks.contracts.files import HELD_OUT_FOLDER, PARQUET_PARTS, TOKENIZER_NAME, TOKENS_NAME, VALIDATION_NAME
from tasks.contracts.manifest import Counts, Manifest
from tasks.contracts.tokenizer_files import EOS, load_tokenizer
from tasks.contracts.tokens import (
    WIDTHS,
    Dtype,
    TokenRange,
    TokenShard,
    TokensInfo,
    index_name,
    read_index,
    smallest_dtype,
    write_index,
)
from tasks.engine.shards import ShardWork
from tasks.engine.stage import Stage

logger = logging.getLogger(__name__)

STAGE = "tokenize"
DOES = "turns text into tokens"
EPOCHS = "mix.epochs"


class Params(StageParams):
    """The `tokenize` section of params.yaml."""

    batch_documents: int = not_identity(64, ge=1)
    """Documents encoded at a time."""
    max_validation_documents: int = Field(2000, ge=1)
    """Most held-out documents in the validation shard, in their order."""


def run(*, params: Params, inputs: Mapping[str, Path], output: Path) -> Manifest:
    """Encode `inputs["mix"]` and `inputs["holdout"]`'s held-out documents by `inputs["tokenizer"]`.

    Raises:
        CorpusTooSmallError: there is no document to train on, or none to validate on.
    """
    stage = Stage(name=STAGE, unit="documents", params=params, inputs=inputs, output=output, libraries=("tokenizers",))
    tokenizer = load_tokenizer(inputs["tokenizer"])
    dtype = smallest_dtype(tokenizer.get_vocab_size())
    shared = {"tokenizer": inputs["tokenizer"] / TOKENIZER_NAME}
    function = partial(_tokenize_shard, tokenizer_folder=inputs["tokenizer"], batch=params.batch_documents)
    made = stage.map(function, stage.work("mix"), params={"dtype": dtype}, shared=shared)
    if not made.counts.out:
        raise CorpusTooSmallError(
            "there is no document to train on",
            where=str(inputs["mix"]),
            expected="at least one document",
            found="none",
            fix="loosen the filters or the mixture (data/*/dropped says what they removed), or crawl more pages",
        )
    held = islice(_held_out(inputs["holdout"]), params.max_validation_documents)
    validation = write_token_shard(
        output / VALIDATION_NAME, held, tokenizer=tokenizer, dtype=dtype, batch=params.batch_documents, repeat=False
    )
    if not validation:
        raise CorpusTooSmallError(
            "there is no held-out document to validate on",
            where=str(inputs["holdout"]),
            expected="at least one document",
            found="none",
            fix="raise holdout.fraction",
        )
    info = describe(output, tokenizer)
    logger.info("tokenize: %d tokens of %d bytes, %s", info.tokens, info.bytes, dtype)
    write_json(output / TOKENS_NAME, info.model_dump(mode="json"))
    return stage.commit(made)


def describe(folder: Path, tokenizer: Tokenizer) -> TokensInfo:
    """Return what tokens.json says of a folder's shards: counted from the shards and their indices."""
    dtype = smallest_dtype(tokenizer.get_vocab_size())
    tokens = {path.name: path.stat().st_size // WIDTHS[dtype] for path in sorted(folder.glob("*.bin"))}
    validation_tokens = tokens.pop(VALIDATION_NAME)
    documents = bytes_ = 0
    for name in tokens:
        for one in read_index(folder / index_name(name)):
            documents += one.epoch == 1
            bytes_ += one.bytes
    return TokensInfo(
        dtype=dtype,
        vocab_size=tokenizer.get_vocab_size(),
        eos_id=tokenizer.token_to_id(EOS),
        tokens=sum(tokens.values()),
        shards=tuple(TokenShard(name=name, tokens=count) for name, count in tokens.items()),
        documents=documents,
        bytes=bytes_,
        validation_tokens=validation_tokens,
        validation_bytes=sum(one.bytes for one in read_index(folder / index_name(VALIDATION_NAME))),
    )


def write_token_shard(
    path: Path, documents: Iterable[Document], *, tokenizer: Tokenizer, dtype: Dtype, batch: int, repeat: bool = True
) -> int:
    """Write one shard and its index; return how many documents there were.

    Args:
        repeat: write a document with `mix.epochs` = n n times, else once.
    """
    type_ = np.dtype(dtype).newbyteorder("<")
    eos = np.array([tokenizer.token_to_id(EOS)], type_).tobytes()
    ranges: list[TokenRange] = []
    again: list[tuple[TokenRange, int, bytes]] = []
    offset = count = 0
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        for document, ids in _encode(documents, tokenizer, batch):
            content = np.array(ids, type_).tobytes() + eos
            one = TokenRange(
                doc_id=document.doc_id,
                url=document.url,
                epoch=1,
                offset=offset,
                length=len(ids) + 1,
                bytes=len(document.text.encode()),
            )
            ranges.append(one)
            stream.write(content)
            offset += one.length
            count += 1
            epochs = int(document.scores.get(EPOCHS, 1)) if repeat else 1
            if epochs > 1:
                again.append((one, epochs, content))
        epoch = 2
        while again := [entry for entry in again if entry[1] >= epoch]:
            for one, _, content in again:
                ranges.append(
                    TokenRange(
                        doc_id=one.doc_id, url=one.url, epoch=epoch, offset=offset, length=one.length, bytes=one.bytes
                    )
                )
                stream.write(content)
                offset += one.length
            epoch += 1
    write_index(path.with_name(index_name(path.name)), ranges)
    return count


def _encode(documents: Iterable[Document], tokenizer: Tokenizer, batch: int) -> Iterator[tuple[Document, list[int]]]:
    iterator = iter(documents)
    while some := list(islice(iterator, batch)):
        encodings = tokenizer.encode_batch_fast([document.text for document in some], add_special_tokens=False)
        yield from zip(some, (encoding.ids for encoding in encodings), strict=True)


def _tokenize_shard(work: ShardWork, folder: Path, *, tokenizer_folder: Path, batch: int) -> Counts:
    # Shards are spread by Ray; the library's own threads on top would only fight over the same processors.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    path = tokenizer_folder / TOKENIZER_NAME
    tokenizer = _loaded(tokenizer_folder, sha256_file(path))
    dtype = smallest_dtype(tokenizer.get_vocab_size())
    count = write_token_shard(
        folder / f"{work.name}.bin",
        read_documents(work.inputs[0]),
        tokenizer=tokenizer,
        dtype=dtype,
        batch=batch,
    )
    return Counts(in_=count, out=count)


@lru_cache(maxsize=1)
def _loaded(folder: Path, _content: str) -> Tokenizer:
    return load_tokenizer(folder)


def _held_out(folder: Path) -> Iterator[Document]:
    for path in sorted((folder / HELD_OUT_FOLDER).glob(PARQUET_PARTS)):
        yield from read_documents(path)
