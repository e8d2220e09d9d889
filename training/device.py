"""What training and evaluation run on."""

from __future__ import annotations

import os
from pathlib import Path

from tasks.contracts.errors import ParamsError


def gpus() -> int:
    """Return the number of GPUs that PyTorch can use, without loading it where the machine has none."""
    if os.environ.get("DS_ACCELERATOR") == "cpu" or not Path("/dev/nvidiactl").exists():
        return 0
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def need_gpus(number: int, setting: str, found: str) -> None:
    """Raise ParamsError where a setting asks for more GPUs than this machine has.

    Args:
        setting: its name, such as "train.device".
        found: its value.
    """
    there = gpus()
    if there < number:
        raise ParamsError(
            "a setting asks for a GPU that this machine does not have",
            where=f"params.yaml, {setting}",
            expected=f"{number} GPU{'s' if number > 1 else ''}",
            found=f"{setting} = {found}, and {there} that PyTorch can use",
            fix="`headwater doctor` says what is there; auto takes the processor where there is no GPU",
        )
