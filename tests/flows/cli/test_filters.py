"""`headwater filters`: what people see of the filters, on a workspace with a few documents."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows.cli import filters
from tasks.contracts.errors import InputError, ParamsError, UsageError
from tasks.filter import rules
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


def test_the_recipe_of_the_docs_adds_a_filter(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = (ROOT / "docs" / "filters.md").read_text()
    found = re.search(r"cat > tasks/filter/rules/(\w+)\.py <<'EOF'\n(.*?)\nEOF\n", recipe, re.S)
    assert found
    own = folder / "rules"
    own.mkdir()
    (own / f"{found[1]}.py").write_text(found[2])
    monkeypatch.setattr(rules, "__path__", [*rules.__path__, str(own)])
    monkeypatch.delitem(sys.modules, f"{rules.__name__}.{found[1]}", raising=False)
    assert found[1] in run("list")
    assert tried(found[1], "--set", "max_per_word=0")["alone"]["dropped"] == 0
    (folder / "params.yaml").write_text(SETTINGS + f"    - {found[1]}: {{max_per_word: 0.5}}\n")
    assert tried(found[1])["settings"] == {"max_per_word": 0.5}
