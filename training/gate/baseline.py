"""The floor: a byte-level 3-gram model of the same training text, with Witten-Bell smoothing.

It knows letters and short endings, no words. A language model that does not beat it has learnt nothing that
counting could not. Smoothing: Witten and Bell 1991, interpolated down to the uniform distribution over bytes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from tasks.contracts.document import read_documents
from tasks.contracts.manifest import text_shards

BYTES = 256
START = b"\0\0"
"""Stands before each text, so that its first bytes have a context; NUL stands in no cleaned text."""
EPOCHS_SCORE = "mix.epochs"

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class ByteTrigrams:
    """A byte-level 3-gram model.

    >>> model = ByteTrigrams.fit([b"abab" * 50])
    >>> model.nats(b"abab") < model.nats(b"baxq")
    True
    """

    def __init__(self, counts: Integers) -> None:
        """Take the counts of all 256³ 3-grams, numbered as bytes in base 256."""
        pairs = counts.reshape(BYTES, BYTES**2).sum(axis=0)
        singles = counts.reshape(BYTES**2, BYTES).sum(axis=0)
        self._levels = [_Level(singles), _Level(pairs), _Level(counts)]

    @classmethod
    def fit(cls, texts: list[bytes]) -> ByteTrigrams:
        """Return the model of some texts."""
        counts = np.zeros(BYTES**3, dtype=np.int64)
        for text in texts:
            _count(counts, text)
        return cls(counts)

    def nats(self, text: bytes) -> float:
        """Return the negative log-probability of a text's bytes, in nats."""
        codes = _codes(text)
        probability: Floats = np.full(len(codes), 1.0 / BYTES)
        for order, level in enumerate(self._levels, start=1):
            probability = level.interpolate(codes % BYTES**order, probability)
        return float(-np.log(probability).sum())


class _Level:
    """One order of the model: p(c | context) = (n(context c) + t(context) p'(c)) / (n(context) + t(context)).

    n counts occurrences, t the kinds of byte seen after the context, p' is the probability one order below.
    """

    def __init__(self, counts: Integers) -> None:
        table = counts.reshape(-1, BYTES)
        self._counts = counts
        self._total = table.sum(axis=1)
        self._kinds = (table > 0).sum(axis=1)

    def interpolate(self, codes: Integers, lower: Floats) -> Floats:
        contexts = codes // BYTES
        # A context that was never seen says nothing: all its weight goes to the order below.
        kinds = np.where(self._total[contexts] == 0, 1, self._kinds[contexts])
        result: Floats = (self._counts[codes] + kinds * lower) / (self._total[contexts] + kinds)
        return result


def fit_on_mix(folder: Path) -> ByteTrigrams:
    """Return the model of the training documents of `data/mix`, each as often as training sees it."""
    counts = np.zeros(BYTES**3, dtype=np.int64)
    for shard in text_shards(folder):
        for document in read_documents(folder / shard.name):
            _count(counts, document.text.encode(), int(document.scores.get(EPOCHS_SCORE, 1)))
    return ByteTrigrams(counts)


def _count(counts: Integers, text: bytes, times: int = 1) -> None:
    found, number = np.unique(_codes(text), return_counts=True)
    counts[found] += times * number


def _codes(text: bytes) -> Integers:
    """Return one number a byte of the text: the byte and the two before it, read in base 256."""
    padded = np.frombuffer(START + text, dtype=np.uint8).astype(np.int64)
    codes: Integers = padded[:-2] * BYTES**2 + padded[1:-1] * BYTES + padded[2:]
    return codes
