"""`headwater doctor`: what this machine has and lacks for a run, each with what to do about it."""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
import sys
from pathlib import Path

import psutil

from tasks.contracts.base import FrozenModel
from tasks.contracts.workspace import program_path

PACKAGES = (
    "prefect", "ray", "datatrove", "trafilatura", "datasketch", "kenlm", "tokenizers", "torch", "deepspeed", "lm-eval",
    "mlflow", "dvc", "scrapy", "warcio", "transformers",
)  # fmt: skip
ONLY_SHOWS = "mlflow"
"""A run without it leaves the same files."""
SETUP = "`make setup` installs it"
GIBIBYTE = 1024**3
MEMORY_NEEDED = 6 * GIBIBYTE
"""Measured peak of a run of the embedded sample, rounded up."""
DISK_NEEDED = 4 * GIBIBYTE


class Finding(FrozenModel):
    """One thing that was looked at: is it right, what was found, and what to do when it is not."""

    name: str
    ok: bool
    found: str
    fix: str = ""
    optional: bool = False


def examine() -> list[Finding]:
    """Look at everything that a run needs on this machine."""
    return [
        _python(),
        *_packages(),
        _program("lmplz", "trains the perplexity stage's model"),
        _program("git", "records which code made a release"),
        _memory(),
        _disk(),
        _workspace(),
        _gpu(),
    ]


def find_program(name: str) -> str | None:
    """Return where a program is: beside this Python, or on PATH."""
    return shutil.which(name, path=program_path())


def _python() -> Finding:
    version = ".".join(str(part) for part in sys.version_info[:3])
    return Finding(
        name="Python", ok=sys.version_info >= (3, 11), found=version, fix="Python 3.11 or newer, then `make setup`"
    )


def _packages() -> list[Finding]:
    findings = []
    for name in PACKAGES:
        try:
            findings.append(Finding(name=name, ok=True, found=importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            optional = name == ONLY_SHOWS
            findings.append(Finding(name=name, ok=False, found="not installed", fix=SETUP, optional=optional))
    return findings


def _program(name: str, purpose: str) -> Finding:
    place = find_program(name)
    return Finding(name=name, ok=place is not None, found=place or f"not found ({purpose})", fix=SETUP)


def _memory() -> Finding:
    total = psutil.virtual_memory().total
    return Finding(
        name="memory",
        ok=total >= MEMORY_NEEDED,
        found=f"{total / GIBIBYTE:.1f} GiB",
        fix=f"the embedded sample needs {MEMORY_NEEDED / GIBIBYTE:.0f} GiB; lower ray.num_cpus and train.batch_size",
    )


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free
    return Finding(
        name="disk",
        ok=free >= DISK_NEEDED,
        found=f"{free / GIBIBYTE:.1f} GiB free here",
        fix=f"free up to {DISK_NEEDED / GIBIBYTE:.0f} GiB: `headwater gc`, `dvc gc -w`",
    )


def _workspace() -> Finding:
    missing = [name for name in ("dvc.yaml", "params.yaml", ".dvc/config") if not Path(name).is_file()]
    found = (
        "dvc.yaml, params.yaml and .dvc are here" if not missing else f"no {', '.join(missing)} in {Path.cwd().name}"
    )
    return Finding(name="workspace", ok=not missing, found=found, fix="call headwater from the root of a clone")


def _gpu() -> Finding:
    tool = shutil.which("nvidia-smi")
    listed = subprocess.run([tool, "-L"], capture_output=True, text=True, check=False).stdout if tool else ""
    names = [line.split("(")[0].strip() for line in listed.splitlines() if line.startswith("GPU")]
    return Finding(
        name="GPU",
        ok=bool(names),
        found=", ".join(names) or "none: training runs on the CPU",
        fix="not needed for the sample; `headwater params apply one_gpu` once there is one",
        optional=True,
    )
