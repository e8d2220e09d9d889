from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.contracts.errors import InputError
from tasks.contracts.manifest import manifest_hash
from tests.training.release.test_release_use import make_release
from training.adapt.starting_release import lineage_of, made_from, missing_data, read_whole_base


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("base")
        patch.setenv("HEADWATER_STATE", str(root / "state"))
        return make_release(root)


@pytest.fixture
def release(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "release")


def add_entry(folder: Path) -> None:
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_bytes())
    tokenizer["model"]["vocab"]["another"] = len(tokenizer["model"]["vocab"])
    path.write_text(json.dumps(tokenizer))


BREAKS: list[tuple[str, Callable[[Path], object], str]] = [
    ("its tokenizer", add_entry, "tokenizer is not the one"),
    ("no tokenizer", lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer is not the one"),
    ("no manifest", lambda folder: (folder / "_manifest.json").unlink(), "there is no release to begin with"),
    ("no weights", lambda folder: (folder / "model.safetensors").unlink(), "the base is not whole"),
    ("no manifests of stages", lambda folder: shutil.rmtree(folder / "manifests"), "the base is not whole"),
    (
        "a config that is none",
        lambda folder: (folder / "config.json").write_text("[]"),
        "there is no release to begin with",
    ),
    ("taken down", lambda folder: (folder / "takedown.json").write_text("{}"), "was taken down"),
]


@pytest.mark.parametrize(("name", "hurt", "said"), BREAKS, ids=[name for name, _, _ in BREAKS])
def test_what_cannot_be_begun_with_is_told(release: Path, name: str, hurt: Callable[[Path], object], said: str) -> None:
    assert read_whole_base(release).stage == "release"
    hurt(release)
    with pytest.raises(InputError, match=said) as told:
        read_whole_base(release)
    assert told.value.where
    assert told.value.fix


def test_a_stage_that_is_no_release_is_told(made: Path) -> None:
    with pytest.raises(InputError) as told:
        read_whole_base(made.parent / "data" / "train")
    assert told.value.found == "ValueError: a folder of the stage train"


def test_the_data_that_the_gate_compares_with_has_to_be_the_bases(made: Path, tmp_path: Path) -> None:
    data = made.parent / "data"
    assert made_from(made, "mix") == manifest_hash(data / "mix")
    assert list(missing_data(made, {name: data / name for name in ("holdout", "mix")})) == []
    (one,) = missing_data(made, {"mix": data / "holdout"})
    (none,) = missing_data(made, {"mix": tmp_path / "mix"})
    assert (one.found, none.found) == (manifest_hash(data / "holdout"), "no such folder")


def test_what_an_adapted_release_was_made_from_stands_in_its_base(made: Path, tmp_path: Path) -> None:
    (tmp_path / "manifests").mkdir()
    shutil.copytree(made, tmp_path / "base" / "base")
    (tmp_path / "base" / "manifests").mkdir()
    assert made_from(tmp_path, "mix") == made_from(made, "mix")
    with pytest.raises(InputError):
        made_from(made, "mixture")
    assert lineage_of(made)["name"]
