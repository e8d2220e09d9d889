"""What each optimizer works on, and that its state is restored."""

import os
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import pytest
import torch

from training.train.model import ModelSize, build_model, model_config
from training.train.muon import MuonOnProcessor, orthogonal
from training.train.optimizers import make_optimizer


def make(name: str, tie: bool = True, vocab_size: int = 40) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    size = ModelSize(layers=1, hidden_size=16, heads=2, kv_heads=1, tie_embeddings=tie)
    model = build_model(model_config(size, vocab_size=vocab_size, seq_len=8, eos_id=0), seed=1)
    options = {"learning_rate": 0.1, "betas": (0.9, 0.95), "weight_decay": 0.5}
    return model, make_optimizer(model.named_parameters(), optimizer=name, **options)  # type: ignore[arg-type]


def step(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    for number, parameter in enumerate(model.parameters()):
        generator = torch.Generator().manual_seed(number)
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    optimizer.step()


def test_each_parameter_is_in_one_group_and_only_matrices_decay() -> None:
    for name in ("adamw", "adamw-8bit", "muon"):
        for tie in (True, False):
            model, optimizer = make(name, tie)
            listed = [id(p) for group in optimizer.param_groups for p in group["params"]]
            assert sorted(listed) == sorted(id(p) for p in model.parameters())
            for group in optimizer.param_groups:
                assert {p.dim() >= 2 for p in group["params"]} == {group["weight_decay"] > 0}


def test_muon_takes_hidden_matrices_and_no_embedding() -> None:
    model, optimizer = make("muon", tie=False)
    by_muon = {id(p) for group in optimizer.param_groups if "momentum" in group for p in group["params"]}
    names = {name for name, p in model.named_parameters() if id(p) in by_muon}
    assert names == {name for name, _ in model.named_parameters() if name.endswith("proj.weight")}


def test_a_step_of_muon_is_orthogonal_and_as_long_as_one_of_adamw() -> None:
    model, optimizer = make("muon")
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for group in optimizer.param_groups:
        group["weight_decay"] = 0.0
    step(model, optimizer)
    moved = {name: (p.detach() - before[name]) / 0.1 for name, p in model.named_parameters()}
    matrix = moved["model.layers.0.self_attn.q_proj.weight"]
    singular = torch.linalg.svdvals(matrix)
    assert singular.max() / singular.min() < 2.5, "all directions alike"
    assert 0.1 < float(matrix.square().mean().sqrt()) < 0.4, "AdamW's steps have a root mean square of 0.2 to 0.4"


@pytest.mark.parametrize("shape", [(24, 24), (24, 40), (40, 24)])
def test_muon_on_a_processor_is_torchs_but_for_its_rounding(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(3)
    start = torch.randn(shape, generator=generator)
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    settings = {"lr": 0.1, "weight_decay": 0.3, "momentum": 0.9, "adjust_lr_fn": "match_rms_adamw"}
    optimizers = (MuonOnProcessor([ours], **settings), torch.optim.Muon([theirs], **settings))  # type: ignore[arg-type]
    for _ in range(3):
        ours.grad = theirs.grad = torch.randn(shape, generator=generator)
        for one in optimizers:
            one.step()  # type: ignore[no-untyped-call]
    assert torch.dist(ours, theirs) < 0.02 * torch.dist(ours, start), "bfloat16 keeps three digits"
    for one, other in zip(*(o.state_dict()["state"].values() for o in optimizers), strict=True):
        assert torch.equal(one["momentum_buffer"], other["momentum_buffer"]), "either goes on from the other's state"
    if shape[0] != shape[1]:  # a square one at random has a direction of nearly nothing
        values = torch.linalg.svdvals(orthogonal(start))
        assert float(values.min()) > 0.6
        assert float(values.max()) < 1.25


def test_a_restored_optimizer_goes_on_alike() -> None:
    for name in ("adamw", "adamw-8bit", "muon"):
        model, optimizer = make(name)
        step(model, optimizer)
        state, weights = (
            deepcopy(optimizer.state_dict()),
            {n: p.detach().clone() for n, p in model.state_dict().items()},
        )
        other, restored = make(name)
        other.load_state_dict(weights)
        restored.load_state_dict(state)
        for group in (*optimizer.param_groups, *restored.param_groups):
            group["lr"] = 0.05
        step(model, optimizer)
        step(other, restored)
        for left, right in zip(model.parameters(), other.parameters(), strict=True):
            assert torch.equal(left, right)


def test_moments_in_8_bits_are_a_quarter_of_those_in_32_and_small_tensors_keep_32() -> None:
    model, optimizer = make("adamw-8bit", vocab_size=400)
    step(model, optimizer)
    kept = {name: optimizer.state[p] for name, p in model.named_parameters()}
    embedding = kept["model.embed_tokens.weight"]
    assert {embedding[name].dtype for name in ("state1", "state2")} == {torch.uint8}
    assert kept["model.norm.weight"]["state1"].dtype == torch.float32
    scales = embedding["absmax1"].numel() * embedding["absmax1"].element_size()
    assert scales <= embedding["state1"].numel() / 50


def test_moments_in_8_bits_need_nothing_of_a_hub(tmp_path: Path) -> None:
    """Where the processor has bf16 instructions, bitsandbytes would ask the package `kernels` for a kernel."""
    (tmp_path / "kernels.py").write_text("def get_kernel(*_, **__): raise SystemExit('a hub was asked')\n")
    program = "from tests.training.train.test_optimizers import make; make('adamw-8bit'); import kernels"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(tmp_path), os.environ.get("PYTHONPATH", "")))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
