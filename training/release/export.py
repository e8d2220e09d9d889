"""A release in the form that another program wants: Hugging Face layout or GGUF, in float32 or bfloat16.

Of an exported folder can be said where it is from: `export.json` names the release's manifest, and the release's
papers, proofs and marks lie beside the weights. It is no release: its weights may be other bytes, and `verify.py` is
for releases.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Final, Literal

from tasks.contracts.durable_files import atomic_folder, sha256_file, write_json
from tasks.contracts.errors import InputError, UsageError
from tasks.contracts.files import (
    GENERATION_CONFIG_NAME,
    MODEL_CONFIG_NAME,
    SPECIAL_TOKENS_NAME,
    TOKENIZER_CONFIG_NAME,
    TOKENIZER_NAME,
)
from tasks.contracts.manifest import MANIFEST_NAME, manifest_hash
from tasks.contracts.release import (
    AB2013_NAME,
    BILL_NAME,
    CROISSANT_NAME,
    DATA_CARD_NAME,
    EU_SUMMARY_JSON_NAME,
    EU_SUMMARY_NAME,
    LINEAGE_NAME,
    MANIFESTS_FOLDER,
    MODEL_CARD_NAME,
    PROV_NAME,
    TAKEDOWN_MARK_NAME,
    TAKEDOWN_NOTICE_NAME,
)
from training.release.gguf_file import CHAT_TEMPLATE_NAME, write_gguf

Format = Literal["hf", "gguf"]
Precision = Literal["fp32", "bf16"]

NOTE_NAME: Final = "export.json"
_WEIGHTS: Final = (".safetensors", ".gguf")
PROOF_FOLDER: Final = "release"
"""What proves the release: its manifest and those of its stages."""
PAPERS: Final = (
    MODEL_CARD_NAME, DATA_CARD_NAME, EU_SUMMARY_NAME, EU_SUMMARY_JSON_NAME, AB2013_NAME, CROISSANT_NAME, BILL_NAME,
    PROV_NAME, LINEAGE_NAME, TAKEDOWN_NOTICE_NAME, TAKEDOWN_MARK_NAME,
)  # fmt: skip
MODEL_FILES: Final = (
    MODEL_CONFIG_NAME, GENERATION_CONFIG_NAME, TOKENIZER_NAME, TOKENIZER_CONFIG_NAME, SPECIAL_TOKENS_NAME,
    CHAT_TEMPLATE_NAME,
)  # fmt: skip


def export(release: Path, folder: Path, *, format_: Format, precision: Precision) -> Path:
    """Write a release into a new folder and return the file of the weights, or of the first of them.

    Raises:
        UsageError: `release` is none, or `folder` is there already.
        InputError: a model of this architecture cannot be written as GGUF.
    """
    if not (release / MANIFEST_NAME).is_file() or not (release / LINEAGE_NAME).is_file():
        raise UsageError("there is no such release", where=str(release), fix="name a release's folder, or run first")
    if folder.exists():
        raise UsageError("the folder is there already", where=str(folder), expected="a name that is free")
    if folder.resolve().is_relative_to(release.resolve()):
        raise UsageError("an export may not lie in its release", where=str(folder), fix="name a folder elsewhere")
    lineage = _json(release / LINEAGE_NAME)
    with atomic_folder(folder) as made:
        _copy(release, made, (*MODEL_FILES, *PAPERS))
        if format_ == "gguf":
            # In float32: the writer rounds the matrices only.
            weights, name = read_weights(release, "fp32"), f"{lineage['name']}-{precision}.gguf"
            write_gguf(made / name, release, weights, precision=precision)
        else:
            name = _write_hugging_face(made, read_weights(release, precision), precision)
        shutil.copytree(release / MANIFESTS_FOLDER, made / PROOF_FOLDER / MANIFESTS_FOLDER)
        shutil.copy(release / MANIFEST_NAME, made / PROOF_FOLDER / MANIFEST_NAME)
        files: Any = {path.name: sha256_file(path) for path in sorted(made.iterdir()) if path.suffix in _WEIGHTS}
        note = {
            "release": lineage["name"],
            "release_manifest_sha256": manifest_hash(release),
            "release_weights_sha256": lineage["weights_sha256"],
            "format": format_,
            "precision": precision,
            "sha256": files,
        }
        write_json(made / NOTE_NAME, note)
    return folder / name


def read_weights(release: Path, precision: Precision) -> dict[str, Any]:
    """Return a release's tensors by name, in a precision.

    Raises:
        InputError: there are none.
    """
    import torch
    from safetensors.torch import load_file

    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    files = sorted(release.glob("*.safetensors"))
    if not files:
        raise InputError("the release has no weights", where=str(release), expected="*.safetensors")
    return {name: tensor.to(dtype) for path in files for name, tensor in load_file(path).items()}


def _write_hugging_face(folder: Path, weights: dict[str, Any], precision: Precision) -> str:
    from huggingface_hub import save_torch_state_dict

    described = folder / MODEL_CONFIG_NAME
    write_json(described, _json(described) | {"dtype": {"fp32": "float32", "bf16": "bfloat16"}[precision]})
    save_torch_state_dict(weights, folder)
    written = sorted(folder.glob("*.safetensors"))
    for path in written:
        path.chmod(described.stat().st_mode)  # written for its owner alone
    return written[0].name


def _copy(release: Path, folder: Path, names: tuple[str, ...]) -> None:
    for name in names:
        if (release / name).is_file():
            shutil.copy(release / name, folder / name)


def _json(path: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(path.read_bytes())
    return read
