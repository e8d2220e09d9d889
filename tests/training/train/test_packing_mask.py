"""With `mask_documents` a sequence's documents do not see each other, in the model that is really trained."""

import numpy as np
import pytest
import torch

from training.train.model import ModelSize, build_model, model_config
from training.train.packing import Packing


class Ids:
    dtype = np.dtype("<u2")

    def __init__(self, ids: list[int]) -> None:
        self.ids = np.array(ids, self.dtype)

    def read(self, start: int, stop: int) -> np.ndarray:
        return self.ids[start:stop]


@pytest.mark.parametrize(
    "size",
    [
        ModelSize(layers=2, hidden_size=32, heads=2, kv_heads=1),
        ModelSize(layers=2, hidden_size=32, heads=2, kv_heads=1, qk_norm=True),
        ModelSize(family="gpt2", layers=2, hidden_size=32, heads=2),
    ],
    ids=["llama", "llama with QK-norm", "gpt2"],
)
def test_what_another_document_of_the_sequence_says_changes_nothing(size: ModelSize) -> None:
    model = build_model(model_config(size, vocab_size=50, seq_len=14, eos_id=0), seed=1).eval()
    packing = Packing(14, np.array([0, 2]), np.array([0, 6]), np.array([6, 7]), np.array([True, True]))
    logits = {}
    for name, other in (("a", [3, 4, 5, 6, 7]), ("b", [30, 29, 28, 27, 26])):
        rows = packing.rows([0], Ids([*other, 0, 11, 12, 13, 14, 15, 16, 0]), eos_id=0)  # type: ignore[arg-type]
        for masked in (True, False):
            positions = torch.from_numpy(rows.positions) if masked else None
            with torch.no_grad():
                inputs = torch.from_numpy(rows.tokens[:, :-1].astype(np.int64))
                logits[name, masked] = model(input_ids=inputs, position_ids=positions).logits[0, 6:13]
    assert torch.equal(logits["a", True], logits["b", True])
    assert not torch.equal(logits["a", False], logits["b", False])
