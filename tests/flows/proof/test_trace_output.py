"""Planted quotations are traced from an output to their documents, wherever a quotation begins and in any script."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from flows.cli.main import app
from flows.history.trace_index import open_index
from flows.proof import trace_output, trace_tokens
from flows.proof.trace_output import OutputTracer
from flows.proof.trace_tokens import index_folder, sort_suffixes
from flows.services.released_model import ReleasedModel, Sampling
from tasks.contracts.document import Document
from tasks.contracts.durable_files import write_json
from tasks.contracts.errors import InputError, ManifestError, UsageError
from tasks.contracts.files import VALIDATION_NAME
from tasks.contracts.manifest import Counts, manifest_hash
from tasks.contracts.tokenizer_files import load_tokenizer
from tasks.tokenize.stage import describe, write_token_shard
from tasks.tokenizer.byte_level import save_tokenizer, train_tokenizer
from tests.corpus import ALPHABETS, document, write_stage, writing
from tests.planted import plant_manifest
from training.train.model import ModelSize, build_model, model_config, save_model

DATA = Path("data")
EACH = 10


def make(root: Path) -> dict[str, list[Document]]:
    """Write token shards of documents in ten scripts, as three parts with second copies; return them by script."""
    generator = random.Random(5)
    documents = {
        script: [document(writing(generator, script, 700), name=f"{script}-{n}", host="q.example") for n in range(EACH)]
        for script in ALPHABETS
    }
    licensed = [replace(one, license="CC-BY-4.0") for some in documents.values() for one in some]
    data = root / "data"
    write_stage(data / "mix", [licensed], stage="mix")
    tokenizer = train_tokenizer((one.text for one in licensed), vocab_size=3000)
    save_tokenizer(tokenizer, data / "tokenizer")
    nothing = Counts(in_=1, out=1)
    described: dict[str, Any] = {"unit": "documents", "params": {}, "counts": nothing}
    plant_manifest(data / "tokenizer", stage="tokenizer", inputs={"mix": data / "mix"}, **described)
    folder, encoder = data / "tokenize", load_tokenizer(data / "tokenizer")
    for part in range(3):
        # Of each third document a second copy.
        some = [one.with_scores({"mix.epochs": 1.0 + (n % 3 == 0)}) for n, one in enumerate(licensed) if n % 3 == part]
        write_token_shard(folder / f"part-0000{part}.bin", some, tokenizer=encoder, dtype="uint16", batch=8)
    held = [document(writing(random.Random(77), "latin", 200), name="held")]
    write_token_shard(folder / VALIDATION_NAME, held, tokenizer=encoder, dtype="uint16", batch=8)
    write_json(folder / "tokens.json", describe(folder, encoder).model_dump(mode="json"))
    inputs = {"mix": data / "mix", "tokenizer": data / "tokenizer"}
    plant_manifest(folder, stage="tokenize", inputs=inputs, **described)
    return documents


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[Document]]]:
    root = tmp_path_factory.mktemp("quoted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADWATER_STATE", str(root / ".headwater"))
        patch.chdir(root)
        documents = make(root)
        OutputTracer(DATA)
        open_index(DATA)
    return root, documents


@pytest.fixture
def quoted(original: tuple[Path, dict[str, list[Document]]], workspace: Path) -> dict[str, list[Document]]:
    shutil.copytree(original[0], workspace, dirs_exist_ok=True)
    return original[1]


@pytest.mark.parametrize("small_parts", [False, True])
def test_a_hundred_planted_quotations_are_found(
    quoted: dict[str, list[Document]], small_parts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if small_parts:
        monkeypatch.setattr(trace_tokens, "PART_TOKENS", 1000)
        shutil.rmtree(index_folder(DATA / "tokenize"))
    tracer, documents, generator = OutputTracer(DATA), open_index(DATA), random.Random(11)
    assert len(tracer.index.parts) == (3 if small_parts else 1)
    for script, some in quoted.items():
        for one in some:
            begin = generator.randrange(0, 500)
            quotation = one.text[begin : begin + generator.randint(60, 160)]
            before, after = (writing(generator, script, generator.randint(0, 90)) for _ in range(2))
            output = before + quotation + after
            found = tracer.trace(output, documents)
            spans = [span for span in found.spans if quotation in span.text]
            assert len(spans) == 1, (script, quotation)
            assert output[spans[0].begin : spans[0].end] == spans[0].text
            assert spans[0].text in one.text
            # No wider than chance has it: a letter more may be equal too.
            assert len(spans[0].text) <= len(quotation) + 8
            assert (spans[0].document_count, spans[0].complete) == (1, True)
            (source,) = spans[0].sources
            assert (source.doc_id, source.url, source.license) == (one.doc_id, one.url, "CC-BY-4.0")


def test_all_documents_of_a_quotation_are_found_whatever_stands_around_it(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One passage in many documents: at other places of a word, so that its edges are other tokens."""
    passage = "the quick brown fox jumps over the lazy dog while seven wizards box quietly by the old harbour wall"
    documents = make(workspace)["latin"]
    holding = [
        replace(one, text=f"{one.text[:100]}{edge}{passage}{edge}{one.text[100:]}")
        for one, edge in zip(documents, ["", " ", "in", "x", ".", "é", "\n", "9", "世", "er"], strict=True)
    ]
    encoder = load_tokenizer(DATA / "tokenizer")
    write_token_shard(DATA / "tokenize/part-00001.bin", holding, tokenizer=encoder, dtype="uint16", batch=8)
    write_json(DATA / "tokenize/tokens.json", describe(DATA / "tokenize", encoder).model_dump(mode="json"))
    plant_manifest(
        DATA / "tokenize", stage="tokenize", unit="documents", params={}, counts=Counts(in_=1, out=1),
        inputs={"tokenizer": DATA / "tokenizer"},
    )  # fmt: skip
    found = OutputTracer(DATA).trace(f"Q{passage[3:]}Q", open_index(DATA))
    assert found.span_count == 1
    assert found.spans[0].text == passage[3:]
    assert found.spans[0].complete
    assert {one.doc_id for one in found.spans[0].sources} == {one.doc_id for one in holding}
    few = OutputTracer(DATA).trace(f"Q{passage[3:]}Q", open_index(DATA), limit=4).spans[0]
    assert (few.document_count, len(few.sources), few.complete) == (10, 4, True)
    monkeypatch.setattr(trace_output, "MOST_PLACES", 3)
    most = OutputTracer(DATA).trace(f"Q{passage[3:]}Q", open_index(DATA)).spans[0]
    assert most.document_count < 10
    assert not most.complete


def test_spans_are_the_longest_first_and_none_is_within_another(quoted: dict[str, list[Document]]) -> None:
    first, second = quoted["latin"][:2]
    output = f"{first.text[10:200]} 我 {second.text[5:90]} 我 {first.text[20:80]}"
    found = OutputTracer(DATA).trace(output, open_index(DATA))
    lengths = [span.end - span.begin for span in found.spans]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] >= 190
    for span in found.spans:
        others = [other for other in found.spans if other is not span]
        assert not any(other.begin <= span.begin and span.end <= other.end for other in others)
    assert found.covered == len({at for span in found.spans for at in range(span.begin, span.end)})
    assert OutputTracer(DATA).trace(output, open_index(DATA), limit=1).spans == found.spans[:1]
    assert OutputTracer(DATA).trace(output, open_index(DATA), fewest_tokens=10_000).spans == ()


def test_text_that_was_not_trained_on_has_no_span(quoted: dict[str, list[Document]]) -> None:
    generator = random.Random(99)
    for script in quoted:
        assert OutputTracer(DATA).trace(writing(generator, script, 400), open_index(DATA)).spans == ()
    # Held out: in validation.bin, and in no training shard.
    assert OutputTracer(DATA).trace(writing(random.Random(77), "latin", 200), open_index(DATA)).spans == ()


@pytest.mark.parametrize("harm", ["cut", "empty", "order", "described", "manifest", "gone"])
def test_an_index_that_is_torn_or_stale_is_made_again(quoted: dict[str, list[Document]], harm: str) -> None:
    folder = index_folder(DATA / "tokenize")
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    path = folder / "0.suffixes"
    if harm == "cut":
        path.write_bytes(path.read_bytes()[:-400])
    elif harm == "empty":
        path.write_bytes(b"")
    elif harm == "order":
        places = np.fromfile(path, "<u4")
        np.random.default_rng(1).permutation(places).tofile(path)
    elif harm == "described":
        (folder / "suffixes.json").write_text("{")
    elif harm == "manifest":
        described = json.loads((folder / "suffixes.json").read_bytes()) | {"tokenize_manifest": "0" * 64}
        (folder / "suffixes.json").write_text(json.dumps(described))
    else:
        (folder / "0.tokens").unlink()
    OutputTracer(DATA)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == whole


def test_a_place_that_the_shards_do_not_have_is_an_error(quoted: dict[str, list[Document]]) -> None:
    """An index of other shards, whose files are in order: what it says is compared with the shards."""
    for shard in (DATA / "tokenize").glob("part-*.bin"):
        shard.write_bytes(np.roll(np.fromfile(shard, "<u2"), 1).tobytes())
    with pytest.raises(InputError, match="does not fit the token shards"):
        OutputTracer(DATA).trace(quoted["latin"][0].text, open_index(DATA))


def test_shards_of_another_tokenizer_are_refused(quoted: dict[str, list[Document]]) -> None:
    plant_manifest(
        DATA / "tokenizer",
        stage="tokenizer",
        unit="documents",
        params={"seed": 2},
        inputs={},
        counts=Counts(in_=1, out=1),
    )
    with pytest.raises(ManifestError, match="another tokenizer"):
        OutputTracer(DATA)


@given(st.lists(st.integers(1, 3) | st.just(0), max_size=60))
def test_suffixes_are_sorted_up_to_the_end_of_their_document(ids: list[int]) -> None:
    tokens = np.array([*ids, 0], np.uint16)
    order = sort_suffixes(tokens, 0).tolist()
    assert sorted(order) == list(range(len(tokens)))
    ends = [int(np.flatnonzero(tokens[at:] == 0)[0]) + at for at in range(len(tokens))]
    said = [[*tokens[at : ends[at]].tolist(), 0] for at in order]
    assert said == sorted(said)


def call(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["trace", *arguments])


def test_the_command_says_it_for_people_and_for_scripts(quoted: dict[str, list[Document]]) -> None:
    one = quoted["cyrillic"][3]
    Path("said.txt").write_text(f"Q{one.text[7:120]}Q")
    printed = call("--output", "said.txt")
    assert printed.exit_code == 0, printed.output
    for part in (one.doc_id, one.url, "CC-BY-4.0", "in 1 document", "there is no finished training run here"):
        assert part in printed.stdout
    told = json.loads(call("--output", "said.txt", "--json").stdout)
    assert told["spans"][0]["sources"][0]["doc_id"] == one.doc_id
    assert call("--output", "said.txt", "--min-tokens", "500").exit_code == 1


def test_the_release_is_asked_and_its_answer_traced(quoted: dict[str, list[Document]]) -> None:
    size = ModelSize(layers=1, hidden_size=16, heads=2, kv_heads=1)
    encoder = load_tokenizer(DATA / "tokenizer")
    config = model_config(size, vocab_size=encoder.get_vocab_size(), seq_len=64, eos_id=0)
    save_model(DATA / "release", config, dict(build_model(config, seed=1).named_parameters()))
    save_tokenizer(encoder, DATA / "release")
    stages: dict[str, Any] = {"tokenize": {"manifest_sha256": manifest_hash(DATA / "tokenize")}}
    write_json(DATA / "release/lineage.json", {"name": "small", "stages": stages})
    asked = ["--prompt", "abc", "--max-tokens", "20", "--min-tokens", "1", "--json"]
    told = json.loads(call(*asked).stdout)
    assert told == json.loads(call(*asked).stdout)
    assert told["prompt"] == "abc"
    model = ReleasedModel(DATA / "release")
    pieces = list(model.generate(model.encode("abc"), Sampling(max_tokens=20, temperature=0.0)))
    assert 0 < len(pieces) <= 20
    assert told["output"] == "".join(piece.text for piece in pieces)
    assert told["spans"][0]["text"] in told["output"]
    for source in told["spans"][0]["sources"]:
        (one,) = [one for some in quoted.values() for one in some if one.doc_id == source["doc_id"]]
        assert told["spans"][0]["text"] in one.text
    write_json(DATA / "release/lineage.json", {"name": "small", "stages": {"tokenize": {"manifest_sha256": "0" * 64}}})
    assert "trained on other text" in str(call(*asked).exception)


@pytest.mark.parametrize(
    ("content", "error", "says"),
    [
        (b"", InputError, "empty"),
        (b" \n", InputError, "empty"),
        (b"\x89PNG\r\n\x1a\n\xff", InputError, "no text"),
        (b"text\0text", InputError, "no text"),
        (b"a" * ((1 << 20) + 1), InputError, "too long"),
        (None, UsageError, "cannot be read"),
    ],
)
def test_an_output_that_is_none_is_refused(
    quoted: dict[str, list[Document]], content: bytes | None, error: type[Exception], says: str
) -> None:
    if content is not None:
        Path("said").write_bytes(content)
    result = call("--output", "said")
    assert isinstance(result.exception, error)
    assert says in str(result.exception)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--output", "said", "--step", "1"], UsageError),
        (["--output", "said", "--prompt", "x"], UsageError),
        (["--min-tokens", "3", "--index"], UsageError),
        (["--max-tokens", "3", "--output", "said"], UsageError),
        (["--prompt", "x"], InputError),  # there is no release
    ],
)
def test_wrong_use_is_refused(quoted: dict[str, list[Document]], arguments: list[str], error: type[Exception]) -> None:
    Path("said").write_text("something")
    assert isinstance(call(*arguments).exception, error)


def test_without_token_shards_there_is_one_clear_error(quoted: dict[str, list[Document]]) -> None:
    Path("said").write_text("something")
    (DATA / "tokenize/part-00001.bin").unlink()
    assert "another size than described" in str(call("--output", "said").exception)
    shutil.rmtree(DATA / "tokenize")
    assert "there are no token shards here" in str(call("--output", "said").exception)
