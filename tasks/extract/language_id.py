"""Which language a text is in, by py3langid's model, which comes inside its package.

The model is a finite automaton over the bytes. py3langid walks it byte by byte in Python; here all positions are
walked at once by numpy, which gives the same features several times faster.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np

from tasks.contracts.languages import language_code

# Measured on 236 annotated pages in many languages: the answer is the same as for 4,000 characters on all of them.
CLASSIFIED_CHARACTERS = 1_000
# A shorter line has too few features to tell its language (one word is often spelled alike in several).
LINE_CHARACTERS = 40
# A page of fewer lines than this is looked at line by line; of a longer one, as many evenly spaced lines.
CLASSIFIED_LINES = 200


class _Model:
    """py3langid's automaton and weights as arrays.

    After a byte the automaton's state is the longest end of what was read that begins an n-gram, so it depends on
    the last `depth` bytes only, and all positions can be worked out side by side.
    """

    def __init__(self) -> None:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier

        model: Any = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
        self.identifier = model
        self.next = np.asarray(model.tk_nextmove).astype(np.int32)
        self.row = np.asarray(model.tk_row).astype(np.int32) << 8
        self.out = np.asarray(model.tk_output).astype(np.int32)
        self.weights = model.nb_ptc.astype(np.float32)
        self.depth = self._depth()

    def _depth(self) -> int:
        reached = np.zeros(len(self.row), dtype=bool)
        reached[0] = True
        level: Any = np.array([0])
        depth = -1
        # Many states share a row of next states.
        rows = self.next.reshape(-1, 256)
        while len(level):
            depth += 1
            found = np.zeros(len(self.row), dtype=bool)
            found[rows[np.unique(self.row[level] >> 8)]] = True
            level = np.flatnonzero(found & ~reached)
            reached |= found
        return depth

    def features(self, data: bytes) -> tuple[Any, Any]:
        """Return the features that occur in `data` and how often."""
        codes = np.frombuffer(data, dtype=np.uint8).astype(np.int32)
        states = np.zeros(len(codes), dtype=np.int32)
        for back in range(min(self.depth, len(codes)) - 1, -1, -1):
            # Positions nearer to the start than `back` have no such byte: they are still in the first state.
            states[back:] = self.next[self.row[states[back:]] + codes[: len(codes) - back]]
        found = self.out[states]
        indexes, counts = np.unique(found[found >= 0], return_counts=True)
        return indexes, counts.astype(np.float32)

    def classify(self, text: str) -> tuple[str, float]:
        """Return the best language and its probability, as `LanguageIdentifier.classify` does."""
        model = self.identifier
        data = model._encode(text)
        indexes, counts = self.features(data)
        scores = np.zeros(len(model.nb_classes), dtype=np.float32)
        if len(indexes):
            scores += np.log1p(counts) @ self.weights[indexes] + model.nb_pc
        scores = np.exp((scores - scores.max()) / math.sqrt(len(data) or 1))
        scores /= scores.sum()
        for first, again in model._alias_pairs:
            scores[first] += scores[again]
            scores[again] = 0.0
        best = int(scores.argmax())
        return str(model.nb_classes[best]), float(scores[best])


@cache
def _model() -> _Model:
    return _Model()


def identify(text: str) -> tuple[str, float]:
    """Return a text's language (ISO 639-1, else 639-3) and its probability, 0 to 1, rounded to six digits.

    >>> identify("The quick brown fox jumps over the lazy dog, and then it goes home to sleep.")[0]
    'en'
    """
    language, probability = _model().classify(text[:CLASSIFIED_CHARACTERS])
    return language_code(language) or language, round(probability, 6)


def languages_by_line(text: str) -> dict[str, float]:
    """Return how much of a text is in which language: the share of the characters in lines long enough to tell.

    Empty where no line is long enough.

    >>> languages_by_line("Der Fluss entspringt in den Bergen und fließt in das Meer, wo ihn die Flut trifft.")
    {'de': 1.0}
    """
    lines = [line for line in text.splitlines() if len(line) >= LINE_CHARACTERS]
    lines = lines[:: len(lines) // CLASSIFIED_LINES + 1]
    total = sum(map(len, lines))
    shares: dict[str, int] = {}
    for line in lines:
        language, _ = identify(line)
        shares[language] = shares.get(language, 0) + len(line)
    return {language: round(shares[language] / total, 6) for language in sorted(shares)}
