"""Folders as the stages tokenize and tokenizer leave them, for training runs that are over in seconds."""

from pathlib import Path

import numpy as np

from tasks.contracts.durable_files import write_json
from tasks.contracts.manifest import Counts, commit_manifest
from tasks.contracts.tokens import TokenRange, TokenShard, TokensInfo, write_index


def make_tokens(root: Path) -> None:
    """Write both: random ids, low ones more often, in documents of 23 tokens, enough for 40 steps of 4 times 16."""
    tokenize, tokenizer = root / "tokenize", root / "tokenizer"
    tokenize.mkdir()
    tokenizer.mkdir()
    ids = np.random.Generator(np.random.PCG64(1)).geometric(0.05, 16 * 4 * 40 + 1).clip(1, 299).astype("<u2")
    ids.tofile(tokenize / "part-00000.bin")
    ends = [*range(23, len(ids), 23), len(ids)]
    write_index(
        tokenize / "part-00000.parquet",
        (
            TokenRange(doc_id=str(start), url="", epoch=1, offset=start, length=end - start, bytes=1)
            for start, end in zip([0, *ends], ends, strict=False)
        ),
    )
    ids[:200].tofile(tokenize / "validation.bin")
    write_index(
        tokenize / "validation.parquet",
        (
            TokenRange(doc_id=str(start), url="", epoch=1, offset=start, length=min(23, 200 - start), bytes=1)
            for start in range(0, 200, 23)
        ),
    )
    info = TokensInfo(
        dtype="uint16",
        vocab_size=300,
        eos_id=0,
        tokens=len(ids),
        shards=(TokenShard(name="part-00000.bin", tokens=len(ids)),),
        documents=1,
        bytes=len(ids),
        validation_tokens=200,
        validation_bytes=200,
    )
    write_json(tokenize / "tokens.json", info.model_dump(mode="json"))
    write_json(tokenizer / "tokenizer_config.json", {})
    for folder in (tokenize, tokenizer):
        none = Counts(in_=0, out=0)
        commit_manifest(folder, stage=folder.name, unit="tokens", params={}, inputs={}, counts=none)
