from __future__ import annotations

import shutil
import subprocess
import sys
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

from flows.workspace.graph import Stage, load_graph
from flows.workspace.params import apply_profile, check_params, read_params, set_values, stage_params
from tasks.contracts import stages
from tasks.contracts.errors import ParamsError
from tasks.extract.stage import Params as ExtractParams
from tests.conftest import ROOT
from tests.flows.toys.toy.stage import Params

PARAMS = """\
# every setting
toy:
  words: 7  # fewest words
  mode: fast

other: {tasks: [a, b]}
"""


@pytest.fixture
def graph(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Stage]:
    Path("params.yaml").write_text(PARAMS)
    monkeypatch.setattr(stages, "PACKAGES", ("tests.flows.toys",))
    return {"toy": Stage(name="toy", inputs={}, output=Path("data/toy"), params=("toy",))}


def failure(graph: dict[str, Stage], *assignments: str) -> str:
    set_values(assignments)
    with pytest.raises(ParamsError) as caught:
        stage_params(read_params(), graph["toy"])
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_a_section_becomes_its_stages_model_with_borrowed_fields(graph: dict[str, Stage]) -> None:
    params = stage_params(read_params(), graph["toy"])
    assert params == Params(words=7, mode="fast", tasks=("a", "b"))
    assert params.identity() == {"words": 7, "mode": "fast", "tasks": ["a", "b"]}


def test_an_unknown_key_is_named_with_its_section_what_is_allowed_and_the_nearest(graph: dict[str, Stage]) -> None:
    message = failure(graph, "toy.wrods=3")
    assert "toy.wrods: unknown key" in message
    assert "did you mean words?" in message
    assert "allowed: words, mode, workers, tasks" in message


@pytest.mark.parametrize("stage", load_graph(ROOT / "dvc.yaml").values(), ids=lambda stage: stage.name)
def test_every_stage_refuses_a_key_that_it_does_not_know(stage: Stage) -> None:
    settings = read_params(ROOT / "params.yaml")
    stage_params(settings, stage)
    with pytest.raises(ParamsError, match=rf"{stage.name}\.no_such_key: unknown key") as caught:
        stage_params({**settings, stage.name: {**settings[stage.name], "no_such_key": 1}}, stage)
    assert f"allowed: {next(iter(stage.params_class.model_fields))}" in str(caught.value)


def test_a_wrong_type_is_named_with_what_it_means(graph: dict[str, Stage]) -> None:
    message = failure(graph, "toy.words=many")
    assert "toy.words = 'many'" in message
    assert "valid integer" in message
    assert "Fewest words that a document may have." in message


def test_an_impossible_value_says_what_is_allowed(graph: dict[str, Stage]) -> None:
    assert "greater than or equal to 1" in failure(graph, "toy.words=0")
    assert "'fast' or 'precise'" in failure(graph, "toy.mode=slow")


def test_every_wrong_setting_is_named_at_once(graph: dict[str, Stage]) -> None:
    message = failure(graph, "toy.words=0", "toy.mode=slow")
    assert "2 settings" in message


def test_a_borrowed_setting_has_one_place(graph: dict[str, Stage]) -> None:
    assert "set other.tasks instead" in failure(graph, "toy.tasks=[x]")


def test_an_unknown_section_is_an_error(graph: dict[str, Stage]) -> None:
    set_values(["tyo.words=3"])
    with pytest.raises(ParamsError, match="no stage reads: other, tyo"):
        check_params(read_params(), graph)


def test_setting_a_value_keeps_comments_and_shows_the_change(graph: dict[str, Stage]) -> None:
    assert set_values(["toy.words=9", "toy.extra.deep=[1, x]"]).splitlines()[:2] == [
        "-  words: 7  # fewest words",
        "+  words: 9  # fewest words",
    ]
    text = Path("params.yaml").read_text()
    assert "# every setting" in text
    assert read_params()["toy"]["extra"] == {"deep": [1, "x"]}
    assert set_values(["toy.words=9"]) == ""


def test_a_key_is_not_laid_over_a_name_that_stands_for_all_keys(workspace: Path) -> None:
    shutil.copy2(ROOT / "params.yaml", "params.yaml")
    set_values(["train.model=125m"])
    before = Path("params.yaml").read_bytes()
    with pytest.raises(ParamsError, match=r"model: '125m', and for it \{'layers'"):
        set_values(["train.model.layers=3"])
    assert Path("params.yaml").read_bytes() == before
    set_values(["train.model=7b"])
    assert read_params()["train"]["model"] == "7b"


@pytest.mark.parametrize("wrong", ["toy", "toy=1", "toy.=1", ".words=1", "toy.words", "toy.words=[1"])
def test_a_malformed_assignment_changes_nothing(graph: dict[str, Stage], wrong: str) -> None:
    with pytest.raises(ParamsError, match=r"SECTION\.KEY=VALUE"):
        set_values(["toy.words=9", wrong])
    assert Path("params.yaml").read_text() == PARAMS


@pytest.mark.parametrize(
    "content", ["- a\n", "a: [1\n", "just text\n", "1: 2\n", "toy: {2: 1}\n", "a: &a [*a]\n", "a: " + "[" * 5000]
)
def test_a_settings_file_that_is_none_is_a_clear_error(graph: dict[str, Stage], content: str) -> None:
    Path("params.yaml").write_text(content)
    with pytest.raises(ParamsError, match=r"params\.yaml"):
        read_params()


def test_a_folder_in_the_place_of_the_settings_is_a_clear_error(graph: dict[str, Stage]) -> None:
    Path("params.yaml").unlink()
    Path("params.yaml").mkdir()
    with pytest.raises(ParamsError, match=r"params\.yaml cannot be read"):
        read_params()


def _models(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """Yield a model of settings and those of the groups in it."""
    yield model
    inside = [field.annotation for field in model.model_fields.values()]
    while inside:
        one = inside.pop()
        inside += typing.get_args(one)
        if isinstance(one, type) and issubclass(one, BaseModel):
            yield from _models(one)


@pytest.mark.parametrize("stage", load_graph(ROOT / "dvc.yaml").values(), ids=lambda stage: stage.name)
def test_no_setting_is_a_number_without_end(stage: Stage) -> None:
    for model in _models(stage.params_class):
        if any("float" in str(field.annotation) for field in model.model_fields.values()):
            assert model.model_config.get("allow_inf_nan") is False, model


@pytest.mark.parametrize("number", [float("inf"), float("nan")])
def test_a_page_may_not_take_for_ever(number: float) -> None:
    with pytest.raises(ValidationError):
        ExtractParams(page_seconds=number)


def test_a_profile_is_laid_over_and_an_unknown_one_names_those_there_are(graph: dict[str, Stage]) -> None:
    Path("infra/profiles").mkdir(parents=True)
    Path("infra/profiles/web.yaml").write_text("toy: {words: 50}\n")
    assert "+  words: 50" in apply_profile("web")
    with pytest.raises(ParamsError, match="did you mean web"):
        apply_profile("wed")


@pytest.mark.parametrize("profile", sorted(path.stem for path in (ROOT / "infra" / "profiles").glob("*.yaml")))
def test_every_profile_gives_settings_that_every_stage_takes(
    profile: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("params.yaml", "dvc.yaml", "infra"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "params.yaml").unlink()
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    assert apply_profile(profile) != ""
    assert check_params(read_params(), load_graph())


def test_a_change_touches_its_own_line_only(workspace: Path) -> None:
    shutil.copy2(ROOT / "params.yaml", "params.yaml")
    diff = set_values(["train.max_steps=7"])
    assert [line[0] for line in diff.splitlines() if not line.startswith(("---", "+++", "@@"))] == ["-", "+"]


def test_settings_are_checked_without_the_libraries_that_take_seconds_to_import() -> None:
    """Every command that reads params.yaml would wait for them."""
    code = (
        "import sys; from flows.workspace.graph import load_graph\n"
        "from flows.workspace.params import check_params, read_params\n"
        "check_params(read_params(), load_graph())\n"
        "print({'spacy', 'torch', 'scrapy', 'datasketch', 'ray', 'pandas'} & set(sys.modules))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert loaded.strip() == "set()"
