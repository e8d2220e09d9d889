"""A small network that says of each block whether it belongs to the main text; block_model.json holds its numbers.

Three layers: what a block is by itself; what it is among the two before and after it and among all in the elements that
hold it; and the same once more for the answer. Every weight and every value between layers is a multiple of a power of
two, small enough that no sum is ever rounded: whatever order a machine adds them in, the answer is the same.

tests/bench/learn_blocks.py learnt it from the WCXB development pages (see NOTICE).
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from tasks.contracts.errors import HeadwaterError
from tasks.extract.features import BLOCKS_AT_A_TIME, GRAIN, LEVELS, Features, Floats, Integers

FILE = Path(__file__).with_name("block_model.json")
NEIGHBOURS = 2
"""Blocks before and after a block that a layer sees."""
LAYERS = ("block", "context", "answer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """Weights [inputs, outputs] and biases [outputs], float64 multiples of powers of two."""

    weights: Floats
    biases: Floats


def scores(features: Features) -> Floats:
    """Return a score a block, float64 [blocks]: above 0 it belongs to the main text."""
    block, context, answer = model()
    number = len(features.numbers)
    parts = [slice(start, min(start + BLOCKS_AT_A_TIME, number)) for start in range(0, number, BLOCKS_AT_A_TIME)]
    seen = np.concatenate([_seen(block, features.values(part)) for part in parts])
    around = _Surroundings(seen, features.ranges)
    around = _Surroundings(np.concatenate([_seen(context, around.of(part)) for part in parts]), features.ranges)
    scored: Floats = np.concatenate([around.of(part) @ answer.weights + answer.biases for part in parts])[:, 0]
    return scored


def _seen(layer: Layer, values: Floats) -> Floats:
    sums = values @ layer.weights
    sums += layer.biases
    return _rounded(np.maximum(sums, 0, out=sums))


class _Surroundings:
    """Beside each block's values those of its neighbours and the means over the elements that hold it.

    Args:
        values: float64 [blocks, width].
        ranges: int64 [blocks, levels, 2], as in `Features`.
    """

    def __init__(self, values: Floats, ranges: Integers) -> None:
        number, width = values.shape
        self._padded = np.zeros((number + 2 * NEIGHBOURS, width))
        self._padded[NEIGHBOURS : NEIGHBOURS + number] = values
        self._running = np.zeros((number + 1, width))
        np.cumsum(values, axis=0, out=self._running[1:])
        self._ranges = ranges

    def of(self, part: slice) -> Floats:
        """Return them for some blocks: float64 [blocks, (2 · NEIGHBOURS + 1 + levels) · width]."""
        near = [self._padded[part.start + offset : part.stop + offset] for offset in range(2 * NEIGHBOURS + 1)]
        first, last = self._ranges[part, :, 0], self._ranges[part, :, 1]
        means = _rounded((self._running[last] - self._running[first]) / (last - first)[:, :, None])
        return np.concatenate([*near, *(means[:, level] for level in range(means.shape[1]))], axis=1)


def _rounded(values: Floats) -> Floats:
    """Round in place."""
    values *= GRAIN
    np.rint(values, out=values)
    values /= GRAIN
    return values


@cache
def model() -> tuple[Layer, Layer, Layer]:
    """Return the layers.

    Raises:
        HeadwaterError: the file does not fit the code beside it.
    """
    told = json.loads(FILE.read_text(encoding="utf-8"))
    block, context, answer = (_layer(told[name]) for name in LAYERS)
    width = 2 * NEIGHBOURS + 1 + LEVELS + 1
    shapes = [layer.weights.shape for layer in (block, context, answer)]
    if [shape[0] for shape in shapes[1:]] != [shape[1] * width for shape in shapes[:-1]] or shapes[2][1] != 1:
        raise HeadwaterError(
            "The block model does not fit its code",
            where=FILE.name,
            found=str(shapes),
            fix="take both from one version, or learn it again (tests/bench/learn_blocks.py)",
        )
    return block, context, answer


def _layer(told: dict[str, object]) -> Layer:
    weights = np.frombuffer(base64.b64decode(str(told["weights"])), dtype=np.int8).astype(np.float64)
    biases = np.array(told["biases"], dtype=np.float64)
    grain = 2.0 ** -int(str(told["bits"]))
    return Layer(weights=weights.reshape(-1, len(biases)) * grain, biases=biases / GRAIN)
