"""The tokenizer: any text comes back, two runs give the same files, transformers loads it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.contracts.errors import CorpusTooSmallError, InputError
from tasks.contracts.files import sha256_file
from tasks.tokenization.byte_level import EOS, PADDING, load_tokenizer, save_tokenizer, train_tokenizer
from tasks.tokenization.tokenizer import Params, run
from tests.corpus import corpus, document, prose, write_stage

FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "metrics.json", "_manifest.json")


@pytest.fixture(autouse=True)
def _workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADWATER_STATE", str(tmp_path / "state"))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(train_tokenizer([prose(i) for i in range(20)], vocab_size=600), folder)
    return load_tokenizer(folder)


@settings(max_examples=100, deadline=None)
@given(text=st.text())
def test_any_text_comes_back(tokenizer, text):
    ids = tokenizer.encode(text).ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == text


@pytest.mark.parametrize(
    "text", [f"a {EOS} b", PADDING, "naïve 東京 ไทย 👩‍👩‍👧 \x00\r\n\t", "x" * 5000, "1234567 don't  \n"]
)
def test_hard_texts_come_back_and_never_become_special_tokens(tokenizer, text):
    ids = tokenizer.encode(text).ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == text
    assert not {tokenizer.token_to_id(EOS), tokenizer.token_to_id(PADDING)} & set(ids)


def test_numbers_are_split_into_at_most_three_digits(tokenizer):
    pieces = [piece for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str("1234567")]
    assert pieces == ["123", "456", "7"]


@pytest.mark.parametrize("parallel", ["true", "false"])
def test_two_runs_give_the_same_files(monkeypatch, parallel):
    write_stage(Path("in"), corpus(60))
    run(params=Params(vocab_size=1000), inputs={"mix": Path("in")}, output=Path("one"))
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", parallel)
    run(params=Params(vocab_size=1000), inputs={"mix": Path("in")}, output=Path("two"))
    assert [sha256_file(Path("one") / n) for n in FILES] == [sha256_file(Path("two") / n) for n in FILES]


def test_transformers_loads_it_and_agrees(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    write_stage(Path("in"), corpus(30))
    run(params=Params(vocab_size=700), inputs={"mix": Path("in")}, output=Path("out"))
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(os.fspath(Path("out").resolve()))
    text = "Badu gela, 1234 don't  stop.\n\nNew"
    assert loaded(text)["input_ids"] == load_tokenizer(Path("out")).encode(text).ids
    assert loaded.decode(loaded(text)["input_ids"]) == text
    assert (loaded.eos_token, loaded.pad_token, loaded.bos_token) == (EOS, PADDING, EOS)
    assert len(loaded) == 700


def test_metrics_are_those_of_the_texts():
    parts = [[document("badu gela badu gela", name=str(i), host=f"h{i % 2}.example") for i in range(40)]]
    write_stage(Path("in"), [*parts, *corpus(30, language="de", host="other.example")])
    run(params=Params(vocab_size=500), inputs={"mix": Path("in")}, output=Path("out"))
    metrics = json.loads(Path("out/metrics.json").read_text())
    tokens = len(load_tokenizer(Path("out")).encode("badu gela badu gela").ids)
    assert metrics["hosts"]["h0.example"]["fertility"] == pytest.approx(tokens / 4, abs=1e-4)
    assert metrics["hosts"]["h0.example"]["bytes_per_token"] == pytest.approx(19 / tokens, abs=1e-4)
    assert metrics["languages"]["en"]["documents"] == 40
    assert metrics["documents"] == 70


def test_a_corpus_too_small_for_the_vocabulary_is_said_with_numbers():
    write_stage(Path("in"), [[document("too little text", name="1")]])
    with pytest.raises(CorpusTooSmallError) as caught:
        run(params=Params(vocab_size=4096), inputs={"mix": Path("in")}, output=Path("out"))
    assert "4096 entries" in str(caught.value)


def test_a_damaged_tokenizer_is_an_error(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        load_tokenizer(tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        load_tokenizer(tmp_path / "nowhere")
