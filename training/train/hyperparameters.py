"""The settings of the stage train, and what of them can be known to be wrong before anything starts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, JsonValue, ValidationError

from tasks.contracts.base import StageParams, borrowed_from, not_identity
from tasks.contracts.base_release import STARTED_FROM, BaseRelease, read_base, trained_model
from tasks.contracts.errors import HeadwaterError, InputError, ParamsError, raised
from tasks.contracts.manifest import MANIFEST_NAME
from tasks.contracts.workspace import state_folder
from training.device import gpus, need_disk_library, need_gpus
from training.gate_policy import policy_sha256, read_policy
from training.plan.machine import GIGA
from training.plan.room import cheapest, machine_here, shortage, ways_out
from training.plan.speed import Run
from training.plan.strategies import BY_NAME
from training.train.launch import Launch, Launcher
from training.train.model import ModelSetting, ModelSize, families, family
from training.train.optimizers import Optimizer
from training.train.schedule import Schedule
from training.train.strategy import Chosen, Strategy, choose, simplest


class Params(StageParams):
    """Settings of the stage train."""

    seed: int = Field(1, ge=0)
    """Seed of the initial weights and of the data order."""
    model: ModelSetting = ModelSize()
    """The model: the name of a preset (tiny, 30m, 125m, 350m, 1.3b, 2.7b, 7b, 13b, 70b, gpt2 …), or its numbers."""
    start_from: str | None = not_identity(None)
    """Folder of a release whose weights training goes on from, with its tokenizer; null begins with random weights.
    What names the release stands in the manifest instead of this path."""
    seq_len: int = Field(256, ge=8)
    """Tokens in a training sequence; also the longest context of the model."""
    batch_size: int = Field(8, ge=1)
    """Sequences in an optimizer step, over all ranks."""
    gradient_accumulation: int = Field(1, ge=1)
    """Into how many parts each rank splits its share of a step, to fit the memory."""
    epochs: int = Field(1, ge=1)
    """Passes over the token shards (documents that `mix` repeats stand in them more than once)."""
    max_steps: int | None = Field(200, ge=1)
    """Stop after so many optimizer steps; null goes to the end of `epochs` passes, past which no run goes."""
    learning_rate: float = Field(1e-3, gt=0, le=10)
    """Peak learning rate, reached after the warm-up."""
    final_learning_rate: float = Field(3e-4, ge=0)
    """Learning rate at the last step, reached by half a cosine."""
    warmup_steps: int = Field(20, ge=0)
    """Steps over which the learning rate rises from 0."""
    weight_decay: float = Field(0.1, ge=0)
    """Weight decay, on matrices only."""
    schedule: Schedule = "cosine"
    """How the learning rate falls: half a cosine, or wsd (stable, then a linear decay over the last steps)."""
    decay_fraction: float = Field(0.2, gt=0, le=1)
    """Of wsd: which part of all steps the decay takes."""
    optimizer: Optimizer = "adamw"
    """adamw, adamw-8bit with its two moments in 8 bits (bitsandbytes: 6 bytes less for each weight, another result), or
    muon for the hidden layers' matrices with adamw for the rest."""
    z_loss: float = Field(0.0, ge=0, le=1)
    """Weight of the squared log-partition of the logits that is added to the loss (PaLM: 1e-4); 0 adds none."""
    loss_piece_tokens: int | None = Field(None, ge=1, exclude_if=lambda number: number is None)
    """Tokens whose logits are there at once: the loss is then made piece by piece, for a vocabulary whose logits take
    more memory than the model; null makes it at once."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.95)
    """AdamW's decay rates of its two moments."""
    gradient_clipping: float = Field(1.0, gt=0)
    """Longest gradient (L2 norm over all weights)."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Number format of weights and activations; auto is bf16 on a GPU and fp32 on a CPU.

    Measured on a Xeon with avx512_bf16, one thread, 2.4 M parameters: 3,300 tokens/s in fp32, 2,500 in bf16.
    """
    strategy: Strategy = "auto"
    """What ranks share out (DeepSpeed): ddp nothing, zero-1 optimizer states, zero-2 gradients too, zero-3 weights too;
    zero-2-offload has the optimizer in the host's memory, zero-3-offload all, infinity-optimizer and infinity on its
    disk, where no checkpoints are written. auto takes the cheapest that fits (`headwater plan`): one rank holds all,
    several share all out, and what is too large for the GPUs is offloaded as zero-3-offload does, then as infinity."""
    offload_folder: str | None = not_identity(None)
    """Folder on a fast disk for infinity; null takes one under .headwater/."""
    activation_checkpointing: bool = False
    """Whether activations are computed again in the backward pass: less memory, about a third more time."""
    fixed_order: bool = False
    """Whether gradients are added up in one order, so that 1, 2 and 4 ranks of so many threads make the same weights,
    bit for bit. Costs a model pass a sequence, and all gradients sent to each rank."""
    mask_documents: bool = False
    """Whether a token attends to its own document only, in sequences that hold several."""
    num_ranks: int = Field(1, ge=1)
    """Training processes on each machine: one a GPU, or one or two on a CPU."""
    nodes: int = Field(1, ge=1)
    """Machines that train together. All see this workspace at the same path, on a shared disk."""
    threads: int | None = Field(None, ge=1)
    """Processor threads of a rank; null shares this machine's cores out. Sums depend on it in the last bit."""
    validate_every: int = Field(50, ge=1)
    """Steps between two measurements of the validation loss; the last step is always measured."""
    validation_sequences: int = Field(64, ge=1)
    """How many held-out sequences the validation loss is measured on at most, drawn from all held-out text."""
    release_best: bool = Field(False, exclude_if=lambda on: not on)
    """Whether the weights with the lowest validation loss are handed over, and not those of the last step: for many
    passes over little text. They are gathered and written whenever that loss is the lowest so far."""
    sample_prompts: tuple[str, ...] = Field((), exclude_if=lambda prompts: not prompts)
    """Texts that the model goes on from at each measurement of the validation loss, as samples.jsonl shows; an empty
    one begins a document."""
    sample_tokens: int = Field(32, ge=1, exclude_if=lambda number: number == 32)
    """How many tokens it goes on for, each the likeliest one."""
    device: Literal["auto", "cpu", "gpu"] = not_identity("auto")
    """What the ranks run on: auto takes GPUs where there are some, gpu does not start without one for each rank."""
    busy_wait: bool = not_identity(False)
    """Whether processor threads spin while they wait for each other: about 10 % faster on a machine of one's own, and
    several times slower where another program wants the cores too."""
    launcher: Launcher = not_identity("torchrun")
    """What starts the ranks: torchrun (each machine's own is started by hand; one rank alone needs none), deepspeed (by
    ssh) or slurm (srun)."""
    rendezvous: str | None = not_identity(None)
    """host:port at which the torchruns of several machines meet; null meets in a file on the shared disk."""
    hostfile: str | None = not_identity(None)
    """The machines for deepspeed: a file with NAME slots=N a line."""
    interface: str | None = not_identity(None)
    """Network interface by which ranks on several machines talk, such as eth0; null lets the libraries choose. Their
    traffic is neither encrypted nor guarded: the network is to be one of your own."""
    restarts: int = not_identity(3, ge=0)
    """How often in a row, without a new checkpoint, all ranks start again after one was lost (killed, or with its
    machine); a rank that fails with an error of its own ends the run."""
    checkpoints_kept: int = not_identity(2, ge=1)
    """How many of the last checkpoints stay while training runs."""
    checkpoint_every_steps: int = not_identity(500, ge=1)
    """Steps between two checkpoints."""
    checkpoint_every_seconds: float = not_identity(20.0, gt=0)
    """Seconds after which a checkpoint is due anyway. When one is written never changes the result."""
    save_in_background: bool = not_identity(False)
    """Whether training goes on while a checkpoint is written: it stands still for the copy of the state only, which
    takes as much of the machine's memory as the files take of the disk."""
    policy: dict[str, Any] = borrowed_from("gate", {})
    """The gate's section: its hash goes into this stage's manifest before the first step."""
    vocabulary: int = borrowed_from("tokenizer.vocab_size", 32_000, identity=False)
    """Entries of the vocabulary at most: what the memory is reckoned with before there is a tokenizer."""
    tasks: tuple[str, ...] = borrowed_from("evaluate.tasks", ())
    """The tasks that the gate will score: part of its policy."""

    def faults(self) -> Iterator[HeadwaterError]:
        """Yield GPUs that are not there, a batch that cannot be shared out, and settings that cannot be meant."""
        yield from super().faults()
        yield from raised(self.base)
        no_gpu = list(raised(self.runs_on))
        cannot_be = no_gpu or [*raised(self.micro_batch), *raised(self.chosen_strategy)]
        yield from cannot_be or [*raised(self.fits), *raised(self.can_use_disk)]
        yield from self.launch().faults()
        yield from raised(self.can_be_meant)

    def named_files(self) -> tuple[str, ...]:
        """Return the manifest of the release that training goes on from."""
        return () if self.start_from is None else (f"{self.start_from}/{MANIFEST_NAME}",)

    def base(self) -> BaseRelease | None:
        """Return the release that training goes on from, None where it begins with random weights.

        Raises:
            InputError: what stands there is no release.
            ParamsError: it is one that this run replaces, of another model, or has too short a context.
        """
        if self.start_from is None:
            return None
        folder = Path(self.start_from)
        if folder.resolve().is_relative_to(Path("data").resolve()):
            raise ParamsError(
                "this run would replace the release that it goes on from",
                where="params.yaml, train.start_from",
                expected="a release outside of data/, such as the copy of each that is kept in .headwater/releases/",
                found=self.start_from,
            )
        base = read_base(folder)
        # How weights begin says nothing of weights that are there.
        began = {"residual_projections"}
        try:
            wanted = ModelSize.model_validate(trained_model(folder), strict=False)
        except ValidationError as error:
            raise InputError(
                "the release that training goes on from has a model that is not known here",
                where=str(folder),
                expected=f"a model of {', '.join(families())}, with the settings that this Headwater has for it",
                found="; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()),
                fix="take the Headwater that made it, with its model families",
            ) from error
        if wanted.model_dump(exclude=began) != self.model.model_dump(exclude=began):
            numbers = wanted.model_dump(mode="json", exclude_none=True)
            raise ParamsError(
                "the release that training goes on from has another model",
                where="params.yaml, train.model",
                expected=str(numbers),
                found=str(self.model.model_dump(mode="json", exclude_none=True)),
                fix=f"--set 'train.model={json.dumps(numbers)}'",
            )
        if family(wanted.family).learned_positions and self.seq_len > base.context:
            raise ParamsError(
                "the release that training goes on from has learnt fewer positions",
                where="params.yaml, train.seq_len",
                expected=f"at most {base.context}",
                found=str(self.seq_len),
            )
        return base

    def runs_on(self) -> Literal["cpu", "gpu"]:
        """Return what the ranks run on.

        Raises:
            ParamsError: there are fewer GPUs than are asked for.
        """
        if self.device == "cpu" or (self.device == "auto" and not gpus()):
            return "cpu"
        need_gpus(self.num_ranks, "train.device", self.device)
        return "gpu"

    def micro_batch(self) -> int:
        """Return how many sequences a rank puts through the model at once.

        Raises:
            ParamsError: the batch cannot be shared out evenly between the ranks, or not in one order.
        """
        if self.fixed_order:
            for name, number in (("batch_size", self.batch_size), ("num_ranks", self.ranks())):
                if number & (number - 1) or self.ranks() > self.batch_size:
                    raise ParamsError(
                        "gradients cannot be added up in one order",
                        where=f"params.yaml, train.{name}",
                        expected="a power of two, and a batch of no fewer sequences than ranks (train.fixed_order)",
                        found=str(number),
                    )
            return 1
        share = self.ranks() * self.gradient_accumulation
        if self.batch_size % share:
            raise ParamsError(
                "a step cannot be shared out evenly",
                where="params.yaml, train.batch_size",
                expected=f"a multiple of nodes × num_ranks × gradient_accumulation = {share}",
                found=str(self.batch_size),
            )
        return self.batch_size // share

    def ranks(self) -> int:
        """Return how many training processes there are, on all machines."""
        return self.nodes * self.num_ranks

    def launch(self) -> Launch:
        """Return how the ranks are to be started."""
        return Launch(
            launcher=self.launcher,
            ranks=self.num_ranks,
            nodes=self.nodes,
            rendezvous=self.rendezvous,
            hostfile=None if self.hostfile is None else Path(self.hostfile).resolve(),
            restarts=self.restarts,
        )

    def chosen_precision(self) -> Literal["fp32", "bf16"]:
        """Return the number format that `auto` stands for on this machine."""
        if self.precision != "auto":
            return self.precision
        return "bf16" if self.runs_on() == "gpu" else "fp32"

    def chosen_strategy(self) -> Chosen:
        """Return the strategy that `auto` stands for.

        Raises:
            ParamsError: the strategy does not go with optimizer and precision.
        """
        chosen = choose(
            self.strategy,
            ranks=self.ranks(),
            whole_by="fixed_order" if self.fixed_order else "muon" if self.optimizer == "muon" else None,
            precision=self.chosen_precision(),
            cheapest=self._cheapest if self.runs_on() == "gpu" else simplest,
        )
        if self.optimizer == "adamw-8bit" and BY_NAME[chosen].optimizer == "nvme":
            raise ParamsError(
                "states on a disk are swapped as float32, and this optimizer's are not",
                where="params.yaml, train.optimizer",
                expected="adamw with infinity-optimizer and infinity",
                found=self.optimizer,
            )
        return chosen

    def _cheapest(self, names: Sequence[Chosen]) -> Chosen:
        """Return which strategy this machine's GPUs run fastest of those that fit them."""
        able = [name for name in names if self.optimizer == "adamw" or BY_NAME[name].optimizer != "nvme"]
        chosen = cheapest(self.planned(able[0]), able)
        return next(name for name in able if name == chosen)

    def planned(self, strategy: str) -> Run:
        """Return this run on this machine, as `headwater plan` reckons with it."""
        return Run(
            shape=self.model.shape(vocab_size=self.vocabulary, seq_len=self.seq_len),
            machine=machine_here(
                gpu=self.runs_on() == "gpu",
                ranks=self.num_ranks,
                nodes=self.nodes,
                disk=Path(self.offload_folder) if self.offload_folder else state_folder(),
            ),
            strategy=BY_NAME[strategy],
            seq_len=self.seq_len,
            micro_batch=self.micro_batch(),
            accumulation=self.batch_size // self.ranks() // self.micro_batch(),
            checkpointing="full" if self.activation_checkpointing else "none",
            moment_bits=8 if self.optimizer == "adamw-8bit" else 32,
            precision=self.chosen_precision(),
            optimizer="muon" if self.optimizer == "muon" else "adam",
            piece_tokens=self.loss_piece_tokens,
        )

    def fits(self) -> None:
        """Raise ParamsError where this machine's memory is too small, saying which settings would fit."""
        run = self.planned(self.chosen_strategy())
        short = shortage(run)
        if short is None:
            return
        ways = ways_out(run, self._goes_with)
        raise ParamsError(
            "the model does not fit this machine",
            where="params.yaml, train.strategy",
            expected=f"no more than {short.there / GIGA:,.1f} GB of {short.memory}",
            found=f"{run.strategy.name} wants {short.wanted / GIGA:,.1f} GB for {run.shape.weights:,} weights, "
            f"{run.micro_batch} sequences of {run.seq_len} tokens at once, on {run.machine.devices} rank(s)",
            fix=f"under train, {', or '.join(ways)} would fit"
            if ways
            else "a smaller train.model, or a larger machine",
        )

    def _goes_with(self, strategy: str) -> bool:
        """Return whether another strategy can be set beside the other settings."""
        changed = self.model_copy(update={"strategy": strategy})
        return strategy in get_args(Chosen) and not list(raised(changed.chosen_strategy))

    def can_use_disk(self) -> None:
        """Raise ParamsError where states are to lie on a disk, and what moves them cannot be compiled here."""
        if BY_NAME[chosen := self.chosen_strategy()].optimizer == "nvme":
            need_disk_library("train.strategy", chosen)

    def can_be_meant(self) -> None:
        """Raise ParamsError where two settings cannot both be meant."""
        if self.final_learning_rate > self.learning_rate:
            raise ParamsError(
                "the learning rate would rise to its end",
                where="params.yaml, train.final_learning_rate",
                expected=f"at most the peak, train.learning_rate = {self.learning_rate}",
                found=str(self.final_learning_rate),
            )
        if self.max_steps is not None and self.warmup_steps > self.max_steps:
            raise ParamsError(
                "the warm-up is longer than the run",
                where="params.yaml, train.warmup_steps",
                expected=f"at most train.max_steps = {self.max_steps}",
                found=str(self.warmup_steps),
            )

    def in_manifest(self) -> dict[str, JsonValue]:
        """Return the settings with the gate's policy filled in, and its hash."""
        policy, base = read_policy(self.policy), self.base()
        started_from = {} if base is None else {STARTED_FROM: base.model_dump(mode="json")}
        return (
            self.identity()
            | started_from
            | {
                "strategy": self.chosen_strategy(),
                "policy": policy.identity(),
                "policy_sha256": policy_sha256(policy, self.tasks),
            }
        )
