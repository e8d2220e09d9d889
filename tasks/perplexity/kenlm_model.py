"""The 5-gram model: trained once by KenLM's `lmplz` and kept under the hash of what it is made of, or given."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import fsspec

from tasks.contracts.durable_files import atomic_path, sha256_file, sha256_json
from tasks.contracts.errors import CorpusTooSmallError, InputError, ModelError, ToolMissingError
from tasks.contracts.workspace import state_folder

# Part of a trained model's key: what infra/build_lmplz.sh builds (constraints.txt pins it).
LMPLZ_VERSION: Final = "0.3.0"
_STDERR_LINES: Final = 15
MODELS_AT_ONCE: Final = 64  # mapped into memory: what is not asked for takes none


@dataclass(frozen=True, slots=True, kw_only=True)
class LmplzOptions:
    """How `lmplz` estimates a model.

    Attributes:
        prune: counts up to which n-grams are left out, by order from 1 on; empty prunes nothing.
        memory: sorting memory as lmplz takes it ("512M"); changes no result.
    """

    order: int
    prune: tuple[int, ...]
    discount_fallback: bool
    memory: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model file and the hash that stands for it in shard keys and manifests.

    Attributes:
        words: units of text it was trained on, None for a given model.
    """

    path: Path
    identity: str
    words: int | None


def find_tool(name: str) -> Path:
    """Return KenLM's program beside this Python, else on PATH.

    Raises:
        ToolMissingError: there is none.
    """
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.is_file() else shutil.which(name)
    if found is None:
        raise ToolMissingError(
            f"KenLM's `{name}` is not installed",
            where="the perplexity stage, which trains a model on perplexity.reference",
            expected=f"{name} beside {beside.parent.name}/{beside.name}'s Python, or on PATH",
            fix="`make setup`, or `infra/build_lmplz.sh`, builds it; or name a finished model in perplexity.model",
        )
    return Path(found)


def train(lines: Iterable[str], options: LmplzOptions, *, least_words: int, what: str) -> Model:
    """Train a model on normalised lines, or return the one already made from the same lines and options.

    Args:
        lines: in an order that is the same for the same text, as the key is a hash over them.
        least_words: fewer units than this are an error.
        what: which reference this is, for messages.

    Raises:
        CorpusTooSmallError: too little text.
        ToolMissingError: lmplz is not installed.
        ModelError: lmplz failed.
    """
    folder = state_folder() / "perplexity"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix="training-") as name:
        work = Path(name)
        digest = hashlib.sha256()
        words = 0
        with (work / "text").open("wb") as stream:
            for line in lines:
                encoded = line.encode("utf-8", "replace") + b"\n"
                words += encoded.count(b" ") + 1
                digest.update(encoded)
                stream.write(encoded)
        if words < least_words:
            raise too_small(words, least_words, what)
        identity = sha256_json(
            {
                "text": digest.hexdigest(),
                "order": options.order,
                "prune": list(options.prune),
                "discount_fallback": options.discount_fallback,
                "lmplz": LMPLZ_VERSION,
            }
        )
        path = folder / "models" / f"{identity}.bin"
        if path.is_file():
            os.utime(path)  # `headwater gc` removes what has not been used for a while
        else:
            _estimate(work, options, path)
    return Model(path=path, identity=identity, words=words)


def too_small(found: int, expected: int, what: str) -> CorpusTooSmallError:
    """Return the error for too little reference text."""
    return CorpusTooSmallError(
        "too little reference text to train the perplexity model",
        where=f"params.yaml, perplexity.reference ({what})",
        expected=f"at least {expected:,} words (perplexity.min_reference_words)",
        found=f"{found:,} words",
        fix="choose more hosts, sources or files, set perplexity.reference.otherwise to corpus, "
        "or name a finished model in perplexity.model",
    )


def _estimate(work: Path, options: LmplzOptions, path: Path) -> None:
    command = [str(find_tool("lmplz")), "--order", str(options.order), "--memory", options.memory]
    command += ["--temp_prefix", f"{work}/", "--text", str(work / "text"), "--arpa", str(work / "arpa")]
    if options.prune:
        command += ["--prune", *map(str, options.prune)]
    if options.discount_fallback:
        command.append("--discount_fallback")
    binarise = find_tool("build_binary")
    _run(command)
    with atomic_path(path) as temporary:
        _run([str(binarise), "probing", str(work / "arpa"), str(temporary)])


def _run(command: list[str]) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    if done.returncode:
        raise ModelError(
            f"KenLM's {Path(command[0]).name} failed with exit status {done.returncode}",
            where=" ".join(command[1:]),
            found="\n".join(done.stderr.strip().splitlines()[-_STDERR_LINES:]) or "no message",
            fix="`tasks/perplexity` writes its input; a small reference may need perplexity.discount_fallback: true, "
            "a small machine a lower perplexity.memory",
        )


def given(name: str) -> Model:
    """Return the model at a path or an address that fsspec reads; it is known by its content, not its name.

    Raises:
        InputError: it is missing or cannot be read.
    """
    try:
        if "://" not in name:
            path = Path(name).resolve()
            return Model(path=path, identity=sha256_file(path), words=None)
        folder = state_folder() / "perplexity" / "models"
        fetched = folder / hashlib.sha256(name.encode()).hexdigest()
        with atomic_path(fetched) as temporary, fsspec.open(name, "rb") as source, temporary.open("wb") as target:
            shutil.copyfileobj(source, target)
        return Model(path=fetched, identity=sha256_file(fetched), words=None)
    except (OSError, ValueError) as error:
        raise InputError(
            "the perplexity model cannot be read",
            where="params.yaml, perplexity.model",
            expected="the path or address of a KenLM model (.arpa or binary)",
            found=f"{name}: {error}",
        ) from error


@lru_cache(maxsize=MODELS_AT_ONCE)
def load(path: Path, identity: str) -> Any:  # noqa: ARG001 - the identity tells apart files of one name in the cache
    """Return the model, loaded once a process; its pages are shared with the other processes of this machine.

    Raises:
        InputError: KenLM cannot read it.
    """
    import kenlm

    config = kenlm.Config()
    config.load_method = kenlm.LoadMethod.LAZY
    try:
        return kenlm.Model(str(path), config)
    except (OSError, RuntimeError) as error:
        raise InputError(
            "KenLM cannot read the perplexity model",
            where=path.name,
            expected="an ARPA file or a KenLM binary of order 6 at most",
            found=str(error).splitlines()[0],
        ) from error


def log10_probability(model: Any, lines: list[str]) -> tuple[float, int]:
    """Return a text's log10 probability and its number of tokens, each line's end counted as one, as in CCNet.

    A text without lines is one empty line, so that every text has a perplexity.
    """
    sentences = lines or [""]
    total = sum(model.score(sentence, bos=True, eos=True) for sentence in sentences)
    return total, sum(len(sentence.split(" ")) if sentence else 0 for sentence in sentences) + len(sentences)
