"""A score that is NaN reaches no threshold, and a language means the same however it is named."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.contracts.document import Document, read_documents
from tasks.contracts.errors import ParamsError
from tasks.contracts.ledger import read_ledger
from tasks.crawl.stage import Params as CrawlParams
from tasks.crawl.stage import run as crawl
from tasks.extract.stage import Params as ExtractParams
from tasks.extract.stage import run as extract
from tasks.filter.loading import load
from tasks.filter.rules.gopher_quality import GopherQuality
from tasks.filter.rules.language import Language
from tasks.filter.rules.quality_classifier import QualityClassifier
from tasks.filter.stage import Params, answer, run
from tasks.filter.word_splitting import words_of
from tasks.mix.shares import Group
from tests.tasks.contracts.test_languages import NAMED

pytestmark = pytest.mark.usefixtures("workspace")
TEXT = "The river rises in the hills and runs to the sea, where it is met with the tide. " * 3
NAN_RULE = """
import math
from tasks.contracts.base import Drop, Rule
class Sure(Rule):
    score_settings = ("how",)
    how: str = "any"
    def scores(self, document): return {"filter.sure": math.nan if "hills" in document.text else 0.9}
    def __call__(self, document):
        return Drop() if document.scores["filter.sure"] < 0.5 else None
"""


def document(language: str | None = "en", score: float | None = 0.99, **more: object) -> Document:
    facts = {"doc_id": "1", "url": "", "host": "", "record_id": "1", "source": "t", "text": TEXT}
    return Document(**{**facts, "language": language, "language_score": score, **more})  # type: ignore[arg-type]


@pytest.mark.parametrize("code", ["en", "de", "zh", "no", "he", "fa"])
def test_a_language_means_the_same_in_settings_and_documents(code: str) -> None:
    for setting in NAMED[code]:
        for stated in NAMED[code]:
            assert Language(keep=(setting,))(document(stated)) is None, (setting, stated)
        assert Language(keep=(setting,))(document("la")).rule == "other"  # type: ignore[union-attr]
        assert Group(name="g", languages=(setting,)).takes(document(NAMED[code][-1]))
        assert not Group(name="g", languages=(setting,)).takes(document("la"))


def test_a_setting_that_names_no_language_is_refused() -> None:
    with pytest.raises(ParamsError, match="no language is called 'xx'"):
        load([{"language": {"keep": ["xx"]}}])


@pytest.mark.parametrize("named", ["eng", "en", "English", "eng_Latn", "en-GB"])
def test_words_are_split_in_a_language_of_any_name(named: str) -> None:
    assert len(words_of(TEXT, named)) == len(words_of(TEXT, "eng"))
    (loaded,) = load([{"gopher_quality": {"language": named, "min_doc_words": 1}}])
    assert loaded.call(document()) is None


def test_documents_that_are_brought_have_their_language_by_its_code(tmp_path: Path) -> None:
    stated = {"eng_Latn": "en", "English": "en", "ger": "de", "zh-Hant": "zh", "__label__fra_Latn": "fr", "EN": "en",
              "unknown": None, "und": None, "": None, "lang7": None}  # fmt: skip
    rows = [{"id": name, "text": TEXT, "language": name, "language_score": 0.5} for name in stated]
    rows += [{"id": "lang", "text": TEXT, "lang": "eng"}, {"id": "none", "text": TEXT}]
    Path("x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    crawl(params=CrawlParams(source="text", paths=("x.jsonl",)), inputs={}, output=tmp_path / "crawl")
    kept = {one.record_id: one for one in read_documents(tmp_path / "crawl" / "part-00000.parquet")}
    assert [(kept[name].language, kept[name].language_score) for name in stated if name] == [
        (code, 0.5 if code else None) for name, code in stated.items() if name
    ]
    assert kept["lang"].language == "en"
    extract(params=ExtractParams(), inputs={"crawl": tmp_path / "crawl"}, output=tmp_path / "extract")
    found = {one.record_id: one for one in read_documents(tmp_path / "extract" / "part-00000.parquet")}
    assert {found[name].language for name in ("unknown", "und", "lang7", "none")} == {"en"}
    assert found["ger"].language == "de", "what is stated is believed"


@pytest.mark.parametrize("lost", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_no_number_keeps_no_document(lost: float, tmp_path: Path) -> None:
    rows: dict[str, list[Any]] = {
        "id": ["a", "b", "c"],
        "text": [TEXT] * 3,
        "language": ["en"] * 3,
        "language_score": [lost, 0.9, None],
    }
    pq.write_table(pa.table(rows), "x.parquet")
    crawl(params=CrawlParams(source="text", paths=("x.parquet",)), inputs={}, output=tmp_path / "crawl")
    extract(params=ExtractParams(), inputs={"crawl": tmp_path / "crawl"}, output=tmp_path / "extract")
    for bound in (0.0, 0.65):
        output = tmp_path / f"filter-{bound}"
        rules = [{"language": {"keep": ["en"], "min_score": bound}}]
        run(params=Params(rules=rules), inputs={"extract": tmp_path / "extract"}, output=output)
        assert [one.record_id for one in read_documents(output / "part-00000.parquet")] == ["b", "c"]
        (row,) = read_ledger(output / "dropped" / "part-00000.parquet")
        assert (row.rule, row.record_id, row.score is not None and math.isnan(row.score)) == (
            "language.min_score",
            "a",
            True,
        )


def test_nan_reaches_no_threshold_of_a_rule() -> None:
    for bound in (0.0, 0.5):
        rule = QualityClassifier(model="x.json", min_score=bound)
        assert rule(document(scores={"filter.quality": math.nan})).rule == "min_score"  # type: ignore[union-attr]
        assert Language(min_score=bound)(document(score=math.nan)).rule == "min_score"  # type: ignore[union-attr]
    # A text of signs alone has no average word.
    without = GopherQuality(min_doc_words=0, max_non_alpha_words_ratio=0, min_stop_words=0)
    answered = without(document(text="; . ; ."))
    assert answered is not None
    assert answered.rule == "below_avg_threshold"


def test_a_filter_of_ones_own_that_measures_nan_keeps_nothing_by_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.filter import rules as package

    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "sure.py").write_text(NAN_RULE)
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path / "own")])
    (loaded,) = load([{"sure": {}}])
    assert loaded.scores is not None
    lost, known = document(), document(text="Down to the sea.")
    drop = answer(loaded, lost.with_scores(loaded.scores(lost)))
    assert drop is not None
    assert (drop.rule, drop.detail) == ("sure.nan", "filter.sure is not a number")
    assert answer(loaded, known.with_scores(loaded.scores(known))) is None
