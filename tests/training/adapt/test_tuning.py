"""Each way of tuning, on a tiny model: it learns, gives the same weights again, and merges into what was tuned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tasks.contracts.chats import to_text
from tasks.contracts.errors import ParamsError, TrainingError
from tests.training.adapt.base import CONTEXT, make_base
from training.adapt import merging
from training.adapt.chat import TEMPLATE, Encoded, encode
from training.adapt.tuning import Tuned, load_base, quiet_libraries, tune
from training.adapt.tuning_settings import Method, Params
from training.train.model import weights_sha256

WORDS = ("cat", "dog", "cow", "hen", "fox", "owl")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture(scope="module")
def tokenizer(base: Path) -> Any:
    from transformers import AutoTokenizer

    made = AutoTokenizer.from_pretrained(base)
    made.chat_template = TEMPLATE
    return made


def examples(tokenizer: Any, *, preference: bool) -> list[Encoded]:
    made = []
    for word in WORDS:
        answers = [("chosen", word), ("rejected", "none of it")] if preference else [("assistant", word)]
        text = to_text([("user", f"Say {word}."), *answers])
        found = encode(text, tokenizer, context=CONTEXT, preference=preference, too_long="drop")
        assert isinstance(found, Encoded)
        made.append(found)
    return made


def tuned(base: Path, tokenizer: Any, method: Method, **more: Any) -> tuple[Tuned, list[Encoded]]:
    params = Params(method=method, batch_size=3, epochs=4, learning_rate=1e-3, rank=4, **more)
    rows = examples(tokenizer, preference=params.preference)
    return tune(base, tokenizer, rows, params, device="cpu"), rows


@pytest.mark.parametrize("method", ["full", "lora", "qlora", "dpo"])
def test_it_learns_and_merges_into_what_was_tuned(base: Path, tokenizer: Any, method: Method, tmp_path: Path) -> None:
    with quiet_libraries():
        made, rows = tuned(base, tokenizer, method)
        assert len(made.steps) == 8
        assert made.steps[-1].loss < made.steps[0].loss
        assert made.steps[-1].learning_rate < made.steps[0].learning_rate
        seen = [place for step in made.steps for place in step.examples]
        assert sorted(seen) == sorted(4 * list(range(len(rows))))
        if method == "full":
            return
        made.model.save_pretrained(tmp_path)
        whole = merging.merged(made.model, base, tmp_path)
        texts = [one.row.get("input_ids") or one.row["prompt_ids"] for one in rows]
        assert merging.difference(made.model, whole, texts) <= merging.TOLERANCE
        untuned = load_base(base, four_bits=False, device="cpu")
        found = merging.difference(made.model, untuned, texts)
        assert found > 100 * merging.TOLERANCE, "what was tuned is not the base"
        with pytest.raises(TrainingError, match="not what was tuned"):
            merging.check_equal(found)


def test_the_same_settings_give_the_same_weights(base: Path, tokenizer: Any) -> None:
    def weights(**more: Any) -> str:
        made, _ = tuned(base, tokenizer, "lora", max_steps=3, dropout=0.1, **more)
        return weights_sha256(made.model.named_parameters())

    with quiet_libraries():
        assert weights() == weights()
        assert weights() != weights(seed=2)


def test_dpo_begins_at_the_loss_of_a_model_that_prefers_neither(base: Path, tokenizer: Any) -> None:
    """-log σ(0), and then what equation 7 of Rafailov et al. 2023 gives of the log-probabilities after the step."""
    import torch

    with quiet_libraries():
        made, rows = tuned(base, tokenizer, "dpo", max_steps=2, beta=0.5)
        assert made.steps[0].loss == pytest.approx(0.693147, abs=1e-5)
        once, _ = tuned(base, tokenizer, "dpo", max_steps=1, beta=0.5)
        reference = load_base(base, four_bits=False, device="cpu")

        def log_probability(model: Any, prompt: list[int], answer: list[int]) -> torch.Tensor:
            with torch.no_grad():
                scores = model(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
            places = torch.arange(len(prompt) - 1, len(prompt) + len(answer) - 1)
            found: torch.Tensor = scores[places, torch.tensor(answer)].sum()
            return found

        def gained(row: dict[str, list[int]], name: str) -> torch.Tensor:
            asked = (row["prompt_ids"], row[f"{name}_ids"])
            return log_probability(once.model, *asked) - log_probability(reference, *asked)

        margins = [gained(rows[n].row, "chosen") - gained(rows[n].row, "rejected") for n in made.steps[1].examples]
        losses = [-torch.nn.functional.logsigmoid(0.5 * margin) for margin in margins]
        assert made.steps[1].loss == pytest.approx(float(torch.stack(losses).mean()), abs=2e-4)


def test_layers_that_the_base_has_not_are_told(base: Path, tokenizer: Any) -> None:
    with quiet_libraries(), pytest.raises(ParamsError) as said:
        tuned(base, tokenizer, "lora", targets=("query",))
    assert "q_proj" in str(said.value)


def test_no_hub_is_asked_for_a_kernel(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """bitsandbytes is imported as if the package that fetches kernels were not there."""
    import subprocess
    import sys

    code = (
        "import sys, types\n"
        "kernels = types.ModuleType('kernels')\n"
        "kernels.get_kernel = lambda *a, **k: sys.exit('a hub was asked')\n"
        "sys.modules['kernels'] = kernels\n"
        "from training.adapt.tuning import quiet_libraries\n"
        "with quiet_libraries():\n    import bitsandbytes\n"
        "assert sys.modules['kernels'] is kernels\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
