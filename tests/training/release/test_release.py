import json
from pathlib import Path
from typing import Any

import pytest

from tasks.contracts.errors import InputError, ManifestError
from tasks.contracts.manifest import Counts, manifest_hash, read_manifest
from tests.planted import plant_manifest
from tests.training.release.papers.chain import STAGES, make_chain
from training.champions import champions
from training.release import stage as release
from training.release.papers.write import PAPERS
from training.train.model import ModelSize, build_model, model_config, save_model


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWATER_STATE", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)


def make_stages(root: Path) -> dict[str, Path]:
    """Write a chain of stages whose model can be loaded."""
    folders = make_chain(root)
    size = ModelSize(layers=1, hidden_size=16, heads=2, kv_heads=1)
    config = model_config(size, vocab_size=50, seq_len=16, eos_id=0)
    save_model(folders["train"] / "model", config, dict(build_model(config, seed=1).named_parameters()))
    return folders


def test_a_release_loads_and_generates_and_its_cards_say_what_the_manifests_say(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    stages = make_stages(tmp_path / "data")
    release.run(params=release.Params(), inputs=stages, output=tmp_path / "out")
    model: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.generate(torch.tensor([[1, 2]]), max_new_tokens=3).shape[1] > 2
    card, data = (tmp_path / "out" / "README.md").read_text(), (tmp_path / "out" / "data_card.md").read_text()
    figures = json.loads((stages["train"] / "metrics.json").read_text())
    assert f"{figures['parameters']:,} parameters" in card
    dropped = read_manifest(stages["dedup"]).counts.dropped["near_duplicate"]
    assert f"| dedup | `near_duplicate` | {dropped:,} |" in data
    modes = {path.stat().st_mode for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert len(modes) == 1, "who may read the card may read the weights"
    lineage = json.loads((tmp_path / "out" / "lineage.json").read_text())
    assert lineage["stages"]["gate"]["inputs"] == {"evaluate": manifest_hash(stages["evaluate"])}
    assert {path.stem for path in (tmp_path / "out" / "manifests").iterdir()} == set(STAGES)
    assert {path.name for path in (tmp_path / "out").iterdir()} >= set(PAPERS)
    assert [champion.weights_sha256 for champion in champions()] == ["w1"]


def test_two_releases_of_the_same_input_are_the_same_bytes(tmp_path: Path) -> None:
    stages = make_stages(tmp_path / "data")
    for name in ("one", "two"):
        release.run(params=release.Params(), inputs=stages, output=tmp_path / name)
    assert manifest_hash(tmp_path / "one") == manifest_hash(tmp_path / "two")
    assert len(champions()) == 1


def test_a_broken_chain_is_not_released(tmp_path: Path) -> None:
    stages = make_stages(tmp_path / "data")
    plant_manifest(
        stages["mix"], stage="mix", unit="documents", params={"x": 1}, inputs={}, counts=Counts(in_=0, out=0)
    )
    with pytest.raises(ManifestError, match=r"chain(.|\n)*tokenizer"):
        release.run(params=release.Params(), inputs=stages, output=tmp_path / "out")
    with pytest.raises(InputError, match="without crawl"):
        release.run(params=release.Params(), inputs={k: v for k, v in stages.items() if k != "crawl"}, output=tmp_path)
