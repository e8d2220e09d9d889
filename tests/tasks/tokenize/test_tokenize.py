"""tokenize: every token of a shard leads back to its document, and decodes to its text."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from tasks.contracts.document import Document, write_documents
from tasks.contracts.errors import CorpusTooSmallError
from tasks.contracts.manifest import read_manifest
from tasks.contracts.tokenizer_files import load_tokenizer
from tasks.contracts.tokens import read_index, read_tokens_info
from tasks.tokenize.stage import Params, run, write_token_shard
from tasks.tokenizer import stage as tokenizer
from tests.corpus import corpus, document, prose, write_stage

HELD = [document(prose(1000 + i), name=f"held-{i}") for i in range(3)]


@pytest.fixture(autouse=True)
def _workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADWATER_STATE", str(tmp_path / "state"))


def prepare(parts: list[list[Document]], held: list[Document] = HELD) -> dict[str, Path]:
    write_stage(Path("mix"), parts)
    tokenizer.run(params=tokenizer.Params(vocab_size=500), inputs={"mix": Path("mix")}, output=Path("tokenizer"))
    write_documents(Path("holdout/heldout/part-00000.parquet"), held)
    write_stage(Path("holdout"), [[]])
    return {name: Path(name) for name in ("mix", "tokenizer", "holdout")}


def with_epochs(parts: list[list[Document]]) -> list[list[Document]]:
    return [[d.with_scores({"mix.epochs": 1 + i % 3}) for i, d in enumerate(part)] for part in parts]


def ids_of(name: str) -> np.ndarray:
    info = read_tokens_info(Path("out"))
    return np.fromfile(Path("out") / name, dtype=np.dtype(info.dtype).newbyteorder("<"))


def test_each_range_decodes_to_its_document_and_ends_with_eos() -> None:
    parts = with_epochs(corpus(20))
    run(params=Params(), inputs=prepare(parts), output=Path("out"))
    info = read_tokens_info(Path("out"))
    reader = load_tokenizer(Path("tokenizer"))
    texts = {d.doc_id: d.text for part in parts for d in part}
    for k, shard in enumerate(info.shards):
        ids, end, epoch = ids_of(shard.name), 0, 1
        ranges = list(read_index(Path("out") / f"part-{k:05d}.parquet"))
        for one in ranges:
            assert one.offset == end
            assert one.epoch >= epoch
            end, epoch = one.offset + one.length, one.epoch
            assert ids[end - 1] == info.eos_id
            assert reader.decode(ids[one.offset : end - 1].tolist()) == texts[one.doc_id]
            assert one.bytes == len(texts[one.doc_id].encode())
        assert end == shard.tokens == len(ids)
        seen = [(one.doc_id, one.epoch) for one in ranges]
        assert sorted(seen) == sorted((d.doc_id, e + 1) for d in parts[k] for e in range(int(d.scores["mix.epochs"])))
        assert [one.doc_id for one in ranges if one.epoch == 1] == [d.doc_id for d in parts[k]]


def test_tokens_json_adds_up() -> None:
    parts = with_epochs(corpus(20))
    manifest = run(params=Params(), inputs=prepare(parts), output=Path("out"))
    info = read_tokens_info(Path("out"))
    assert info.tokens == sum(len(ids_of(shard.name)) for shard in info.shards)
    assert info.bytes == sum(int(d.scores["mix.epochs"]) * len(d.text.encode()) for part in parts for d in part)
    assert info.documents == 20 == manifest.counts.out
    assert info.validation_bytes == sum(len(d.text.encode()) for d in HELD)
    assert info.dtype == "uint16"
    assert info.vocab_size == 500
    assert ids_of("part-00000.bin").max() < 500


def test_validation_holds_the_held_out_documents_and_training_does_not() -> None:
    run(params=Params(), inputs=prepare(corpus(20)), output=Path("out"))
    held = [one.doc_id for one in read_index(Path("out/validation.parquet"))]
    assert held == [d.doc_id for d in HELD]
    trained = {one.doc_id for k in range(2) for one in read_index(Path(f"out/part-{k:05d}.parquet"))}
    assert not trained & set(held)


def test_text_that_looks_like_the_end_of_a_document_does_not_end_it() -> None:
    parts = [[document(f"before <|endoftext|> after {prose(i)}", name=str(i)) for i in range(20)]]
    run(params=Params(), inputs=prepare(parts), output=Path("out"))
    ids = ids_of("part-00000.bin")
    assert (ids == read_tokens_info(Path("out")).eos_id).sum() == 20


def test_batches_do_not_change_the_bytes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    inputs = prepare(with_epochs(corpus(20)))
    first = run(params=Params(batch_documents=1), inputs=inputs, output=Path("out"))
    monkeypatch.setenv("HEADWATER_STATE", str(tmp_path / "other"))
    second = run(params=Params(batch_documents=7), inputs=inputs, output=Path("out2"))
    assert first == second == read_manifest(Path("out2"))


def test_a_large_vocabulary_is_written_in_four_bytes(tmp_path: Path) -> None:
    prepare(corpus(20))
    widths: dict[Literal["uint16", "uint32"], int] = {"uint16": 2, "uint32": 4}
    for dtype, width in widths.items():
        write_token_shard(
            tmp_path / f"{dtype}.bin", HELD, tokenizer=load_tokenizer(Path("tokenizer")), dtype=dtype, batch=2
        )
        ranges = list(read_index(tmp_path / f"{dtype}.parquet"))
        assert (tmp_path / f"{dtype}.bin").stat().st_size == width * sum(one.length for one in ranges)
    wide = np.fromfile(tmp_path / "uint32.bin", "<u4")
    assert wide.tolist() == np.fromfile(tmp_path / "uint16.bin", "<u2").tolist()


def test_nothing_to_train_on_or_to_validate_on_is_an_error() -> None:
    inputs = prepare(corpus(20), held=[])
    with pytest.raises(CorpusTooSmallError, match="held-out"):
        run(params=Params(), inputs=inputs, output=Path("out"))
    write_stage(Path("empty"), [[]])
    with pytest.raises(CorpusTooSmallError, match="no document to train on"):
        run(params=Params(), inputs={**inputs, "mix": Path("empty")}, output=Path("out2"))
