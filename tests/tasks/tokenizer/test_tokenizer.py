"""The tokenizer: any text comes back, two runs give the same files, transformers loads it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer
from tokenizers.pre_tokenizers import Split

from tasks.contracts.durable_files import sha256_file
from tasks.contracts.errors import CorpusTooSmallError, InputError
from tasks.contracts.tokenizer_files import EOS, PADDING, load_tokenizer
from tasks.tokenizer.byte_level import PATTERNS, save_tokenizer, train_tokenizer
from tasks.tokenizer.stage import Params, run
from tests.corpus import corpus, document, prose, write_stage

FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "metrics.json",
    "groups.json",
    "summary.json",
    "_manifest.json",
)


@pytest.fixture(autouse=True)
def _workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADWATER_STATE", str(tmp_path / "state"))


@pytest.fixture(scope="module", params=["gpt4", "gpt2"])
def tokenizer(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    texts = [prose(i) for i in range(20)]
    save_tokenizer(train_tokenizer(texts, vocab_size=600, pre_tokenization=request.param), folder)
    return load_tokenizer(folder)


ODD_TEXT = st.text(alphabet=" \t\r\n\v\f\x00\x85\xa0\u2028\u3000\ufeff\u200daB1½'é\u0301न्ไ東한😀\U000e0001")
ANY_BYTES = st.one_of(
    st.binary().map(lambda content: content.decode("utf-8", "replace")),
    st.binary().map(lambda content: content.decode("latin-1")),
    st.binary(max_size=40).map(lambda content: (content + content[:1] * 300).decode("utf-8", "ignore")),
)


@settings(max_examples=150, deadline=None)
@given(text=st.one_of(st.text(), ODD_TEXT, ANY_BYTES))
def test_any_text_comes_back(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text).ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == text
    assert all(0 <= number < tokenizer.get_vocab_size() for number in ids)


@pytest.mark.parametrize(
    ("kind", "text", "pieces"),
    [
        ("gpt4", "1234567", ["123", "456", "7"]),
        ("gpt2", "1234567", ["1234567"]),
        ("gpt4", "DON'T we'll", ["DON", "'T", " we", "'ll"]),
        ("gpt2", "DON'T we'll", ["DON", "'", "T", " we", "'ll"]),
        ("gpt4", "a (b)\n\n    c", ["a", " (", "b", ")\n\n", "   ", " c"]),
        ("gpt2", "a (b)\n\n    c", ["a", " (", "b", ")", "\n\n   ", " c"]),
        ("gpt4", "x  =  $y  \n", ["x", " ", " =", " ", " $", "y", "  \n"]),
        ("gpt4", "cafe\u0301 हिन्दी", ["cafe\u0301", " हिन्दी"]),
    ],
)
def test_where_text_is_cut(kind: Literal["gpt4", "gpt2"], text: str, pieces: list[str]) -> None:
    cut = Split(Regex(PATTERNS[kind]), behavior="isolated").pre_tokenize_str(text)
    assert [piece for piece, _ in cut] == pieces


@pytest.mark.parametrize(
    "text", [f"a {EOS} b", PADDING, "naïve 東京 ไทย 👩‍👩‍👧 \x00\r\n\t", "x" * 5000, "1234567 don't  \n"]
)
def test_hard_texts_come_back_and_never_become_special_tokens(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text).ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == text
    assert not {tokenizer.token_to_id(EOS), tokenizer.token_to_id(PADDING)} & set(ids)


def test_special_tokens_get_ids_and_are_text_in_a_document(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    write_stage(Path("in"), corpus(30))
    params = Params(vocab_size=700, special_tokens=("<|user|>", "<|tool|>"))
    run(params=params, inputs={"mix": Path("in")}, output=Path("out"))
    reader = load_tokenizer(Path("out"))
    special = [reader.token_to_id(name) for name in (EOS, PADDING, "<|user|>", "<|tool|>")]
    assert special == [0, 1, 2, 3]
    ids = reader.encode("a <|user|> b").ids
    assert reader.decode(ids, skip_special_tokens=False) == "a <|user|> b"
    assert not set(special) & set(ids)
    assert json.loads(Path("out/special_tokens_map.json").read_text())["additional_special_tokens"] == [
        "<|user|>",
        "<|tool|>",
    ]
    from transformers import AutoTokenizer

    assert AutoTokenizer.from_pretrained(os.fspath(Path("out").resolve())).encode("<|tool|>") == [3]
    with pytest.raises(ValueError, match="must differ"):
        Params(special_tokens=(EOS,))
    with pytest.raises(ValueError, match="at least"):
        Params(vocab_size=258, special_tokens=("<a>",))


def test_a_sample_of_the_mixture_is_learnt_from_where_it_is_large() -> None:
    write_stage(Path("in"), corpus(60))
    whole, part = (Params(vocab_size=400, max_bytes=size) for size in (10**9, 20_000))
    run(params=whole, inputs={"mix": Path("in")}, output=Path("whole"))
    run(params=part, inputs={"mix": Path("in")}, output=Path("part"))
    assert sha256_file(Path("whole/tokenizer.json")) != sha256_file(Path("part/tokenizer.json"))


def test_of_texts_captured_again_the_same_sample_is_learnt_from() -> None:
    write_stage(Path("in"), corpus(60))
    again = [[document(d.text, name=f"{d.record_id} again") for d in part] for part in corpus(60)]
    write_stage(Path("again"), again)
    for source in ("in", "again"):
        params = Params(vocab_size=400, max_bytes=20_000)
        run(params=params, inputs={"mix": Path(source)}, output=Path(f"of-{source}"))
    assert sha256_file(Path("of-in/tokenizer.json")) == sha256_file(Path("of-again/tokenizer.json"))


@pytest.mark.parametrize("parallel", ["true", "false"])
def test_two_runs_give_the_same_files(monkeypatch: pytest.MonkeyPatch, parallel: str) -> None:
    write_stage(Path("in"), corpus(60))
    run(params=Params(vocab_size=1000), inputs={"mix": Path("in")}, output=Path("one"))
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", parallel)
    run(params=Params(vocab_size=1000), inputs={"mix": Path("in")}, output=Path("two"))
    assert [sha256_file(Path("one") / n) for n in FILES] == [sha256_file(Path("two") / n) for n in FILES]


def test_transformers_loads_it_and_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_metrics_are_those_of_the_texts() -> None:
    parts = [[document("badu gela badu gela", name=str(i), host=f"h{i % 2}.example") for i in range(40)]]
    write_stage(Path("in"), [*parts, *corpus(30, language="de", host="other.example")])
    run(params=Params(vocab_size=500), inputs={"mix": Path("in")}, output=Path("out"))
    metrics, groups = (json.loads(Path(f"out/{name}.json").read_text()) for name in ("metrics", "groups"))
    tokens = len(load_tokenizer(Path("out")).encode("badu gela badu gela").ids)
    assert groups["hosts"]["h0.example"]["fertility"] == pytest.approx(tokens / 4, abs=1e-4)
    assert groups["hosts"]["h0.example"]["bytes_per_token"] == pytest.approx(19 / tokens, abs=1e-4)
    assert groups["languages"]["en"]["documents"] == 40
    assert metrics["documents"] == 70


def test_a_corpus_too_small_for_the_vocabulary_is_said_with_numbers() -> None:
    write_stage(Path("in"), [[document("too little text", name="1")]])
    with pytest.raises(CorpusTooSmallError) as caught:
        run(params=Params(vocab_size=4096), inputs={"mix": Path("in")}, output=Path("out"))
    assert "4096 entries" in str(caught.value)


def test_a_damaged_tokenizer_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        load_tokenizer(tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        load_tokenizer(tmp_path / "nowhere")
