"""A release is adapted by each method: examples go through filters and decontamination, and the chain holds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from flows.pipeline.adapt_run import prepare
from flows.workspace.params import merged, read_params
from tasks.contracts.document import read_documents
from tasks.contracts.errors import HeadwaterError
from tasks.contracts.ledger import read_ledger
from tasks.contracts.manifest import manifest_hash, read_manifest
from tests.e2e.workspace import FirstRun, Workspace

pytestmark = pytest.mark.e2e

SUMS = range(12)
MAIL = "bob@site.example"


@pytest.fixture(scope="module")
def adapted(first_run: FirstRun, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A copy of the finished workspace, with files of examples."""
    workspace = first_run.copy(tmp_path_factory.mktemp("adapted") / "workspace")
    item = json.loads((workspace.folder / "data/holdout/tasks/heldout_bits_per_byte.jsonl").read_text().split("\n")[0])
    chats: list[Any] = [{"instruction": f"Add {n} and {n}.", "output": f"{2 * n}."} for n in SUMS]
    chats += [{"prompt": "Whom to ask?", "completion": f"Write to {MAIL}."}]
    chats += [{"prompt": "Add 1 and 1.", "completion": "2."}, {"prompt": "Nothing?", "completion": ""}]
    chats += [{"prompt": "Go on.", "completion": item["text"]}]
    chats += [{"prompt": "Say it often.", "completion": "often " * 300}]
    preferences = [{"prompt": f"Add {n} and {n}.", "chosen": f"{2 * n}.", "rejected": "No."} for n in SUMS]
    for name, lines in (("chats.jsonl", chats), ("preferences.jsonl", preferences)):
        (workspace.folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return workspace


def answer(workspace: Workspace, *arguments: str) -> Any:
    printed = workspace.run("headwater", *arguments, "--json")
    return json.loads(printed[printed.index("\n{") if not printed.startswith("{") else 0 :])


def stage(workspace: Workspace, name: str) -> Path:
    return workspace.folder / "data" / "adapt" / name


def test_lora_is_released_with_a_chain_that_goes_on_to_the_raw_records(adapted: Workspace) -> None:
    made = answer(adapted, "adapt", "chats.jsonl", "--set", "adapt.batch_size=4", "--set", "adapt.rank=4")
    assert made["made"] == "data/adapt/release"
    assert made["metrics"]["train_loss"] < 10
    assert made["metrics"]["merge_difference"] <= 1e-5
    rows = {
        (row.stage, row.rule): row.record_id
        for name in ("examples", "filter", "decontaminate", "adapt")
        for path in stage(adapted, name).glob("dropped/*.parquet")
        for row in read_ledger(path)
    }
    assert rows == {
        ("examples", "duplicate"): "chats.jsonl:14",
        ("examples", "no_answer"): "chats.jsonl:15",
        ("filter", "pii"): "chats.jsonl:13",
        ("decontaminate", "benchmark_overlap"): "chats.jsonl:16",
        ("adapt", "too_long"): "chats.jsonl:17",
    }
    text = "".join(one.text for one in read_documents(stage(adapted, "decontaminate") / "part-00000.parquet"))
    assert MAIL not in text
    printed = adapted.run("headwater", "verify", "data/adapt/release")
    assert "PASS" in printed
    assert "data/ holds another release" not in printed
    assert "PASS" in adapted.run("headwater", "verify"), "the base is as it was"


def test_trace_answers_for_both_corpora(adapted: Workspace) -> None:
    base, own = (manifest_hash(adapted.folder / name) for name in ("data/release", "data/adapt/release"))
    (example,) = answer(adapted, "trace", "chats.jsonl:3")["documents"]
    assert [event["stage"] for event in example["events"]] == ["examples", "filter", "decontaminate"]
    assert len(example["tuned"]) == 1
    assert [one["manifest_sha256"] for one in example["releases"]] == [own]
    (adapted.folder / "said.txt").write_text("add 2  and 2. 4.")
    found = answer(adapted, "trace", "--text", "said.txt")
    assert found["trace"]["documents"][0]["subject"] == example["subject"]
    (lost,) = answer(adapted, "trace", "chats.jsonl:16")["documents"]
    assert lost["outcome"] == "dropped by decontaminate: benchmark_overlap"
    page = next(read_documents(adapted.folder / "data/mix/part-00000.parquet"))
    (document,) = answer(adapted, "trace", page.doc_id)["documents"]
    assert [one["manifest_sha256"] for one in document["releases"]] == [base, own]
    (adapted.folder / "page.txt").write_text(page.text)
    assert answer(adapted, "trace", "--text", "page.txt")["match"]["doc_id"] == page.doc_id
    assert answer(adapted, "trace", "--release", "headwater-sample-lora")["examples"] == made_of(adapted)


def made_of(workspace: Workspace) -> int:
    return read_manifest(stage(workspace, "adapt")).counts.out


def test_qlora_and_dpo_end_as_well_and_adapters_may_stay_adapters(adapted: Workspace) -> None:
    made = answer(adapted, "adapt", "chats.jsonl", "--method", "qlora")
    assert made["metrics"]["merge_difference"] <= 1e-5
    assert (adapted.folder / made["made"] / "base" / "_manifest.json").is_file()
    made = answer(adapted, "adapt", "preferences.jsonl", "--method", "dpo", "--set", "adapt.merge=false")
    assert made["made"] == "data/adapt/adapt/adapter"
    described = json.loads((adapted.folder / made["made"] / "adapter_config.json").read_text())
    assert described["revision"] == manifest_hash(adapted.folder / "data/release")
    assert read_manifest(stage(adapted, "gate")).counts.out == 5
    assert not stage(adapted, "release").exists(), "it would stand beside stages that did not make it"
    assert (adapted.folder / made["made"] / "adapter_model.safetensors").is_file()


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"examples": {"paths": ["gone.jsonl"]}}, "gone.jsonl"),
    ({"examples": {"paths": []}}, "there is nothing to learn from"),
    ({"examples": {"paths": ["preferences.jsonl"]}}, "no example has an answer to learn from"),
    ({"adapt": {"method": "dpo"}}, "no example has an answer to learn from"),
    ({"adapt": {"base": "data/train"}}, "there is no release to begin with"),
    ({"adapt": {"base": "other"}}, "tokenizer is not the one"),
    ({"adapt": {"base": "forged"}}, "the base is not what it claims to be"),
    ({"adapt": {"method": "sft"}}, "adapt.method"),
    ({"adapt": {"learning_rate": 7}}, "a learning rate that undoes"),
    ({"adapt": {"device": "gpu"}}, "a GPU that this machine does not have"),
    ({"examples": {"filters": ["piii"]}}, "did you mean pii?"),
    ({"adapt": {"learning_rate": 7, "base": "nowhere"}}, "2 things keep this adaptation from starting"),
]


def test_wrong_input_is_one_error_before_any_work(adapted: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(adapted.folder)
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    other = shutil.copytree("data/release", Path("other"))
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    (other / "tokenizer.json").write_text(json.dumps(tokenizer) + " ")
    forged = shutil.copytree("data/release", Path("forged"))
    weights = bytearray((forged / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (forged / "model.safetensors").write_bytes(weights)
    right = {"examples": {"paths": ["chats.jsonl"]}, "adapt": {"method": "lora", "merge": True}}
    settings = merged(read_params(), right)
    assert prepare(settings).base == Path("data/release")
    for changes, said in WRONG:
        with pytest.raises(HeadwaterError) as error:
            prepare(merged(settings, changes))
        assert said in str(error.value), changes
    assert "no example" in adapted.run("headwater", "adapt", "preferences.jsonl", "--method", "lora", code=2)
