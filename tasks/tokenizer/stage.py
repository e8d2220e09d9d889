"""tokenizer: learn a byte-level BPE vocabulary from the mixture, and say how well it fits each part of it.

It learns from a sample of whole documents, drawn by a seeded hash of their text and repeated as the mixture repeats
them, in the order of the shards: so each group weighs here what it weighs in training, and the same mixture gives
the same tokenizer, byte for byte. A training that goes on from a release has the release's tokenizer instead.
"""

from __future__ import annotations

import logging
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from pydantic import Field, JsonValue, model_validator

from tasks.contracts.base import StageParams, borrowed_from
from tasks.contracts.base_release import STARTED_FROM, checked_file, read_base
from tasks.contracts.document import Document, read_documents
from tasks.contracts.draws import DRAW_RANGE, draw
from tasks.contracts.durable_files import write_json
from tasks.contracts.errors import CorpusTooSmallError
from tasks.contracts.files import (
    GROUPS_NAME,
    METRICS_NAME,
    SPECIAL_TOKENS_NAME,
    SUMMARY_NAME,
    TOKENIZER_CONFIG_NAME,
    TOKENIZER_NAME,
)
from tasks.contracts.manifest import MANIFEST_NAME, Counts, Manifest, commit_manifest, text_shards
from tasks.contracts.tokenizer_files import SPECIAL_TOKENS, load_tokenizer
from tasks.contracts.words import words
from tasks.tokenizer.byte_level import (
    SMALLEST_VOCABULARY,
    PreTokenization,
    save_tokenizer,
    train_tokenizer,
)

logger = logging.getLogger(__name__)

STAGE = "tokenizer"
DOES = "learns the vocabulary"
LARGEST_HOSTS = 20
BATCH_DOCUMENTS = 256


class Params(StageParams):
    """The `tokenizer` section of params.yaml."""

    vocab_size: int = Field(4096, ge=SMALLEST_VOCABULARY, le=1 << 20)
    """Ids, special tokens included. A power of two, or a multiple of 128, suits matrix hardware."""
    pre_tokenization: PreTokenization = "gpt4"
    """How text is cut before merges are learnt: gpt4 (numbers in threes, line ends apart) or gpt2 (numbers whole)."""
    special_tokens: tuple[str, ...] = ()
    """Tokens kept free for later use (a chat template, tools), besides end-of-sequence and padding.

    Where a document's text reads like one of them, it is encoded as text.
    """
    max_bytes: int = Field(100_000_000, ge=1)
    """UTF-8 bytes of text to learn from, about; a larger mixture is sampled."""
    metric_bytes: int = Field(1_000_000, ge=1)
    """UTF-8 bytes of that sample on which bytes per token and fertility are measured, about."""
    seed: int = 0
    """Seed of the samples."""
    start_from: str | None = borrowed_from("train.start_from", None)
    """The release that training goes on from: its tokenizer is taken as it is, and none is learnt."""

    def named_files(self) -> tuple[str, ...]:
        """Return the manifest of that release."""
        return () if self.start_from is None else (f"{self.start_from}/{MANIFEST_NAME}",)

    def identity(self) -> dict[str, JsonValue]:
        """Return the settings but for the path of the release."""
        return {name: value for name, value in super().identity().items() if name != "start_from"}

    def in_manifest(self) -> dict[str, JsonValue]:
        """Return the settings with what names the release."""
        named = {} if self.start_from is None else {STARTED_FROM: read_base(Path(self.start_from)).release}
        return self.identity() | named

    @model_validator(mode="after")
    def _possible(self) -> Params:
        named = (*SPECIAL_TOKENS, *self.special_tokens)
        if len(set(named)) != len(named) or not all(named):
            raise ValueError(f"special_tokens must differ from each other and from {', '.join(SPECIAL_TOKENS)}")
        if self.vocab_size < SMALLEST_VOCABULARY + len(self.special_tokens):
            raise ValueError(f"vocab_size must be at least {SMALLEST_VOCABULARY} and the number of special_tokens")
        return self


def run(*, params: Params, inputs: Mapping[str, Path], output: Path) -> Manifest:
    """Learn a tokenizer from `inputs["mix"]`, or take that of a release, and measure it.

    Raises:
        InputError: the release is none, or its tokenizer is not as its manifest says.
        CorpusTooSmallError: the mixture holds too few different words for the vocabulary.
    """
    source = inputs["mix"]
    if params.start_from is None:
        learn(params, source, output)
    else:
        take(Path(params.start_from), output)
    measured = measure(output, source, params)
    for name, figures in measured.items():
        write_json(output / name, figures)
    metrics = measured[METRICS_NAME]
    logger.info("tokenizer: %s bytes a token, %s tokens a word", metrics["bytes_per_token"], metrics["fertility"])
    files = sum(1 for path in output.iterdir() if path.is_file())
    return commit_manifest(
        output,
        stage=STAGE,
        unit="files",
        params=params.in_manifest(),
        inputs=inputs,
        counts=Counts(in_=files, out=files),
    )


def take(release: Path, output: Path) -> None:
    """Copy the tokenizer of a release, which the weights to go on from know."""
    output.mkdir(parents=True, exist_ok=True)
    for name in (TOKENIZER_NAME, TOKENIZER_CONFIG_NAME, SPECIAL_TOKENS_NAME):
        shutil.copyfile(checked_file(release, name), output / name)
    logger.info("tokenizer: that of %s, %d entries", read_base(release).name, load_tokenizer(output).get_vocab_size())


def learn(params: Params, source: Path, output: Path) -> None:
    """Learn a tokenizer from a mixture."""
    paths = [source / shard.name for shard in text_shards(source)]
    total = _total(paths)
    rate = params.max_bytes / max(total, 1)
    texts = (d.text for d in _sample(paths, rate, params.seed) for _ in range(_copies(d)))
    tokenizer = train_tokenizer(
        texts,
        vocab_size=params.vocab_size,
        pre_tokenization=params.pre_tokenization,
        special_tokens=params.special_tokens,
    )
    if tokenizer.get_vocab_size() < params.vocab_size:
        raise CorpusTooSmallError(
            "the mixture holds too little text for the vocabulary",
            where="params.yaml, tokenizer.vocab_size",
            expected=f"{params.vocab_size} entries",
            found=f"{tokenizer.get_vocab_size()} entries could be learnt from {min(total, params.max_bytes)} bytes",
            fix="lower tokenizer.vocab_size, or crawl more pages",
        )
    save_tokenizer(tokenizer, output, params.special_tokens)


@dataclass(slots=True)
class _Totals:
    documents: int = 0
    bytes: int = 0
    tokens: int = 0
    words: int = 0

    def add(self, document: Document, tokens: int, words_: int) -> None:
        self.documents += 1
        self.bytes += _size(document)
        self.tokens += tokens
        self.words += words_

    def report(self) -> dict[str, JsonValue]:
        return {
            "documents": self.documents,
            "bytes": self.bytes,
            "bytes_per_token": round(self.bytes / self.tokens, 4) if self.tokens else None,
            "fertility": round(self.tokens / self.words, 4) if self.words else None,
        }


def measure(folder: Path, mix: Path, params: Params) -> dict[str, dict[str, JsonValue]]:
    """Return bytes per token and fertility (tokens per word), file by file.

    metrics.json is over all, groups.json by host (the largest) and by language, summary.json the one figure that
    `dvc metrics show` has room for.

    Args:
        folder: where the tokenizer stands.
        mix: the mixture that it was learnt from.
    """
    tokenizer = load_tokenizer(folder)
    paths = [mix / shard.name for shard in text_shards(mix)]
    rate = params.metric_bytes / max(_total(paths), 1)
    overall = _Totals()
    hosts: dict[str, _Totals] = {}
    languages: dict[str, _Totals] = {}
    sample = _sample(paths, rate, params.seed)
    while some := list(islice(sample, BATCH_DOCUMENTS)):
        encodings = tokenizer.encode_batch_fast([d.text for d in some], add_special_tokens=False)
        for document, encoding in zip(some, encodings, strict=True):
            counted = (document, len(encoding.ids), len(words(document.text)))
            overall.add(*counted)
            hosts.setdefault(document.host, _Totals()).add(*counted)
            languages.setdefault(document.language or "unknown", _Totals()).add(*counted)
    largest = Counter({name: totals.bytes for name, totals in sorted(hosts.items())}).most_common(LARGEST_HOSTS)
    metrics = {**overall.report(), "vocab_size": tokenizer.get_vocab_size()}
    groups: dict[str, JsonValue] = {
        "hosts": {name: hosts[name].report() for name, _ in largest},
        "languages": {name: totals.report() for name, totals in sorted(languages.items())},
    }
    summary = {"bytes_per_token": metrics["bytes_per_token"]}
    return {METRICS_NAME: metrics, GROUPS_NAME: groups, SUMMARY_NAME: summary}


def _total(paths: Sequence[Path]) -> int:
    """Return the UTF-8 bytes of the mixture, copies included."""
    return sum(_copies(document) * _size(document) for document in _documents(paths))


def _documents(paths: Sequence[Path]) -> Iterator[Document]:
    for path in paths:
        yield from read_documents(path)


def _sample(paths: Sequence[Path], rate: float, seed: int) -> Iterator[Document]:
    """Yield each document with probability `rate`, decided by its text, in the shards' order."""
    for document in _documents(paths):
        if draw(document.text, seed=seed, purpose="tokenizer") < rate * DRAW_RANGE:
            yield document


def _copies(document: Document) -> int:
    return int(document.scores.get("mix.epochs", 1))


def _size(document: Document) -> int:
    return len(document.text.encode())
