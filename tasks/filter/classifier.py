"""A linear quality classifier on hashed word n-grams: trained from labelled files, kept in one small file.

Like fastText's classifier without its embedding (Joulin et al. 2017, arXiv:1607.01759), which DCLM and FineWeb-Edu
filter with: words and pairs of words, each hashed into a bucket, one weight a bucket. The words are those that the
rules have already split, so scoring costs a few array operations.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import math
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from pydantic import ValidationError, model_validator

from tasks.contracts.base import FrozenModel
from tasks.contracts.durable_files import sha256_file, write_json
from tasks.contracts.errors import CorpusTooSmallError, InputError
from tasks.contracts.files import PARQUET_PARTS
from tasks.contracts.text_files import MARK, UNREADABLE, in_utf8, json_value
from tasks.filter.word_splitting import words_of

FEWEST = 20  # texts of each label, below which a held-out figure says nothing
_ONE_IN_HELD_OUT = 5


class TrainingFile(FrozenModel):
    """A file that the model learnt from: its name, not its path, and its SHA-256."""

    label: Literal["good", "bad"]
    name: str
    sha256: str
    texts: int


class HeldOut(FrozenModel):
    """How the model does on texts that it has not learnt from, "good" being what is looked for at 0.5."""

    good: int
    bad: int
    precision: float
    recall: float
    auc: float


class Classifier(FrozenModel):
    """The model, as its file holds it.

    Attributes:
        bits: 2**bits buckets.
        ngrams: longest run of words.
        weights: the buckets' weights: float32, little-endian, compressed (zlib), base 64.
    """

    format: Literal["headwater-classifier-1"] = "headwater-classifier-1"
    language: str
    bits: int
    ngrams: int
    bias: float
    weights: str
    trained_on: tuple[TrainingFile, ...]
    held_out: HeldOut

    @model_validator(mode="after")
    def _weights_fit(self) -> Classifier:
        try:
            size = len(zlib.decompress(base64.b64decode(self.weights)))
        except (ValueError, zlib.error) as error:
            raise ValueError(f"the weights cannot be unpacked: {error}") from error
        if size != 4 << self.bits:
            raise ValueError(f"{size} bytes of weights, not 4 for each of 2**{self.bits} buckets")
        return self

    @cached_property
    def _unpacked(self) -> npt.NDArray[np.float32]:
        return np.frombuffer(zlib.decompress(base64.b64decode(self.weights)), "<f4")

    def score(self, text: str) -> float:
        """Return the probability that a text is of the good kind, 0 to 1."""
        found = features(text, self.language, self.bits, self.ngrams)
        logit = float(self._unpacked[found.buckets] @ found.values) + self.bias
        return 1 / (1 + math.exp(-max(-60.0, min(60.0, logit))))


@dataclass(frozen=True, slots=True)
class Features:
    """The buckets that a text falls into, sorted, and how much of each, with a Euclidean length of 1."""

    buckets: npt.NDArray[np.int64]
    values: npt.NDArray[np.float32]


def features(text: str, language: str, bits: int, ngrams: int) -> Features:
    """Return a text's hashed n-grams of words in lower case, each weighted by 1 + log of its count."""
    words = words_of(text.lower(), language)
    runs = [words.sequences(n) + np.uint64(n) for n in range(1, ngrams + 1) if len(words) >= n]
    everything = np.concatenate(runs) if runs else np.zeros(0, np.uint64)
    buckets, counts = np.unique(everything >> np.uint64(64 - bits), return_counts=True)
    values = 1 + np.log(counts)
    values /= math.sqrt(float(values @ values)) or 1.0
    return Features(buckets.astype(np.int64), values.astype(np.float32))


def load_classifier(path: Path) -> Classifier:
    """Read a model's file.

    Raises:
        InputError: it is missing or no such model.
    """
    try:
        return Classifier.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise InputError(
            "the classifier cannot be read",
            where=str(path),
            expected="a file that `headwater filters train-classifier` wrote",
            found=str(error).splitlines()[0],
        ) from error


def train(
    good: Sequence[Path], bad: Sequence[Path], output: Path, *, language: str = "eng", bits: int = 16, ngrams: int = 2
) -> Classifier:
    """Train a classifier, measure it on a fifth of the texts that it has not seen, and write it to `output`.

    Which fifth is decided by each text's hash, so a text that stands twice is on one side only. The same files give
    the same bytes.

    Raises:
        InputError: a file that cannot be read.
        CorpusTooSmallError: fewer than 20 different texts of a label.
    """
    from scipy.sparse import csr_matrix  # type: ignore[import-untyped]
    from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]
    from sklearn.metrics import roc_auc_score  # type: ignore[import-untyped]

    labels: dict[str, bool] = {}
    files = []
    for label, paths in (("good", good), ("bad", bad)):
        for path in paths:
            before = list(read_texts(path))
            labels |= dict.fromkeys(before, label == "good")
            files.append(TrainingFile(label=label, name=path.name, sha256=_digest(path), texts=len(before)))
    numbers = {kind: sum(value == (kind == "good") for value in labels.values()) for kind in ("good", "bad")}
    if min(numbers.values()) < FEWEST:
        raise CorpusTooSmallError(
            "too few texts to learn from",
            expected=f"at least {FEWEST} different texts of each label",
            found=f"{numbers['good']} good, {numbers['bad']} bad",
            fix="name more files with --good and --bad",
        )
    texts = sorted(labels, key=lambda text: hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
    found = [features(text, language, bits, ngrams) for text in texts]
    matrix = csr_matrix(
        (
            np.concatenate([one.values for one in found]),
            np.concatenate([one.buckets for one in found]),
            np.cumsum([0, *(len(one.buckets) for one in found)]),
        ),
        shape=(len(texts), 1 << bits),
    )
    truth = np.array([labels[text] for text in texts])
    held = np.array([_is_held_out(text) for text in texts])
    if len(set(truth[held])) < 2 or len(set(truth[~held])) < 2:
        raise CorpusTooSmallError(
            "too few texts to hold some back",
            expected="texts of both labels on both sides",
            found=f"{int(held.sum())} of {len(texts)} held out",
            fix="name more files with --good and --bad",
        )
    model = LogisticRegression(C=10.0, solver="liblinear", class_weight="balanced", random_state=0)
    model.fit(matrix[~held], truth[~held])
    scores = model.decision_function(matrix[held])
    said, true = scores > 0, truth[held]
    right = int((said & true).sum())
    classifier = Classifier(
        language=language,
        bits=bits,
        ngrams=ngrams,
        bias=float(model.intercept_[0]),
        weights=_packed(model.coef_[0]),
        trained_on=tuple(files),
        held_out=HeldOut(
            good=int(true.sum()),
            bad=int((~true).sum()),
            precision=right / max(1, int(said.sum())),
            recall=right / int(true.sum()),
            auc=float(roc_auc_score(true, scores)),
        ),
    )
    write_json(output, classifier.model_dump(mode="json"))
    return classifier


def read_texts(path: Path) -> Iterator[str]:
    """Yield the texts of a file or a folder of shards: Parquet or JSONL with a column `text`, or a text a line.

    Raises:
        InputError: the file cannot be read, or has no texts in that form.
    """
    try:
        if path.is_dir():
            for part in sorted(path.glob(PARQUET_PARTS)):
                yield from read_texts(part)
        elif path.suffix == ".parquet":
            for batch in pq.ParquetFile(path).iter_batches(columns=["text"]):
                yield from _not_blank(batch.column(0).to_pylist())
        else:
            opener: Any = gzip.open if path.suffix == ".gz" else open
            with opener(path, "rb") as raw, io.TextIOWrapper(in_utf8(raw), encoding="utf-8") as lines:
                jsonl = ".jsonl" in path.suffixes
                stream = (line.removeprefix(MARK) for line in lines)
                yield from _not_blank(json_value(line)["text"] if jsonl else line for line in stream)
    except (*UNREADABLE, LookupError, TypeError) as error:
        raise InputError(
            "texts to learn from cannot be read",
            where=str(path),
            expected="Parquet or JSONL with a column `text`, a folder of shards, or plain text with a text a line",
            found=f"{type(error).__name__}: {error}"[:200],
        ) from error


def _not_blank(texts: Iterable[Any]) -> Iterator[str]:
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f"a text is {type(text).__name__}")
        if text.strip():
            yield text


def _is_held_out(text: str) -> bool:
    digest = hashlib.sha256(b"classifier held out\n" + text.encode("utf-8", "surrogatepass")).digest()
    return digest[0] % _ONE_IN_HELD_OUT == 0


def _packed(weights: npt.NDArray[np.float64]) -> str:
    return base64.b64encode(zlib.compress(weights.astype("<f4").tobytes(), 9)).decode()


def _digest(path: Path) -> str:
    if path.is_file():
        return sha256_file(path)
    parts = "".join(sha256_file(part) for part in sorted(path.glob(PARQUET_PARTS)))
    return hashlib.sha256(parts.encode()).hexdigest()
