"""A classifier learns from files, is measured on texts that it has not seen, and its score stays on the document."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tasks.contracts.document import read_documents
from tasks.contracts.errors import CorpusTooSmallError, InputError, ParamsError
from tasks.contracts.manifest import Manifest
from tasks.filter import stage
from tasks.filter.classifier import load_classifier, train
from tests.corpus import document, prose, write_stage

SPAM = "buy cheap pills now click here best price order online today"


def spam(seed: int) -> str:
    words = SPAM.split()
    return " ".join(
        words[(seed * 7 + i * i) % len(words)] + ("!" if i % 5 == seed % 5 else "") for i in range(60)
    ) + str(seed)


@pytest.fixture
def files(workspace: Path) -> tuple[Path, Path]:
    good, bad = workspace / "good.jsonl", workspace / "bad.txt"
    good.write_text("".join(json.dumps({"text": prose(i, sentences=4)}) + "\n" for i in range(120)))
    bad.write_text("".join(spam(i) + "\n" for i in range(120)))
    return good, bad


def test_it_tells_prose_from_spam_that_it_has_not_seen(files: tuple[Path, Path], workspace: Path) -> None:
    model = train([files[0]], [files[1]], workspace / "model.json", bits=14)
    assert model.held_out.auc > 0.97
    assert model.held_out.good > 5
    assert model.held_out.bad > 5
    again = load_classifier(workspace / "model.json")
    assert again.score(prose(999)) > 0.5 > again.score(spam(999))
    assert [(file.label, file.name, file.texts) for file in again.trained_on] == [
        ("good", "good.jsonl", 120),
        ("bad", "bad.txt", 120),
    ]


def test_labels_that_mean_nothing_give_an_auc_of_chance(workspace: Path) -> None:
    for name, start in (("a.txt", 0), ("b.txt", 500)):
        (workspace / name).write_text("".join(prose(start + i, 3).replace("\n", " ") + "\n" for i in range(300)))
    model = train([workspace / "a.txt"], [workspace / "b.txt"], workspace / "model.json", bits=14)
    assert 0.3 < model.held_out.auc < 0.7


def test_the_same_files_give_the_same_bytes(files: tuple[Path, Path], workspace: Path) -> None:
    train([files[0]], [files[1]], workspace / "one.json", bits=12)
    train([files[0]], [files[1]], workspace / "two.json", bits=12)
    assert (workspace / "one.json").read_bytes() == (workspace / "two.json").read_bytes()


def test_too_few_texts_and_unreadable_files_are_errors(files: tuple[Path, Path], workspace: Path) -> None:
    (workspace / "few.txt").write_text("one text\n")
    (workspace / "other.jsonl").write_text('{"content": "x"}\n')
    with pytest.raises(CorpusTooSmallError, match="at least 20"):
        train([files[0]], [workspace / "few.txt"], workspace / "model.json")
    with pytest.raises(InputError, match=r"other\.jsonl"):
        train([files[0]], [workspace / "other.jsonl"], workspace / "model.json")
    with pytest.raises(InputError, match="train-classifier"):
        load_classifier(files[0])


@pytest.fixture
def folder(files: tuple[Path, Path], workspace: Path) -> Path:
    train([files[0]], [files[1]], workspace / "model.json", bits=14)
    texts = [*(prose(1000 + i) for i in range(5)), *(spam(1000 + i) for i in range(5))]
    write_stage(workspace / "extract", [[document(text, name=str(i)) for i, text in enumerate(texts)]])
    return workspace


def filtered(folder: Path, name: str, **settings: object) -> Manifest:
    params = stage.Params(rules=({"quality_classifier": {"model": "model.json", **settings}},))
    return stage.run(params=params, inputs={"extract": folder / "extract"}, output=folder / name)


def test_the_score_stays_on_the_document_and_another_threshold_scores_nothing_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = filtered(folder, "one")
    assert first.counts.dropped == {"quality_classifier.min_score": 5}
    kept = list(read_documents(folder / "one" / "part-00000.parquet"))
    assert all(0.5 <= document.scores["filter.quality"] <= 1 for document in kept)
    monkeypatch.setattr(stage, "scores_of", lambda *_: pytest.fail("scored again"))
    assert filtered(folder, "two", min_score=0.0).counts.out == 10


def test_another_model_of_the_same_name_is_another_shard(folder: Path) -> None:
    before = filtered(folder, "one")
    moved = folder / "moved.json"
    moved.write_bytes((folder / "model.json").read_bytes())
    same = filtered(folder, "two", model="moved.json")
    assert same.params == before.params
    assert "model.json" not in str(before.params)
    train([folder / "bad.txt"], [folder / "good.jsonl"], folder / "model.json", bits=14)
    swapped = filtered(folder, "three")
    assert swapped.params != before.params
    assert swapped.shards != before.shards


def test_a_missing_model_is_an_error_of_params(folder: Path) -> None:
    with pytest.raises(ParamsError, match="not there"):
        filtered(folder, "one", model="none.json")
