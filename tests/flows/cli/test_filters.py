"""`headwater filters`: what people see of the filters, on a workspace with a few documents."""

from __future__ import annotations

import doctest
import importlib
import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows.cli import filters
from tasks.contracts.errors import InputError, ParamsError, UsageError
from tasks.filter import rules
from tasks.filter.conftest import document as empty_document
from tasks.filter.loading import rule_class
from tests.conftest import ROOT
from tests.corpus import document, prose, write_stage

SETTINGS = """
filter:
  rules:
    - length: {min_words: 30}
    - c4: {filter_no_terminal_punct: false, min_num_sentences: 1}
    - pii: {}
"""


@pytest.fixture
def folder(workspace: Path) -> Path:
    """Ten documents: five of prose, three short ones, one with an address, one with an address and little else."""
    (workspace / "params.yaml").write_text(SETTINGS)
    shutil.copy2(ROOT / "dvc.yaml", workspace / "dvc.yaml")
    texts = [*(prose(i) for i in range(5)), *(f"Short text {i}." for i in range(3))]
    texts += [prose(9) + "\nWrite to jane@corp.example for <more> of it.", "Mail joe@corp.example now."]
    documents = [document(text, name=str(i)) for i, text in enumerate(texts)]
    write_stage(workspace / "data" / "extract", [documents[:4], documents[4:]], stage="extract")
    return workspace


def run(*arguments: str) -> str:
    result = CliRunner().invoke(filters.app, list(arguments), env={"COLUMNS": "80"})
    if result.exception is not None:
        raise result.exception
    return result.stdout


def tried(*arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run("try", *arguments, "--json"))
    return found


def test_the_list_says_which_filters_are_in_use(folder: Path) -> None:
    listed = {row["name"]: row["used"] for row in json.loads(run("list", "--json"))}
    assert listed["pii"] is True
    assert listed["secrets"] is False
    assert {"c4", "fineweb", "quality_classifier", "refinedweb_lines", "url"} <= set(listed)
    assert max(map(len, run("list").splitlines())) <= 80


@pytest.mark.parametrize("name", ["length", "url", "quality_classifier", "refinedweb_lines"])
def test_show_names_every_setting_with_meaning_and_default(folder: Path, name: str) -> None:
    shown = json.loads(run("show", name, "--json"))
    assert all(setting["meaning"] for setting in shown["settings"])
    printed = run("show", name)
    assert all(setting["name"] in printed for setting in shown["settings"])


def test_show_gives_the_value_of_params(folder: Path) -> None:
    settings = {one["name"]: one for one in json.loads(run("show", "length", "--json"))["settings"]}
    assert (settings["min_words"]["default"], settings["min_words"]["params"]) == (50, 30)


def test_try_counts_alone_and_after_the_others(folder: Path) -> None:
    found = tried("pii")
    assert found["documents"] == {"tried": 10, "all": 10}
    assert {k: found["alone"][k] for k in ("asked", "kept", "edited", "dropped")} == {
        "asked": 10,
        "kept": 8,
        "edited": 2,
        "dropped": 0,
    }
    # The other rules drop the four short ones.
    assert (found["after_the_others"]["asked"], found["after_the_others"]["edited"]) == (6, 1)
    first, second = found["cases"]
    assert (first["marginal"], second["marginal"]) == (True, False)
    assert first["excerpt"]["found"] == "jane@corp.example"
    assert first["excerpt"]["becomes"] == "<email>"


def test_try_takes_other_settings_and_leaves_params_alone(folder: Path) -> None:
    assert tried("length")["alone"]["dropped"] == 4
    found = tried("length", "--set", "min_words=3")
    assert (found["alone"]["dropped"], found["settings"]["min_words"]) == (0, 3)
    assert (folder / "params.yaml").read_text() == SETTINGS


def test_try_takes_a_sample_spread_over_the_shards(folder: Path) -> None:
    found = tried("length", "--sample", "4")
    assert found["documents"] == {"tried": 4, "all": 10}
    assert tried("length", "--sample", "4") == found
    assert [case["url"] for case in found["cases"]] == ["https://a.example/5", "https://a.example/7"]


def test_try_takes_any_filter_of_datatrove(folder: Path) -> None:
    found = tried("datatrove.pipeline.filters:RegexFilter", "--set", "regex_exp=Short")
    assert found["alone"]["rules"] == {"RegexFilter.dropped": 3}


def test_the_terminal_fits_and_the_page_needs_nothing_from_outside(folder: Path) -> None:
    printed = run("try", "pii", "--html", "try.html")
    assert max(map(len, printed.splitlines())) <= 80
    assert "jane@corp.example → <email>" in " ".join(printed.split())
    page = (folder / "try.html").read_text()
    assert "<mark>jane@corp.example</mark><ins>&lt;email&gt;</ins>" in page
    assert "&lt;more&gt;" in page
    assert not re.search(r"""(?:src|href)=|url\(|@import""", page)
    assert "prefers-color-scheme: dark" in page


def test_wrong_use_says_what_is_right(folder: Path) -> None:
    with pytest.raises(ParamsError, match="gopher_quality"):
        run("try", "goper_quality")
    with pytest.raises(ParamsError, match="min_words"):
        run("try", "length", "--set", "min_word=3")
    with pytest.raises(UsageError, match="KEY=VALUE"):
        run("try", "length", "--set", "min_words")
    with pytest.raises(InputError, match="part-"):
        run("try", "length", "--input", "data/nothing")


def test_a_classifier_is_trained_by_one_command_and_tried(folder: Path) -> None:
    (folder / "good.txt").write_text("".join(prose(i, 3).replace("\n", " ") + "\n" for i in range(100)))
    spam = ("buy cheap pills now click here " + str(i) + "\n" for i in range(100))
    (folder / "bad.txt").write_text("".join(spam))
    printed = run("train-classifier", "--good", "good.txt", "--bad", "bad.txt", "--output", "model.json")
    assert re.search(r"AUC\s+(0\.9\d\d|1\.000)", printed)
    found = tried("quality_classifier", "--set", "model=model.json")
    assert found["alone"]["asked"] == 10
    assert all(case["score"] < 0.5 for case in found["cases"])


@pytest.fixture
def own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a workspace's filters, as yet without one, beside ours."""
    written = folder / "tasks" / "filter" / "rules"
    written.mkdir(parents=True)
    monkeypatch.setattr(rules, "__path__", [*rules.__path__, str(written)])
    before = set(sys.modules)
    importlib.invalidate_caches()
    yield written
    for name in set(sys.modules) - before:
        if name.startswith(f"{rules.__name__}."):
            del sys.modules[name]


@pytest.mark.parametrize("name", ["exclamations", "too_loud", "a1", "threshold", "field"])
def test_a_new_filter_works_as_it_is_written(own: Path, folder: Path, name: str) -> None:
    printed = run("new", name)
    file = own / f"{name}.py"
    assert f"tasks/filter/rules/{name}.py" in printed
    assert f"- {name}: {{max_share: 0.1}}" in printed
    assert f"filters try {name}" in printed
    module = importlib.import_module(f"{rules.__name__}.{name}")
    tests = doctest.DocTestFinder().find(module, extraglobs={"document": empty_document})
    outcome = doctest.DocTestRunner().run(next(test for test in tests if test.examples))
    assert (outcome.failed, outcome.attempted) == (0, 2)
    documents = [document(text, name=text) for text in ("Buy! Now!", "Well, well, well!", "Quiet.")]
    write_stage(folder / "data" / "extract", [documents], stage="extract")
    assert tried(name)["alone"]["rules"] == {f"{name}.max_share": 1}
    assert tried(name, "--set", "max_share=0.3")["alone"]["dropped"] == 2
    assert rule_class(name).thresholds() == ("max_share",)
    with pytest.raises(UsageError, match="already"):
        run("new", name)
    assert file.read_text().count("class ") == 1


@pytest.mark.parametrize(
    "name",
    ["Loud", "too loud", "1st", "../loud", "loud.py", "class", "_loud", "loud_", "rule", "drop", "", "a__b", "ä"],
)
def test_a_name_that_no_filter_can_have_is_refused(own: Path, name: str) -> None:
    with pytest.raises(UsageError, match="such as exclamations") as caught:
        run("new", "--", name)
    assert repr(name) in str(caught.value)
    assert not list(own.rglob("*"))


@pytest.mark.parametrize("name", ["length", "c4", "gopher_quality"])
def test_a_filter_that_is_there_is_not_written_over(own: Path, name: str) -> None:
    with pytest.raises(UsageError, match=f"filters show {name}"):
        run("new", name)
    assert not list(own.iterdir())


def test_a_filter_is_written_in_a_workspace_only(folder: Path) -> None:
    with pytest.raises(UsageError, match="headwater init"):
        run("new", "exclamations")


@pytest.mark.parametrize(
    ("old", "wrong", "said"),
    [
        ("return None", "return False", "False (bool) is no answer: return None, a Drop or an Edit"),
        ("return None", "return str(share)", "'0.0' (str) is no answer: return None, a Drop or an Edit"),
        ('rule="max_share", ', 'rule="max_share", detail=7, ', "detail of a Drop is 7 (int)"),
        ("score=share", "score=str(share)", "score of a Drop is '1.0' (str)"),
        ("return Measured(values=", "return (", "is no measurement: return Measured(values={name: number})"),
        ('{"share": ', '{"share": "much" or ', "the value share of a Measured is 'much' (str)"),
        ("max(1, len(words))", "0", "ZeroDivisionError: division by zero"),
        ('measured.values["share"]', 'measured.values["shares"]', "KeyError: 'shares'"),
    ],
)
def test_try_names_a_wrong_answer_with_the_rule_and_its_file(
    own: Path, folder: Path, old: str, wrong: str, said: str
) -> None:
    write_stage(folder / "data/extract", [[document("Buy! Now!", name="1"), document("No.", name="2")]], "extract")
    run("new", "loud")
    file = own / "loud.py"
    assert file.read_text().count(old) == 1
    file.write_text(file.read_text().replace(old, wrong))
    case = next(case for case in tried("loud")["cases"] if case["rule"] == "loud.error")
    assert said in case["detail"]
    assert "loud.py, line " in case["detail"]
    assert "loud.error" in run("try", "loud")


def test_the_recipe_of_the_docs_adds_a_filter(own: Path, folder: Path) -> None:
    recipe = (ROOT / "docs" / "filters.md").read_text()
    (name,) = re.findall(r"^\.venv/bin/headwater filters new (\w+)$", recipe, re.M)
    run("new", name)
    assert name in run("list")
    (line,) = re.findall(rf"`- {name}: (.*?)`", recipe)
    (folder / "params.yaml").write_text(SETTINGS + f"    - {name}: {line}\n")
    assert tried(name)["settings"] == {"max_share": 0.01}
