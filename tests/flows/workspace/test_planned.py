from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.workspace.planned import amount, shape_of
from tasks.contracts.errors import UsageError
from training.train.model import ModelSize, model_config, write_configs
from training.train.presets import PRESETS


@given(weights=st.floats(2e7, 2e11))
def test_a_size_without_a_name_has_about_its_weights(weights: float) -> None:
    shape = shape_of(f"{weights / 1e6:.3f}m", vocab_size=32_000, seq_len=2048)
    assert shape.weights == pytest.approx(weights, rel=0.15)
    assert shape.width % shape.heads == shape.heads % shape.kv_heads == 0


@pytest.mark.parametrize("name", ["60m", "1b", "3b", "8b", "30b", "120b", "180b"])
def test_usual_sizes_are_met(name: str) -> None:
    weights = float(name[:-1]) * (1e9 if name[-1] == "b" else 1e6)
    assert shape_of(name, vocab_size=32_000, seq_len=2048).weights == pytest.approx(weights, rel=0.05)


@pytest.mark.parametrize("name", PRESETS)
def test_a_models_folder_is_planned_as_its_preset(name: str, tmp_path: Path) -> None:
    size = ModelSize(preset=name)
    tmp_path.mkdir(exist_ok=True)
    write_configs(tmp_path, model_config(size, vocab_size=5_000, seq_len=512, eos_id=0), "bfloat16")
    of_folder = shape_of(str(tmp_path), vocab_size=1, seq_len=512)
    of_preset = size.shape(vocab_size=5_000, seq_len=512)
    assert of_folder.weights == of_preset.weights - of_preset.extra
    assert shape_of(name, vocab_size=5_000, seq_len=512) == of_preset


def test_a_folder_of_another_kind_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "whisper"}')
    with pytest.raises(UsageError, match="not one of a decoder"):
        shape_of(str(tmp_path), vocab_size=1, seq_len=1)


@given(number=st.integers(0, 10**6), unit=st.sampled_from(["", "K", "M", "G", "T", "Ki", "Mi", "Gi", "Ti"]))
def test_an_amount_is_read_with_its_unit(number: int, unit: str) -> None:
    factor = 1024 if unit.endswith("i") else 1000
    expected = number * factor ** "_KMGT".index(unit[:1] or "_")
    for text in (f"{number}{unit}B", f"{number} {unit}B", f"{number}{unit}", f"{number}{unit.lower()}b"):
        assert amount(text, "--nvme") == expected
