"""The language model is walked as py3langid walks it, and lines are told apart."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from tasks.extract.language_id import CLASSIFIED_CHARACTERS, identify, languages_by_line

ENGLISH = "The river rises in the hills and runs to the sea, where it is met with the tide twice every day."
GERMAN = "Der Fluss entspringt in den Bergen und fließt in das Meer, wo ihn zweimal am Tag die Flut trifft."
RUSSIAN = "Река берёт начало в горах и течёт к морю, где дважды в день её встречает прилив."


@pytest.fixture(scope="module")
def library() -> Any:
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


@settings(max_examples=50, deadline=None)
@given(
    st.text(max_size=80)
    | st.sampled_from([ENGLISH, GERMAN, RUSSIAN, ENGLISH.upper(), "東京は日本の首都です。", "a", "é"])
)
def test_the_answer_is_py3langids(library: Any, text: str) -> None:
    language, score = library.classify(text)
    found, probability = identify(text)
    assert probability == pytest.approx(score, abs=1e-4)
    # Two languages of one score, as for a text without features, may come in either order.
    assert found == language or probability == pytest.approx(score, abs=1e-5)


def test_only_the_beginning_decides() -> None:
    assert identify("x" * CLASSIFIED_CHARACTERS + GERMAN) == identify("x" * CLASSIFIED_CHARACTERS)


def test_lines_are_scored_by_their_length() -> None:
    shares = languages_by_line("\n".join([ENGLISH, GERMAN, "kurz", GERMAN]))
    assert shares == {"de": pytest.approx(2 / 3, abs=0.02), "en": pytest.approx(1 / 3, abs=0.02)}
    assert sum(shares.values()) == pytest.approx(1, abs=1e-5)
    assert languages_by_line("kurz\nshort") == {}


def test_a_long_text_costs_no_more_lines_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.extract.language_id.CLASSIFIED_LINES", 5)
    seen = []

    def identify(line: str) -> tuple[str, float]:
        seen.append(line)
        return "en", 1.0

    monkeypatch.setattr("tasks.extract.language_id.identify", identify)
    assert languages_by_line("\n".join([ENGLISH] * 23)) == {"en": 1.0}
    assert len(seen) <= 5
