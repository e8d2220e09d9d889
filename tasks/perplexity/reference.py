"""The reference: the text that a good document should read like, picked from the corpus or read from files.

A document that the model was trained on looks far too good to it. So when the reference comes from the corpus
itself, its documents are halved by a hash of their content and two models are trained, one on each half. A
reference document is scored by the model of the half it is not in, any other document by the mean of both. Every
document is then scored by models of like size that have not seen it, and none has to be exempt.
"""

from __future__ import annotations

import heapq
import io
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Literal

import fsspec

from tasks.contracts.base import FrozenModel
from tasks.contracts.document import Document, read_documents
from tasks.contracts.errors import InputError
from tasks.contracts.files import atomic_path
from tasks.contracts.manifest import Counts
from tasks.engine.shards import ShardWork, map_shards
from tasks.perplexity.model import LmplzOptions, Model, too_small, train
from tasks.perplexity.text import fold_of, lines_of

logger = logging.getLogger(__name__)

FOLDS = 2


class Reference(FrozenModel):
    """Which text the model is trained on: documents of the corpus by source or host, and files."""

    sources: tuple[str, ...] = ()
    """Sources whose documents are reference."""
    hosts: tuple[str, ...] = ()
    """Hosts whose documents are reference; * and ? match as in file names."""
    files: tuple[str, ...] = ()
    """Paths or addresses of text (a sentence or paragraph a line) or JSONL with `text`; .gz, .bz2, .xz are opened."""
    otherwise: Literal["error", "corpus"] = "error"
    """When that is too little text: "error" stops, "corpus" takes every document of the corpus as reference."""

    def is_empty(self) -> bool:
        """Return whether nothing at all is named."""
        return not (self.sources or self.hosts or self.files)

    def holds(self, document: Document) -> bool:
        """Return whether a document of the corpus is part of the reference."""
        return document.source in self.sources or any(fnmatchcase(document.host, glob) for glob in self.hosts)


WHOLE_CORPUS = Reference(hosts=("*",))


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """Trained models and the reference that they were trained on in the end (see `Reference.otherwise`)."""

    reference: Reference
    models: tuple[Model, ...]


def fit(
    reference: Reference, options: LmplzOptions, work: list[ShardWork], folder: Path, *, least_words: int
) -> Fitted:
    """Train one model on files alone, or two by halves where documents of the corpus are in the reference.

    Args:
        folder: where each part's reference lines are kept, internal.
        least_words: words that each model's text must have.

    Raises:
        CorpusTooSmallError: too little text, and `otherwise` does not allow the whole corpus.
    """
    lines = folder / "lines"
    map_shards(
        partial(_write_lines, reference),
        work,
        stage="perplexity.reference",
        output=lines,
        params={"sources": list(reference.sources), "hosts": list(reference.hosts)},
        code=["tasks.perplexity.reference", "tasks.perplexity.text"],
    )
    halves = [[lines / f"{item.name}.{fold}.txt" for item in work] for fold in range(FOLDS)]
    if reference.files:
        extra = folder / "files.txt"
        _write_sorted(extra, [line for name in reference.files for line in _file_lines(name)])
        for half in halves:
            half.append(extra)
    if not (reference.sources or reference.hosts):
        halves = halves[:1]
    counts = [sum(_words(path) for path in half) for half in halves]
    if min(counts) < least_words:
        if reference.otherwise == "error" or reference == WHOLE_CORPUS:
            raise too_small(min(counts), least_words, "the smaller half" if len(halves) > 1 else "files")
        logger.warning("perplexity: the reference has too few words, so the whole corpus is taken as reference")
        return fit(WHOLE_CORPUS, options, work, folder / "corpus", least_words=least_words)
    models = tuple(train(_merged(half), options, least_words=least_words, what="trained on halves") for half in halves)
    return Fitted(reference=reference, models=models)


def _write_lines(reference: Reference, work: ShardWork, folder: Path) -> Counts:
    """Write one part's reference lines, sorted, a file for each half."""
    halves: list[list[str]] = [[] for _ in range(FOLDS)]
    seen = 0
    for document in read_documents(work.inputs[0]):
        seen += 1
        if reference.holds(document):
            lines = lines_of(document.text)
            halves[fold_of(lines)].extend(lines)
    for fold, lines in enumerate(halves):
        _write_sorted(folder / f"{work.name}.{fold}.txt", lines)
    return Counts(in_=seen, out=seen)


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
        with fsspec.open(name, "rb", compression="infer") as raw:
            for number, line in enumerate(io.TextIOWrapper(raw, encoding="utf-8", errors="replace"), start=1):
                text = line
                if ".jsonl" in name:
                    row = json.loads(line)
                    if not isinstance(row, dict) or not isinstance(row.get("text"), str):
                        raise ValueError(f"line {number} has no text")
                    text = row["text"]
                yield from lines_of(text)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(
            "a reference file cannot be read",
            where=f"params.yaml, perplexity.reference.files: {name}",
            expected="a UTF-8 text file, or JSONL whose rows have `text`",
            found=str(error),
        ) from error
