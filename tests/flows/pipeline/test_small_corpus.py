"""What a small corpus lacks is said at once after dedup, and each stage then does what was foreseen of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.pipeline.small_corpus import Shortage, foresee
from flows.workspace.graph import load_graph
from flows.workspace.params import assigned, check_params, merged, profile_values, read_params
from tasks.contracts.base import StageParams
from tasks.contracts.errors import CorpusTooSmallError
from tasks.holdout import stage as holdout
from tasks.perplexity import stage as perplexity
from tasks.tokenizer import stage as tokenizer
from tests.conftest import ROOT
from tests.corpus import corpus, document, prose, write_stage

ALL = tuple(load_graph())
DATA = Path("data")


@pytest.fixture(autouse=True)
def clone(workspace: Path) -> None:
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy2(ROOT / name, name)
    shutil.copytree(ROOT / "infra" / "profiles", "infra/profiles")


def settings(*assignments: str, profile: str = "") -> dict[str, StageParams]:
    laid = merged(read_params(), profile_values(profile) if profile else {})
    return check_params(merged(laid, assigned(assignments)), load_graph())


def refused(checked: dict[str, StageParams], stages: tuple[str, ...] = ALL) -> str:
    with pytest.raises(CorpusTooSmallError) as caught:
        foresee(DATA, checked, stages)
    return str(caught.value)


def test_sixty_pages_under_the_settings_of_the_sample_lack_all_of_this_at_once() -> None:
    write_stage(DATA / "dedup", corpus(60))
    said = refused(settings())
    assert "60 documents are too few for these settings" in said
    for stage, *named in (
        ("perplexity", "perplexity.min_reference_words"),
        ("holdout", "holdout.fraction", "holdout.min_documents"),
        ("train", "train.epochs"),
    ):
        line = next(line for line in said.splitlines() if f". {stage}: " in line)
        assert all(setting in line for setting in named), line
    assert "headwater params apply small" in said


def test_the_profile_for_a_small_site_is_enough_for_sixty_pages_and_not_for_five() -> None:
    write_stage(DATA / "dedup", corpus(60))
    assert [one for one in foresee(DATA, settings(profile="small"), ALL) if one.stops] == []
    write_stage(DATA / "dedup", corpus(5))
    assert "holdout.min_documents" in refused(settings(profile="small"))


def test_a_larger_corpus_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    write_stage(DATA / "dedup", corpus(60))
    monkeypatch.setattr("flows.pipeline.small_corpus.MOST_DOCUMENTS", 59)
    assert foresee(DATA, settings(), ALL) == []


def test_what_the_run_does_not_come_to_is_not_held_against_it() -> None:
    write_stage(DATA / "dedup", corpus(60))
    assert "train" not in refused(settings(), ("perplexity", "holdout"))
    assert foresee(DATA, settings(), ("crawl", "extract", "filter", "dedup")) == []


def test_who_goes_on_from_a_release_learns_no_vocabulary_and_may_take_few_steps() -> None:
    write_stage(DATA / "dedup", corpus(60))
    asked = ("train.epochs=1", "tokenizer.vocab_size=100000")
    assert "tokenizer.vocab_size" in refused(settings(*asked, profile="small"))
    found = foresee(DATA, settings(*asked, "train.start_from=release", profile="small"), ALL)
    assert not {"tokenizer", "train"} & {one.stage for one in found}


def test_what_would_only_say_little_stops_nothing() -> None:
    write_stage(DATA / "dedup", corpus(60))
    found = foresee(DATA, settings("train.epochs=1", "holdout.items_per_document=3", profile="small"), ALL)
    assert {one.stage for one in found} == {"train", "gate"}
    said = "; ".join(map(str, found))
    assert "too few to tell a small model from guessing (holdout.items_per_document" in said


def stops(run: Callable[..., Any], params: StageParams, source: str, folder: Path) -> bool:
    try:
        run(params=params, inputs={source: folder}, output=Path("out"))
    except CorpusTooSmallError:
        return True
    finally:
        shutil.rmtree("out", ignore_errors=True)
    return False


def foreseen(checked: dict[str, StageParams], stage: str) -> bool:
    try:
        found: list[Shortage] = foresee(DATA, checked, (stage,))
    except CorpusTooSmallError:
        return True
    assert not any(one.stops for one in found)
    return False


@pytest.mark.parametrize("pages", [20, 45, 90])
@pytest.mark.parametrize("assignment", ["holdout.min_documents=20", "holdout.min_items=60", "holdout.fraction=0.4",
                                        "holdout.max_documents=50", "holdout.items_per_document=1"])  # fmt: skip
def test_holdout_stops_where_that_was_foreseen(pages: int, assignment: str) -> None:
    write_stage(DATA / "dedup", corpus(pages))
    checked = settings("holdout.fraction=0.3", "holdout.min_documents=8", assignment)
    assert stops(holdout.run, checked["holdout"], "perplexity", DATA / "dedup") is foreseen(checked, "holdout")


@pytest.mark.parametrize("words", [100, 3000, 9000])
@pytest.mark.parametrize("reference", ["{hosts: [], otherwise: corpus}", "{hosts: [b.example], otherwise: error}",
                                       "{hosts: [b.example], otherwise: corpus}"])  # fmt: skip
def test_perplexity_stops_where_that_was_foreseen(words: int, reference: str) -> None:
    pages = [document(prose(n, sentences=10), name=str(n), host="ab"[n % 2] + ".example") for n in range(60)]
    write_stage(DATA / "dedup", [pages])
    checked = settings(f"perplexity.reference={reference}", f"perplexity.min_reference_words={words}", profile="small")
    assert stops(perplexity.run, checked["perplexity"], "dedup", DATA / "dedup") is foreseen(checked, "perplexity")


@pytest.mark.parametrize("vocabulary", [300, 1024, 20000])
def test_the_tokenizer_stops_where_that_was_foreseen(vocabulary: int) -> None:
    write_stage(DATA / "dedup", corpus(30))
    checked = settings(f"tokenizer.vocab_size={vocabulary}", profile="small")
    assert stops(tokenizer.run, checked["tokenizer"], "mix", DATA / "dedup") is foreseen(checked, "tokenizer")
