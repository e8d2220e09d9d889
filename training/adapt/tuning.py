"""Tuning: a base model and encoded examples in, tuned weights or adapters out.

trl's trainers compute the losses (its DPOTrainer that of Rafailov et al. 2023, equation 7), peft makes the adapters,
bitsandbytes the 4-bit weights. What they would do to data is done before, where it can be recorded: tokens, labels,
what is cut, and the order. One process; the same settings, examples and base give the same weights on one machine.
"""

from __future__ import annotations

import importlib
import logging
import os
import random
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tasks.contracts.errors import ParamsError
from training.adapt.chat import Encoded
from training.adapt.tuning_settings import Params
from training.device import gpus

logger = logging.getLogger(__name__)

ADAPTER_TASK: Final = "CAUSAL_LM"
ALL_LAYERS: Final = "all-linear"
"""peft's name for every linear layer but the output's."""
NOISY: Final = ("bitsandbytes", "accelerate", "datasets", "trl")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One optimizer step: which examples it saw (their places), and its loss."""

    examples: tuple[int, ...]
    loss: float
    learning_rate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """What tuning gave: the model, with its adapters where there are some, and its steps."""

    model: Any
    steps: tuple[Step, ...]


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep the libraries of tuning off the network and their chatter out of the log.

    bitsandbytes asks a hub for a kernel when it is imported and the package `kernels` is there: it is told that it is
    not. Its own routines take its place.
    """
    wanted = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    if not sys.stderr.isatty():
        wanted["TQDM_DISABLE"] = "1"
    if not gpus():
        wanted["DS_ACCELERATOR"] = "cpu"  # DeepSpeed, which transformers asks for, would look for one
    before = {name: os.environ.get(name) for name in wanted}
    kernels = sys.modules.get("kernels")
    os.environ.update(wanted)
    noisy = [logging.getLogger(name) for name in NOISY]
    levels = [one.level for one in noisy]
    for one in noisy:
        one.setLevel(logging.ERROR)
    if "bitsandbytes" not in sys.modules:
        sys.modules["kernels"] = None  # type: ignore[assignment]
        importlib.import_module("bitsandbytes")
        del sys.modules["kernels"]
        if kernels is not None:
            sys.modules["kernels"] = kernels
    own = importlib.import_module("transformers.utils.logging")
    verbosity = own.get_verbosity()
    own.set_verbosity_error()
    own.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        own.set_verbosity(verbosity)
        for one, level in zip(noisy, levels, strict=True):
            one.setLevel(level)
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def load_base(folder: Path, *, four_bits: bool, device: str) -> Any:
    """Return the base model in float32, its linear layers in NF4 where that is asked for."""
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    more: dict[str, Any] = {}
    if four_bits:
        more["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32
        )
    place = "cuda:0" if device == "gpu" else "cpu"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, device_map={"": place}, **more)
    model.config.use_cache = False
    return model


def with_adapters(model: Any, params: Params) -> Any:
    """Return the model with new adapters; only they are tuned.

    Raises:
        ParamsError: the model has no layers of these names.
    """
    import peft

    missing = [name for name in params.targets if not any(one.endswith(name) for one, _ in model.named_modules())]
    if missing:
        import torch

        linear = {name.rpartition(".")[2] for name, one in model.named_modules() if isinstance(one, torch.nn.Linear)}
        raise ParamsError(
            "the base has no layers of these names",
            where="params.yaml, adapt.targets",
            expected=", ".join(sorted(linear)),
            found=", ".join(missing),
        )
    config = peft.LoraConfig(
        r=params.rank,
        lora_alpha=params.alpha,
        lora_dropout=params.dropout,
        target_modules=list(params.targets) or ALL_LAYERS,
        task_type=ADAPTER_TASK,
    )
    for weight in model.parameters():
        weight.requires_grad_(False)
    return peft.get_peft_model(model, config)


def order_of(examples: int, params: Params) -> list[list[int]]:
    """Return which examples each step sees, by their places: a new order each pass, the last step may be smaller.

    >>> order_of(3, Params(batch_size=2, epochs=2, seed=1))
    [[1, 2], [0, 2], [0, 1]]
    """
    drawing = random.Random(params.seed)
    places: list[int] = []
    for _ in range(params.epochs):
        passed = list(range(examples))
        drawing.shuffle(passed)
        places += passed
    steps = [places[at : at + params.batch_size] for at in range(0, len(places), params.batch_size)]
    return steps[: params.max_steps]


def tune(base: Path, tokenizer: Any, examples: Sequence[Encoded], params: Params, *, device: str) -> Tuned:
    """Tune the model of a release folder on examples.

    Args:
        tokenizer: the base's.
        device: "cpu" or "gpu".

    Raises:
        ParamsError: the base has no layers of the names that adapters are asked for.
    """
    import torch
    import transformers

    transformers.set_seed(params.seed)
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0))))
    model = load_base(base, four_bits=params.method == "qlora", device=device)
    if params.adapters:
        model = with_adapters(model, params)
    order = order_of(len(examples), params)
    rows = [examples[place].row for step in order for place in step]
    logger.info("adapt: %s, %d examples, %d steps on %s", params.method, len(examples), len(order), device)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = _trainer(model, tokenizer, rows, params, steps=len(order), device=device, scratch=scratch)
        trainer.train()
    losses = [(row["loss"], row["learning_rate"]) for row in trainer.state.log_history if "loss" in row]
    assert len(losses) == len(order), "a loss is logged each step"
    steps = (
        Step(examples=tuple(step), loss=float(loss), learning_rate=float(rate))
        for step, (loss, rate) in zip(order, losses, strict=True)
    )
    return Tuned(model=_as_tuned(trainer.model), steps=tuple(steps))


def _as_tuned(model: Any) -> Any:
    """Return a tuned model that computes as it was tuned, without dropout and without what trl has put beside.

    bitsandbytes' 4-bit layers compute in bfloat16 on some processors unless they are in training.
    """
    import bitsandbytes as bnb

    if "ref" in getattr(model, "peft_config", {}):  # of dpo: the adapters as they began
        model.delete_adapter("ref")
    model.eval()
    for layer in model.modules():
        if isinstance(layer, bnb.nn.Linear4bit):
            layer.train()
    return model


def _trainer(
    model: Any, tokenizer: Any, rows: Sequence[Mapping[str, list[int]]], params: Params, *, steps: int, device: str,
    scratch: str,
) -> Any:  # fmt: skip
    """Return trl's trainer, which takes the rows as they are and in their order."""
    import trl
    from datasets import Dataset
    from torch.utils.data import SequentialSampler
    from transformers import PrinterCallback

    kind, config = (trl.DPOTrainer, trl.DPOConfig) if params.preference else (trl.SFTTrainer, trl.SFTConfig)

    class InOrder(kind):  # type: ignore[misc, valid-type]
        def _prepare_dataset(self, dataset: Any, *_arguments: Any, **_named: Any) -> Any:
            return dataset

        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            return SequentialSampler(train_dataset if train_dataset is not None else self.train_dataset)

    micro = params.micro_batch or params.batch_size
    own = {"beta": params.beta} if params.preference else {}
    settings = config(
        output_dir=scratch,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=params.batch_size // micro,
        num_train_epochs=1,
        max_length=None,
        learning_rate=params.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=round(steps * params.warmup_fraction),
        weight_decay=params.weight_decay,
        max_grad_norm=params.gradient_clipping,
        optim="adamw_torch",
        seed=params.seed,
        data_seed=params.seed,
        use_cpu=device == "cpu",
        bf16=False,
        fp16=False,
        gradient_checkpointing=False,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        logging_steps=1,
        logging_strategy="steps",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **own,
    )
    settings._n_gpu = min(settings.n_gpu, 1)  # one process, one GPU: trl refuses to spread over several
    trainer = InOrder(
        model=model,
        args=settings,
        train_dataset=Dataset.from_list([dict(row) for row in rows]),
        processing_class=tokenizer,
    )
    trainer.remove_callback(PrinterCallback)
    for weight in model.parameters():
        if weight.requires_grad:  # trl makes adapters beside 4-bit weights bfloat16, which could not be merged exactly
            weight.data = weight.data.float()
    return trainer
