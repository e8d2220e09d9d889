"""Folders as the stages tokenize and tokenizer leave them, for training runs that are over in seconds."""

from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from tasks.contracts.durable_files import write_json
from tasks.contracts.manifest import Counts, commit_manifest
from tasks.contracts.tokens import TokenRange, TokenShard, TokensInfo, write_index
from tasks.tokenizer.byte_level import save_tokenizer, train_tokenizer
from training.train.loop import VALIDATION_SEED
from training.train.order import permute
from training.train.packing import IGNORED, TokenStream, read_packing


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
    learnt = train_tokenizer(["some text of few words", "some words more"] * 9, vocab_size=270)
    save_tokenizer(learnt, tokenizer)
    for folder in (tokenize, tokenizer):
        none = Counts(in_=0, out=0)
        commit_manifest(folder, stage=folder.name, unit="tokens", params={}, inputs={}, counts=none)


def held_out_loss(model: Path, tokenize: Path, seq_len: int, number: int, *, masked: bool = False) -> float:
    """Return the mean loss, in nats a target, of a saved model on the held-out text that training measures."""
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype="auto").eval()
    size = (tokenize / "validation.bin").stat().st_size // 2
    shards = (TokenShard(name="validation.bin", tokens=size),)
    packing, stream = read_packing(tokenize, shards, seq_len), TokenStream(tokenize, shards, "uint16")
    number = min(number, packing.sequences)
    drawn = permute(np.arange(number, dtype=np.uint64), packing.sequences, VALIDATION_SEED, 0).tolist()
    rows = packing.rows(drawn, stream, eos_id=0)
    tokens, targets, positions = (
        torch.from_numpy(array.astype(np.int64)) for array in (rows.tokens, rows.targets, rows.positions)
    )
    with torch.no_grad():
        # With a cache transformers takes no notice of documents that begin within a sequence.
        logits = [
            loaded(one[None, :-1], position_ids=at[None] if masked else None, use_cache=False).logits.float()
            for one, at in zip(tokens, positions, strict=True)
        ]
    flat = torch.cat(logits).flatten(0, 1)
    return float(torch.nn.functional.cross_entropy(flat, targets.flatten(), ignore_index=IGNORED))
