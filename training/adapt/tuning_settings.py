"""The settings of the stage adapt, and what of them can be known to be wrong before anything starts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field, JsonValue

from tasks.contracts.base import StageParams, borrowed_from, not_identity
from tasks.contracts.errors import HeadwaterError, ParamsError, raised
from training.device import gpus, need_gpus
from training.gate_policy import policy_sha256, read_policy

Method = Literal["full", "lora", "qlora", "dpo"]
LARGEST_RATE = 1e-2
"""A learning rate above this is a slip of the finger: it undoes what the base has learnt."""


class Params(StageParams):
    """Settings of the stage adapt: how a release learns from examples."""

    base: str = not_identity("data/release")
    """Folder of the release to begin with; its manifest counts, not its path."""
    name: str | None = not_identity(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=96)
    """Name of the adapted model; null is the base's name and the method."""
    method: Method = "lora"
    """full tunes all weights; lora adapters beside them (Hu et al. 2021, arXiv:2106.09685); qlora adapters beside
    weights in 4 bits, NF4 (Dettmers et al. 2023, arXiv:2305.14314); dpo adapters, from preferences (Rafailov et al.
    2023, arXiv:2305.18290)."""
    merge: bool = not_identity(True)
    """Whether adapters become part of the weights, which are released; false leaves an adapter folder, judged by the
    gate as well."""
    epochs: int = Field(1, ge=1)
    """Passes over the examples."""
    max_steps: int | None = Field(None, ge=1)
    """Stop after so many optimizer steps; null goes to the end of `epochs` passes."""
    batch_size: int = Field(8, ge=1)
    """Examples in an optimizer step."""
    micro_batch: int | None = Field(None, ge=1)
    """Examples that go through the model at once, to fit the memory; null takes all of a step."""
    learning_rate: float = Field(2e-4, gt=0)
    """Peak learning rate; it falls linearly to 0. Usual are 1e-5 for full, 2e-4 for lora and qlora, 5e-6 for dpo."""
    warmup_fraction: float = Field(0.03, ge=0, lt=1)
    """Part of all steps over which the learning rate rises from 0."""
    weight_decay: float = Field(0.0, ge=0)
    """Weight decay of AdamW."""
    gradient_clipping: float = Field(1.0, gt=0)
    """Longest gradient (L2 norm)."""
    rank: int = Field(16, ge=1)
    """Rank of adapters."""
    alpha: float = Field(32.0, gt=0)
    """Adapters are scaled by alpha / rank."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Part of an adapter's input that is left out in each step."""
    targets: tuple[str, ...] = ()
    """Names of the linear layers that get adapters (q_proj, v_proj …); none means all but the output layer."""
    beta: float = Field(0.1, gt=0)
    """Of dpo: how much the model is held to the base."""
    too_long: Literal["drop", "cut"] = "drop"
    """What becomes of an example longer than the model's context: dropped, or cut where an answer is left; each is a
    row in the ledger. A preference is always dropped."""
    seed: int = Field(1, ge=0)
    """Seed of the order of examples, of the adapters' first weights and of dropout."""
    device: Literal["auto", "cpu", "gpu"] = not_identity("auto")
    """auto takes a GPU where there is one, gpu does not start without."""
    policy: dict[str, Any] = borrowed_from("gate", {})
    """The gate's section: its hash goes into this stage's manifest before the first step."""
    tasks: tuple[str, ...] = borrowed_from("evaluate.tasks", ())
    """The tasks that the gate will score: part of its policy."""

    @property
    def adapters(self) -> bool:
        """Whether adapters are tuned, and not the weights themselves."""
        return self.method != "full"

    @property
    def preference(self) -> bool:
        """Whether it learns from preferences."""
        return self.method == "dpo"

    def faults(self) -> Iterator[HeadwaterError]:
        """Yield a GPU that is not there, and settings that cannot be meant."""
        yield from raised(self.runs_on)
        yield from raised(self.can_be_meant)
        yield from raised(lambda: read_policy(self.policy))

    def runs_on(self) -> Literal["cpu", "gpu"]:
        """Return what it is tuned on.

        Raises:
            ParamsError: a GPU is asked for and there is none.
        """
        if self.device == "gpu":
            need_gpus(1, "adapt.device", self.device)
        return "gpu" if self.device != "cpu" and gpus() else "cpu"

    def can_be_meant(self) -> None:
        """Raise ParamsError where settings contradict each other."""
        micro = self.micro_batch or self.batch_size
        if self.batch_size % micro:
            raise ParamsError(
                "a step cannot be cut into equal parts",
                where="params.yaml, adapt.micro_batch",
                expected=f"a divisor of adapt.batch_size, {self.batch_size}",
                found=str(micro),
            )
        if not self.merge and not self.adapters:
            raise ParamsError(
                "there are no adapters that could stay adapters",
                where="params.yaml, adapt.merge",
                expected="merge: true for method full",
                found="merge: false",
                fix="take lora, qlora or dpo, or adapt.merge=true",
            )
        if self.learning_rate > LARGEST_RATE:
            raise ParamsError(
                "a learning rate that undoes what the base has learnt",
                where="params.yaml, adapt.learning_rate",
                expected=f"at most {LARGEST_RATE:g}; usual are 1e-5 for full, 2e-4 for lora and qlora, 5e-6 for dpo",
                found=f"{self.learning_rate:g}",
            )
        if twice := sorted({name for name in self.targets if self.targets.count(name) > 1}):
            raise ParamsError(
                "a layer is named twice",
                where="params.yaml, adapt.targets",
                expected="each once",
                found=", ".join(twice),
            )

    def in_manifest(self) -> dict[str, JsonValue]:
        """Return the settings with the gate's policy, as it is before the first step, and its hash."""
        policy = read_policy(self.policy)
        return self.identity() | {"policy": policy.identity(), "policy_sha256": policy_sha256(policy, self.tasks)}

    @classmethod
    def derived(cls) -> tuple[str, ...]:
        """Return what the manifest names of what went in."""
        return ("policy_sha256", "base_weights_sha256")
