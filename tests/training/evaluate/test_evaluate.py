"""Evaluation of a tiny random model on local tasks: the scores are the model's own, and the same on every run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tasks.contracts.durable_files import sha256_file
from tasks.contracts.errors import InputError, NetworkError
from tasks.contracts.manifest import Counts, manifest_hash
from tasks.holdout.lm_eval_files import BITS_PER_BYTE, CONTINUATION, write_task
from tasks.tokenizer.byte_level import save_tokenizer, train_tokenizer
from tests.corpus import prose
from tests.planted import plant_manifest
from training.evaluate.stage import Params, read_samples, run

TEXTS = [
    {"item_id": f"b{n}", "doc_id": f"d{n}", "text": f"{prose(n, sentences=2, words=8)} naïve"} for n in (2, 0, 1, 3)
]
QUESTIONS: list[dict[str, Any]] = [
    {
        "item_id": f"c{n}",
        "doc_id": f"d{n}",
        "context": prose(n, sentences=1, words=6),
        "choices": [f" {prose(100 * n + choice, sentences=1, words=4)}" for choice in range(4)],
        "gold": n % 4,
    }
    for n in range(12)
]


def committed(folder: Path, stage: str) -> Path:
    plant_manifest(folder, stage=stage, unit="items", params={}, inputs={}, counts=Counts(in_=0, out=0))
    return folder


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    root = tmp_path_factory.mktemp("inputs")
    tokenizer = train_tokenizer([prose(n) for n in range(5)], vocab_size=300)
    save_tokenizer(tokenizer, root / "train" / "model")
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=300,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=512,
        bos_token_id=tokenizer.token_to_id("<|endoftext|>"),
        eos_token_id=tokenizer.token_to_id("<|endoftext|>"),
        initializer_range=0.5,  # far from uniform, so that choices differ
    )
    LlamaForCausalLM(config).save_pretrained(root / "train" / "model")
    write_task(root / "holdout" / "tasks", BITS_PER_BYTE, TEXTS)
    write_task(root / "holdout" / "tasks", CONTINUATION, QUESTIONS)
    return {name: committed(root / name, name) for name in ("train", "holdout")}


@pytest.fixture(scope="module")
def scored(inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("scored") / "evaluate"
    run(params=Params(device="cpu", batch_size=4), inputs=inputs, output=output)
    return output


class Oracle:
    """Log-probabilities from the model itself, without lm-eval."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder).eval()

    def ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text)["input_ids"])

    def nats(self, before: list[int], ids: list[int]) -> float:
        """What `ids` cost after `before`."""
        import torch

        with torch.no_grad():
            logits = self.model(torch.tensor([before + ids])).logits[0].log_softmax(-1)
        return -sum(float(logits[len(before) - 1 + k, token]) for k, token in enumerate(ids))


def test_bits_per_byte_are_what_the_model_says(inputs: dict[str, Path], scored: Path) -> None:
    oracle = Oracle(inputs["train"] / "model")
    samples = {row["item_id"]: row for row in read_samples(scored, BITS_PER_BYTE)}
    nats = 0.0
    for item in TEXTS:
        sample: dict[str, Any] = samples[item["item_id"]]
        expected = oracle.nats([oracle.tokenizer.eos_token_id], oracle.ids(item["text"]))
        assert sample["nats"] == pytest.approx(expected, rel=1e-4)
        assert (sample["bytes"], sample["doc_id"]) == (len(item["text"].encode()), item["doc_id"])
        nats += expected
    total = sum(len(item["text"].encode()) for item in TEXTS)
    metrics = json.loads((scored / "metrics.json").read_text())
    assert metrics[f"{BITS_PER_BYTE}.bits_per_byte"] == pytest.approx(nats / 0.693147 / total, rel=1e-4)


def test_continuations_are_right_where_the_model_finds_the_true_one_likeliest(
    inputs: dict[str, Path], scored: Path
) -> None:
    oracle = Oracle(inputs["train"] / "model")
    samples = {row["item_id"]: row for row in read_samples(scored, CONTINUATION)}
    right = {}
    for item in QUESTIONS:
        context = oracle.ids(str(item["context"]))
        costs = [oracle.nats(context, oracle.ids(f"{item['context']}{c}")[len(context) :]) for c in item["choices"]]
        right[item["item_id"]] = float(costs.index(min(costs)) == item["gold"])
    assert 0 < sum(right.values()) < len(right), "a test in which all answers are alike shows nothing"
    assert {name: row["acc"] for name, row in samples.items()} == right
    metrics = json.loads((scored / "metrics.json").read_text())
    assert metrics[f"{CONTINUATION}.acc"] == pytest.approx(sum(right.values()) / len(right), abs=1e-6)


def test_results_name_the_items_and_nothing_of_this_machine(inputs: dict[str, Path], scored: Path) -> None:
    results = json.loads((scored / "results.json").read_text())
    assert set(results) == {"tasks", "settings"}
    for task, items in ((BITS_PER_BYTE, TEXTS), (CONTINUATION, QUESTIONS)):
        assert results["tasks"][task]["items"] == len(items)
        file = inputs["holdout"] / "tasks" / f"{task}.jsonl"
        assert results["tasks"][task]["items_sha256"] == sha256_file(file)
        ids = [row["item_id"] for row in read_samples(scored, task)]
        assert ids == sorted(str(item["item_id"]) for item in items)
    assert "device" not in results["settings"]
    everything = b"".join(path.read_bytes() for path in scored.rglob("*") if path.is_file())
    assert str(inputs["train"].parent).encode() not in everything


def test_two_evaluations_are_the_same_bytes(inputs: dict[str, Path], scored: Path, tmp_path: Path) -> None:
    run(params=Params(device="cpu", batch_size=4), inputs=inputs, output=tmp_path / "again")
    assert manifest_hash(tmp_path / "again") == manifest_hash(scored)


def test_a_task_that_was_not_scored_is_named(scored: Path) -> None:
    with pytest.raises(InputError, match=r"hellaswag(.|\n)*evaluate\.tasks"):
        read_samples(scored, "hellaswag")


@pytest.fixture
def few_hub_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """lm-eval with one folder of its tasks: reading all of its thousands of files takes half a minute."""
    import lm_eval.tasks

    class FewTasks(lm_eval.tasks.TaskManager):  # type: ignore[misc, no-any-unimported]  # lm-eval has no types
        def __init__(self, *, include_path: str, include_defaults: bool) -> None:
            hub = [str(Path(lm_eval.tasks.__file__).parent / "hellaswag")] if include_defaults else []
            super().__init__(include_path=[*hub, include_path], include_defaults=False)

    monkeypatch.setattr(lm_eval.tasks, "TaskManager", FewTasks)


@pytest.mark.usefixtures("few_hub_tasks")
def test_an_unknown_task_is_named(inputs: dict[str, Path], tmp_path: Path) -> None:
    params = Params(tasks=(CONTINUATION, "hellaswagg"), device="cpu")
    with pytest.raises(InputError, match=r"unknown(.|\n)*found: hellaswagg$"):
        run(params=params, inputs=inputs, output=tmp_path / "out")


@pytest.mark.usefixtures("few_hub_tasks")
@pytest.mark.parametrize("told", [True, False])
def test_a_hub_task_without_a_network_is_a_clear_error_that_may_pass_unless_none_may_be_asked(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: bool
) -> None:
    # Read when Hugging Face's libraries are imported; tests/conftest.py sets it before any of them is.
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    if not told:
        monkeypatch.setattr("tasks.contracts.hubs.OFFLINE_VARIABLES", ())
    params = Params(tasks=(CONTINUATION, "hellaswag"), device="cpu")
    with pytest.raises(NetworkError) as caught:
        run(params=params, inputs=inputs, output=tmp_path / "out")
    assert caught.value.transient is not told
    for said in ("could not be fetched", "evaluate.tasks: hellaswag", "HF_HUB_OFFLINE", "take these tasks out"):
        assert said in str(caught.value)
    assert not (tmp_path / "out" / "_manifest.json").exists()
