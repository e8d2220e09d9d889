"""An export is the release's model: loaded again by transformers, in both formats, it gives the same logits."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from flows.cli.main import app
from tasks.contracts.durable_files import write_json
from tasks.contracts.errors import InputError, UsageError
from tasks.contracts.manifest import Counts, manifest_hash
from tasks.tokenizer.byte_level import save_tokenizer, train_tokenizer
from tests.corpus import prose
from tests.planted import plant_manifest
from training.release.export import Format, Precision, export
from training.release.gguf_file import RELEASE_KEY
from training.train.model import ModelSize, build_model, model_config, name_special_tokens, save_model

SIZES = {
    "llama": ModelSize(layers=2, hidden_size=32, heads=4, kv_heads=2, tie_embeddings=False),
    "llama-tied": ModelSize(layers=2, hidden_size=32, heads=4, kv_heads=4, rope_theta=50_000.0),
    "qwen3": ModelSize(layers=2, hidden_size=32, heads=4, kv_heads=2, qk_norm=True),
    "gpt2": ModelSize(family="gpt2", layers=2, hidden_size=32, heads=4),
    "gpt2-untied": ModelSize(
        family="gpt2", layers=2, hidden_size=32, heads=4, intermediate_size=48, tie_embeddings=False
    ),
}
SEQ_LEN = 64
IDS = torch.arange(2, 50)[None]
EXACT = 2e-5
"""Most that logits of about 1 differ for the order of sums alone."""


def make(folder: Path, name: str) -> Path:
    tokenizer = train_tokenizer([prose(number) for number in range(5)], vocab_size=400)
    config = model_config(SIZES[name], vocab_size=tokenizer.get_vocab_size(), seq_len=SEQ_LEN, eos_id=0)
    model = build_model(config, seed=3)
    with torch.no_grad():  # biases and norms begin alike, and would hide what is mixed up
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.05)
    weights = dict(model.named_parameters())
    save_model(folder, config, weights)
    save_tokenizer(tokenizer, folder)
    name_special_tokens(folder)
    write_json(folder / "lineage.json", {"name": "small", "weights_sha256": "ab" * 32})
    (folder / "README.md").write_text("# Model card\n")
    (folder / "TAKEDOWN.md").write_text("# Taken down\n")
    (folder / "manifests").mkdir()
    (folder / "manifests/train.json").write_text("{}\n")
    plant_manifest(folder, stage="release", unit="files", params={}, inputs={}, counts=Counts(in_=1, out=1))
    return folder


def load(folder: Path, **options: Any) -> Any:
    model: Any = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, **options)
    return model.eval()


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model(IDS).logits.float()
    return found


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", SIZES)
def test_transformers_reads_the_gguf_file_and_gives_the_same_logits(
    tmp_path: Path, name: str, precision: Precision
) -> None:
    release = make(tmp_path / "release", name)
    path = export(release, tmp_path / "out", format_="gguf", precision=precision)
    # transformers' reader has no key for the size of a head of Qwen3 or for the positions of GPT-2: config.json tells.
    config = AutoConfig.from_pretrained(tmp_path / "out")
    read = load(tmp_path / "out", gguf_file=path.name, config=config, dtype=torch.float32)
    original = load(release)
    if precision == "bf16":
        with torch.no_grad():
            for weight in original.parameters():
                if weight.ndim > 1:
                    weight.copy_(weight.bfloat16().float())
    assert float(logits(original).std()) > 0.1
    assert torch.allclose(logits(read), logits(original), atol=EXACT)
    if name.startswith("llama"):  # here the file tells all
        assert torch.allclose(logits(load(tmp_path / "out", gguf_file=path.name)), logits(read), atol=EXACT)


def test_the_file_holds_the_tokenizer_and_says_where_it_is_from(tmp_path: Path) -> None:
    import gguf

    release = make(tmp_path / "release", "llama")
    (release / "chat_template.jinja").write_text("{{ messages }}")
    path = export(release, tmp_path / "out", format_="gguf", precision="fp32")
    fields = gguf.GGUFReader(path).fields
    described = json.loads((release / "tokenizer.json").read_bytes())
    tokens = fields["tokenizer.ggml.tokens"].contents()
    assert {token: number for number, token in enumerate(tokens)} == described["model"]["vocab"]
    assert fields["tokenizer.ggml.merges"].contents() == [" ".join(pair) for pair in described["model"]["merges"]]
    assert fields["tokenizer.ggml.token_type"].contents()[:3] == [3, 3, 1]
    assert fields["tokenizer.ggml.eos_token_id"].contents() == 0
    assert fields["tokenizer.ggml.pre"].contents() == "llama-bpe"
    assert fields["tokenizer.chat_template"].contents() == "{{ messages }}"
    assert fields[RELEASE_KEY].contents() == manifest_hash(release)


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
@pytest.mark.parametrize("name", SIZES)
def test_a_hugging_face_folder_loads_in_the_precision_asked_for(
    tmp_path: Path, name: str, precision: Precision, dtype: torch.dtype
) -> None:
    release = make(tmp_path / "release", name)
    export(release, tmp_path / "out", format_="hf", precision=precision)
    read = load(tmp_path / "out", dtype="auto")
    assert {weight.dtype for weight in read.parameters()} == {dtype}
    for (_, mine), (_, theirs) in zip(read.named_parameters(), load(release).named_parameters(), strict=True):
        assert torch.equal(mine, theirs.to(dtype))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.decode(tokenizer(prose(1))["input_ids"]) == prose(1)


@pytest.mark.parametrize("format_", ["hf", "gguf"])
def test_papers_marks_and_a_note_come_along(tmp_path: Path, format_: Format) -> None:
    release = make(tmp_path / "release", "llama")
    path = export(release, tmp_path / "out", format_=format_, precision="bf16")
    note = json.loads((tmp_path / "out/export.json").read_bytes())
    assert note["release_manifest_sha256"] == manifest_hash(release)
    assert note["sha256"] == {path.name: hashlib.sha256(path.read_bytes()).hexdigest()}
    for name in ("README.md", "TAKEDOWN.md", "lineage.json"):
        assert (tmp_path / "out" / name).read_bytes() == (release / name).read_bytes()
    assert (tmp_path / "out/release/_manifest.json").read_bytes() == (release / "_manifest.json").read_bytes()
    assert (tmp_path / "out/release/manifests/train.json").is_file()
    assert path.stat().st_mode & 0o044, "others may read it, as the umask says"


def test_wrong_use_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    release = make(tmp_path / "release", "llama")
    out = tmp_path / "out"
    with pytest.raises(UsageError, match="no such release"):
        export(tmp_path, out, format_="hf", precision="fp32")
    with pytest.raises(UsageError, match="may not lie in its release"):
        export(release, release / "out", format_="hf", precision="fp32")
    config = json.loads((release / "config.json").read_bytes())
    write_json(release / "config.json", {**config, "model_type": "olmo2"})
    with pytest.raises(InputError, match="cannot be written as GGUF"):
        export(release, out, format_="gguf", precision="fp32")
    assert not out.exists()
    (release / "model.safetensors").unlink()
    with pytest.raises(InputError, match="has no weights"):
        export(release, out, format_="hf", precision="fp32")
    assert [path.name for path in tmp_path.iterdir()] == ["release"]
    out.mkdir()
    with pytest.raises(UsageError, match="is there already"):
        export(release, out, format_="hf", precision="fp32")
    shutil.rmtree(out)
    # The command verifies the release first.
    assert "not what it claims" in str(CliRunner().invoke(app, ["export", str(release), str(out)]).exception)
