"""A release as others use it: padded batches in transformers, and lm-eval by the card's own command from anywhere."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tasks.contracts.durable_files import write_json
from tasks.contracts.manifest import Counts, read_manifest
from tasks.contracts.tokenizer_files import EOS, PADDING
from tasks.holdout.lm_eval_files import BITS_PER_BYTE, CONTINUATION, write_task
from tasks.tokenizer.byte_level import save_tokenizer, train_tokenizer
from tests.corpus import prose
from tests.planted import plant_manifest
from tests.training.release.papers.chain import make_chain
from training.release import stage as release
from training.train.model import ModelSize, build_model, model_config, name_special_tokens, save_model

SEQ_LEN = 128


def make_release(root: Path) -> Path:
    """Release a tiny model that has a tokenizer, with two held-out tasks."""
    folders = make_chain(root / "data")
    model = folders["train"] / "model"
    size = ModelSize(layers=1, hidden_size=16, heads=2, kv_heads=1)
    config = model_config(size, vocab_size=300, seq_len=SEQ_LEN, eos_id=0)
    save_model(model, config, dict(build_model(config, seed=1).named_parameters()))
    save_tokenizer(train_tokenizer([prose(n) for n in range(5)], vocab_size=300), model, ())
    name_special_tokens(model)
    texts = [{"item_id": f"b{n}", "doc_id": f"d{n}", "text": prose(n, sentences=1, words=8)} for n in range(3)]
    write_task(folders["holdout"] / "tasks", BITS_PER_BYTE, texts)
    choices = [[f" {prose(10 * n + k, sentences=1, words=4)}" for k in range(4)] for n in range(3)]
    questions = [
        {"item_id": f"c{n}", "doc_id": f"d{n}", "context": prose(n, sentences=1, words=5), "choices": some, "gold": n}
        for n, some in enumerate(choices)
    ]
    write_task(folders["holdout"] / "tasks", CONTINUATION, questions)
    figures: dict[str, Any] = {"acc": 0.5, "items": 3, "items_sha256": "x"}
    write_json(
        folders["evaluate"] / "results.json", {"tasks": {BITS_PER_BYTE: figures, CONTINUATION: figures}, "settings": {}}
    )
    before: dict[str, Path] = {}
    for stage, folder in folders.items():  # what was added is in the manifests, and the chain holds
        old = read_manifest(folder)
        none = Counts(in_=old.counts.in_, out=old.counts.out, dropped=old.counts.dropped)
        plant_manifest(folder, stage=stage, unit=old.unit, params=old.params, inputs=before, counts=none)
        before = {stage: folder}
    release.run(params=release.Params(), inputs=folders, output=root / "release")
    return root / "release"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADWATER_STATE", str(root / "state"))
        return make_release(root)


def test_configs_name_the_same_special_tokens_and_a_length(made: Path) -> None:
    config, generation, tokenizer = (
        json.loads((made / f"{name}.json").read_bytes()) for name in ("config", "generation_config", "tokenizer_config")
    )
    added = {one["content"]: one["id"] for one in json.loads((made / "tokenizer.json").read_bytes())["added_tokens"]}
    for described in (config, generation):
        assert {kind: described[f"{kind}_token_id"] for kind in ("bos", "eos", "pad")} == {
            "bos": added[EOS],
            "eos": added[EOS],
            "pad": added[PADDING],
        }
    assert (tokenizer["bos_token"], tokenizer["eos_token"], tokenizer["pad_token"]) == (EOS, EOS, PADDING)
    assert tokenizer["model_max_length"] == config["max_position_embeddings"] == SEQ_LEN


def test_a_padded_batch_gives_what_each_text_alone_gives(made: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(made)
    model = AutoModelForCausalLM.from_pretrained(made).eval()
    assert (tokenizer.model_max_length, model.config.pad_token_id) == (SEQ_LEN, tokenizer.pad_token_id)
    texts = ["one", prose(7, sentences=1, words=9)]
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    assert batch["attention_mask"].min() == 0
    with torch.no_grad():
        together = model(**batch).logits
        for row, text in enumerate(texts):
            alone = model(**tokenizer(text, return_tensors="pt")).logits[0]
            assert torch.allclose(together[row][: len(alone)], alone, atol=1e-5)
        assert model.generate(**batch, max_new_tokens=3).shape[0] == 2
    long = tokenizer(prose(1) * 20, truncation=True, return_tensors="pt")
    assert long["input_ids"].shape[1] == SEQ_LEN


def test_lm_eval_scores_a_copied_release_from_an_empty_folder_as_the_card_says(made: Path, tmp_path: Path) -> None:
    elsewhere, empty = tmp_path / "else where" / "model", tmp_path / "empty"
    shutil.copytree(made, elsewhere)
    empty.mkdir()
    (command,) = re.findall(r"```bash\n(release=.*?)```", (elsewhere / "README.md").read_text(), re.DOTALL)
    command = re.sub(r"^release=\S+", f"release='{elsewhere}'", command)
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_HOME": str(tmp_path / "home"),
        "CUDA_VISIBLE_DEVICES": "",
    }
    done = subprocess.run(
        ["bash", "-euc", command], cwd=empty, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert re.search(r"heldout_bits_per_byte\s*\|.*bits_per_byte\s*\|", done.stdout), done.stdout
    assert "heldout_continuation" in done.stdout
    listed = {shard.name for shard in read_manifest(made).shards}
    assert {"tasks/items.py", f"tasks/{CONTINUATION}.yaml", f"tasks/{BITS_PER_BYTE}.jsonl"} <= listed
