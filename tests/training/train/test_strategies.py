"""Every strategy really trains, on one rank in one process, and all of them compute the same step."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from tests.training.train.in_process import SMALL, in_another_process
from tests.training.train.token_folders import held_out_loss, make_tokens
from training.plan.strategies import STRATEGIES as PLANNED
from training.train.hyperparameters import Params
from training.train.loop import VALIDATION_SEED
from training.train.order import permute
from training.train.strategy import Chosen, as_setting

BY_DISK = ("infinity-optimizer", "infinity")
"""They compile a kernel of DeepSpeed's against libaio first, which takes minutes: tests/faults runs them."""
STRATEGIES = tuple(name for name in get_args(Chosen) if name not in BY_DISK)
SAME_NATS = 1e-5
"""How far apart the losses of one step may be in float32, for sums that are taken in another order; seen: 2e-6."""
PIECES_NATS = 5e-5
"""As far as losses may be apart whose gradients of the output layer are added up in pieces; seen: 2.5e-5."""
BF16_NATS = 0.05
"""As far as bf16 may be from float32 after twelve steps at a high rate; seen: 0.027."""
EIGHT_BIT_NATS = 0.05
"""As far as Adam with moments in 8 bits may be from Adam; seen: 0.01."""
RUNS: Mapping[str, dict[str, Any]] = {
    **{name: {"strategy": name} for name in STRATEGIES},
    **{f"bf16_{name}": {"strategy": name, "precision": "bf16"} for name in STRATEGIES if name != "ddp"},
    **{f"8bit_{name}": {"strategy": name, "optimizer": "adamw-8bit"} for name in STRATEGIES},
    **{f"pieces_{name}": {"strategy": name, "loss_piece_tokens": 7} for name in STRATEGIES},
    "pieces_checkpointed": {"loss_piece_tokens": 7, "activation_checkpointing": True},
    "pieces_one_order": {"loss_piece_tokens": 1000, "fixed_order": True},
    "pieces_z_loss": {"loss_piece_tokens": 7, "z_loss": 0.05},
    "pieces_masked": {"loss_piece_tokens": 7, "mask_documents": True},
    "auto": {},
    "in_2_parts": {"gradient_accumulation": 2},
    "in_4_parts": {"gradient_accumulation": 4},
    "bf16_in_4_parts": {"strategy": "zero-1", "precision": "bf16", "gradient_accumulation": 4},
    "fixed_order": {"fixed_order": True},
    "muon": {"optimizer": "muon"},
    "wsd": {"schedule": "wsd"},
    "z_loss": {"z_loss": 0.05},
    "all_held_out": {"validation_sequences": 10_000},
    "masked": {"mask_documents": True, "validation_sequences": 10_000},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("strategies")
    make_tokens(root)
    results = in_another_process(root, [{"name": name} | settings for name, settings in RUNS.items()])
    assert [one["name"] for one in results if "manifest" in one] == list(RUNS)
    return root


def losses(folder: Path) -> list[float]:
    with (folder / "loss.csv").open() as stream:
        return [float(row["train_loss"]) for row in csv.DictReader(stream)]


def validation(folder: Path) -> float:
    with (folder / "loss.csv").open() as stream:
        return float(list(csv.DictReader(stream))[-1]["validation_loss"])


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_learns_the_same(made: Path, name: str) -> None:
    assert losses(made / name) == pytest.approx(losses(made / "ddp"), abs=SAME_NATS)
    assert losses(made / name)[-1] < losses(made / name)[0] - 0.05, "it learns"


@pytest.mark.parametrize("name", [name for name in RUNS if name.startswith("bf16_")])
def test_bf16_stays_near_fp32_whatever_the_strategy_and_the_parts(made: Path, name: str) -> None:
    assert losses(made / name) == pytest.approx(losses(made / "ddp"), abs=BF16_NATS)
    assert losses(made / name) != losses(made / "ddp")


@pytest.mark.parametrize("name", [name for name in RUNS if name.startswith("8bit_")])
def test_moments_in_8_bits_stay_near_those_in_32_whatever_the_strategy(made: Path, name: str) -> None:
    assert losses(made / name) == pytest.approx(losses(made / "ddp"), abs=EIGHT_BIT_NATS)
    assert losses(made / name)[1:] != pytest.approx(losses(made / "ddp")[1:], abs=SAME_NATS)


@pytest.mark.parametrize("name", ["in_2_parts", "in_4_parts", "fixed_order"])
def test_a_loss_is_a_mean_over_tokens_however_a_step_is_cut(made: Path, name: str) -> None:
    assert losses(made / name) == pytest.approx(losses(made / "ddp"), abs=SAME_NATS)


PIECES = {name: "ddp" for name in RUNS if name.startswith("pieces_")}
PIECES |= {"pieces_z_loss": "z_loss", "pieces_masked": "masked"}


@pytest.mark.parametrize("name", PIECES)
def test_a_loss_that_is_made_in_pieces_is_the_same(made: Path, name: str) -> None:
    assert losses(made / name) == pytest.approx(losses(made / PIECES[name]), abs=PIECES_NATS)


def test_auto_on_one_rank_is_the_plain_loop(made: Path) -> None:
    assert (made / "auto/loss.csv").read_bytes() == (made / "ddp/loss.csv").read_bytes()


@pytest.mark.parametrize("name", ["muon", "wsd", "z_loss"])
def test_what_a_setting_asks_for_is_done(made: Path, name: str) -> None:
    plain, other = losses(made / "ddp"), losses(made / name)
    assert other[0] == pytest.approx(plain[0], abs=1e-6), "the first loss is measured before the first step"
    assert other != pytest.approx(plain, abs=1e-4)
    assert other[-1] < other[0]


@pytest.mark.parametrize(("name", "masked"), [("all_held_out", False), ("masked", True), ("ddp", False)])
def test_the_validation_loss_is_that_of_the_model_on_the_held_out_text(made: Path, name: str, masked: bool) -> None:
    number = (SMALL | RUNS[name])["validation_sequences"]
    expected = held_out_loss(made / name / "model", made / "tokenize", SMALL["seq_len"], number, masked=masked)
    assert validation(made / name) == pytest.approx(expected, abs=2e-6)


def test_a_sample_of_the_held_out_text_is_not_its_beginning() -> None:
    drawn = permute(np.arange(64, dtype=np.uint64), 6_000, VALIDATION_SEED, 0)
    assert len(set(drawn.tolist())) == 64
    assert np.histogram(drawn, bins=4, range=(0, 6_000))[0].min() >= 8, "from all quarters of the text"


def test_what_is_planned_can_be_set_or_is_known_not_to_be() -> None:
    planned = [one.name for one in PLANNED if one.deepspeed]
    assert [name for name in planned if as_setting(name) is None] == ["zenflow", "superoffload"]
    assert set(get_args(Chosen)) <= set(planned)


CANNOT_BE_MEANT: Mapping[str, tuple[dict[str, Any], str]] = {
    "a rate that rises": ({"learning_rate": 1e-4, "final_learning_rate": 1e-3}, "final_learning_rate"),
    "a warm-up without a run": ({"max_steps": 10, "warmup_steps": 11}, "warmup_steps"),
    "muon cut up": ({"optimizer": "muon", "strategy": "zero-3"}, "train.strategy"),
    "muon in bf16": ({"optimizer": "muon", "precision": "bf16"}, "fp32 with muon"),
    "bf16 without ZeRO": ({"strategy": "ddp", "precision": "bf16"}, "zero-1"),
    "8 bits on a disk": ({"optimizer": "adamw-8bit", "strategy": "infinity"}, "train.optimizer"),
    "one order of three": ({"fixed_order": True, "batch_size": 12}, "power of two"),
    "one order, cut up": ({"fixed_order": True, "strategy": "zero-2"}, "train.strategy"),
    "a batch that does not divide": ({"batch_size": 3, "num_ranks": 2}, "multiple of"),
    "a GPU that is not there": ({"device": "gpu", "num_ranks": 64, "batch_size": 64}, "GPU"),
}


@pytest.mark.parametrize("name", CANNOT_BE_MEANT)
def test_settings_that_cannot_be_meant_are_told_before_any_work(name: str) -> None:
    settings, said = CANNOT_BE_MEANT[name]
    faults = [str(fault) for fault in Params(**settings).faults()]
    assert len(faults) == 1
    assert said in faults[0]


@pytest.mark.parametrize(
    ("compiler", "said"), [("missing", "no C++ compiler"), ("exit 1", "no libaio.h"), ("exit 0", None)]
)
def test_states_on_a_disk_want_a_compiler_and_its_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiler: str, said: str | None
) -> None:
    if compiler != "missing":
        (tmp_path / "compiler").write_text(f"#!/bin/sh\ncat > /dev/null\n{compiler}\n")
        (tmp_path / "compiler").chmod(0o755)
    monkeypatch.setenv("CXX", str(tmp_path / "compiler"))
    faults = [str(fault) for fault in Params(strategy="infinity").faults()]
    assert [said in fault for fault in faults if said] == ([True] if said else [])
    assert len(faults) == bool(said)


@pytest.mark.parametrize(
    "wrong",
    [{"betas": (0.9, 1.0)}, {"betas": (-0.1, 0.9)}, {"learning_rate": float("inf")}, {"learning_rate": float("nan")},
     {"strategy": "zero4"}, {"decay_fraction": 0.0}, {"z_loss": -1.0}, {"checkpoints_kept": 0}],
)  # fmt: skip
def test_a_value_out_of_bounds_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Params(**wrong)
