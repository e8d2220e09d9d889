"""holdout: what is held out never trains, the split follows content, the tasks load in lm-eval."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.contracts.document import read_documents
from tasks.contracts.durable_files import sha256_file
from tasks.contracts.errors import CorpusTooSmallError
from tasks.contracts.ledger import read_ledger
from tasks.contracts.manifest import text_shards
from tasks.holdout.stage import Params, rank, run
from tests.corpus import corpus, document, prose, write_stage

PARAMS = Params(fraction=0.3, min_documents=10, max_documents=50, min_items=10, text_items=10)


@pytest.fixture(autouse=True)
def _workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADWATER_STATE", str(tmp_path / "state"))


def held_texts(folder: Path) -> list[str]:
    return [d.text for path in sorted((folder / "heldout").glob("*.parquet")) for d in read_documents(path)]


def kept_texts(folder: Path) -> list[str]:
    return [d.text for shard in text_shards(folder) for d in read_documents(folder / shard.name)]


def test_every_document_is_either_held_out_or_kept() -> None:
    write_stage(Path("in"), corpus(80))
    manifest = run(params=PARAMS, inputs={"perplexity": Path("in")}, output=Path("out"))
    held, kept = held_texts(Path("out")), kept_texts(Path("out"))
    assert len(held) + len(kept) == 80 == manifest.counts.in_
    assert not set(held) & set(kept)
    assert 10 <= len(held) <= 40
    rows = [row for path in sorted(Path("out/dropped").glob("*")) for row in read_ledger(path)]
    assert {row.rule for row in rows} == {"held_out"}
    assert len(rows) == len(held) == manifest.counts.dropped["held_out"]


def test_the_split_follows_the_text_not_the_record() -> None:
    write_stage(Path("in"), corpus(80))
    run(params=PARAMS, inputs={"perplexity": Path("in")}, output=Path("out"))
    again = [[document(prose(i).upper(), name=f"recrawled-{i}") for i in range(80)]]
    write_stage(Path("in2"), again)
    run(params=PARAMS, inputs={"perplexity": Path("in2")}, output=Path("out2"))
    assert {t.upper() for t in held_texts(Path("out"))} == set(held_texts(Path("out2")))


def test_two_runs_give_the_same_bytes_without_the_shard_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_stage(Path("in"), corpus(60))
    first = run(params=PARAMS, inputs={"perplexity": Path("in")}, output=Path("out"))
    monkeypatch.setenv("HEADWATER_STATE", str(tmp_path / "other"))
    second = run(params=PARAMS, inputs={"perplexity": Path("in")}, output=Path("out2"))
    assert first == second
    assert sha256_file(Path("out/_manifest.json")) == sha256_file(Path("out2/_manifest.json"))


def test_max_documents_limits_what_is_held_out() -> None:
    write_stage(Path("in"), corpus(80))
    params = PARAMS.model_copy(update={"max_documents": 12, "min_documents": 5})
    run(params=params, inputs={"perplexity": Path("in")}, output=Path("out"))
    held = held_texts(Path("out"))
    assert len(held) == 12
    assert max(rank(t, 0) for t in held) < min(rank(t, 0) for t in kept_texts(Path("out")))


def test_a_corpus_that_is_too_small_is_said_with_numbers() -> None:
    write_stage(Path("in"), corpus(8))
    with pytest.raises(CorpusTooSmallError) as caught:
        run(params=PARAMS, inputs={"perplexity": Path("in")}, output=Path("out"))
    assert "at least 10" in str(caught.value)
    assert "of 8 documents" in str(caught.value)


def test_documents_too_short_for_items_are_said_so() -> None:
    write_stage(Path("in"), [[document(f"short text number {i}", name=str(i)) for i in range(90)]])
    with pytest.raises(CorpusTooSmallError, match="evaluation items"):
        run(params=PARAMS, inputs={"perplexity": Path("in")}, output=Path("out"))


def test_lm_eval_loads_the_tasks_offline_and_asks_what_the_items_say(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "hf" / "datasets"))
    write_stage(Path("in"), corpus(80))
    run(params=PARAMS, inputs={"perplexity": Path("in")}, output=Path("out"))
    local = tmp_path / "local"
    local.mkdir()
    for path in Path("out/tasks").glob("*.yaml"):
        config = yaml.safe_load(path.read_text())
        files = config["dataset_kwargs"]["data_files"]
        config["dataset_kwargs"]["data_files"] = {k: str(path.parent.resolve() / v) for k, v in files.items()}
        (local / path.name).write_text(yaml.safe_dump(config))
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(local), include_defaults=False)
    tasks = manager.load(["heldout_bits_per_byte", "heldout_continuation"])["tasks"]
    items = {
        name: [json.loads(line) for line in Path(f"out/tasks/{name}.jsonl").read_text().splitlines()] for name in tasks
    }
    for name, task in tasks.items():
        task.build_all_requests()
        assert len(list(task.eval_docs)) == len(items[name])
    rolling = tasks["heldout_bits_per_byte"].instances
    assert [one.args for one in rolling] == [(item["text"],) for item in items["heldout_bits_per_byte"]]
    asked = tasks["heldout_continuation"].instances
    first = items["heldout_continuation"][0]
    assert [one.args for one in asked[:4]] == [(first["context"], choice) for choice in first["choices"]]
    task = tasks["heldout_continuation"]
    # With the context another choice is likeliest; what the context adds is most for the true one.
    with_context = [-2.0 if i == first["gold"] else -1.0 - i for i in range(4)]
    without = [-9.0 if i == first["gold"] else -1.0 - i for i in range(4)]
    answers = [(value, False) for value in (*with_context, *without)]
    results = task.process_results(next(iter(task.eval_docs)), answers)
    assert (results["acc"], results["acc_mutual_info"]) == (float(max(with_context) == -2.0), 1.0)


@pytest.mark.parametrize("wrong", [{"fraction": 0}, {"fraction": 1.0}, {"min_documents": 90, "max_documents": 80}])
def test_impossible_params_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Params(**wrong)
