"""With `fixed_order`, 1, 2 and 4 ranks make the same weights, bit for bit, and without it they do not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.contracts.workspace import ROOT
from tests.training.train.token_folders import make_tokens
from training.train.fixed_order import TreeSum, visiting_order

TRAIN = """
import json, sys
from pathlib import Path
from training.train.hyperparameters import Params
from training.train.stage import run
size = {"layers": 1, "hidden_size": 16, "heads": 2, "kv_heads": 1}
asked = {"num_ranks": int(sys.argv[1]), "fixed_order": sys.argv[2] == "fixed", "strategy": "ddp", "threads": 1}
params = Params(model=size, seq_len=16, batch_size=8, max_steps=10, warmup_steps=2, learning_rate=0.02, **asked)
run(params=params, inputs={n: Path(n) for n in ("tokenize", "tokenizer")}, output=Path("-".join(sys.argv[1:])))
"""


def weights(root: Path, ranks: int, how: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HEADWATER_STATE": str(root / f"state-{ranks}-{how}")}
    subprocess.run([sys.executable, "-c", TRAIN, str(ranks), how], cwd=root, env=environment, check=True)
    return str(json.loads((root / f"{ranks}-{how}" / "metrics.json").read_bytes())["weights_sha256"])


@pytest.mark.e2e
def test_any_number_of_ranks_makes_the_same_weights(tmp_path: Path) -> None:
    make_tokens(tmp_path)
    assert len({weights(tmp_path, ranks, "fixed") for ranks in (1, 2, 4)}) == 1
    assert weights(tmp_path, 2, "free") != weights(tmp_path, 1, "free"), "their order does matter"


def tree(numbers: list[np.float32]) -> np.float32:
    while len(numbers) > 1:
        half = len(numbers) // 2
        numbers = [left + right for left, right in zip(numbers[:half], numbers[half:], strict=True)]
    return numbers[0]


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), size=st.sampled_from([4, 8, 32]), ranks=st.sampled_from([1, 2, 4]))
def test_what_ranks_add_up_for_themselves_is_the_lower_part_of_one_tree(seed: int, size: int, ranks: int) -> None:
    numbers = np.random.default_rng(seed).normal(size=size).astype(np.float32) ** 9
    sums = []
    for rank in range(ranks):
        own, total = numbers[rank::ranks], TreeSum()
        for place in visiting_order(len(own)):
            total.add([torch.tensor([own[place]])])
        sums.append(np.float32(total.total()[0].item()))
    assert tree(sums).tobytes() == tree(list(numbers)).tobytes()


def test_no_more_sums_are_held_than_the_tree_has_levels() -> None:
    assert sorted(visiting_order(64)) == list(range(64))
    total, most = TreeSum(), 0
    for _ in visiting_order(64):
        total.add([torch.ones(1)])
        most = max(most, len(total._sums))
    assert (float(total.total()[0]), most) == (64.0, 6)
