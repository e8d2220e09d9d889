"""A real run in bf16: the model that is loaded from its folder has the loss that training measured last."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.contracts.workspace import ROOT
from tests.training.train.token_folders import held_out_loss, make_tokens

SEQ_LEN = 64
TRAIN = f"""
import json, sys
from pathlib import Path
from training.train.hyperparameters import Params
from training.train.stage import run
params = Params(model=json.loads(sys.argv[1]), seq_len={SEQ_LEN}, batch_size=4, max_steps=3, validation_sequences=3,
                precision="bf16", device="cpu", learning_rate=0.05, warmup_steps=1)
run(params=params, inputs={{n: Path(n) for n in ("tokenize", "tokenizer")}}, output=Path("train"))
"""
MODELS = {
    "llama with QK-norm": {"layers": 2, "hidden_size": 64, "heads": 2, "kv_heads": 1, "qk_norm": True},
    "gpt2": {"family": "gpt2", "layers": 2, "hidden_size": 64, "heads": 2, "residual_projections": "zero"},
}


@pytest.mark.e2e
@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_what_is_loaded_has_the_loss_that_was_measured(workspace: Path, model: dict[str, Any]) -> None:
    make_tokens(workspace)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", TRAIN, json.dumps(model)], env=environment, check=True)
    with (workspace / "train/loss.csv").open() as stream:
        measured = float(list(csv.DictReader(stream))[-1]["validation_loss"])
    model_type = json.loads((workspace / "train/model/config.json").read_bytes())["dtype"]
    assert model_type == "bfloat16"
    loss = held_out_loss(workspace / "train/model", workspace / "tokenize", SEQ_LEN, 3)
    assert loss == pytest.approx(measured, abs=2e-6)
    assert abs(measured - np.log(300)) > 0.01, "it has learnt nothing"
