"""A run that is told to stop saves its state, and goes on to the same bytes, wherever and however it trains."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tasks.contracts.tokenizer_files import load_tokenizer
from tests.training.train.in_process import SMALL, in_another_process
from tests.training.train.token_folders import held_out_loss, make_tokens

KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "parts": {"gradient_accumulation": 4},
    "fixed_order": {"fixed_order": True},
    "muon": {"optimizer": "muon"},
    "zero-3": {"strategy": "zero-3"},
    "background": {"save_in_background": True, "checkpoint_every_steps": 2},
    "later": {"save_in_background": True, "checkpoint_every_steps": 1, "strategy": "zero-3"},
    "bf16": {"strategy": "zero-1", "precision": "bf16"},
    "best": {
        "release_best": True,
        "sample_prompts": ["", "some"],
        "validate_every": 1,
        "learning_rate": 0.3,
        "final_learning_rate": 0.3,
    },
    "wsd": {"schedule": "wsd", "epochs": 2, "seed": 3},
}
STEPS: int = SMALL["max_steps"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("stops")
    make_tokens(root)
    return root


@pytest.fixture(scope="module")
def results(root: Path) -> dict[str, dict[str, Any]]:
    runs: list[dict[str, Any]] = []
    for kind, settings in KINDS.items():
        runs.append({"name": f"{kind}-whole", **settings})
        for step in range(STEPS - 2) if kind == "plain" else (0, 6, 9):
            runs.append({"name": f"{kind}-{step}-cut", "stop": step, **settings})
            # The second stop is one step on: what was restored is saved and restored once more.
            runs.append({"name": f"{kind}-{step}-again", "stop": step + 1, **settings})
            runs.append({"name": f"{kind}-{step}-on", **settings})
    runs.append({"name": "cores-cut", "stop": 4, "cores": 1})
    runs.append({"name": "cores-on", "cores": 2})
    runs.append({"name": "overflown", "overflows": True, "max_steps": 1, "warmup_steps": 0})
    return {one["name"]: one for one in in_another_process(root, runs)}


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_stopped_goes_on_to_the_same_bytes(results: dict[str, dict[str, Any]], kind: str) -> None:
    stops = [name.removesuffix("-cut") for name in results if name.startswith(f"{kind}-") and name.endswith("-cut")]
    assert len(stops) == (STEPS - 2 if kind == "plain" else 3)
    for name in stops:
        step = int(name.rpartition("-")[2])
        assert f"step-{step + 1:08d} of {STEPS} steps" in results[f"{name}-cut"]["said"]
        assert results[f"{name}-again"]["from"] == [step + 1]
        assert results[f"{name}-on"]["from"] == [step + 2]
        assert results[f"{name}-on"]["manifest"] == results[f"{kind}-whole"]["manifest"]


def test_the_best_weights_are_released_where_they_are_asked_for(root: Path, results: dict[str, dict[str, Any]]) -> None:
    rows = list(csv.DictReader((root / "best-whole/loss.csv").read_text().splitlines()))
    measured = [float(row["validation_loss"]) for row in rows]
    best = measured.index(min(measured))
    told = json.loads((root / "best-whole/metrics.json").read_bytes())
    assert 0 < best < STEPS - 1, "else the test shows nothing"
    assert told["weights_of_step"] == best
    assert told["validation_loss"] == measured[best]
    again = held_out_loss(root / "best-whole/model", root / "tokenize", SMALL["seq_len"], SMALL["validation_sequences"])
    assert again == pytest.approx(measured[best], abs=2e-6)


def test_samples_are_what_the_model_says_at_each_measurement(root: Path, results: dict[str, dict[str, Any]]) -> None:
    rows = [json.loads(line) for line in (root / "best-whole/samples.jsonl").read_text().splitlines()]
    assert [(row["step"], row["prompt"]) for row in rows] == [
        (step, prompt) for step in range(STEPS) for prompt in ("", "some")
    ]
    told = json.loads((root / "best-whole/metrics.json").read_bytes())
    (said,) = (row["text"] for row in rows if row["step"] == told["weights_of_step"] and row["prompt"] == "some")
    tokenizer = load_tokenizer(root / "tokenizer")
    model = AutoModelForCausalLM.from_pretrained(root / "best-whole/model").eval()
    ids = [0, *tokenizer.encode("some").ids]
    prompt = len(ids)
    for _ in range(32):
        with torch.no_grad():
            ids.append(int(model(torch.tensor([ids[-SMALL["seq_len"] :]])).logits[0, -1].argmax()))
        if ids[-1] == 0:
            ids.pop()
            break
    assert tokenizer.decode(ids[prompt:]) == said
    assert not (root / "plain-whole/samples.jsonl").exists()


def test_another_number_of_cores_goes_on_as_well(results: dict[str, dict[str, Any]]) -> None:
    assert results["cores-on"]["from"] == [5]


def test_weights_that_were_lost_at_the_last_step_are_not_handed_over(results: dict[str, dict[str, Any]]) -> None:
    assert results["overflown"]["said"].startswith("the gradient's norm of step 0 is nan")
