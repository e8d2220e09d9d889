"""`headwater export`: a release in the form that another program wants."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from flows.output import JsonOption, console
from training.release.export import NOTE_NAME, Format, Precision
from training.release.export import export as write


def export(
    release: Annotated[Path, typer.Argument(metavar="RELEASE_DIR", help="The release.")],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where to write it; it must not be there yet.")],
    format_: Annotated[
        Format, typer.Option("--format", help="hf: what transformers and vLLM load; gguf: llama.cpp.")
    ] = "hf",
    dtype: Annotated[Precision, typer.Option(help="Of the weights.")] = "fp32",
    as_json: JsonOption = False,
) -> None:
    """Write a release as Hugging Face folder or GGUF file, with its papers, marks and a note of where it is from.

    The release is verified first, and refused where a claim does not hold.

    Example: headwater export data/release exported --format gguf --dtype bf16
    """
    from flows.proof.verify import refuse_broken

    refuse_broken(release)
    path = write(release, folder, format_=format_, precision=dtype)
    note = json.loads((folder / NOTE_NAME).read_bytes())
    if as_json:
        console.json(note)
        return
    console.print(
        f"{path}  ({path.stat().st_size:,} bytes)\n"
        f"from the release {note['release']}, manifest {note['release_manifest_sha256'][:16]}…: {folder / NOTE_NAME}",
        soft_wrap=True,
    )
