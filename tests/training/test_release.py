import json
from pathlib import Path

import pytest

from tasks.contracts.document import Document, write_documents
from tasks.contracts.errors import InputError, ManifestError
from tasks.contracts.files import write_json
from tasks.contracts.manifest import Counts, commit_manifest, manifest_hash
from training import release
from training.champion import champions
from training.model import ModelSize, build_model, model_config, save_model


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWATER_STATE", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)


def make_stages(root: Path) -> dict[str, Path]:
    folders = {stage: root / stage for stage in release.STAGES}
    for folder in folders.values():
        folder.mkdir(parents=True)
    document = Document(doc_id="d", url="u", host="a.example", record_id="r", source="s", text="Some text.")
    write_documents(folders["mix"] / "part-00000.parquet", [document])
    size = ModelSize(layers=1, hidden_size=16, heads=2, kv_heads=1)
    config = model_config(size, vocab_size=50, seq_len=16, eos_id=0)
    save_model(folders["train"] / "model", config, dict(build_model(config, seed=1).named_parameters()))
    figures = {"parameters": 12345, "tokens_seen": 678, "steps": 9, "train_loss": 3.25, "validation_loss": 3.5}
    write_json(folders["train"] / "metrics.json", {**figures, "weights_sha256": "w1"})
    write_json(folders["tokenize"] / "tokens.json", {"vocab_size": 50, "tokens": 678, "documents": 1, "bytes": 10})
    write_json(folders["evaluate"] / "results.json", {"tasks": {"t": {"acc": 0.5, "items": 4}}, "settings": {}})
    rules = [{"rule": "floor", "verdict": "pass", "detail": "1.900 against 2.500"}]
    write_json(folders["gate"] / "report.json", {"verdict": "pass", "rules": rules})
    before: dict[str, Path] = {}
    for stage, folder in folders.items():
        params = {"seq_len": 16, "zero_stage": 3, "num_ranks": 1} if stage == "train" else {}
        counts = Counts(in_=5, out=3, dropped={"too_short": 2})
        commit_manifest(folder, stage=stage, unit="documents", params=params, inputs=before, counts=counts)
        before = {stage: folder}
    return folders


def test_a_release_loads_and_generates_and_its_cards_say_what_the_manifests_say(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    stages = make_stages(tmp_path / "data")
    release.run(params=release.Params(), inputs=stages, output=tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.generate(torch.tensor([[1, 2]]), max_new_tokens=3).shape[1] > 2
    card, data = (tmp_path / "out" / "README.md").read_text(), (tmp_path / "out" / "data_card.md").read_text()
    assert card.startswith("---\nlanguage: en\n")
    assert "12,345 parameters" in card
    assert "1.900 against 2.500" in card
    assert "| a.example | 1 | 10 |" in data
    assert "too_short: 2" in data
    lineage = json.loads((tmp_path / "out" / "lineage.json").read_text())
    assert lineage["stages"]["gate"]["inputs"] == {"evaluate": manifest_hash(stages["evaluate"])}
    assert {path.stem for path in (tmp_path / "out" / "manifests").iterdir()} == set(release.STAGES)
    assert [champion.weights_sha256 for champion in champions()] == ["w1"]


def test_two_releases_of_the_same_input_are_the_same_bytes(tmp_path: Path) -> None:
    stages = make_stages(tmp_path / "data")
    for name in ("one", "two"):
        release.run(params=release.Params(), inputs=stages, output=tmp_path / name)
    assert manifest_hash(tmp_path / "one") == manifest_hash(tmp_path / "two")
    assert len(champions()) == 1


def test_a_broken_chain_is_not_released(tmp_path: Path) -> None:
    stages = make_stages(tmp_path / "data")
    commit_manifest(
        stages["mix"], stage="mix", unit="documents", params={"x": 1}, inputs={}, counts=Counts(in_=0, out=0)
    )
    with pytest.raises(ManifestError, match=r"chain(.|\n)*tokenizer"):
        release.run(params=release.Params(), inputs=stages, output=tmp_path / "out")
    with pytest.raises(InputError, match="without crawl"):
        release.run(params=release.Params(), inputs={k: v for k, v in stages.items() if k != "crawl"}, output=tmp_path)
