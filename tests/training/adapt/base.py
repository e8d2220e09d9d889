"""A tiny model with a tokenizer in Hugging Face layout, as a release has them, and examples for it."""

from __future__ import annotations

from pathlib import Path

from tasks.tokenizer.byte_level import save_tokenizer, train_tokenizer
from tests.corpus import prose
from training.train.model import ModelSize, build_model, model_config, name_special_tokens, save_model

CONTEXT = 128


def make_base(folder: Path) -> Path:
    """Write the model."""
    size = ModelSize(layers=2, hidden_size=64, heads=2, kv_heads=1)
    config = model_config(size, vocab_size=400, seq_len=CONTEXT, eos_id=0)
    save_model(folder, config, dict(build_model(config, seed=1).named_parameters()))
    save_tokenizer(train_tokenizer([prose(n) for n in range(5)], vocab_size=400), folder, ())
    name_special_tokens(folder)
    return folder
