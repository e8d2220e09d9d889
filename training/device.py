"""What training and evaluation run on."""

from __future__ import annotations

import os
import shutil
import subprocess
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


def need_disk_library(setting: str, found: str) -> None:
    """Raise ParamsError where DeepSpeed could not compile what moves states to a disk: it takes a compiler and libaio.

    Args:
        setting: its name, such as "train.strategy".
        found: its value.
    """
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    header = "#include <libaio.h>\n"
    if compiler is None:
        lacking = "no C++ compiler (CXX, or c++ on PATH)"
    elif subprocess.run(
        [compiler, "-E", "-x", "c++", "-"], input=header, capture_output=True, text=True, check=False
    ).returncode:
        lacking = "no libaio.h"
    else:
        return
    raise ParamsError(
        "states on a disk need what this machine does not have",
        where=f"params.yaml, {setting}",
        expected="a C++ compiler and the header of libaio, with which DeepSpeed compiles its part for that",
        found=f"{setting} = {found}, and {lacking}",
        fix="install g++ and libaio-dev, or offload to the host's memory: zero-3-offload",
    )
