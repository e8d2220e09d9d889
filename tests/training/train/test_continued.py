"""Training that goes on from a release: from its very weights, with its tokenizer, and with its chain."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tasks.contracts.base_release import STARTED_FROM
from tasks.contracts.durable_files import write_json
from tasks.contracts.errors import HeadwaterError, InputError
from tasks.contracts.files import METRICS_NAME, MODEL_FOLDER, TOKENIZER_NAME
from tasks.contracts.manifest import MANIFEST_NAME, Counts, Manifest, commit_manifest, manifest_hash, read_manifest
from tasks.contracts.release import BASE_FOLDER, LINEAGE_NAME, MANIFESTS_FOLDER
from tests.training.train.in_process import SMALL, in_another_process
from tests.training.train.token_folders import make_tokens
from training.train.hyperparameters import Params
from training.train.stage import check_tokenizer

STILL = {"learning_rate": 1e-30, "final_learning_rate": 1e-30, "max_steps": 2}
"""A step so short that no weight changes."""


def make_release(trained: Path, folder: Path) -> Path:
    """Lay out what of a release training reads: the model, its tokenizer, and the chain."""
    shutil.copytree(trained / MODEL_FOLDER, folder)
    weights = json.loads((trained / METRICS_NAME).read_bytes())["weights_sha256"]
    write_json(folder / LINEAGE_NAME, {"name": folder.name, "weights_sha256": weights})
    (folder / MANIFESTS_FOLDER).mkdir()
    shutil.copyfile(trained / MANIFEST_NAME, folder / MANIFESTS_FOLDER / "train.json")
    if (trained / BASE_FOLDER).is_dir():
        shutil.copytree(trained / BASE_FOLDER, folder / BASE_FOLDER)
    return commit_release(folder)


def commit_release(folder: Path) -> Path:
    none = Counts(in_=0, out=0)
    commit_manifest(folder, stage="release", unit="files", params={}, inputs={}, counts=none)
    return folder


def weights_of(trained: Path) -> str:
    found: str = json.loads((trained / METRICS_NAME).read_bytes())["weights_sha256"]
    return found


def losses(trained: Path) -> list[float]:
    lines = (trained / "loss.csv").read_text().splitlines()[1:]
    return [float(line.split(",")[1]) for line in lines]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("continued")
    make_tokens(root)
    kinds: dict[str, dict[str, Any]] = {
        "llama": {},
        "gpt2": {"model": {"family": "gpt2", "layers": 1, "hidden_size": 16, "heads": 2}},
        "bf16": {"precision": "bf16", "strategy": "zero-1"},
    }
    in_another_process(root, [{"name": name, **settings} for name, settings in kinds.items()])
    for name in kinds:
        make_release(root / name, root / f"release-{name}")
    runs: list[dict[str, Any]] = []
    for name, settings in kinds.items():
        start = {"start_from": str(root / f"release-{name}")}
        runs.append({"name": f"{name}-still", **settings, **start, **STILL})
        runs.append({"name": f"{name}-on", **settings, **start, "seed": 2})
    runs.append({"name": "longer", "start_from": str(root / "release-llama"), "seq_len": 32, **STILL})
    runs += [
        {"name": "cut", "start_from": str(root / "release-llama"), "seed": 2, "stop": 5},
        {"name": "cut-on", "start_from": str(root / "release-llama"), "seed": 2},
    ]
    done = in_another_process(root, runs)
    assert [one["name"] for one in done if "manifest" not in one] == ["cut"]
    return root


@pytest.mark.parametrize("kind", ["llama", "gpt2", "bf16"])
def test_it_begins_with_the_very_weights_of_the_release(root: Path, kind: str) -> None:
    assert weights_of(root / f"{kind}-still") == weights_of(root / kind)
    assert weights_of(root / f"{kind}-on") != weights_of(root / kind)
    assert losses(root / f"{kind}-on")[0] < losses(root / kind)[0] - 0.1


def test_a_longer_context_is_the_released_models(root: Path) -> None:
    config = json.loads((root / "longer" / MODEL_FOLDER / "config.json").read_bytes())
    assert config["max_position_embeddings"] == 32
    assert weights_of(root / "longer") == weights_of(root / "llama")


def test_a_run_that_was_cut_off_goes_on_from_its_checkpoint_and_not_from_the_release(root: Path) -> None:
    assert manifest_hash(root / "cut-on") == manifest_hash(root / "llama-on")


def test_the_manifest_names_the_release_and_its_chain_goes_along(root: Path) -> None:
    manifest = read_manifest(root / "llama-on")
    named = manifest.params[STARTED_FROM]
    assert isinstance(named, dict)
    assert named["release"] == manifest_hash(root / "release-llama")
    assert named["weights_sha256"] == weights_of(root / "llama")
    assert "start_from" not in manifest.params
    kept = root / "llama-on" / BASE_FOLDER
    assert manifest_hash(kept) == named["release"]
    before = Manifest.model_validate_json((kept / MANIFESTS_FOLDER / "train.json").read_bytes())
    assert before == read_manifest(root / "llama")


def test_a_chain_of_releases_goes_along_whole(root: Path, tmp_path: Path) -> None:
    second = make_release(root / "llama-on", tmp_path / "second")
    (done,) = in_another_process(root, [{"name": "third", "start_from": str(second), **STILL}])
    assert "manifest" in done
    kept = root / "third" / BASE_FOLDER
    assert manifest_hash(kept) == manifest_hash(second)
    assert manifest_hash(kept / BASE_FOLDER) == manifest_hash(root / "release-llama")


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "nothing there": ({"start_from": "nowhere"}, "not there"),
    "no release": ({"start_from": "data-like"}, "no release"),
    "another model": ({"start_from": "llama", "model": {"layers": 3}}, "--set 'train.model="),
    "another family": ({"start_from": "llama", "model": "gpt2"}, "another model"),
    "fewer positions": ({"start_from": "gpt2", "model": "own", "seq_len": 32}, "at most 16"),
    "a release that is replaced": ({"start_from": "data/release"}, "replace"),
    "a manifest that was changed": ({"start_from": "changed"}, "not as its manifest says"),
    "a family that is not here": ({"start_from": "foreign"}, "a model of gpt2, llama"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_gone_on_from_is_said_before_any_work(root: Path, workspace: Path, name: str) -> None:
    for kind in ("llama", "gpt2"):
        shutil.copytree(root / f"release-{kind}", kind)
    shutil.copytree("llama", "data/release")
    shutil.copytree("llama", "changed")
    path = Path("changed", MANIFESTS_FOLDER, "train.json")
    path.write_bytes(path.read_bytes().replace(b"16", b"32"))
    shutil.copytree("gpt2", "foreign")
    path = Path("foreign", MANIFESTS_FOLDER, "train.json")
    path.write_bytes(path.read_bytes().replace(b"gpt2", b"gpt7"))
    Path("foreign", MANIFEST_NAME).unlink()
    commit_release(Path("foreign"))
    shutil.copytree(root / "tokenize", "data-like")
    asked, said = WRONG[name]
    own = {"family": "gpt2", "layers": 1, "hidden_size": 16, "heads": 2}
    settings = SMALL | asked | ({"model": own} if asked.get("model") == "own" else {})
    faults: list[HeadwaterError] = list(Params.model_validate(settings).faults())
    assert faults
    assert said in str(faults[0])


def test_weights_that_were_changed_are_refused(root: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(root / "release-llama", tmp_path / "changed")
    path = next(folder.glob("*.safetensors"))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(AssertionError, match="not those that it was released with"):
        in_another_process(root, [{"name": "refused", "start_from": str(folder), **STILL}])


def test_text_of_another_tokenizer_is_refused(root: Path, tmp_path: Path) -> None:
    other = shutil.copytree(root / "tokenizer", tmp_path / "tokenizer")
    write_json(other / TOKENIZER_NAME, {"added_tokens": [], "other": True})
    with pytest.raises(InputError, match="another tokenizer"):
        check_tokenizer(other, root / "release-llama")
    check_tokenizer(root / "tokenizer", root / "release-llama")
