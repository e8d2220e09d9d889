"""The reference: the text that a good document should read like, picked from the corpus or read from files.

Each language has a model of its own, trained on the reference's documents of that language.

A document that the model was trained on looks far too good to it. So when the reference comes from the corpus
itself, its documents are halved by a hash of their content and two models are trained, one on each half. A
reference document is scored by the model of the half it is not in, any other document by the mean of both. Every
document is then scored by models of like size that have not seen it, and none has to be exempt.
"""

from __future__ import annotations

import heapq
import io
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import fsspec
import fsspec.utils
from pydantic import JsonValue, field_validator

from tasks.contracts.base import FrozenModel
from tasks.contracts.document import Document, read_documents
from tasks.contracts.durable_files import atomic_path
from tasks.contracts.errors import InputError
from tasks.contracts.languages import UNDETERMINED, checked, same_code
from tasks.contracts.manifest import Counts
from tasks.contracts.text_files import MARK, in_utf8, json_value
from tasks.contracts.urls import named
from tasks.engine.shards import ShardWork
from tasks.engine.stage import Stage
from tasks.perplexity.kenlm_model import LmplzOptions, Model, too_small, train
from tasks.perplexity.model_text import fold_of, lines_of
from tasks.perplexity.word_pieces import Pieces, cut, learn

logger = logging.getLogger(__name__)

FOLDS = 2
ANY = "any"
"""Stands for every language that has no model of its own."""


def by_code(named: Any) -> Any:
    """Return a mapping whose keys name languages in any form by their codes; what is no mapping as it is.

    Raises:
        ValueError: a key names no language, or two name one.
    """
    if not isinstance(named, Mapping):
        return named
    coded = {key if key == ANY else checked(str(key)): value for key, value in named.items()}
    if len(coded) < len(named):
        raise ValueError(f"two of {', '.join(map(str, named))} are one language")
    return coded


class Reference(FrozenModel):
    """Which text the models are trained on: documents of the corpus by source or host, and files."""

    sources: tuple[str, ...] = ()
    """Sources whose documents are reference."""
    hosts: tuple[str, ...] = ()
    """Hosts whose documents are reference; * and ? match as in file names, "*.a.example" a.example too."""
    files: tuple[str, ...] | dict[str, tuple[str, ...]] = ()
    """Paths or addresses of text (a sentence or paragraph a line) or JSONL with `text`; .gz, .bz2, .xz are opened.

    By language ({en: [a.txt], de: [b.txt]}), or a list for documents of any language without a model of its own.
    """
    _languages = field_validator("files", mode="before")(by_code)
    otherwise: Literal["error", "corpus"] = "error"
    """When that is too little text: "error" stops, "corpus" takes every document of the corpus as reference."""

    def is_empty(self) -> bool:
        """Return whether nothing at all is named."""
        return not (self.sources or self.hosts or self.files)

    def holds(self, document: Document) -> bool:
        """Return whether a document of the corpus is part of the reference."""
        return document.source in self.sources or named(document.host, self.hosts)

    def files_of(self) -> dict[str, tuple[str, ...]]:
        """Return the files by language."""
        return self.files if isinstance(self.files, dict) else {ANY: self.files} if self.files else {}


WHOLE_CORPUS = Reference(hosts=("*",))


@dataclass(frozen=True, slots=True, kw_only=True)
class Scorer:
    """What scores the documents of one language: one model, or one for each half of the reference."""

    models: tuple[Model, ...]
    pieces: Pieces | None = None

    def identity(self) -> list[JsonValue]:
        """Return what stands for it in a shard's key."""
        return [*(model.identity for model in self.models), *([self.pieces.identity] if self.pieces else [])]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """Scorers by language, and the reference that they were trained on in the end (see `Reference.otherwise`)."""

    reference: Reference
    scorers: dict[str, Scorer]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitting:
    """How models are trained.

    Attributes:
        least_words: words that each model's text must have; a language with fewer gets no model.
        by_language: one model a language; else one for all.
        pieces: how many pieces are learnt as units; None counts words.
    """

    options: LmplzOptions
    least_words: int
    by_language: bool
    pieces: int | None


def language_of(document: Document, by_language: bool) -> str:
    """Return the language whose model a document asks for; "und" where it is not known (ISO 639-2)."""
    return (same_code(document.language) or UNDETERMINED) if by_language else ANY


def fit(stage: Stage, reference: Reference, how: Fitting, work: list[ShardWork], folder: Path) -> Fitted:
    """Train one scorer a language: one model on files alone, or two by halves where documents of the corpus are in it.

    Args:
        folder: where each part's reference lines are kept, internal.

    Raises:
        CorpusTooSmallError: too little text in every language, and `otherwise` does not allow the whole corpus.
    """
    halves = _corpus_halves(stage, reference, how, work, folder / "lines")
    for language, names in sorted(reference.files_of().items()):
        extra = folder / f"files.{_file_part(language)}.txt"
        _write_sorted(extra, [line for name in names for line in _file_lines(name)])
        for half in halves.setdefault(language, [[]]):
            half.append(extra)
    scorers: dict[str, Scorer] = {}
    most, of = 0, ANY
    for language, parts in sorted(halves.items()):
        words = min(sum(_words(path) for path in half) for half in parts)
        if words >= how.least_words:
            scorers[language] = _train(parts, how, f"{language}, trained on halves" if len(parts) > 1 else "files")
        else:
            logger.info("perplexity: no model for %s: %d words of reference", language, words)
            most, of = max((most, of), (words, language))
    if not scorers:
        if reference.otherwise == "error" or reference == WHOLE_CORPUS:
            raise too_small(most, how.least_words, f"{of}, the smaller half" if len(halves.get(of, [])) > 1 else of)
        logger.warning("perplexity: the reference has too few words, so the whole corpus is taken as reference")
        return fit(stage, WHOLE_CORPUS, how, work, folder / "corpus")
    return Fitted(reference=reference, scorers=scorers)


def _train(parts: list[list[Path]], how: Fitting, what: str) -> Scorer:
    pieces = None
    if how.pieces is not None:
        pieces = learn(_merged([path for half in parts for path in half]), size=how.pieces)
    models = tuple(train(cut(_merged(half), pieces), how.options, least_words=1, what=what) for half in parts)
    return Scorer(models=models, pieces=pieces)


def _corpus_halves(
    stage: Stage, reference: Reference, how: Fitting, work: list[ShardWork], folder: Path
) -> dict[str, list[list[Path]]]:
    """Write the reference lines of every part, and return the files of each half by language."""
    if not (reference.sources or reference.hosts):
        return {}
    made = stage.map(
        partial(_write_lines, reference, how.by_language),
        work,
        step="reference",
        output=folder,
        params={
            "sources": list(reference.sources),
            "hosts": list(reference.hosts),
            "by_language": how.by_language,
        },
        code=["tasks.perplexity.reference", "tasks.perplexity.model_text"],
    )
    halves: dict[str, list[list[Path]]] = {}
    for name in sorted(shard.name for shard in made.files):
        _, language, fold, _ = name.split(".")
        halves.setdefault(language, [[] for _ in range(FOLDS)])[int(fold)].append(folder / name)
    return halves


def _write_lines(reference: Reference, by_language: bool, work: ShardWork, folder: Path) -> Counts:
    """Write one part's reference lines, sorted, a file for each language and half."""
    halves: dict[str, list[list[str]]] = {}
    seen = 0
    for document in read_documents(work.inputs[0]):
        seen += 1
        if reference.holds(document):
            lines = lines_of(document.text)
            language = _file_part(language_of(document, by_language))
            halves.setdefault(language, [[] for _ in range(FOLDS)])[fold_of(lines)].extend(lines)
    for language, folds in sorted(halves.items()):
        for fold, lines in enumerate(folds):
            _write_sorted(folder / f"{work.name}.{language}.{fold}.txt", lines)
    return Counts(in_=seen, out=seen)


def _file_part(language: str) -> str:
    """Return a language's code as it may stand in a file's name."""
    return re.sub(r"[^A-Za-z0-9-]", "-", language)


def _write_sorted(path: Path, lines: list[str]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text("".join(f"{line}\n" for line in sorted(lines)), encoding="utf-8", errors="replace")


def _merged(paths: list[Path]) -> Iterator[str]:
    """Yield the lines of sorted files, sorted: the same text however it is cut into shards, so the same model."""
    streams = [path.open(encoding="utf-8", newline="\n") for path in paths]
    try:
        yield from (line.rstrip("\n") for line in heapq.merge(*streams))
    finally:
        for stream in streams:
            stream.close()


def _words(path: Path) -> int:
    with path.open("rb") as stream:
        return sum(line.count(b" ") + 1 for line in stream)


def _file_lines(name: str) -> Iterator[str]:
    """Yield the normalised lines of one reference file.

    Raises:
        InputError: it is missing, or not what its name says.
    """
    try:
        # Not by fsspec.open, which takes what stands in the name for a pattern.
        system, inner = fsspec.core.url_to_fs(name)
        packed = fsspec.utils.infer_compression(name)
        with (
            fsspec.core.OpenFile(system, inner, mode="rb", compression=packed) as raw,
            io.TextIOWrapper(in_utf8(raw), encoding="utf-8", errors="replace") as lines,
        ):
            for number, line in enumerate(lines, start=1):
                text = line.removeprefix(MARK)
                if ".jsonl" in name:
                    row = json_value(text)
                    if not isinstance(row, dict) or not isinstance(row.get("text"), str):
                        raise ValueError(f"line {number} has no text")
                    text = row["text"]
                yield from lines_of(text)
    except Exception as error:  # each decompressor that fsspec finds has errors of its own
        raise InputError(
            "a reference file cannot be read",
            where=f"params.yaml, perplexity.reference.files: {name}",
            expected="a UTF-8 text file, or JSONL whose rows have `text`",
            found=str(error),
        ) from error
